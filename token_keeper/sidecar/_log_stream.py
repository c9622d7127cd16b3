"""Where log lines go: a descriptor that may be full, broken, or read by nobody.

Whatever becomes of the lines, tokens are served: nothing here raises or waits for a reader.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

PIECE = 4_096
"""Bytes that a pipe takes at once if it says that it takes any (Linux: PIPE_BUF)."""
PATIENCE_S = 0.1
"""How long the rest of a line may wait for room. Its beginning waits for none."""


class LogStream:
    """Writes lines to a descriptor, as structlog asks for it.

    A line for which there is no room is lost. Before the next one that gets through
    stands how many were.

    Args:
        descriptor: Where to write. Its flags are left alone: others may hold it too.
        told: Makes the line that says how many were lost.
    """

    def __init__(self, descriptor: int, told: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._told = told
        self._lock = threading.Lock()
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        self._lost = 0
        self._is_torn = False

    def msg(self, message: str) -> None:
        """Write *message* as a line, or lose it."""
        with self._lock:
            if self._lost and self._writes(self._told(self._lost)):
                self._lost = 0
            if self._lost or not self._writes(message):
                self._lost += 1

    debug = info = warning = error = critical = msg

    def _writes(self, line: str) -> bool:
        """Whether all of *line* was written."""
        text = ("\n" if self._is_torn else "") + line + "\n"
        rest = memoryview(text.encode(errors="backslashreplace"))
        whole = len(rest)
        try:
            while rest:
                if not self._room.poll(0 if len(rest) == whole else PATIENCE_S * 1000):
                    break
                rest = rest[os.write(self._descriptor, rest[:PIECE]) :]
        except OSError:
            # The disk is full, or whoever read this is gone. There is nobody to tell.
            pass
        if len(rest) < whole:
            self._is_torn = bool(rest)
        return not rest

    def __repr__(self) -> str:
        return f"<LogStream {self._descriptor}>"
