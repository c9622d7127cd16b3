"""Calls a session where it lives: in its own event loop, in the keeper's, or in a thread."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


class Caller:
    """Calls functions of one session.

    A session that was attached in an event loop is called in that loop, since
    most async SDKs belong to theirs. Otherwise a blocking function gets a thread
    of its own, where one that hangs can be left behind.

    Args:
        loop: Where the session was attached, or None.
        in_thread: Whether blocking functions of a session without a loop may block.
    """

    __slots__ = ("_in_thread", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop | None, *, in_thread: bool) -> None:
        self._loop = loop
        self._in_thread = in_thread

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what *function* returns, awaited if it can be. Raises what it raises."""
        here = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not here:
            far = asyncio.run_coroutine_threadsafe(_called(function, args), self._loop)
            return await asyncio.wrap_future(far)
        if self._loop is None and self._in_thread and not inspect.iscoroutinefunction(function):
            # The keeper's loop has daemon threads, which hold up nothing.
            result = await here.run_in_executor(None, function, *args)
            return await result if inspect.isawaitable(result) else result
        return await _called(function, args)


async def _called(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    result = function(*args)
    return await result if inspect.isawaitable(result) else result
