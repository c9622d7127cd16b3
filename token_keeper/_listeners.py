"""Who is told of an event, in which order and for how long.

It knows nothing of tokens. Whatever a listener does (raises, hangs, swallows
its cancellation, exits), the others are called and the keeper goes on.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Protocol

from token_keeper._redact import describe
from token_keeper.logs import KeeperLog


class Told(Protocol):
    """What listeners are told: a `TokenEvent`, or the event of a session."""

    @property
    def kind(self) -> StrEnum:
        """What happened."""
        ...


Listener = Callable[[Any], object]
"""A function of one event, sync or async. What it returns is ignored."""


class Listeners:
    """Call listeners one after the other, one event after the other, without ever blocking `post`.

    Nothing is allocated and no task or thread runs until an event meets a listener.

    Args:
        log: Where to say that a listener failed, was slow, or that events were dropped.
        sync_in_thread: Whether sync listeners run in a thread of their own, where one that
            hangs can be left behind. Else they run in the loop, as its guests.
        time_limit_s: How long one call may take, in seconds.
        queue_max: How many events may wait. One more drops the oldest.

    Attributes:
        failures: How many calls raised or took too long.
        dropped: How many events some listener missed.
    """

    __slots__ = (
        "_ending",
        "_entries",
        "_is_overflowing",
        "_log",
        "_queue",
        "_queue_max",
        "_sync_in_thread",
        "_task",
        "_time_limit_s",
        "_worker",
        "dropped",
        "failures",
    )

    def __init__(
        self,
        *,
        log: KeeperLog,
        sync_in_thread: bool = False,
        time_limit_s: float = 10.0,
        queue_max: int = 256,
    ) -> None:
        self.failures = 0
        self.dropped = 0
        self._log = log
        self._sync_in_thread = sync_in_thread
        self._time_limit_s = time_limit_s
        self._queue_max = queue_max
        self._entries: tuple[_Entry, ...] = ()
        self._queue: deque[tuple[Told, tuple[_Entry, ...]]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._worker: _Worker | None = None
        self._is_overflowing = False
        self._ending = False

    def add(self, kinds: Iterable[StrEnum], function: Listener) -> None:
        """Call *function* with each later event of *kinds*, after those that were added before."""
        self._entries = (*self._entries, _Entry(frozenset(kinds), function))

    def remove(self, function: Listener) -> None:
        """Do not call *function* with later events. One that is unknown is ignored."""
        self._entries = tuple(entry for entry in self._entries if entry.function != function)

    def post(self, event: Told) -> None:
        """Deliver *event* soon. Call it in the thread of the running loop; it never blocks."""
        entries = tuple(entry for entry in self._entries if event.kind in entry.kinds)
        if not entries:
            return
        if self._queue is None:
            self._queue = deque()
        if len(self._queue) >= self._queue_max:
            self._drop_oldest(self._queue)
        self._queue.append((event, entries))
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._deliver_all(self._queue), name="token-keeper listeners")

    def in_listener(self) -> bool:
        """Whether the caller is one of these listeners, or a task that one of them started and awaits."""
        call = _CURRENT.get()
        return call is not None and call.owner is self and call.is_running

    async def drain(self, timeout_s: float) -> None:
        """Deliver what waits, for at most *timeout_s* seconds, drop the rest, and let the thread end.

        Called by a listener it returns at once: the rest is delivered after that listener returned.
        """
        self._ending = True
        task = self._task
        if task is not None and not task.done():
            if self.in_listener():
                return
            try:
                await asyncio.wait({task}, timeout=timeout_s)
            finally:
                self._give_up(task)
            await asyncio.wait({task})
        self._task = None
        self._end_worker()

    def _give_up(self, task: asyncio.Task[None]) -> None:
        if self._queue:
            self.dropped += len(self._queue)
            self._queue.clear()
        task.cancel()
        self._end_worker()

    async def _deliver_all(self, waiting: deque[tuple[Told, tuple[_Entry, ...]]]) -> None:
        while waiting:
            event, entries = waiting.popleft()
            for entry in entries:
                await self._deliver(event, entry)
            # A listener that causes an event each time must not keep the loop for itself.
            await asyncio.sleep(0)
        self._is_overflowing = False
        if self._ending:
            self._end_worker()

    async def _deliver(self, event: Told, entry: _Entry) -> None:
        if entry.call is not None and entry.call.is_running:
            self.dropped += 1
            return
        call = entry.call = _Call(self, entry, event)
        try:
            if self._sync_in_thread and not entry.is_async:
                result = await self._call_in_thread(call)
            else:
                result = self._call_here(call)
            if inspect.isawaitable(result):
                await self._await_result(call, result)
        except Exception as error:  # noqa: BLE001 - Such as a thread that cannot be started.
            call.is_running = False
            call.problem = describe(error)
        if call.problem:
            self._failed(call)

    def _call_here(self, call: _Call) -> object:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        result = call.run()
        took_s = loop.time() - started_at
        if took_s > self._time_limit_s:
            self._log.warning(
                "listenerSlow", kind=call.event.kind, listener=call.entry.name, took_s=round(took_s, 3)
            )
        return result

    async def _call_in_thread(self, call: _Call) -> object:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()

        def arrived(result: object) -> None:
            if call.is_late:
                _discard(result)
                self._ended_late(call)
            else:
                done.set_result(result)

        def job() -> None:
            result = call.run()
            try:
                loop.call_soon_threadsafe(arrived, result)
            except RuntimeError:  # The loop is closed: nobody waits for it any more.
                _discard(result)

        if self._worker is None:
            self._worker = _Worker()
        self._worker.submit(job)
        try:
            await asyncio.wait({done}, timeout=self._time_limit_s)
        finally:
            if not done.done():
                call.is_late = True
                self._end_worker()
        if done.done():
            return done.result()
        call.problem = self._too_long()
        return None

    async def _await_result(self, call: _Call, result: Any) -> None:
        task = asyncio.get_running_loop().create_task(call.finish(result))
        try:
            # Not wait_for: it waits for as long as a listener swallows its cancellation.
            await asyncio.wait({task}, timeout=self._time_limit_s)
        finally:
            if not task.done():
                call.is_late = True
                task.add_done_callback(lambda _: self._ended_late(call))
                task.cancel()
        if call.is_late:
            call.problem = self._too_long()

    def _too_long(self) -> str:
        return f"took longer than {self._time_limit_s:g} s; skipped until it returns"

    def _ended_late(self, call: _Call) -> None:
        if call.problem and not call.was_cancelled:
            self._failed(call)

    def _failed(self, call: _Call) -> None:
        self.failures += 1
        self._log.error("listenerFailed", kind=call.event.kind, listener=call.entry.name, error=call.problem)
        call.problem = ""

    def _drop_oldest(self, waiting: deque[tuple[Told, tuple[_Entry, ...]]]) -> None:
        waiting.popleft()
        self.dropped += 1
        if not self._is_overflowing:
            self._is_overflowing = True
            self._log.warning("eventsDropped", waiting=self._queue_max)

    def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()


class _Entry:
    """One listener, and its latest call."""

    __slots__ = ("call", "function", "is_async", "kinds", "name")

    def __init__(self, kinds: frozenset[StrEnum], function: Listener) -> None:
        self.kinds = kinds
        self.function = function
        self.name = getattr(function, "__qualname__", None) or type(function).__qualname__
        # An object's async `__call__` is not seen through the object.
        self.is_async = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
        self.call: _Call | None = None


class _Call:
    """One listener's turn with one event. It ends in the thread or task where it runs."""

    __slots__ = ("entry", "event", "is_late", "is_running", "owner", "problem", "was_cancelled")

    def __init__(self, owner: Listeners, entry: _Entry, event: Told) -> None:
        self.owner = owner
        self.entry = entry
        self.event = event
        self.is_running = True
        self.is_late = False
        self.was_cancelled = False
        self.problem = ""

    def run(self) -> object:
        """Call the listener. What it returns is still running if it can be awaited."""
        result: object = None
        restore = _CURRENT.set(self)
        try:
            result = self.entry.function(self.event)
        except BaseException as error:  # noqa: BLE001 - Also a sys.exit() must not end the keeper's thread.
            self.problem = describe(error)
        finally:
            _CURRENT.reset(restore)
            self.is_running = inspect.isawaitable(result)
        return result

    async def finish(self, result: Any) -> None:
        """Await what the listener returned."""
        _CURRENT.set(self)
        try:
            await result
        except BaseException as error:  # noqa: BLE001 - asyncio lets SystemExit end the whole loop.
            self.problem = describe(error)
            self.was_cancelled = self.is_late and isinstance(error, asyncio.CancelledError)
        finally:
            self.is_running = False


_CURRENT: ContextVar[_Call | None] = ContextVar("token_keeper_listener", default=None)


class _Worker:
    """A daemon thread that does one job after the other until it is told to end."""

    __slots__ = ("_jobs",)

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="token-keeper listeners", daemon=True).start()

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def end(self) -> None:
        """Let the thread end after the jobs that it has. Does not wait."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job


def _discard(result: object) -> None:
    if inspect.iscoroutine(result):
        result.close()
