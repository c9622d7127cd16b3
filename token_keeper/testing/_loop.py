"""An event loop whose timers fire at once, because its clock jumps to the next one.

It decides when time may pass: only if nothing else could happen first. What
the clocks mean is the matter of `VirtualClock`.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple

from token_keeper.testing._clock import VirtualClock

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")
_Events = list[tuple[selectors.SelectorKey, int]]


class VirtualLoop(asyncio.SelectorEventLoop):
    """A real asyncio event loop on a virtual clock: years pass in seconds.

    Tasks, timers, sockets and `call_soon_threadsafe` work as ever. Before time
    passes, the loop looks for other things that may happen, in this order:

    1. Something is ready: it runs, the clock stands still.
    2. *Real work* is going on (`real_work()`, or any executor's job): the loop
       waits for it, the clock stands still.
    3. A socket or pipe is registered: the loop listens to it for *io_grace*
       real seconds, then goes on to 4. That is a guess: use `real_work()`
       around what must not be overtaken.
    4. A timer is set: the clock jumps to it.
    5. Nothing is left but other threads and sockets: the loop waits for them.
       If there are none, or they are silent for *patience* real seconds, this
       is a deadlock and a `RuntimeError` names the tasks that wait.

    Args:
        clock: The clock that it reads and moves. Default: a new one.
        io_grace: Real seconds to listen to registered sockets before each jump.
        patience: Real seconds to wait for real work, threads and sockets.
    """

    def __init__(
        self, clock: VirtualClock | None = None, *, io_grace: float = 0.05, patience: float = 10.0
    ) -> None:
        self.clock = clock or VirtualClock()
        self._io_grace = io_grace
        self._patience = patience
        self._real_work = 0
        super().__init__(_JumpingSelector(self._wait))

    def time(self) -> float:
        """Return the virtual clock's monotonic seconds."""
        now = self.clock.monotonic()
        # Timers fire up to this much early. With any more than one step of a float,
        # code that recomputes a tiny rest would set a timer that needs no time, for ever.
        self._clock_resolution = math.ulp(now)
        return now

    @contextmanager
    def real_work(self) -> Iterator[None]:
        """Let no virtual time pass inside the block: something real is awaited there."""
        self._real_work += 1
        try:
            yield
        finally:
            self._real_work -= 1

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Arguments], _Result], *args: *_Arguments
    ) -> asyncio.Future[_Result]:
        """Run *func* in a thread; no virtual time passes until it ends."""
        future = super().run_in_executor(executor, func, *args)
        self._real_work += 1
        future.add_done_callback(self._end_job)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's name.
        """Wait for the threads of the default executor. No virtual time passes meanwhile."""
        del timeout  # CPython 3.11 knows none, and virtual seconds would mean nothing here.
        with self.real_work():
            await super().shutdown_default_executor()

    def _end_job(self, _: asyncio.Future[Any]) -> None:
        self._real_work -= 1

    def _wait(self, selector: selectors.BaseSelector, timeout: float | None) -> _Events:
        # The loop's own pipe, on which call_soon_threadsafe writes, is always registered.
        listens = len(selector.get_map()) > 1
        if timeout is not None and timeout <= 0:
            return selector.select(0)
        if self._real_work:
            return self._wait_really(selector, "real work went on")
        if timeout is None:
            if not listens and threading.active_count() == 1:
                raise self._deadlock("no thread and no socket is left that could wake them")
            return self._wait_really(selector, "other threads and sockets were silent")
        events = selector.select(self._io_grace if listens else 0)
        if not events:
            self.clock.advance_to(self.clock.monotonic() + timeout)
        return events

    def _wait_really(self, selector: selectors.BaseSelector, what: str) -> _Events:
        # Signals end a select early and without events; only the clock on the wall counts.
        until = time.monotonic() + self._patience
        while (rest := until - time.monotonic()) > 0:
            if events := selector.select(rest):
                return events
        raise self._deadlock(f"{what} for {self._patience:g} real seconds")

    def _deadlock(self, why: str) -> RuntimeError:
        names = sorted(task.get_name() for task in asyncio.all_tasks(self))
        return RuntimeError(f"deadlock on the virtual loop: {why}; waiting: {', '.join(names) or 'no task'}")


class _JumpingSelector(selectors.BaseSelector):
    """A system selector that leaves the waiting to somebody else."""

    def __init__(self, wait: Callable[[selectors.BaseSelector, float | None], _Events]) -> None:
        self._selector = selectors.DefaultSelector()
        self._wait = wait

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> _Events:
        return self._wait(self._selector, timeout)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._selector.get_map()

    def close(self) -> None:
        self._selector.close()


def run_virtual(
    main: Coroutine[Any, Any, _Result] | Callable[[], Coroutine[Any, Any, _Result]],
    clock: VirtualClock | None = None,
) -> _Result:
    """Run *main* to its end on a new `VirtualLoop` and return its result.

    Args:
        main: A coroutine, or a function of no arguments that makes one.
        clock: The clock to move. Default: a new one; the loop has it as `clock`.
    """
    coroutine = main() if callable(main) else main
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(coroutine)
