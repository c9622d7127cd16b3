"""Calls a user's function without letting it block, kill or flood the keeper."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

from token_keeper._errors import FetchError, TransientFetchError
from token_keeper.sources._source import as_cause, without_traces


class Callback:
    """A user's function of no arguments, sync or async, that runs once at a time.

    A sync one runs in a daemon thread of its own: those of a pool would keep
    the interpreter from exiting. While it hangs, it is not called again.

    Args:
        function: To be called.
        name: What messages call it, such as "the source's function".
    """

    def __init__(self, function: Callable[[], object], name: str) -> None:
        self._function = function
        self._name = name
        self._call: _ThreadCall | None = None

    async def call(self) -> object:
        """Return what the function returns.

        Raises:
            FetchError: If the function raised it.
            TransientFetchError: If it raised anything else, or still runs.
        """
        try:
            result, failure = await self._outcome()
        except asyncio.CancelledError as error:
            raise without_traces(error) from None
        if failure is None:
            return result
        del result
        if isinstance(failure, FetchError):
            raise without_traces(failure)
        raise TransientFetchError(
            f"{self._name} raised {type(failure).__name__}; a valid token stays. "
            "The exception is this one's __cause__"
        ) from as_cause(failure)

    async def _outcome(self) -> tuple[object, BaseException | None]:
        if _is_async(self._function):
            return await _awaited(cast("Callable[[], Awaitable[object]]", self._function))
        result, failure = await self._in_thread()
        if failure is None and inspect.isawaitable(result):
            return await _awaited(functools.partial(_itself, result))
        return result, failure

    async def _in_thread(self) -> tuple[object, BaseException | None]:
        if self._call is not None and self._call.is_running():
            problem = TransientFetchError(
                f"{self._name} has not returned since an earlier fetch, so it was not called again; "
                "a valid token stays. Give it a timeout of its own",
                timed_out=True,
            )
            return None, problem
        self._call = _ThreadCall(self._function)
        return await self._call.outcome()


class _ThreadCall:
    """One call in a thread of its own."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._result: object = None
        self._failure: BaseException | None = None
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self._run,), name="token-keeper-callback", daemon=True
        )

    def is_running(self) -> bool:
        # After a fork the thread is gone, and nobody will say that it is over.
        return not self._is_over and self._thread.is_alive()

    async def outcome(self) -> tuple[object, BaseException | None]:
        try:
            self._thread.start()
        except RuntimeError as error:
            return None, error
        # The result stays out of the future: asyncio's debug log shows futures.
        await self._over
        result, failure = self._result, self._failure
        self._result = self._failure = None
        return result, failure

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - A SystemExit from a callback must not be lost either.
            self._failure = error
        self._is_over = True
        # The loop may be closed: then nobody waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


async def _awaited(function: Callable[[], Awaitable[object]]) -> tuple[object, BaseException | None]:
    try:
        return await function(), None
    except GeneratorExit:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return None, error
    except BaseException as error:  # noqa: BLE001 - A SystemExit from a callback must not stop the keeper.
        return None, error


def _is_async(function: Callable[[], object]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(function, "__call__", None)  # noqa: B004 - Not whether it is callable: how.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


async def _itself(awaitable: Awaitable[object]) -> object:
    return await awaitable
