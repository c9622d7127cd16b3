"""Replaces a file so that a reader at any moment finds the old content or the new, whole and with its mode.

Everything after the opening of the directory goes by its descriptor: whoever swaps
the path meanwhile does not lead us elsewhere. The path of the directory is the operator's and may
hold symbolic links, as `/var/run` does. The file's own name is never followed: a link there is replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

from token_keeper.sinks._reasons import NotWritten, not_a_file, not_given, not_synced, not_written

TEMPORARY = ".token-keeper."
"""Temporary files begin with this, whatever the file's own name: that may be as long as names can be."""
MAX_SWEPT = 10_000
"""Entries of a directory that are looked at for what a killed run left."""
TRIES = 3
"""How often a temporary file may vanish before that is somebody else's doing."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LEFT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def replace_file(
    path: str, content: bytes, *, mode: int = 0o600, owner: int | None = None, group: int | None = None
) -> None:
    """Replace the file at *path* by one that holds *content*. Blocks; safe from any thread.

    The mode does not depend on the umask. Without *owner* and *group* the file belongs to whom
    the system gives it: us, and in a directory with the setgid bit that directory's group.

    Args:
        path: Absolute.
        content: All of the file.
        mode: Permission bits.
        owner: A uid, or None.
        group: A gid, or None.

    Raises:
        NotWritten: If it could not be replaced. No temporary file is left.
    """
    problem = _replaced(path, content, _Looks(mode, owner, group))
    del content  # A traceback shows the locals of its frames.
    if problem is not None:
        raise problem


def sweep(directory: str, uids: frozenset[int] = frozenset()) -> int:
    """Remove the temporary files that a killed run left in *directory*. Returns how many.

    Those that a living process writes just now are locked, and stay.

    Args:
        directory: Where to look.
        uids: To whom such a file may belong besides us: the owners of sinks.
    """
    removed = 0
    with suppress(OSError), _opened(directory) as fd, os.scandir(fd) as entries:
        for entry in islice(entries, MAX_SWEPT):
            if entry.name.startswith(TEMPORARY):
                removed += _removed_if_left(fd, entry.name, uids | {os.geteuid()})
    return removed


@dataclass(frozen=True, slots=True)
class _Looks:
    """Mode, owner and group of the new file."""

    mode: int
    owner: int | None
    group: int | None


class _Swept(OSError):
    """A sweep removed the temporary file: it came between its making and its lock."""


class _NotGiven(OSError):
    """The file cannot be given to its owner or group."""


class _NotSynced(OSError):
    """The file was replaced, but the directory may forget it in a power cut."""


def _replaced(path: str, content: bytes, looks: _Looks) -> NotWritten | None:
    """Replace the file. Returns what went wrong: a raised error would show *content*."""
    directory, name = os.path.split(path)
    try:
        with _opened(directory) as fd:
            if what := _irreplaceable(fd, name):
                return not_a_file(path, what)
            problem: OSError | None = None
            for _ in range(TRIES):
                problem = _exchanged(fd, name, content, looks)
                if not isinstance(problem, _Swept):
                    break
            if problem is not None:
                return _in_words(path, problem, looks)
            sync_directory(fd)
    except OSError as error:
        return _in_words(path, error, looks)
    except ValueError:
        return NotWritten(f"{path!r} was not written: no path looks like this. Correct it")
    return None


def _in_words(path: str, error: OSError, looks: _Looks) -> NotWritten:
    if isinstance(error, _NotGiven):
        return not_given(path, error, looks.owner, looks.group)
    return not_synced(path, error) if isinstance(error, _NotSynced) else not_written(path, error)


def _exchanged(directory: int, name: str, content: bytes, looks: _Looks) -> OSError | None:
    """Write a temporary file and move it over *name*. If that fails nothing is left of it."""
    temporary = f"{TEMPORARY}{secrets.token_hex(8)}.tmp"
    # Made for us alone: until the mode is set nobody else can open it.
    file = os.open(temporary, _NEW, 0o600, dir_fd=directory)
    try:
        _fill(file, content, looks)
        _move(temporary, name, directory)
    except OSError as error:
        _remove(temporary, directory)
        return error.with_traceback(None)
    except BaseException:
        _remove(temporary, directory)
        raise
    finally:
        os.close(file)
    return None


def _move(temporary: str, name: str, directory: int) -> None:
    try:
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except FileNotFoundError as error:
        raise _Swept(error.errno, os.strerror(error.errno or 0)) from None


def _fill(file: int, content: bytes, looks: _Looks) -> None:
    # Tells a sweep that this one is alive. Some network file systems have no locks.
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _give(file, looks.owner, looks.group)
    # After the owner: changing that clears bits of the mode.
    os.fchmod(file, looks.mode)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fsync(file)


def _remove(temporary: str, directory: int) -> None:
    with suppress(OSError):
        os.unlink(temporary, dir_fd=directory)


def _give(file: int, owner: int | None, group: int | None) -> None:
    if owner is None and group is None:
        return
    try:
        os.fchown(file, -1 if owner is None else owner, -1 if group is None else group)
    except OSError as error:
        raise _NotGiven(error.errno, os.strerror(error.errno or 0)) from None


def _irreplaceable(directory: int, name: str) -> str:
    """Say what stands in the place of the file if it must not be replaced, else nothing."""
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        return ""
    return "a directory" if stat.S_ISDIR(mode) else "a device, socket or pipe"


def sync_directory(directory: int) -> None:
    """Make what was renamed in *directory*, a descriptor, survive a power cut.

    Raises:
        OSError: If that is not sure.
    """
    try:
        os.fsync(directory)
    except OSError as error:
        # Some network file systems cannot do this to a directory; the file itself is safe.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise _NotSynced(error.errno, os.strerror(error.errno or 0)) from None


def _removed_if_left(directory: int, name: str, uids: frozenset[int]) -> bool:
    try:
        file = os.open(name, _LEFT, dir_fd=directory)
    except OSError:
        return False
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in uids:
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = os.open(directory or "/", _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
