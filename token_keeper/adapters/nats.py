"""nats-py: a client that shows the current token, and dials again with each new one.

    nc = await connect(keeper, "nats://127.0.0.1:4222")  # as nats.connect()

nats-py closes for good a client whose token the server stops to accept. To go on with another one:

    async for nc in connections(keeper, "nats://127.0.0.1:4222"):
        subscription = await nc.subscribe("jobs")
        async for message in subscription.messages: ...  # ends with the connection

NATS has no way to show a new token on a live connection, so each renewal is a reconnect: subscriptions stay,
what is published meanwhile is sent later, but the reply to a request under way is lost. The token goes to
every server of the cluster, also to those that the first one names. Needs nats-py 2.15.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.errors import AuthorizationError, Error

from token_keeper._errors import TokenKeeperError, TokenUnavailable
from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._options import check_left_out

DENIALS = (
    "authorization violation",
    "user authentication expired",
    "user authentication revoked",
    "account authentication expired",
)
"""What the server says before it closes for the token; the protocol has no codes."""
OURS = ("token", "user_jwt_cb")
"""Options of nats-py that come from the keeper."""

_log = logging.getLogger("nats.aio.client")


class NoToken(TokenUnavailable, Error):
    """There is no usable token now. To nats-py it is a failed attempt, so it tries again."""


async def connect(  # noqa: D417 - the others are nats-py's
    keeper: Face,
    servers: str | list[str] = "nats://localhost:4222",
    *,
    by: str = "nats",
    timeout: float = WAIT_S,  # noqa: ASYNC109 - of each wait for a token, not of the call
    **options: Any,
) -> Client:
    """Return a connected client, as `nats.connect()` does; a denial is answered by one more try.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        servers: As for nats-py, and so are all other options. With `signature_cb` the token is shown
            as the user's JWT.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        TokenUnavailable: If there was no token in time.
        nats.errors.Error: If the server refused, or cannot be reached.
    """
    return (await _dial(_share(keeper, by, timeout, options), servers, timeout, options)).client


async def connections(
    keeper: Face,
    servers: str | list[str] = "nats://localhost:4222",
    *,
    by: str = "nats",
    timeout: float = WAIT_S,  # noqa: ASYNC109 - as above
    **options: Any,
) -> AsyncIterator[Client]:
    """Yield a connected client, and the next one when the loop's body is through with it.

    The arguments are those of `connect()`. Leave the loop with `break` to end.

    Raises:
        TokenUnavailable: If there was no token in time.
        nats.errors.Error: If the server refused, or cannot be reached.
    """
    share = _share(keeper, by, timeout, options)
    while True:
        dialled = await _dial(share, servers, timeout, options)
        try:
            yield dialled.client
        finally:
            await dialled.client.close()
        refusal = dialled.judged()
        # The server was asked with this token already, and would be asked so for ever.
        if refusal is not None and await share.another_awaited(dialled.sent.reveal(), timeout) is None:
            raise refusal


def _share(keeper: Face, by: str, timeout: float, options: dict[str, Any]) -> Share:
    check_wait("timeout", timeout)
    check_left_out(options, OURS)
    return Share(keeper, by)


async def _dial(share: Share, servers: str | list[str], timeout: float, options: dict[str, Any]) -> _Dialled:  # noqa: ASYNC109 - as above
    await share.awaited(timeout)
    dialled = _Dialled(share, options)
    try:
        await dialled.open(servers)
    except Error:
        if not dialled.is_denied or await share.another_awaited(dialled.sent.reveal(), timeout) is None:
            raise
    else:
        return dialled
    dialled = _Dialled(share, options)
    await dialled.open(servers)
    return dialled


class _Dialled:
    """One client: which token it showed, and what the servers said of it."""

    def __init__(self, share: Share, options: dict[str, Any]) -> None:
        self.client = Client()
        self.sent = Secret("")
        self.is_denied = False
        self._share = share
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        self._attempted: Exception | None = None
        self._redialling: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] = _nothing

    async def open(self, servers: str | list[str]) -> None:
        """Connect. A denial ends the attempts of nats-py."""
        shown = {"user_jwt_cb": self._jwt} if "signature_cb" in self._options else {"token": self._token}
        ours = {"error_cb": self._failed, "reconnected_cb": self._reconnected, "closed_cb": self._closed}
        self._unlisten = self._share.on_renewal(self._renewed)
        try:
            await self.client.connect(servers, **{**self._options, **shown, **ours})
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._unlisten()
            await self.client.close()
            # The frames of nats-py hold what they sent.
            raise error.with_traceback(None) from None
        self._is_open = True
        self._accepted()
        self._redial()

    def judged(self) -> Error | None:
        """Report the denial that closed the client, if one did, and return it."""
        error = self.client.last_error
        # nats-py still holds the error of an attempt that was followed by a better one.
        if not isinstance(error, Error) or error is self._attempted or not _is_denial(error):
            return None
        self._deny(error)
        return error

    def _token(self) -> str:
        try:
            raw = self._share.token
        except TokenKeeperError as error:
            raise NoToken(str(error)) from None
        self.sent = Secret(raw)
        return raw

    def _jwt(self) -> bytes:
        return self._token().encode()

    def _accepted(self) -> None:
        self.is_denied = False
        self._share.accepted(self.sent.reveal())

    def _deny(self, error: Exception) -> None:
        verdict = self._share.denied(self.sent.reveal(), reason=str(error))
        self.is_denied = verdict in WORTH_ANOTHER

    def _renewed(self) -> None:
        # In the keeper's thread, or its loop. This loop may be closed by now.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._redial)

    def _redial(self) -> None:
        if not self._is_open or not self.client.is_connected:
            return
        try:
            current = Secret(self._share.token)
        except TokenKeeperError:
            return
        if current != self.sent:
            self._redialling = self._loop.create_task(self.client.force_reconnect())

    async def _reconnected(self) -> None:
        self._accepted()
        # Called by the task that a reconnect would cancel. A token that came while it dialled is shown next.
        self._loop.call_soon(self._redial)
        await self._tell("reconnected_cb")

    async def _failed(self, error: Exception) -> None:
        self._attempted = error
        if _is_denial(error):
            self._deny(error)
            if not self._is_open:
                # nats-py would knock with the same token for two minutes.
                raise error
        if self._options.get("error_cb") is None:
            _log.error("nats: encountered error: %s", error)
        await self._tell("error_cb", error)

    async def _closed(self) -> None:
        self._unlisten()
        self.judged()
        if self._is_open:
            await self._tell("closed_cb")

    async def _tell(self, name: str, *args: Exception) -> None:
        told: Callable[..., Awaitable[None]] | None = self._options.get(name)
        if told is not None:
            await told(*args)


def _is_denial(error: object) -> bool:
    said = str(error).lower()
    return isinstance(error, AuthorizationError) or any(denial in said for denial in DENIALS)


def _nothing() -> None:
    return
