"""A file that will be a record: it takes its room on the disk before there is anything to write."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import suppress
from typing import Final

from token_keeper.sinks._replace import TEMPORARY, TRIES
from token_keeper.store._format import ROOM

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CANNOT: Final = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class Temporary:
    """A file beside the records, locked so that no sweep takes it for a killed run's.

    Args:
        directory: Its descriptor, which stays the caller's.
        name: Its own.
        file: The descriptor of the file.
    """

    def __init__(self, directory: int, name: str, file: int) -> None:
        self._directory = directory
        self._name = name
        self._file: int | None = file

    def become(self, file: str, content: bytes) -> OSError | None:
        """Replace *file* by one with *content*, or return why not: then *file* is as it was."""
        assert self._file is not None, "it can become one record"  # noqa: S101 - our own invariant
        try:
            # Shortened first: what is left of the room stays ours.
            os.ftruncate(self._file, len(content))
            with os.fdopen(self._file, "wb", closefd=False) as out:
                out.write(content)
            os.fsync(self._file)
            os.replace(self._name, file, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError as error:
            self.drop()
            # Its frames hold the content.
            return error.with_traceback(None)
        self.leave()
        return None

    def drop(self) -> None:
        """Remove it, unless it has become a record."""
        if self._file is not None:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._directory)
        self.leave()

    def leave(self) -> None:
        """Close it where it is: as a record, or as a file of the parent process."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def made_temporary(directory: int) -> Temporary:
    """Return a new file in *directory*, a descriptor, with room for any record.

    Raises:
        OSError: If there is no room for it. Nothing is left of it.
    """
    for _ in range(TRIES):
        name = f"{TEMPORARY}{secrets.token_hex(8)}.tmp"
        file = os.open(name, _NEW, 0o600, dir_fd=directory)
        temporary = Temporary(directory, name, file)
        try:
            if _is_locked(file):
                os.fchmod(file, 0o600)
                _take_room(file)
                return temporary
        except BaseException:
            temporary.drop()
            raise
        temporary.leave()
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _is_locked(file: int) -> bool:
    """Lock it against sweeps; return False if one was faster."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(file).st_nlink > 0


def _take_room(file: int) -> None:
    try:
        os.posix_fallocate(file, 0, ROOM)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        # Not every C library does this itself where the file system cannot.
        os.write(file, bytes(ROOM))
        os.lseek(file, 0, os.SEEK_SET)
