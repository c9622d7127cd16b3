"""Which fetches may run now: few at once, the most urgent first, no backend takes them all."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

SLOTS = 8
"""Fetches at once. More make httpx slower, not faster."""
SLOTS_PER_ORIGIN = 4
TIMEOUTS_UNTIL_NARROW = 3
"""After so many timeouts in a row an origin has one slot until it answers."""


_Waiter = tuple[float, int, str, asyncio.Future[None]]
"""Urgency, turn, origin, and what is done when the slot is granted."""


class Slots:
    """A fair allotment of fetches. Belongs to one event loop.

    Args:
        total: Fetches at once.
        per_origin: Of these, for one backend.
    """

    def __init__(self, total: int = SLOTS, per_origin: int = SLOTS_PER_ORIGIN) -> None:
        self._total = total
        self._per_origin = per_origin
        self._busy: Counter[str] = Counter()
        self._timeouts: Counter[str] = Counter()
        self._waiting: list[_Waiter] = []
        self._parked: dict[str, list[_Waiter]] = {}
        self._order = count()

    @asynccontextmanager
    async def slot(self, origin: str, urgency: float) -> AsyncIterator[None]:
        """Wait for a slot and hold it. The least *urgency*, such as an expiry, goes first."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._order), origin, granted))
        self._grant()
        try:
            await granted
            yield
        finally:
            if granted.done() and not granted.cancelled():
                self._busy[origin] -= 1
                if not self._busy[origin]:
                    del self._busy[origin]
            granted.cancel()
            self._unpark(origin)
            self._grant()

    def answered(self, origin: str, *, timed_out: bool) -> None:
        """Note how a fetch ended: silence narrows what its origin may take."""
        if timed_out:
            self._timeouts[origin] += 1
        else:
            self._timeouts.pop(origin, None)
            self._unpark(origin)

    def _grant(self) -> None:
        while self._waiting and self._busy.total() < self._total:
            waiter = heapq.heappop(self._waiting)
            _, _, origin, granted = waiter
            if granted.done():
                continue
            if self._busy[origin] < self._limit(origin):
                self._busy[origin] += 1
                granted.set_result(None)
            else:
                # Out of the way until its origin has room: thousands may wait for one that is slow.
                heapq.heappush(self._parked.setdefault(origin, []), waiter)

    def _unpark(self, origin: str) -> None:
        """Let as many wait among all again as *origin* has room for, the most urgent first."""
        parked = self._parked.get(origin, [])
        room = self._limit(origin) - self._busy[origin]
        while parked and room > 0:
            waiter = heapq.heappop(parked)
            if not waiter[3].done():
                heapq.heappush(self._waiting, waiter)
                room -= 1
        if not parked:
            self._parked.pop(origin, None)

    def _limit(self, origin: str) -> int:
        return 1 if self._timeouts[origin] >= TIMEOUTS_UNTIL_NARROW else self._per_origin
