"""A clock that moves only when it is told to."""

from __future__ import annotations

import math

_NS = 1_000_000_000


class VirtualClock:
    """Three clocks in the hands of a test.

        clock = VirtualClock()
        clock.advance(3600)   # an hour passes
        clock.suspend(3600)   # an hour passes while the machine sleeps
        clock.step_wall(-60)  # somebody sets the clock back by a minute

    Args:
        now: What the wall clock shows at first, in Unix seconds.
        boot: What the boot clock shows at first, in seconds.
    """

    __slots__ = ("_asleep_ns", "_awake_ns", "_offset_ns")

    def __init__(self, now: float = 1_700_000_000.0, *, boot: float = 1_000.0) -> None:
        # Whole nanoseconds: a year of steps adds up without drifting apart.
        self._awake_ns = _ns(boot)
        self._asleep_ns = 0
        self._offset_ns = _ns(now) - _ns(boot)

    def wall(self) -> float:
        """Return Unix seconds."""
        return (self._awake_ns + self._asleep_ns + self._offset_ns) / _NS

    def boot(self) -> float:
        """Return seconds since the virtual start, suspends included."""
        return (self._awake_ns + self._asleep_ns) / _NS

    def monotonic(self) -> float:
        """Return seconds since the virtual start, suspends left out."""
        return self._awake_ns / _NS

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on all three clocks."""
        self._awake_ns += _forward(seconds)

    def suspend(self, seconds: float) -> None:
        """Let *seconds* pass in suspend: the wall and boot clocks move, `monotonic` does not."""
        self._asleep_ns += _forward(seconds)

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock by *seconds*, forward or back. The other two do not move.

        A paused virtual machine looks the same: its boot clock stood still.
        """
        self._offset_ns += _ns(seconds)

    def advance_to(self, monotonic: float) -> None:
        """Advance until `monotonic()` is *monotonic*, and never less. The past is ignored."""
        while (missing := monotonic - self.monotonic()) > 0:
            self._awake_ns += max(1, math.ceil(missing * _NS))

    def __repr__(self) -> str:
        return (
            f"<VirtualClock wall={self.wall():.3f} boot={self.boot():.3f} monotonic={self.monotonic():.3f}>"
        )


def _ns(seconds: float) -> int:
    return round(seconds * _NS)


def _forward(seconds: float) -> int:
    if seconds < 0:
        raise ValueError(
            f"time passes forward only, not by {seconds:g} s; step_wall() sets the wall clock back"
        )
    return _ns(seconds)
