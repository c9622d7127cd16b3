"""Where the time comes from: three clocks that go apart when a machine sleeps or is set.

Nothing here decides. `token_keeper.testing.VirtualClock` is the other implementation.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class Clock(Protocol):
    """Three readings of one moment. Each is called without arguments and never blocks."""

    def wall(self) -> float:
        """Return Unix seconds, as this machine believes. May be set, forward or back."""
        ...

    def boot(self) -> float:
        """Return seconds that only grow and pass in suspend too. Deadlines use these."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow and stand still in suspend. Event loops use these."""
        ...


class SystemClock:
    """The clocks of this machine.

    Each attribute is a C function without a Python frame around it: a
    keeper reads `boot` at every read of its token. Where the system has no
    clock that runs in suspend, `boot` is `monotonic`.
    """

    __slots__ = ()

    wall = staticmethod(time.time)
    boot = staticmethod(time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME))
    monotonic = staticmethod(time.monotonic)
