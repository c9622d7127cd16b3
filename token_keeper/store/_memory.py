"""Grants that are forgotten when the process ends."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from token_keeper import _fork as fork
from token_keeper._errors import StoreError
from token_keeper.store._names import checked_name
from token_keeper.store._record import Record


@dataclass(slots=True)
class _Kept:
    """What one store holds."""

    records: dict[str, Record] = field(default_factory=dict, repr=False)
    leased: set[str] = field(default_factory=set)
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False)
    is_inherited: bool = False


class MemoryStore:
    """Remember grants until the process ends: for tests, and for what may be lost.

        source = OAuth2Source(url, grant="device_code", store=MemoryStore(), stored_as="chat", ...)

    Safe between threads. A forked child cannot use what its parent stored: both would
    spend the same refresh tokens.
    """

    def __init__(self) -> None:
        self._kept = _Kept()
        fork.watch(self)

    def slot(self, name: str) -> MemorySlot:
        """As `Store.slot`."""
        return MemorySlot(self, checked_name(name))

    def _after_fork(self) -> None:
        """Start anew if there was nothing; else refuse: its grants are the parent's."""
        before = self._kept
        self._kept = _Kept(is_inherited=before.is_inherited or bool(before.records or before.leased))


class MemorySlot:
    """Where one grant of a `MemoryStore` is.

    Args:
        store: Whose it is.
        name: Of the grant.
    """

    path: Path | None = None

    def __init__(self, store: MemoryStore, name: str) -> None:
        self._store = store
        self._name = name

    @property
    def place(self) -> str:
        """As `Slot.place`."""
        return f"memory ({self._name})"

    def read(self) -> Record | None:
        """As `Slot.read`."""
        return self._kept().records.get(self._name)

    def try_lease(self) -> MemoryLease | None:
        """As `Slot.try_lease`."""
        kept = self._kept()
        with kept.turn:
            if self._name in kept.leased:
                return None
            kept.leased.add(self._name)
        return MemoryLease(kept, self._name, self.place)

    def holder(self) -> str:
        """As `Slot.holder`."""
        return f"process {os.getpid()}" if self._name in self._kept().leased else ""

    def _kept(self) -> _Kept:
        kept = self._store._kept  # noqa: SLF001 - one thing in two classes
        if kept.is_inherited:
            raise StoreError(
                self.place,
                "cannot be used after a fork: its grants are the parent's, which goes on with them. "
                "Make the store in the child, or share a DirectoryStore",
            )
        return kept


class MemoryLease:
    """A `Lease` on a record in memory.

    Args:
        kept: What the store holds.
        name: Of the grant.
        place: What messages call it.
    """

    def __init__(self, kept: _Kept, name: str, place: str) -> None:
        self._kept: _Kept | None = kept
        self._name = name
        self._place = place
        fork.watch(self)

    def read(self) -> Record | None:
        """As `Lease.read`."""
        return self._held().records.get(self._name)

    def reserve(self) -> None:
        """As `Lease.reserve`."""
        self._held()

    def write(self, record: Record) -> None:
        """As `Lease.write`."""
        self._held().records[self._name] = record

    def remove(self) -> None:
        """As `Lease.remove`."""
        self._held().records.pop(self._name, None)

    def release(self) -> None:
        """As `Lease.release`."""
        kept, self._kept = self._kept, None
        if kept is not None:
            with kept.turn:
                kept.leased.discard(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def _after_fork(self) -> None:
        self._kept = None

    def _held(self) -> _Kept:
        if self._kept is None:
            raise StoreError(
                self._place, "was not touched: the right to change it was given back. Take it again"
            )
        return self._kept
