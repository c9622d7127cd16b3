"""All open connections: how many there may be, of which kind, and for how long.

Deadlines are kept as plain numbers and looked at once a second. A timer for
each request would cost more than the request.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

SWEEP_S = 1.0
"""How often deadlines are looked at."""
FIRST_S = 10.0
"""How long a new connection may say nothing."""
HEAD_S = 10.0
"""How long the head of a request may take from its first byte on."""
BODY_S = 10.0
"""How long the body may take."""
IDLE_S = 75.0
"""How long a connection may rest between requests."""
BLOCKED_S = 10.0
"""How long a client may read nothing of what we have for it."""
LINGER_S = 2.0
"""How long a client that was refused may take to notice."""
TOLD_MAX = 16
"""Connections beyond the limit that are told so. More are cut off: their files are for fetches and sinks."""
RESERVED = 4
"""Connections that only health probes get."""
RESERVED_S = 2.0
"""How long such a connection may say nothing."""
NEVER = math.inf


class Deadlines:
    """When things have to be over on one connection, in seconds of the crowd's clock."""

    __slots__ = ("closed", "idle", "read", "written")

    def __init__(self) -> None:
        self.read = NEVER
        self.idle = NEVER
        self.written = NEVER
        self.closed = NEVER

    def earliest(self) -> float:
        """Return the next one."""
        return min(self.read, self.idle, self.written, self.closed)

    def only_close(self, at: float) -> None:
        """Forget all but that it has to be closed *at* that moment."""
        self.read = self.idle = self.written = NEVER
        self.closed = at


class Guest(Protocol):
    """A connection, as far as it is counted."""

    is_stranger: bool

    @property
    def resting_since(self) -> float | None:
        """Since when it asks for nothing; None if it does."""
        ...

    def due(self) -> float:
        """Return when it has to end, in seconds of the crowd's clock."""
        ...

    def expire(self) -> None:
        """End it: its time is over."""
        ...

    def drop(self) -> None:
        """End it at once: its place is needed."""
        ...


class Crowd:
    """Counts connections and ends those whose time is over.

    Args:
        limit: Connections at once, over all listeners.
        clock: Seconds that only grow.

    Attributes:
        now: What *clock* said lately, at most a second ago.
        guests: Every open connection, the oldest first.
        streams: Requests under way that may take their time.
        is_closing: No request is answered any more.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = max(limit, 2 * RESERVED)
        self.streams_max = self.limit // 2
        self.strangers_max = self.limit // 4
        self._clock = clock
        self.now = clock()
        self.guests: dict[Any, None] = {}
        self._strangers: dict[Any, None] = {}
        self.streams = 0
        self.is_closing = False

    @property
    def is_full(self) -> bool:
        """Whether only the reserved connections are left."""
        return len(self.guests) > self.limit - RESERVED

    @property
    def is_overrun(self) -> bool:
        """Whether there is no room even for who is told that there is none."""
        return len(self.guests) > self.limit + TOLD_MAX

    def enter(self, guest: Guest) -> bool:
        """Count *guest* in. Returns whether there is room at all.

        The oldest stranger makes room for another one, and whoever rests longest for anybody.
        """
        self.now = self._clock()
        self.guests[guest] = None
        if guest.is_stranger:
            self._strangers[guest] = None
            if len(self._strangers) > self.strangers_max:
                next(iter(self._strangers)).drop()
        if self.is_full:
            self._make_room()
        return len(self.guests) <= self.limit

    def leave(self, guest: object) -> None:
        """Count *guest* out. Does nothing the second time."""
        self.guests.pop(guest, None)
        self._strangers.pop(guest, None)

    def know(self, guest: object) -> None:
        """Note that *guest* has shown a key: it is no stranger any more."""
        self._strangers.pop(guest, None)

    def sweep(self) -> None:
        """End whatever is overdue."""
        self.now = self._clock()
        for guest in [one for one in self.guests if one.due() <= self.now]:
            guest.expire()

    def _make_room(self) -> None:
        since = {one: one.resting_since for one in self.guests}
        resting = {one: at for one, at in since.items() if at is not None and self.now - at >= SWEEP_S}
        if resting:
            min(resting, key=resting.__getitem__).drop()
