"""What a source may expect of a store. Everything here blocks, and is safe from any thread."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from token_keeper.store._record import Record


class Lease(Protocol):
    """The right to change one record, until it is released. Whoever dies has released it."""

    def read(self) -> Record | None:
        """Return what is remembered, or None if there is nothing.

        Raises:
            StoreError: If what is there cannot be read, or is not ours.
        """
        ...

    def reserve(self) -> None:
        """Make sure that one more `write` finds room, whatever others write meanwhile.

        Each call is for one `write`: who will write a mark and then an answer calls it twice
        before the mark. What is not used ends with the lease.

        Raises:
            StoreError: If there is none.
        """
        ...

    def write(self, record: Record) -> None:
        """Remember *record*: when this returns, it survives a power cut. Whole or not at all.

        Raises:
            StoreError: If it cannot be written. What was remembered before still is.
        """
        ...

    def remove(self) -> None:
        """Forget it.

        Raises:
            StoreError: If it cannot be removed.
        """
        ...

    def release(self) -> None:
        """Let others change it. Does nothing the second time."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Slot(Protocol):
    """Where one record is."""

    @property
    def place(self) -> str:
        """What messages call it: the path of its file."""
        ...

    @property
    def path(self) -> Path | None:
        """The file to watch for what others write, if there is one."""
        ...

    def read(self) -> Record | None:
        """As `Lease.read`, without the right to change it: it may be old a moment later."""
        ...

    def try_lease(self) -> Lease | None:
        """Return the right to change it, or None if somebody has it. Never waits for them.

        Raises:
            StoreError: If that cannot be told.
        """
        ...

    def holder(self) -> str:
        """Say who seems to have the right now, such as ``process 4711``; empty if that is not known."""
        ...


class Store(Protocol):
    """Where grants are remembered."""

    def slot(self, name: str) -> Slot:
        """Return where the grant *name* is. Touches nothing.

        Raises:
            ConfigError: If it is no name: ``[A-Za-z0-9][A-Za-z0-9._-]{0,63}``.
        """
        ...
