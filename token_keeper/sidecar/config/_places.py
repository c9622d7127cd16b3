"""Looks at where tokens are written: whether there is a directory, and who else writes there."""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from token_keeper.sidecar.config._notes import At, Notes, written

LONGEST_NAME: Final = 200
"""Bytes of a file's name: what the temporary one adds must fit into 255."""


class Directory(NamedTuple):
    """What was found out about a directory.

    Args:
        problem: Why no file can be in it, or None.
        device: Its file system.
        inode: Its number there.
        mode: Its type and permissions.
        is_writable: Whether our user may write it.
    """

    problem: str | None
    device: int = 0
    inode: int = 0
    mode: int = 0
    is_writable: bool = True


def claim(path: str, at: At, notes: Notes) -> bool:
    """Note it if something else is written to *path*, however that is spelled. Returns whether it is new."""
    parent, name = os.path.split(path)
    if name in {"", ".", ".."} or len(os.fsencode(name)) > LONGEST_NAME:
        notes.wrong(at, "must end in the name of a file, of at most 200 bytes")
        return False
    found = notes.once(_examined, parent)
    place = (found.device, found.inode, name if found.problem is None else os.path.normpath(path))
    former = notes.claims.setdefault(place, at)
    if former == at:
        return True
    whose = f"the same file as {written(former)}: each needs its own" if former else "this very configuration"
    notes.wrong(at, f"is {whose}")
    return False


def examine_directory(path: str, at: At, notes: Notes) -> None:
    """Note what is wrong with the directory of *path*."""
    found = notes.once(_examined, os.path.dirname(path))  # noqa: PTH120 - As the rest of this module.
    if found.problem is not None:
        notes.wrong(at, found.problem)
        return
    if os.path.isdir(path):  # noqa: PTH112 - As above.
        notes.wrong(at, "is a directory: name a file in it")
    if found.mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "every user" if found.mode & stat.S_IWOTH else "its group"
        notes.warn(at, f"stands in a directory that {who} can write: whoever can may replace the token")
    if not found.is_writable:
        notes.warn(at, f"stands in a directory that this user ({os.geteuid()}) cannot write")


def _examined(path: str) -> Directory:
    try:
        status = os.stat(path)  # noqa: PTH116 - As above.
        is_writable = os.access(path, os.W_OK | os.X_OK)
    except OSError as error:
        return Directory(f"has no directory ({error.strerror}): make it before the sidecar starts")
    if not stat.S_ISDIR(status.st_mode):
        return Directory("stands below what is no directory")
    return Directory(None, status.st_dev, status.st_ino, status.st_mode, is_writable)
