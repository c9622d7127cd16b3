"""An event loop in a daemon thread, for servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_COMMAND_TIMEOUT_S: Final = 5.0


class ServerThread:
    """Runs coroutines for other threads, one loop for all of them.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._loop is not None

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name=self._name, daemon=True)
        self._thread.start()

    def call(self, order: Coroutine[Any, Any, T]) -> T:
        """Run *order* in the loop, and wait for it.

        Raises:
            RuntimeError: If the thread is not running.
        """
        if self._loop is None:
            order.close()
            raise RuntimeError(f"{self._name} is not running: use it in a `with` statement")
        return asyncio.run_coroutine_threadsafe(order, self._loop).result(_COMMAND_TIMEOUT_S)

    def stop(self) -> None:
        """Cancel what still runs, and end the thread. Called again, it does nothing."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self.call(_cancel_others())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_COMMAND_TIMEOUT_S)
        self._loop = self._thread = None


def bound_socket(port: int) -> socket.socket:
    """Return a socket that holds *port* of loopback, or any free one for 0, without listening."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
