"""Where a single keeper's scheduler lives: a task in an event loop, perhaps in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from token_keeper._clock import Clock
from token_keeper._scheduler import CANCEL_GRACE_S, Charge, Scheduler
from token_keeper._threads import DaemonThreads

ResultT = TypeVar("ResultT")

JOIN_S = 5.0
"""How long `close()` waits for the thread."""


class Home:
    """A scheduler and its task, in the running loop."""

    def __init__(self, charge: Charge, clock: Clock, log: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self._charge = charge
        self._scheduler = Scheduler(clock, log)
        self._scheduler.add(charge)
        self._task = self.loop.create_task(self._scheduler.run(), name=f"token_keeper {charge.kept.name}")

    async def end(self) -> None:
        """Stop the scheduler and whatever it started. Only in the home's loop."""
        self._scheduler.remove(self._charge)
        self._task.cancel()
        charge = self._charge
        started = (self._task, charge.flight, charge.call, charge.watch)
        tasks = [task for task in started if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CANCEL_GRACE_S)

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in the home's loop, from whichever loop this is awaited in."""
        if asyncio.get_running_loop() is self.loop:
            await work
        elif self.loop.is_running():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))
        else:
            work.close()  # Its tasks ended with the loop.


class LoopThread:
    """An event loop in a daemon thread, which never holds up the end of the interpreter."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(DaemonThreads("token_keeper look-up"))
        self._last_work: Coroutine[Any, Any, None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"token_keeper {name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # Too many threads, or the interpreter is at its end.
            self._loop.close()
            raise

    def call(self, work: Coroutine[Any, Any, ResultT], timeout: float) -> ResultT:
        """Run *work* in the loop and return its result. Raises `TimeoutError`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def is_current(self) -> bool:
        """Whether the caller runs in this thread."""
        return threading.current_thread() is self._thread

    def last_work(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* when the loop has stopped. Only in this thread."""
        self._last_work = work

    def end(self) -> None:
        """Stop the loop and wait for the thread, but not for ever."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        if not self.is_current():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            try:
                self._clear_out()
            finally:
                asyncio.set_event_loop(None)
                self._loop.close()

    def _clear_out(self) -> None:
        if self._last_work is not None:
            self._loop.run_until_complete(self._last_work)
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=CANCEL_GRACE_S))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
