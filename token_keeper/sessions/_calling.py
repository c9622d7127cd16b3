"""Calls a session where it lives: in its own event loop, in the keeper's, or in a thread."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any


class Caller:
    """Calls functions of one session.

    A session that was attached in an event loop is called in that loop, since
    most async SDKs belong to theirs. Otherwise a blocking function gets a daemon
    thread of its own, where one that hangs can be left behind.

    Args:
        loop: Where the session was attached, or None.
        threads: Runs blocking functions of a session without a loop.
    """

    __slots__ = ("_loop", "_threads")

    def __init__(self, loop: asyncio.AbstractEventLoop | None, threads: Executor) -> None:
        self._loop = loop
        self._threads = threads

    async def call(self, function: Callable[[], Any]) -> Any:
        """Return what *function* returns, awaited if it can be. Raises what it raises."""
        here = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not here:
            return await _called_in(self._loop, function)
        if self._loop is None and not inspect.iscoroutinefunction(function):
            result = await here.run_in_executor(self._threads, _called_once, function)
            return await result if inspect.isawaitable(result) else result
        return await _called(function)


async def _called_in(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> Any:
    call = _called(function)
    try:
        far = asyncio.run_coroutine_threadsafe(call, loop)
    except RuntimeError:
        call.close()
        raise RuntimeError("the event loop in which the session was attached has ended") from None
    return await asyncio.wrap_future(far)


async def _called(function: Callable[[], Any]) -> Any:
    result = _called_once(function)
    try:
        return await result if inspect.isawaitable(result) else result
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as ending:  # noqa: BLE001 - see `_tamed`
        raise _tamed(ending) from None


def _called_once(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except StopIteration as ending:
        raise _tamed(ending) from None
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as ending:  # noqa: BLE001 - as above
        raise _tamed(ending) from None


def _tamed(ending: BaseException) -> BaseException:
    # A SystemExit in a task ends its whole loop, and no future can hold a StopIteration.
    is_users = isinstance(ending, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
    return ending if is_users else RuntimeError(f"the session raised {type(ending).__name__}")
