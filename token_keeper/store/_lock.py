"""Whose turn it is: a lock on a file, which the kernel frees when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from token_keeper._errors import StoreError
from token_keeper.sinks._replace import TRIES
from token_keeper.store._files import failed, not_opened, not_private

_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_ITS_OWN: Final = {errno.EACCES, errno.ELOOP, errno.EISDIR}
_MOST_TOLD: Final = 512
_STARTED: Final = 19
"""Which word of `/proc/PID/stat` after the name says when it started (proc_pid_stat(5), field 22)."""


def locked(directory: int, file: str, place: str, *, wait: bool = False) -> int | None:
    """Lock *file*, which is made if it is missing, and return its descriptor; None if somebody has it.

    It is opened afresh each time: so two who ask in one process exclude each other, too.

    Args:
        directory: The descriptor of the directory that it is in.
        file: Its name there.
        place: Its path, for messages.
        wait: Whether to wait for whoever has it.

    Raises:
        StoreError: If it cannot be locked.
    """
    for _ in range(TRIES):
        descriptor = _opened(directory, file, place)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_there(directory, file, descriptor):
                _tell(descriptor)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise failed(place, "cannot be locked", error, os.path.split(place)[0]) from error
        os.close(descriptor)
    raise StoreError(
        place,
        "cannot be locked: its file system has no locks, or somebody removes it. Nothing was changed; "
        "put the store on a local disk",
    )


def unlock(descriptor: int) -> None:
    """Let others have it."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
    # A child that was forked just now may have the descriptor, too: closing ours would not be enough.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def holder_of(directory: int, file: str) -> str:
    """Return who says in *file* to have it, if that process lives or is another machine's; else nothing."""
    try:
        descriptor = os.open(file, _LOOK, dir_fd=directory)
    except OSError:
        return ""
    try:
        words = os.read(descriptor, _MOST_TOLD).decode("ascii", "replace").split()
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    if len(words) != 3 or not words[0].isdigit() or not words[2].isprintable():
        return ""
    process, started, machine = words
    if machine != os.uname().nodename:
        return f"process {process} on {machine}"
    return f"process {process}" if _start_of(process) == started else ""


def _opened(directory: int, file: str, place: str) -> int:
    try:
        descriptor = os.open(file, _OPEN, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno in _ITS_OWN and _inode(directory, file) is not None:
            raise StoreError(place, not_opened(directory, file, error)) from error
        raise failed(place, "cannot be opened", error, os.path.split(place)[0]) from error
    try:
        problem = not_private(descriptor)
    except OSError as error:
        problem = f"cannot be read: {os.strerror(error.errno or 0)}"
    if problem:
        os.close(descriptor)
        raise StoreError(place, problem)
    return descriptor


def _is_there(directory: int, file: str, descriptor: int) -> bool:
    """Whether the open file is still the one with that name: somebody may have removed it meanwhile."""
    found = _inode(directory, file)
    return found is not None and os.path.samestat(found, os.fstat(descriptor))


def _inode(directory: int, file: str) -> os.stat_result | None:
    try:
        return os.stat(file, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None


def _tell(descriptor: int) -> None:
    # Only for people: a full disk is no reason to fail.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        who = f"{os.getpid()} {_start_of('self')} {os.uname().nodename}\n"
        os.pwrite(descriptor, who.encode("ascii", "replace"), 0)


def _start_of(process: str) -> str:
    """Return when *process* started: that tells it from a later one with its number."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "-"
    return status.rpartition(")")[2].split()[_STARTED]
