"""Callbacks of an SDK that take each new token, and may block or await while they do.

A renewal only wakes them: whoever tells of it, a thread or a loop, goes on at once.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any


class Receiver:
    """One callback: called by one thread or task at a time.

    What comes meanwhile is told as one: only the latest token counts.

    Args:
        callback: Of the SDK, plain or async. A method is held weakly: it may be of a client that is gone.
        push: Calls it with the current token, in a thread. Must not raise.
        push_async: Awaits it with the current token, in its loop. Must not raise.
    """

    def __init__(
        self,
        callback: Callable[[Any], Any],
        push: Callable[[Any], None],
        push_async: Callable[[Any], Awaitable[None]],
    ) -> None:
        self._callback = weakref.WeakMethod(callback) if inspect.ismethod(callback) else lambda: callback
        self._is_async = inspect.iscoroutinefunction(callback)
        self._push = push
        self._push_async = push_async
        self._lock = threading.Lock()
        self._is_busy = self._is_behind = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        if self._is_async:
            with suppress(RuntimeError):  # A client may be made outside of its loop.
                self._loop = asyncio.get_running_loop()

    def calls(self, callback: Callable[[Any], Any]) -> bool:
        return self._callback() == callback

    def is_alive(self) -> bool:
        return self._callback() is not None

    def runs_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call it in *loop*, if it has none or that has ended."""
        if self._is_async and (self._loop is None or self._loop.is_closed()):
            # What was under way there ended with it.
            self._loop, self._is_busy = loop, False

    def wake(self) -> None:
        """Tell it of the current token soon. Never blocks."""
        with self._lock:
            self._is_behind = True
            if self._is_busy or (self._is_async and self._loop is None):
                return
            self._is_busy = True
        if self._loop is None:
            threading.Thread(target=self._work, name="token_keeper renewal", daemon=True).start()
            return
        try:
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError:  # The loop is closed, and with it the client's connections.
            self._is_busy = False

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work_async(), name="token_keeper renewal")

    def _work(self) -> None:
        while (callback := self._next()) is not None:
            self._push(callback)

    async def _work_async(self) -> None:
        while (callback := self._next()) is not None:
            await self._push_async(callback)

    def _next(self) -> Callable[[Any], Any] | None:
        with self._lock:
            callback = self._callback() if self._is_behind else None
            self._is_behind, self._is_busy = False, callback is not None
            return callback
