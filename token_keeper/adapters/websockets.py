"""websockets: connections that open with the current token, and again with another one if it is refused.

    async for websocket in connect(keeper, "wss://api.example/feed"):  # or `async with`, or `await`
        ...

`connect_sync` is for `websockets.sync`. The token is a header of the handshake; each reconnect reads
it anew, and it goes only to the allowed origins, also on redirects. A handshake that is answered 401
is reported, and tried once more with another token; `async for` also goes on after that, and while
there is no token, until the keeper gives up. A live connection keeps the token that it opened with:
who is told later that it is refused, such as by close code 4401, says so with `denied`, and reconnects.
"""

from __future__ import annotations

import inspect
import logging
import types
from collections.abc import Callable, Generator, Iterable
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as _connect
from websockets.asyncio.client import process_exception as _process_exception
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.sync.client import ClientConnection as SyncConnection
from websockets.sync.client import connect as _connect_sync

from token_keeper._errors import ConfigError, TokenUnavailable
from token_keeper._face import Face
from token_keeper._model import Secret, Verdict
from token_keeper._share import WAIT_S, Share
from token_keeper.adapters._guard import Guard, bearer, borne, refused
from token_keeper.adapters._origins import origin_at

_AS_EVER: dict[str, Any] = {"legacy": True} if "legacy" in inspect.signature(_connect_sync).parameters else {}
"""What makes `websockets.sync.client.connect` of 17.1 and later return a connection, without a warning."""


class KeeperHeaders(Headers):
    """Headers of a handshake. Frames and logs show their names only."""

    def __repr__(self) -> str:
        return f"<KeeperHeaders {', '.join(self)}>"

    __str__ = __repr__


class _Discreet(logging.LoggerAdapter[Any]):
    """The log of a connection. At DEBUG websockets writes each header into it, and the frames' texts."""

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        if len(args) == 2 and str(args[0]).lower() == "authorization":
            args = (args[0], "<token>")
        super().log(level, msg, *args, **options)


def _discreet(options: dict[str, Any]) -> dict[str, Any]:
    logger = options.get("logger") or logging.getLogger("websockets.client")
    return {**options, "logger": _Discreet(logger, {})}


class connect(_connect):  # noqa: N801 - as websockets spells it
    """Connects as `websockets.connect` does, with the keeper's token.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        uri: The server.
        origins: The servers that may see the token; by default that of *uri*.
        by: Names the reporter; by default the origin, such as ``"https://api.example:443"``.
        timeout: Seconds to wait for a token, beside the `open_timeout` of the handshake.
        process_exception: As websockets has it, for what does not concern the token.
        options: As of `websockets.connect`. *additional_headers* are sent beside the token.

    Raises:
        ConfigError: If an argument cannot work.
        TokenUnavailable: If there is no token in time; `async for` tries again.
        KeeperClosed: Before the start or after the end of the keeper.
    """

    def __init__(  # noqa: PLR0913 - the others are websockets' own
        self,
        keeper: Face,
        uri: str,
        *,
        origins: str | Iterable[str] | None = None,
        by: str | None = None,
        timeout: float = WAIT_S,
        process_exception: Callable[[Exception], Exception | None] = _process_exception,
        **options: Any,
    ) -> None:
        _check(uri)
        self._guard = Guard(keeper, origins=origins, by=by, timeout=timeout)
        self._guard.of(uri)  # So that it is the first.
        self._others: Any = None
        self._sent: tuple[Share, Secret] | None = None
        self._goes_on = False
        self._process_other = process_exception
        super().__init__(uri, process_exception=self._process, **_discreet(options))

    @property
    def additional_headers(self) -> Any:
        """What websockets reads before each handshake, on redirects as well."""
        share = self._guard.of(self.uri)
        if share is None:
            self._sent = None
            return self._others
        if self._sent is None or self._sent[0] is not share:
            self._sent = (share, Secret(share.token))
        return _headers(self._others, self._sent[1])

    @additional_headers.setter
    def additional_headers(self, headers: Any) -> None:
        # A mapping may change; an iterator could be read only once.
        self._others = headers if headers is None or hasattr(headers, "keys") else Headers(headers)

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        """Connect; after a 401, once more with another token."""
        return self._opened().__await__()

    async def _opened(self) -> ClientConnection:
        share = self._guard.of(self.uri)
        self._sent = None
        self._goes_on = False
        if share is not None:
            self._sent = (share, Secret(await share.awaited(self._guard.timeout)))
        try:
            return await self._attempt()
        except InvalidStatus:
            if self._sent is None or not self._goes_on:
                raise
            if not await self._took_another(*self._sent):
                raise
        return await self._attempt()

    async def _attempt(self) -> ClientConnection:
        try:
            connection = await self._handshake()
        except InvalidStatus as answer:
            self._goes_on = self._sent is not None and _refused(*self._sent, answer.response)
            raise
        if self._sent is not None:
            share, secret = self._sent
            share.accepted(secret.reveal())
        return connection

    @types.coroutine
    def _handshake(self) -> Generator[Any, None, ClientConnection]:
        return (yield from super().__await__())

    async def _took_another(self, share: Share, denied: Secret) -> bool:
        other = await share.another_awaited(denied.reveal(), self._guard.timeout)
        if other is not None:
            self._sent = (share, Secret(other))
        return other is not None

    def _process(self, error: Exception) -> Exception | None:
        if isinstance(error, TokenUnavailable) or (isinstance(error, InvalidStatus) and self._goes_on):
            return None
        return self._process_other(error)


