"""ably: clients whose token comes from a keeper.

    rest = KeeperRest(keeper)  # an AblyRest
    realtime = KeeperRealtime(keeper)  # an AblyRealtime: a new token is shown on the open connection

Leave `auth.authorize()` to the adapter. As the SDK does it, the token goes to Ably's fallback hosts too, and
over a realtime connection in the URL: the SDK's loggers below `ably` show it at level INFO.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ably import AblyRealtime, AblyRest
from ably.types.connectionstate import ConnectionState
from ably.util.exceptions import AblyException

from token_keeper._errors import TokenKeeperError, TokenUnavailable
from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._options import check_left_out

DENIALS = range(40140, 40150)
"""Ably's codes of token errors. Others, such as 40160, another token would meet as well."""
OURS = ("key", "key_name", "key_secret", "token", "token_details", "auth_token", "auth_url", "auth_callback")
"""Options of the SDK that the keeper makes needless."""
LIVE = (ConnectionState.CONNECTED, ConnectionState.DISCONNECTED, ConnectionState.SUSPENDED)
"""States in which a new token is shown, or connected with, at once."""


class KeeperRest(AblyRest):  # type: ignore[misc]  # ably has no types.
    """An `ably.AblyRest` whose token comes from a keeper.

    Each request sends the token of that moment. A token error (40140 to 40149) is reported with the
    token that was sent, and answered by one retry with another.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds that a request waits for a token.
        **options: As for the SDK.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def __init__(self, keeper: Face, *, by: str = "ably", timeout: float = WAIT_S, **options: Any) -> None:
        shown = _Shown(keeper, by, timeout, options)
        super().__init__(auth_callback=shown.newest, **options)
        _Requests(self, shown).take_over()


class KeeperRealtime(AblyRealtime):  # type: ignore[misc]  # As above.
    """An `ably.AblyRealtime` whose token comes from a keeper; make it where its event loop runs.

    A new token is shown on the open connection as soon as it comes. When the server refuses a token,
    that is reported, and the client connects with another one. Its REST calls are as those of `KeeperRest`.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds that a connect or a request waits for a token.
        **options: As for the SDK.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def __init__(self, keeper: Face, *, by: str = "ably", timeout: float = WAIT_S, **options: Any) -> None:
        self._live = _Live(self, keeper, by, timeout, options)
        super().__init__(auth_callback=self._live.asked, **options)
        _Requests(self, self._live).take_over()
        self._live.begin()

    async def close(self) -> None:
        """Close as the SDK does; no new token is shown any more."""
        self._live.end()
        await super().close()


class _Shown:
    """The token that the server was shown last, and what it said of it."""

    def __init__(self, keeper: Face, by: str, timeout: float, options: dict[str, Any]) -> None:
        check_wait("timeout", timeout)
        check_left_out(options, OURS)
        self.share = Share(keeper, by)
        self.timeout = timeout
        self.given = Secret("")

    async def newest(self, _: object = None) -> str:
        """Return the token of this moment: the SDK's `auth_callback`."""
        raw = await self.share.awaited(self.timeout)
        self.given = Secret(raw)
        return raw

    async def show(self, auth: Any) -> Secret:
        """Have the SDK send the token of this moment. Returns what it sends."""
        current = Secret(await self.share.awaited(self.timeout))
        # The SDK would keep the token that it has until the server objects.
        if auth.token_details is None or auth.token_details.token != current.reveal():
            await auth.authorize()
        return Secret(auth.token_details.token)

    def refused(self, sent: Secret, error: AblyException | None) -> bool:
        """Report what the server said of the token. Returns whether another one is worth a try."""
        if error is None:
            self.share.accepted(sent.reveal())
        elif error.code in DENIALS:
            return self.share.denied(sent.reveal(), error.code, error.message) in WORTH_ANOTHER
        return False

    async def has_another(self, sent: Secret) -> bool:
        return await self.share.another_awaited(sent.reveal(), self.timeout) is not None


