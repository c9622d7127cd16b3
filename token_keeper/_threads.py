"""Threads for what blocks. They are daemons: one that hangs never holds up the end of the interpreter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

ResultT = TypeVar("ResultT")


class DaemonThreads(ThreadPoolExecutor):
    """A fresh daemon thread for each job, such as a look-up of a host name.

    The interpreter waits at its end for the threads of a pool, so that a name
    server that hangs would hold it up.

    Args:
        name: Of each thread.
    """

    def __init__(self, name: str) -> None:
        super().__init__(max_workers=1)
        self._name = name

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        future: Future[ResultT] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - the caller gets it, as from any executor
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=work, name=self._name, daemon=True).start()
        return future


_disk: Final = DaemonThreads("token_keeper disk")


async def in_thread(function: Callable[..., ResultT], *args: Any) -> ResultT:
    """Call a *function* that blocks, in a thread. Whoever is cancelled meanwhile first waits for its end.

    So nobody undoes beside it what it is just doing.
    """
    work = asyncio.get_running_loop().run_in_executor(_disk, function, *args)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
