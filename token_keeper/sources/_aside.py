"""Calls what blocks out of the event loop's way: one call at a time, and one that hangs is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from token_keeper._threads import DaemonThreads

ResultT = TypeVar("ResultT")


class StillRunningError(Exception):
    """An earlier call has not returned yet."""


class Aside:
    """A place for one blocking call at a time, in a daemon thread of its own.

    What it returns must not be shown by its repr: asyncio's debug log shows the results of futures.

    Args:
        name: Of the threads.
    """

    def __init__(self, name: str) -> None:
        self._threads = DaemonThreads(name)
        self._process = 0
        self._over = threading.Event()

    def begin(self, function: Callable[[], ResultT]) -> asyncio.Future[ResultT]:
        """Call *function* and return the future of its result. To cancel that changes nothing.

        Raises:
            StillRunningError: If the call before has not returned.
        """
        # After a fork the thread is not there, and nobody would say that it is over.
        if self._process == os.getpid() and not self._over.is_set():
            raise StillRunningError
        over = threading.Event()

        def call() -> ResultT:
            try:
                return function()
            finally:
                over.set()

        work = asyncio.get_running_loop().run_in_executor(self._threads, call)
        work.add_done_callback(_retrieve)
        self._process, self._over = os.getpid(), over
        return work


def _retrieve(work: asyncio.Future[ResultT]) -> None:
    # Perhaps nobody waits for it any more, and then what it raised is not worth a warning.
    if not work.cancelled():
        work.exception()