def connect_sync(
    keeper: Face,
    uri: str,
    *,
    origins: str | Iterable[str] | None = None,
    by: str | None = None,
    timeout: float = WAIT_S,
    **options: Any,
) -> SyncConnection:
    """Connect as `websockets.sync.client.connect` does, with the token of *keeper*.

    It is a context manager as well. Arguments and errors are those of `connect`.
    """
    _check(uri)
    options = _discreet(options)
    guard = Guard(keeper, origins=origins, by=by, timeout=timeout)
    share = guard.of(uri)
    if share is None:
        return _connect_sync(uri, **_AS_EVER, **options)
    dial = _Dial(guard, share, uri, options)
    first = Secret(share.wait(timeout))
    try:
        return dial(first)
    except InvalidStatus:
        other = share.another(first.reveal(), timeout) if dial.is_refused else None
        if other is None:
            raise
        second, other = Secret(other), ""
    return dial(second)


class _Dial:
    """One blocking connect, and what it tells of the token."""

    def __init__(self, guard: Guard, share: Share, uri: str, options: dict[str, Any]) -> None:
        self.is_refused = False
        self._guard = guard
        self._share = share
        self._uri = uri
        self._options = dict(options)
        self._others = self._options.pop("additional_headers", None)
        self._create: Any = self._options.pop("create_connection", None) or SyncConnection
        self._asked: Share | None = share

    def __call__(self, secret: Secret) -> SyncConnection:
        headers = _headers(self._others, secret)
        created: Any = self._created
        try:
            connection = _connect_sync(
                self._uri,
                additional_headers=headers,
                create_connection=created,
                **_AS_EVER,
                **self._options,
            )
        except InvalidStatus as answer:
            # After a redirect to another origin the handshake had no token.
            is_ours = self._asked is self._share
            self.is_refused = is_ours and _refused(self._share, secret, answer.response)
            raise
        if self._asked is self._share:
            self._share.accepted(secret.reveal())
        return connection

    def _created(self, *args: Any, **options: Any) -> SyncConnection:
        connection: SyncConnection = self._create(*args, **options)
        self._asked = self._guard.share(_origin(connection))
        return connection


def denied(
    keeper: Face,
    websocket: ClientConnection | SyncConnection,
    *,
    code: int | str | None = None,
    by: str | None = None,
) -> Verdict:
    """Report that the server refused the token that *websocket* opened with. Never blocks.

        except ConnectionClosed:
            if websocket.close_code == 4401:
                denied(keeper, websocket)  # then connect again: with another token

    Args:
        keeper: That of `connect`.
        websocket: The connection, as a rule closed.
        code: What the server said; by default the code that it closed with.
        by: As given to `connect`.
    """
    sent = borne(websocket.request.headers.get("Authorization")) if websocket.request is not None else None
    if sent is None:
        return Verdict.SUPERSEDED
    share = Share(keeper, _origin(websocket) if by is None else by)
    code = websocket.close_code if code is None else code
    return share.denied(sent, code=code, reason=websocket.close_reason)


def _refused(share: Share, secret: Secret, answer: Response) -> bool:
    challenge = ", ".join(answer.headers.get_all("WWW-Authenticate"))
    return refused(share, secret.reveal(), answer.status_code, challenge)


def _headers(others: Any, secret: Secret) -> Headers:
    headers = KeeperHeaders(others or ())
    if "Authorization" in headers:
        del headers["Authorization"]
    headers["Authorization"] = bearer(secret.reveal())
    return headers


def _origin(websocket: Any) -> str:
    uri = websocket.protocol.uri
    return origin_at("https" if uri.secure else "http", uri.host, uri.port)


def _check(uri: str) -> None:
    if "@" in urlsplit(uri).netloc:
        raise ConfigError("uri", "has a user name or a password, but the token goes in their place")