class _Requests:
    """The REST calls of one client: each with the newest token, once more after a denial."""

    def __init__(self, client: AblyRest, shown: _Shown) -> None:
        self._client = client
        self._shown = shown
        self._send = client.http.make_request

    def take_over(self) -> None:
        # All of the SDK's calls go through this method, which is told neither of the token that was sent
        # nor of the refusal: its own retry would blame a newer token.
        self._client.http.make_request = self.make_request

    async def make_request(self, *args: Any, raise_on_error: bool = True, **options: Any) -> Any:
        if options.get("skip_auth"):
            return await self._send(*args, raise_on_error=raise_on_error, **options)
        sent = await self._shown.show(self._client.auth)
        answer = await self._send(*args, raise_on_error=False, **options)
        if self._shown.refused(sent, _error(answer)) and await self._shown.has_another(sent):
            sent = await self._shown.show(self._client.auth)
            answer = await self._send(*args, raise_on_error=False, **options)
            self._shown.refused(sent, _error(answer))
        if raise_on_error:
            AblyException.raise_for_response(answer)
        return answer


class _Live(_Shown):
    """The token of one realtime connection."""

    def __init__(
        self, client: KeeperRealtime, keeper: Face, by: str, timeout: float, options: dict[str, Any]
    ) -> None:
        super().__init__(keeper, by, timeout, options)
        self._client = client
        self._is_answered = False
        self._is_unsure = False
        self._has_retried = False
        self._showing: set[asyncio.Task[None]] = set()
        self._unlisten: Callable[[], None] | None = None

    def begin(self) -> None:
        self._client.connection.on(self._changed)
        self._unlisten = self.share.on_renewal(self._renewed)
        self._loop = self._client.options.loop

    def end(self) -> None:
        if self._unlisten is not None:
            self._unlisten()
        self._client.connection.off(self._changed)
        for task in self._showing:
            task.cancel()

    async def asked(self, _: object = None) -> str:
        """Return a token: the SDK's `auth_callback`. Asked again with the same one, it is a denial."""
        self._is_answered = True
        is_unsure, is_same = self._is_unsure, self._is_current()
        # What the server says while it is shown a new token may be about the one before.
        self._is_unsure = not is_same and self._client.connection.state == ConnectionState.CONNECTED
        if is_same and not is_unsure:
            self.share.denied(self.given.reveal(), code=DENIALS[0])
            if not await self.has_another(self.given):
                raise TokenUnavailable("Ably refused the token, and no other one came in time")
        return await self.newest()

    def _is_current(self) -> bool:
        try:
            return self.share.token == self.given.reveal()
        except TokenKeeperError:
            return False

    def _renewed(self) -> None:
        # In the keeper's thread or loop. The client's loop may be closed by now.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._push)

    def _push(self) -> None:
        if self._client.connection.state in LIVE and not self._is_current():
            task = self._loop.create_task(self._show())
            self._showing.add(task)
            task.add_done_callback(self._showing.discard)

    async def _show(self) -> None:
        # What goes wrong here the connection's states tell.
        with suppress(AblyException, TokenKeeperError):
            await self.show(self._client.auth)

    def _changed(self, change: Any) -> None:
        if change.current == ConnectionState.CONNECTED:
            self._is_answered = self._is_unsure = self._has_retried = False
            self.refused(self.given, None)
            self._push()
        elif isinstance(change.reason, AblyException) and change.reason.code in DENIALS:
            self._judge(change.reason)

    def _judge(self, refusal: AblyException) -> None:
        is_answered, self._is_answered = self._is_answered, False
        if not is_answered:
            # The SDK asks for another token only once in a row.
            self.refused(self.given, refusal)
        elif not self._has_retried and self._client.connection.state == ConnectionState.DISCONNECTED:
            self._has_retried = True
            self._client.connect()


def _error(answer: Any) -> AblyException | None:
    try:
        AblyException.raise_for_response(answer)
    except AblyException as error:
        return error
    return None
