"""`keeper.connections(connect)`: for SDKs that take a token only when they connect."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Self, TypeVar

from token_keeper._errors import ConfigError
from token_keeper._face import Face
from token_keeper._model import Secret, Verdict
from token_keeper._redact import describe
from token_keeper._share import Share
from token_keeper._waiting import check_wait
from token_keeper.supervision import Pace

ConnectionT = TypeVar("ConnectionT")

CLOSE_S = 5.0
"""How long an old connection may take to close."""
STEADY_S = 10.0
"""A connection that lived so long was none in vain."""
CLOSERS = ("aclose", "close", "disconnect")
DENIED = 401
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class Connections(Generic[ConnectionT]):
    """Connections, one after the other, each made with a token that is valid then.

        async for connection in keeper.connections(connect):
            async for message in connection: ...

    Whoever wants to report a denial keeps the object: `connections.denied(code=4401)`.
    Leaving the loop closes the connection; `async with` does it at a certain time.
    """

    def __init__(  # noqa: PLR0913 - all but the first two are keywords
        self,
        keeper: Face,
        connect: Callable[[str], Any],
        *,
        by: str,
        swap: bool,
        timeout: float,
        retry_on: tuple[type[BaseException], ...],
    ) -> None:
        if not callable(connect):
            raise ConfigError(
                "connect", f"must be a function of the token, but is a {type(connect).__name__}"
            )
        check_wait("timeout", timeout)
        self._share = Share(keeper, by)
        self._connect = connect
        self._swap = swap
        self._timeout = timeout
        self._retry_on: tuple[type[BaseException], ...] = (OSError, EOFError, *retry_on)
        self._log = keeper._log  # noqa: SLF001 - connections are of one piece with their keeper
        self._knows = keeper._profile.knows  # noqa: SLF001 - as above
        self._clock = keeper._clock  # noqa: SLF001 - as above
        self._pace = Pace()
        self._current: _Open[ConnectionT] | None = None
        self._running: AsyncIterator[ConnectionT] | None = None

    def __aiter__(self) -> AsyncIterator[ConnectionT]:
        self._running = self._each()
        return self._running

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the current connection and end the loop."""
        running, self._running = self._running, None
        if running is not None:
            await running.aclose()  # type: ignore[attr-defined]

    def denied(self, *, code: int | str | None = None, reason: str | None = None) -> Verdict:
        """Say that the server refused the token of the current connection; the next gets another one.

        Never blocks. What it returns is the keeper's verdict.
        """
        if self._current is None:
            raise ConfigError("denied", "there is no connection yet: call it in the loop")
        return self._share.denied(self._current.sent.reveal(), code=code, reason=reason)

    def __repr__(self) -> str:
        return f"<connections {self._share.by!r} of {self._share.keeper.name!r}>"

    async def _each(self) -> AsyncIterator[ConnectionT]:
        successor: _Open[ConnectionT] | None = None
        try:
            while True:
                current = self._current = successor or await self._open()
                successor = None
                swapping = asyncio.create_task(self._successor(current)) if self._swap else None
                try:
                    yield current.connection
                finally:
                    successor = await _outcome(swapping)
                    await current.close()
                self._look_back(current)
        finally:
            if successor is not None:
                await successor.close()

    async def _successor(self, current: _Open[ConnectionT]) -> _Open[ConnectionT]:
        """Connect with the next token while *current* lives, then close that: its reader comes to its end."""
        await self._share.other_than(current.sent.reveal())
        successor = await self._open()
        current.replaced = True
        self._log.info("connectionReplaced", by=self._share.by)
        try:
            await current.close()
        except asyncio.CancelledError:
            # The loop's body came to its end in this very moment: the new connection is its next.
            return successor
        return successor

    async def _open(self) -> _Open[ConnectionT]:
        """Connect with a token that is valid now; go on until it works."""
        while True:
            await self._wait_for_pace()
            token = Secret(await self._share.awaited(timeout=float("inf")))
            self._pace = self._pace.attempted(self._clock.boot())
            try:
                opened = await self._attempt(token)
            except Exception as error:
                if not self._is_worth_another(error, token):
                    raise
                self._pace = self._pace.failed(self._clock.boot(), random.random())  # noqa: S311 - spreads load
                self._log.warning("connectionFailed", by=self._share.by, error=describe(error))
            else:
                self._share.accepted(token.reveal())
                return opened

    async def _attempt(self, token: Secret) -> _Open[ConnectionT]:
        async with asyncio.timeout(self._timeout):
            made = self._connect(token.reveal())
            if hasattr(made, "__aenter__"):
                return _Open(await made.__aenter__(), token, made, self._clock.boot())
            connection = await made if inspect.isawaitable(made) else made
            return _Open(connection, token, None, self._clock.boot())

    async def _wait_for_pace(self) -> None:
        wait = self._pace.clear - self._clock.boot()
        if wait > 0:
            await asyncio.sleep(wait)

    def _is_worth_another(self, error: Exception, token: Secret) -> bool:
        code = _code_of(error)
        if code == DENIED or (code not in TRANSIENT and code is not None and self._knows(code)):
            verdict = self._share.denied(token.reveal(), code=code)
            return verdict is not Verdict.FORBIDDEN
        if code in TRANSIENT or (isinstance(code, int) and 500 <= code < 600):
            return True
        return isinstance(error, self._retry_on) or isinstance(error.__cause__, OSError | EOFError)

    def _look_back(self, current: _Open[ConnectionT]) -> None:
        """Learn from how a connection ended."""
        boot = self._clock.boot()
        if current.replaced or boot - current.since >= STEADY_S:
            self._pace = self._pace.succeeded()
        else:
            # Accepted and ended at once, again and again: not faster than connections that fail.
            self._pace = self._pace.failed(boot, random.random())  # noqa: S311 - it spreads load
        code = getattr(current.connection, "close_code", None)
        if not current.replaced and isinstance(code, int) and self._knows(code):
            self._share.denied(current.sent.reveal(), code=code)


