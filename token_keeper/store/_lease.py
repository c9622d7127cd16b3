"""The right to change one record of a directory, and how it is read and replaced."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from token_keeper import _fork as fork
from token_keeper._errors import StoreError
from token_keeper.sinks._replace import sync_directory
from token_keeper.store._files import envelope_in, failed
from token_keeper.store._format import written
from token_keeper.store._keys import Alone, Keys
from token_keeper.store._lock import unlock
from token_keeper.store._record import Record
from token_keeper.store._seal import Seal
from token_keeper.store._temporary import Temporary, made_temporary


@dataclass(frozen=True, slots=True)
class Grant:
    """The files of one grant."""

    directory: str
    name: str

    @property
    def file(self) -> str:
        """The name of the record."""
        return f"{self.name}.grant"

    @property
    def lock(self) -> str:
        """The name of the file that is locked. It stays when the record goes."""
        return f"{self.name}.lock"

    @property
    def place(self) -> str:
        """The path of the record."""
        return os.path.join(self.directory, self.file)  # noqa: PTH118 - A text, for messages.


def read_record(directory: int, grant: Grant, opening: Callable[[], Seal] | None) -> Record | None:
    """Return the record of *grant* in the open *directory*, or None if there is none.

    Raises:
        StoreError: If what is there is not it, or cannot be read.
    """
    envelope = envelope_in(directory, grant.file)
    if envelope is None:
        return None
    if isinstance(envelope, str):
        raise StoreError(grant.place, envelope)
    seal = opening() if envelope.is_sealed and opening is not None else None
    record = envelope.record(grant.name, seal)
    if isinstance(record, str):
        raise StoreError(grant.place, record)
    return record


class DirectoryLease:
    """A `Lease` on a record in a directory.

    Args:
        grant: Whose record it is.
        keys: Of the store, if it is sealed.
        alone: For keys that we make.
        directory: A descriptor, which becomes the lease's.
        lock: The descriptor of the locked file, which becomes the lease's.
    """

    def __init__(self, grant: Grant, *, keys: Keys | None, alone: Alone, directory: int, lock: int) -> None:
        self._grant = grant
        self._keys = keys
        self._alone = alone
        self._descriptors: tuple[int, int] | None = (directory, lock)
        self._reserved: deque[Temporary] = deque()
        self._seal: Seal | None = None
        self._is_replaceable = False
        self._turn = threading.Lock()
        fork.watch(self)

    def read(self) -> Record | None:
        """As `Lease.read`."""
        with self._turn:
            return self._read()

    def reserve(self) -> None:
        """As `Lease.reserve`."""
        with self._turn:
            directory = self._directory()
            self._prepare()
            try:
                self._reserved.append(made_temporary(directory))
            except OSError as error:
                raise self._failed("has no room for a new token", error) from error

    def write(self, record: Record) -> None:
        """As `Lease.write`."""
        with self._turn:
            directory = self._directory()
            self._prepare()
            problem = self._put(directory, record)
            if problem is not None:
                raise problem

    def remove(self) -> None:
        """As `Lease.remove`."""
        with self._turn:
            directory = self._directory()
            self._check_replaceable()
            try:
                with suppress(FileNotFoundError):
                    os.unlink(self._grant.file, dir_fd=directory)
                sync_directory(directory)
            except OSError as error:
                raise self._failed("was not removed", error) from error

    def release(self) -> None:
        """As `Lease.release`."""
        with self._turn:
            descriptors, self._descriptors = self._descriptors, None
            if descriptors is None:
                return
            while self._reserved:
                self._reserved.popleft().drop()
            directory, lock = descriptors
            unlock(lock)
            os.close(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        # Whoever was cancelled before it got the lease would keep all others from it.
        self.release()

    def _after_fork(self) -> None:
        """Close what the parent opened: without that, its lock would outlive it in the child."""
        self._turn = threading.Lock()
        descriptors, self._descriptors = self._descriptors, None
        for temporary in self._reserved:
            temporary.leave()
        self._reserved.clear()
        for descriptor in descriptors or ():
            os.close(descriptor)

    def _directory(self) -> int:
        if self._descriptors is None:
            raise StoreError(
                self._grant.place, "was not touched: the right to change it was given back. Take it again"
            )
        return self._descriptors[0]

    def _read(self) -> Record | None:
        self._is_replaceable = False
        found = read_record(self._directory(), self._grant, self._opening if self._keys else None)
        self._is_replaceable = True
        return found

    def _opening(self) -> Seal:
        assert self._keys is not None, "asked for with keys only"  # noqa: S101 - our own invariant
        return self._seal or self._keys.opening()

    def _prepare(self) -> None:
        """Do now what could fail later, when a token was spent: look what is there, and get the key."""
        self._check_replaceable()
        if self._keys is not None and self._seal is None:
            self._seal = self._keys.sealing(self._alone)

    def _check_replaceable(self) -> None:
        """What cannot be read is not replaced: it may be worth more than what we have."""
        if not self._is_replaceable:
            self._read()

    def _put(self, directory: int, record: Record) -> StoreError | None:
        """Replace the record, and return what went wrong: a raised error would show the content."""
        content = written(record, self._grant.name, self._seal)
        if isinstance(content, str):
            return StoreError(self._grant.place, content)
        try:
            temporary = self._reserved.popleft() if self._reserved else made_temporary(directory)
        except OSError as error:
            return self._failed("was not written", error)
        problem = temporary.become(self._grant.file, content)
        return self._failed("was not written", problem) if problem else self._synced(directory)

    def _synced(self, directory: int) -> StoreError | None:
        try:
            sync_directory(directory)
        except OSError as error:
            return StoreError(
                self._grant.place,
                f"was written, but its directory could not be synced: {os.strerror(error.errno or 0)}. "
                "A power cut may bring back what it held before; check the device",
            )
        return None

    def _failed(self, happened: str, error: OSError) -> StoreError:
        return failed(self._grant.place, happened, error, self._grant.directory)
