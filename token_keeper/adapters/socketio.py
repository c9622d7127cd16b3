"""python-socketio: clients whose `auth` comes from a keeper.

    sio = KeeperAsyncClient(keeper)  # an AsyncClient; KeeperClient(keeper) is a Client
    await sio.connect("https://chat.example")

Each connect and reconnect sends the token of that moment as `auth={"token": ...}`. Socket.IO shows no token
later: a live connection stays as the server let it in. A server that disconnects a client ends it, and the
SDK does not reconnect then: when `sio.wait()` returns, call `sio.report_denied()` if the token was the
reason, and `sio.connect()` again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from socketio import AsyncClient, Client
from socketio.exceptions import ConnectionError as NotConnected

from token_keeper._errors import ConfigError, TokenUnavailable
from token_keeper._face import Face
from token_keeper._model import Secret, Verdict
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper.adapters._guard import Guard
from token_keeper.adapters._origins import origin_of


class NoToken(TokenUnavailable, NotConnected):  # type: ignore[misc]  # python-socketio has no types.
    """There is no usable token now. To python-socketio it is a failed connect, so a reconnect goes on."""


def as_token(token: str) -> object:
    """Return what most servers look for: ``{"token": token}``."""
    return {"token": token}


def every_refusal(_: object) -> bool:
    """Take every refused connect for a denial."""
    return True


class _Shown:
    """What one client shows to servers, and what they say of it."""

    def __init__(  # noqa: PLR0913 - the options of both clients
        self,
        keeper: Face,
        *,
        auth: Callable[[str], object] = as_token,
        denies: Callable[[object], bool] = every_refusal,
        origins: str | Iterable[str] | None = None,
        by: str | None = None,
        timeout: float = WAIT_S,
    ) -> None:
        for name, option in (("auth", auth), ("denies", denies)):
            if not callable(option):
                raise ConfigError(name, "must be a function")
        self._guard = Guard(keeper, origins=origins, by=by, timeout=timeout)
        self.timeout = timeout
        self.share: Share | None = None
        self._auth = auth
        self._denies = denies
        self._sent: Secret | None = None
        self._is_denied = False

    def begin(self, url: str, auth: object) -> Share | None:
        """Return whose token the server at *url* may see; None if it may not."""
        if auth is not None and auth != self.auth:
            raise ConfigError(
                "auth", "comes from the keeper; to send more, make the client with auth=lambda token: {...}"
            )
        self._sent, self._is_denied = None, False
        self.share = self._guard.share(origin_of(url))
        return self.share

    def note(self, raw: str) -> None:
        self._sent, self._is_denied = Secret(raw), False

    def auth(self) -> object:
        """Return what goes into the CONNECT packet. Called by the SDK, once for each connection."""
        return self._auth(self._sent.reveal()) if self._sent is not None else None

    def accepted(self) -> None:
        if self.share is not None and self._sent is not None:
            self.share.accepted(self._sent.reveal())

    def refused(self, said: object) -> None:
        """Hear that the server refused to connect, and what it *said*. Once for each namespace."""
        if not self._is_denied and self._sent is not None and self._denies(said):
            self._is_denied = self.denied(None, _text(said)) in WORTH_ANOTHER

    def denied(self, code: int | str | None, reason: str | None) -> Verdict:
        if self.share is None or self._sent is None:
            return Verdict.SUPERSEDED
        return self.share.denied(self._sent.reveal(), code=code, reason=reason)

    def change(self) -> bool:
        """After a denial, block for another token. Returns whether there is one to show."""
        if not self._is_denied or self.share is None or self._sent is None:
            return False
        return self._noted(self.share.another(self._sent.reveal(), self.timeout))

    async def changed(self) -> bool:
        """After a denial, await another token. Returns whether there is one to show."""
        if not self._is_denied or self.share is None or self._sent is None:
            return False
        return self._noted(await self.share.another_awaited(self._sent.reveal(), self.timeout))

    def _noted(self, another: str | None) -> bool:
        if another is not None:
            self.note(another)
        return another is not None


class KeeperClient(Client):  # type: ignore[misc]  # python-socketio has no types.
    """A `socketio.Client` whose `auth` comes from a keeper.

    A refused connect is reported, and tried once more if another token comes.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        auth: Makes what is sent to the server out of the raw token.
        denies: Tells from what the server said (as `connect_error` gets it) whether the token was
            refused; by default it always was.
        origins: The servers that may see the token; by default the first that is called.
        by: Names the reporter; by default the origin.
        timeout: Seconds to wait for a token, if there is none.
        **options: As for the SDK.

    Raises:
        ConfigError: If an argument cannot work.
        TokenUnavailable: By `connect()`, if there was no token in time.
    """

    def __init__(  # noqa: PLR0913 - the options of an adapter, and the SDK's
        self,
        keeper: Face,
        *,
        auth: Callable[[str], object] = as_token,
        denies: Callable[[object], bool] = every_refusal,
        origins: str | Iterable[str] | None = None,
        by: str | None = None,
        timeout: float = WAIT_S,
        **options: Any,
    ) -> None:
        self._shown = _Shown(keeper, auth=auth, denies=denies, origins=origins, by=by, timeout=timeout)
        super().__init__(**options)

    def connect(self, url: Any, headers: Any = None, auth: Any = None, **options: Any) -> None:
        """Connect as the SDK does; a denial is answered by one more try."""
        here = url() if callable(url) else url
        share = self._shown.begin(here, auth)
        if share is None:
            return self._connect(url, here, headers, options)
        try:
            self._shown.note(share.wait(self._shown.timeout))
        except TokenUnavailable as error:
            raise NoToken(str(error)) from error.__cause__
        try:
            return self._connect(url, here, headers, options)
        except NotConnected:
            if not self._shown.change():
                raise
        return self._connect(url, here, headers, options)

    def _connect(self, url: Any, here: Any, headers: Any, options: dict[str, Any]) -> None:
        try:
            super().connect(here, headers or {}, self._shown.auth, **options)
        finally:
            # For reconnects: a function of the application's is asked each time.
            self.connection_url = url
        if options.get("wait", True):
            self._shown.accepted()

    def report_denied(self, code: int | str | None = None, reason: str | None = None) -> Verdict:
        """Say that the server turned against the token that it was shown at the last connect."""
        return self._shown.denied(code, reason)

    # The SDK's own handler is the only place that tells a refusal from a broken line.
    def _handle_error(self, namespace: Any, data: Any) -> None:
        self._shown.refused(data)
        super()._handle_error(namespace, data)


class KeeperAsyncClient(AsyncClient):  # type: ignore[misc]  # As above.
    """A `socketio.AsyncClient` whose `auth` comes from a keeper: as `KeeperClient`, awaited."""

    def __init__(  # noqa: PLR0913 - as above
        self,
        keeper: Face,
        *,
        auth: Callable[[str], object] = as_token,
        denies: Callable[[object], bool] = every_refusal,
        origins: str | Iterable[str] | None = None,
        by: str | None = None,
        timeout: float = WAIT_S,
        **options: Any,
    ) -> None:
        self._shown = _Shown(keeper, auth=auth, denies=denies, origins=origins, by=by, timeout=timeout)
        super().__init__(**options)

    async def connect(self, url: Any, headers: Any = None, auth: Any = None, **options: Any) -> None:
        """Connect as the SDK does; a denial is answered by one more try."""
        here = await _value(url)
        share = self._shown.begin(here, auth)
        if share is None:
            return await self._connect(url, here, headers, options)
        try:
            self._shown.note(await share.awaited(self._shown.timeout))
        except TokenUnavailable as error:
            raise NoToken(str(error)) from error.__cause__
        try:
            return await self._connect(url, here, headers, options)
        except NotConnected:
            if not await self._shown.changed():
                raise
        return await self._connect(url, here, headers, options)

    async def _connect(self, url: Any, here: Any, headers: Any, options: dict[str, Any]) -> None:
        try:
            await super().connect(here, headers or {}, self._shown.auth, **options)
        finally:
            # For reconnects: a function of the application's is asked each time.
            self.connection_url = url
        if options.get("wait", True):
            self._shown.accepted()

    def report_denied(self, code: int | str | None = None, reason: str | None = None) -> Verdict:
        """Say that the server turned against the token that it was shown at the last connect."""
        return self._shown.denied(code, reason)

    # The SDK's own handler is the only place that tells a refusal from a broken line.
    async def _handle_error(self, namespace: Any, data: Any) -> None:
        self._shown.refused(data)
        await super()._handle_error(namespace, data)


async def _value(url: Any) -> Any:
    given = url() if callable(url) else url
    return await given if inspect.isawaitable(given) else given


def _text(said: object) -> str | None:
    message = said.get("message") if isinstance(said, dict) else said
    return message if isinstance(message, str) else None