class _Open(Generic[ConnectionT]):
    """A connection, and the token that it was made with."""

    __slots__ = ("_context", "_is_closed", "connection", "replaced", "sent", "since")

    def __init__(
        self,
        connection: ConnectionT,
        sent: Secret,
        context: AbstractAsyncContextManager[ConnectionT] | None,
        since: float,
    ) -> None:
        self.connection = connection
        self.sent = sent
        self.since = since
        self.replaced = False
        self._context = context
        self._is_closed = False

    async def close(self) -> None:
        """Close it, for at most `CLOSE_S` seconds. Whatever it raises, it is gone."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            async with asyncio.timeout(CLOSE_S):
                if self._context is not None:
                    await self._context.__aexit__(None, None, None)
                    return
                closers = (getattr(self.connection, name, None) for name in CLOSERS)
                closer = next(filter(callable, closers), None)
                result = closer() if closer is not None else None
                if inspect.isawaitable(result):
                    await result
        except Exception:  # noqa: BLE001 - an old connection that cannot be closed harms nobody
            return


async def _outcome(swapping: asyncio.Task[_Open[ConnectionT]] | None) -> _Open[ConnectionT] | None:
    """Return the successor if there is one by now, and wait for it no longer."""
    if swapping is None:
        return None
    swapping.cancel()
    await asyncio.wait({swapping})
    if swapping.cancelled() or swapping.exception() is not None:
        return None
    return swapping.result()


def _code_of(error: BaseException) -> int | None:
    """Return the status or close code in an exception of some client library, or None."""
    response = getattr(error, "response", None)
    received = getattr(error, "rcvd", None)
    for holder, name in (
        (response, "status_code"),
        (response, "status"),
        (error, "status"),
        (error, "status_code"),
        (received, "code"),
        (error, "code"),
    ):
        code = getattr(holder, name, None)
        if isinstance(code, int) and not isinstance(code, bool):
            return code
    return None
