"""What happened lately, for streams that resume. It knows no clients: each keeps its own place.

An event is kept as a few packed bytes, not as an object: with 10 000 tokens there are
several hundred thousand of them, and the garbage collector would look at each.
"""

from __future__ import annotations

import asyncio
import heapq
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import islice, takewhile
from typing import Any

import msgspec

from token_keeper._model import EventKind, TokenEvent, Verdict

KEPT = 1_000
"""Events that are kept, the latest over all tokens."""
KEPT_EACH = 64
"""Events that are kept of each token at least."""

_HEAD = struct.Struct(">Qd")
_FIELDS = tuple(field.name for field in fields(TokenEvent))
_PACK = msgspec.msgpack.Encoder()
_UNPACK = msgspec.msgpack.Decoder()


class EventLog:
    """The latest events of all tokens, numbered 1, 2, 3 ... Only in the event loop.

    A reader keeps the number of the last event that it was given, and asks for what
    came after it. So no reader has a queue here, and none can make the log grow.

    Args:
        start: Names this start; the ids of another one mean nothing here.
        kept: How many events are kept, the latest over all tokens.
        kept_each: How many are kept of each token at least.

    Attributes:
        last: Number of the latest event; 0 before the first.
        is_closed: Nothing will come any more.
    """

    def __init__(self, start: str, *, kept: int = KEPT, kept_each: int = KEPT_EACH) -> None:
        self.start = start
        self._kept = kept
        self._kept_each = kept_each
        self.last = 0
        self.is_closed = False
        # The head of an entry is its number, so that entries sort as they came.
        self._rings: dict[str, deque[bytes]] = {}
        self._recent: deque[tuple[str, bytes]] = deque()
        self._removed: set[str] = set()
        self._dropped: dict[str, int] = {}
        self._dropped_last = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def append(self, event: TokenEvent) -> None:
        """Note *event* and wake who waits for it."""
        self.last += 1
        entry = _packed(self.last, event)
        self._ring_for(event.name).append(entry)
        self._recent.append((event.name, entry))
        if len(self._recent) > self._kept:
            self._trim(self._recent.popleft()[0])
        self._trim(event.name)
        self._wake()

    def forget(self, names: Iterable[str]) -> None:
        """Keep of tokens that were removed no more than what is among the latest of all.

        Whoever waits is woken: a reload is over.
        """
        for name in names:
            if name in self._rings:
                self._removed.add(name)
                self._trim(name)
        self._wake()

    def close(self) -> None:
        """Let streams end. Does nothing the second time."""
        self.is_closed = True
        self._wake()

    def id_of(self, number: int) -> str:
        """Return the id of an event, as streams show it."""
        return f"{self.start}-{number}"

    def number_of(self, event_id: str) -> int | None:
        """Return the number behind the id of an event of this start; None for any other text."""
        start, _, number = event_id.rpartition("-")
        is_number = number.isascii() and number.isdigit() and len(number) <= 18
        if start != self.start or not is_number or int(number) > self.last:
            return None
        return int(number)

    def after(self, number: int, name: str | None = None) -> Iterator[tuple[int, TokenEvent]] | None:
        """Return all that came after *number*, with numbers; None if some of it is kept no more.

        Args:
            number: Of the last event that the reader has.
            name: Of one token; None is all tokens.
        """
        dropped = self._dropped_last if name is None else self._dropped.get(name, self._dropped_last)
        if number < dropped:
            return None
        missing = self.last - number
        if missing <= len(self._recent):
            latest = islice(self._recent, len(self._recent) - missing, None)
            return map(_unpacked, [entry for token, entry in latest if name is None or token == name])
        return self._from(_HEAD.pack(number + 1, 0.0)[:8], name)

    def history(self, since: float, name: str | None = None) -> Iterator[tuple[int, TokenEvent]]:
        """Return what is kept of the time after *since* (Unix seconds), with numbers, in order."""
        rings = self._rings_of(name)
        tails = [list(takewhile(lambda entry: _at(entry) >= since, reversed(ring))) for ring in rings]
        return map(_unpacked, heapq.merge(*(reversed(tail) for tail in tails if tail)))

    async def beyond(self, number: int) -> None:
        """Wait until there is an event after *number*, a reload is over, or nothing comes any more."""
        if self.last > number or self.is_closed:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _from(self, head: bytes, name: str | None) -> Iterator[tuple[int, TokenEvent]]:
        # Taken at once: what is dropped while the reader reads is not lost to it.
        rings = [ring for ring in self._rings_of(name) if ring[-1] >= head]
        tails = [list(takewhile(lambda entry: entry >= head, reversed(ring))) for ring in rings]
        return map(_unpacked, heapq.merge(*(reversed(tail) for tail in tails)))

    def _rings_of(self, name: str | None) -> list[deque[bytes]]:
        if name is None:
            return list(self._rings.values())
        return [self._rings[name]] if name in self._rings else []

    def _ring_for(self, name: str) -> deque[bytes]:
        if name not in self._rings:
            self._rings[name] = deque()
            # It may be back after a reload; what it had before is kept no more.
            self._dropped[name] = self._dropped_last
            self._removed.discard(name)
        return self._rings[name]

    def _trim(self, name: str) -> None:
        ring = self._rings.get(name)
        if ring is None:
            return
        keep = 0 if name in self._removed else self._kept_each
        oldest = self.last - len(self._recent) + 1
        while len(ring) > keep and (number := _number(ring[0])) < oldest:
            ring.popleft()
            self._dropped[name] = number
            self._dropped_last = max(self._dropped_last, number)
        if not ring:
            del self._rings[name], self._dropped[name]
            self._removed.discard(name)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


def _packed(number: int, event: TokenEvent) -> bytes:
    return _HEAD.pack(number, event.at) + _PACK.encode([getattr(event, name) for name in _FIELDS])


def _unpacked(entry: bytes) -> tuple[int, TokenEvent]:
    values: dict[str, Any] = dict(zip(_FIELDS, _UNPACK.decode(entry[_HEAD.size :]), strict=True))
    values["kind"] = EventKind(values["kind"])
    values["diagnosis"] = tuple(values["diagnosis"])
    if values["verdict"] is not None:
        values["verdict"] = Verdict(values["verdict"])
    return _number(entry), TokenEvent(**values)


def _number(entry: bytes) -> int:
    return int.from_bytes(entry[:8], "big")


def _at(entry: bytes) -> float:
    return float(_HEAD.unpack_from(entry)[1])
