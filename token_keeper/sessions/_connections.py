"""`keeper.connections(connect)`: for SDKs that take a token only when they connect."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Generic, Self, TypeVar

from token_keeper._errors import ConfigError
from token_keeper._face import Face
from token_keeper._model import Secret, Verdict
from token_keeper._redact import describe
from token_keeper._share import Share
from token_keeper._waiting import check_wait
from token_keeper.sessions._opened import Opened
from token_keeper.supervision import Pace

ConnectionT = TypeVar("ConnectionT")

STEADY_S = 10.0
"""A connection that lived so long was none in vain."""
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
        if not isinstance(retry_on, tuple) or not all(map(_is_exception, retry_on)):
            raise ConfigError("retry_on", "must be a tuple of exception classes, such as (MqttError,)")
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
        self._current: Opened[ConnectionT] | None = None
        self._opening: asyncio.Task[Opened[ConnectionT]] | None = None
        self._swapping: asyncio.Task[Opened[ConnectionT]] | None = None
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[ConnectionT]:
        self._is_closed = False
        # Nothing here holds the generator: leaving the loop ends it, and so closes the connection.
        return self._each()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the current connection and let the loop end. In any task of its event loop."""
        self._is_closed = True
        for task in (self._opening, self._swapping):
            if (opened := await _outcome(task)) is not None:
                await opened.close()
        if self._current is not None:
            await self._current.close()

    def denied(self, *, code: int | str | None = None, reason: str | None = None) -> Verdict:
        """Say that the server refused the token of the current connection; the next gets another one.

        Never blocks. What it returns is the keeper's verdict.

        Raises:
            RuntimeError: If there was no connection yet.
        """
        if self._current is None:
            raise RuntimeError("there is no connection yet whose token could be denied: call it in the loop")
        return self._share.denied(self._current.sent.reveal(), code=code, reason=reason)

    def __repr__(self) -> str:
        return f"<connections {self._share.by!r} of {self._share.keeper.name!r}>"

    async def _each(self) -> AsyncGenerator[ConnectionT, None]:
        successor: Opened[ConnectionT] | None = None
        try:
            while (current := successor or await self._opened()) is not None:
                self._current, successor = current, None
                swapping = asyncio.create_task(self._successor(current)) if self._swap else None
                self._swapping = swapping
                try:
                    yield current.connection
                finally:
                    try:
                        successor = await _outcome(swapping)
                    finally:
                        current.leave()
                    await current.close()
                if self._is_closed:
                    return
                self._look_back(current)
        finally:
            if successor is not None:
                await successor.close()

    async def _opened(self) -> Opened[ConnectionT] | None:
        """Connect; None if `aclose()` comes first."""
        opening = self._opening = asyncio.create_task(self._open())
        try:
            await asyncio.wait({opening})
        except asyncio.CancelledError:
            if (opened := await _outcome(opening)) is not None:
                await opened.close()
            raise
        finally:
            self._opening = None
        return None if self._is_closed else opening.result()

    async def _successor(self, current: Opened[ConnectionT]) -> Opened[ConnectionT]:
        """Connect with the next token while *current* lives, then close that: its reader comes to its end."""
        await self._share.other_than(current.sent.reveal())
        try:
            successor = await self._open()
        except Exception as error:
            self._log.warning("connectionNotReplaced", by=self._share.by, error=describe(error))
            raise
        current.replaced = True
        self._log.info("connectionReplaced", by=self._share.by)
        try:
            await current.close()
        except asyncio.CancelledError:
            # The loop's body came to its end in this very moment: the new connection is its next.
            return successor
        return successor

    async def _open(self) -> Opened[ConnectionT]:
        """Connect with a token that is valid now; go on until it works."""
        while True:
            await self._wait_for_pace()
            token = Secret(await self._share.awaited(timeout=float("inf")))
            self._pace = self._pace.attempted(self._clock.boot())
            try:
                opened = Opened[ConnectionT](token, self._clock.boot())
                await opened.open(self._connect, self._timeout)
            except Exception as error:
                if not self._is_worth_another(error, token):
                    raise
                self._pace = self._pace.failed(self._clock.boot(), random.random())  # noqa: S311 - spreads load
                said = describe(error).replace(token.reveal(), f"<token {token.fingerprint}>")
                self._log.warning("connectionFailed", by=self._share.by, error=said)
            else:
                self._share.accepted(token.reveal())
                return opened

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

    def _look_back(self, current: Opened[ConnectionT]) -> None:
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


async def _outcome(opening: asyncio.Task[Opened[ConnectionT]] | None) -> Opened[ConnectionT] | None:
    """Return the connection if there is one by now, and wait for it no longer."""
    if opening is None:
        return None
    opening.cancel()
    try:
        await asyncio.wait({opening})
    except asyncio.CancelledError:
        opening.add_done_callback(_unwanted)
        raise
    if opening.cancelled() or opening.exception() is not None:
        return None
    return opening.result()


def _unwanted(opening: asyncio.Task[Opened[ConnectionT]]) -> None:
    """Leave what *opening* made: whoever wanted it was cancelled again while it waited."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().leave()


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


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
