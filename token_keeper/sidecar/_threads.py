"""Threads for what may block: writing files, running hooks. It knows neither.

They are daemons: a write that hangs on a dead network file system must not keep the program from
ending, as the threads of `concurrent.futures` would.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MAX_STUCK = 32
"""Threads that hang and are replaced; with more of them, new work waits."""


class Threads(Executor):
    """At most *limit* threads, which exist only while there is work.

    Args:
        limit: Jobs at once.
        name: Of the threads.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._running: dict[_Job, float] = {}
        self._stuck: set[_Job] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call *fn* in a thread, as soon as one is free. Never blocks."""
        job = _Job(fn, args, kwargs)
        with self._lock:
            self._waiting.append(job)
            self._staff()
        return job.future

    def relieve(self, after_s: float) -> None:
        """Do not count threads any more that have been at one job for longer than *after_s* seconds."""
        since = time.monotonic() - after_s
        with self._lock:
            for job, began in self._running.items():
                if began < since and len(self._stuck) < MAX_STUCK:
                    self._stuck.add(job)
            self._staff()

    def _staff(self) -> None:
        while self._waiting and len(self._running) - len(self._stuck) < self._limit:
            job = self._waiting.popleft()
            thread = threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True)
            self._running[job] = time.monotonic()
            try:
                thread.start()
            except RuntimeError as error:
                # The system gives us no more threads now; whoever submitted it may try again.
                del self._running[job]
                job.future.set_exception(error)

    def _work(self, job: _Job | None) -> None:
        while job is not None:
            job.run()
            job = self._next(job)

    def _next(self, done: _Job) -> _Job | None:
        with self._lock:
            del self._running[done]
            if done in self._stuck:
                # Somebody else took its place.
                self._stuck.discard(done)
            elif self._waiting:
                job = self._waiting.popleft()
                self._running[job] = time.monotonic()
                return job
        return None


class _Job:
    """One call, and who waits for it."""

    __slots__ = ("_args", "_function", "_kwargs", "future")

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.future: Future[Any] = Future()
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def run(self) -> None:
        """Call it, unless nobody waits any more."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._function(*self._args, **self._kwargs)
        except BaseException as error:  # noqa: BLE001 - Whoever waits hears of it; the thread goes on.
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
