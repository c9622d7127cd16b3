"""A log for what strangers cause: however often it happens, it fills no disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PAUSE_S = 10.0
"""The shortest time between two lines about the same thing."""


class SparingLog:
    """Logs each kind of warning at most once in 10 s, and says how many were left out.

    Args:
        log: A structlog logger.
        clock: Seconds that only grow.
    """

    def __init__(self, log: Any, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, event: str, **values: object) -> None:
        """Log *event*, a constant, or count it."""
        now = self._clock()
        if now < self._next.get(event, now):
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return
        self._next[event] = now + PAUSE_S
        if left_out := self._left_out.pop(event, 0):
            values["left_out"] = left_out
        self._log.warning(event, **values)
