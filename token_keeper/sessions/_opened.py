"""One connection of `keeper.connections()`: made, held and closed in a task of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from token_keeper._model import Secret

ConnectionT = TypeVar("ConnectionT")

CLOSE_S = 5.0
"""How long an old connection may take to close."""
CLOSERS = ("aclose", "close", "disconnect")


class Opened(Generic[ConnectionT]):
    """A connection, and the token that it was made with.

    It is entered and left in a task of its own: contexts with task groups in them must
    be left where they were entered, and connections outlive the task that made them.
    """

    __slots__ = ("_holder", "_leave", "connection", "replaced", "sent", "since")

    connection: ConnectionT

    def __init__(self, sent: Secret, since: float) -> None:
        self.sent = sent
        self.since = since
        self.replaced = False
        self._leave = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None

    async def open(self, connect: Callable[[str], Any], limit_s: float) -> None:
        """Connect within *limit_s* seconds. Raises what *connect* raises, and `TimeoutError`."""
        ready = asyncio.get_running_loop().create_future()
        holder = self._holder = asyncio.create_task(
            self._hold(connect, ready), name="token_keeper connection"
        )
        holder.add_done_callback(_retrieve)
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.wait({ready, holder}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            holder.cancel()
            await asyncio.wait({holder}, timeout=CLOSE_S)
            raise
        if not ready.done():
            holder.result()

    def leave(self) -> None:
        """Let it be closed, within `CLOSE_S` seconds. Whatever it raises, it is gone."""
        holder = self._holder
        assert holder is not None, "only what was opened is closed"  # noqa: S101 - our own invariant
        if not self._leave.is_set():
            self._leave.set()
            timer = asyncio.get_running_loop().call_later(CLOSE_S, holder.cancel)
            holder.add_done_callback(lambda _: timer.cancel())

    async def close(self) -> None:
        """As `leave`, and wait for it."""
        self.leave()
        if self._holder is not None:
            await asyncio.wait({self._holder}, timeout=CLOSE_S + 1)

    async def _hold(self, connect: Callable[[str], Any], ready: asyncio.Future[None]) -> None:
        made = connect(self.sent.reveal())
        if hasattr(made, "__aenter__"):
            async with made as self.connection:
                ready.set_result(None)
                await self._leave.wait()
            return
        try:
            self.connection = await made if inspect.isawaitable(made) else made
        except asyncio.CancelledError:
            # A task that ended in this very moment has made a connection that nobody else knows.
            if isinstance(made, asyncio.Future) and made.done() and not made.cancelled():
                await _close(made.result())
            raise
        ready.set_result(None)
        try:
            await self._leave.wait()
        finally:
            await _close(self.connection)


async def _close(connection: object) -> None:
    closers = (getattr(connection, name, None) for name in CLOSERS)
    closer = next(filter(callable, closers), None)
    result = closer() if closer is not None else None
    if inspect.isawaitable(result):
        await result


def _retrieve(holder: asyncio.Task[None]) -> None:
    # An old connection that cannot be closed harms nobody.
    if not holder.cancelled():
        holder.exception()
