"""Why a file could not be written, in words, with what to do. Knows errno, but no token."""

from __future__ import annotations

import errno
import os

_REMEDIES = {
    errno.ENOENT: "create the directory {directory}",
    errno.ENOTDIR: "{directory} must be a directory",
    errno.EACCES: "let uid {uid} write, read and search the directory {directory}",
    errno.EPERM: "let uid {uid} replace files in the directory {directory}",
    errno.EROFS: "make the file system of {directory} writable, or choose another directory",
    errno.ENOSPC: "make room on the file system of {directory}",
    errno.EDQUOT: "raise the quota of uid {uid} on the file system of {directory}",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "correct the symbolic links that lead to {directory}",
    errno.EBUSY: "a file that is itself a mount point cannot be replaced: mount its directory instead",
    errno.EIO: "check the device below {directory}",
    errno.ESTALE: "mount the network file system of {directory} anew",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_OTHERWISE = "check the directory {directory}"


class NotWritten(Exception):
    """A file was not replaced. Readers still find what it held before.

    Args:
        problem: What happened, and what to do.
        number: The errno, or 0.
    """

    def __init__(self, problem: str, number: int = 0) -> None:
        super().__init__(problem)
        self.number = number


def not_written(path: str, error: OSError) -> NotWritten:
    """Return *error* in words for whoever looks after *path*."""
    number = error.errno or 0
    directory = os.path.split(path)[0] or "/"
    return NotWritten(
        f"{path} was not written: {os.strerror(number)}. "
        f"The file stays as it was; {remedy_for(number, directory)}",
        number,
    )


def remedy_for(number: int, directory: str) -> str:
    """Return what to do about the errno *number*, met when a file in *directory* was to be written."""
    return _REMEDIES.get(number, _OTHERWISE).format(directory=directory, uid=os.geteuid())


def not_given(path: str, error: OSError, owner: int | None, group: int | None) -> NotWritten:
    """Return in words that the file could not be given to *owner* and *group*."""
    number = error.errno or 0
    wanted = {"owner": owner, "group": group}
    whom = " and ".join(f"{what} {uid}" for what, uid in wanted.items() if uid is not None)
    happened = f"{path} was not written: it cannot be given to {whom}: {os.strerror(number)}"
    return NotWritten(
        f"{happened}. The file stays as it was; "
        f"run as root or with CAP_CHOWN, or choose a group of uid {os.geteuid()}",
        number,
    )


def not_synced(path: str, error: OSError) -> NotWritten:
    """Return in words that the new file may be lost in a power cut."""
    number = error.errno or 0
    return NotWritten(
        f"{path} was replaced, but its directory could not be synced: {os.strerror(number)}. "
        "Readers find the new token, a power cut may bring the old one back; check the device",
        number,
    )


def not_a_file(path: str, what: str) -> NotWritten:
    """Return in words that *path* holds something that nobody replaces by accident."""
    return NotWritten(
        f"{path} was not written: it is {what}, and only regular files and symbolic links are replaced. "
        "It stays as it was; choose another path",
        errno.EEXIST,
    )
