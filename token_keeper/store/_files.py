"""The directory of a store and the files in it: who may have them, and how they come to be.

All goes by the descriptor of the directory, and no link is followed: whoever swaps a
path meanwhile does not lead us elsewhere. Errors are `StoreError`s that say what to do.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from token_keeper._errors import StoreError
from token_keeper.sinks._reasons import remedy_for
from token_keeper.sinks._replace import TRIES, sync_directory
from token_keeper.store._format import AWAY, LEFT, MOST_BYTES, Envelope, envelope_of

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RECORD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


def opened_directory(path: str) -> int | None:
    """Return a descriptor of the directory *path*, or None if there is none.

    Raises:
        StoreError: If it cannot be opened, or others can change what is in it.
    """
    try:
        directory = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(path, "cannot be opened", error, path) from error
    problem = _untrusted(os.fstat(directory), path)
    if problem:
        os.close(directory)
        raise StoreError(path, problem)
    return directory


def made_directory(path: str, *, parents: bool = False) -> int:
    """Return a descriptor of the directory *path*, which is made if it is missing.

    Args:
        path: Absolute.
        parents: Whether to make those above it, too.

    Raises:
        StoreError: As `opened_directory`, or if it cannot be made.
    """
    for _ in range(TRIES):
        directory = opened_directory(path)
        if directory is not None:
            return directory
        parent = os.path.split(path)[0] or "/"
        try:
            if parents:
                _make_parents(parent)
            os.mkdir(path, 0o700)  # noqa: PTH102 - A text, as the user gave it.
            _sync(parent)
        except FileExistsError:
            continue
        except OSError as error:
            raise failed(path, "cannot be made", error, parent) from error
    raise StoreError(path, f"is there and is not: a broken symbolic link? {AWAY}")


def _make_parents(path: str) -> None:
    """Make what is missing of the directory *path*: for us alone, as it is for our sake."""
    missing = [one for one in (Path(path), *Path(path).parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(0o700, exist_ok=True)


def envelope_in(directory: int, file: str) -> Envelope | str | None:
    """Return what the record *file* holds, what is wrong with it, or None if there is none."""
    try:
        descriptor = os.open(file, _RECORD, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        return not_opened(directory, file, error)
    try:
        return not_private(descriptor) or envelope_of(_content_of(descriptor))
    except OSError as error:
        return f"cannot be read: {os.strerror(error.errno or 0)}. {LEFT}; check the device"
    finally:
        os.close(descriptor)


def not_opened(directory: int, file: str, error: OSError) -> str:
    """Say why *file* in *directory*, a descriptor, could not be opened, and what to do."""
    if error.errno == errno.ELOOP:
        return f"is a symbolic link, and none is followed. {AWAY}"
    if error.errno == errno.EISDIR:
        return f"is a directory. {AWAY}"
    owner = ""
    with suppress(OSError):
        found = os.stat(file, dir_fd=directory, follow_symlinks=False)
        owner = f" (uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o})"
    happened = f"cannot be opened: {os.strerror(error.errno or 0)}"
    if error.errno == errno.EMFILE:
        return f"{happened}. {LEFT}; {remedy_for(error.errno, file)}"
    return f"{happened}. {LEFT}; check its owner and mode{owner}: we are uid {os.geteuid()}"


def not_private(descriptor: int) -> str:
    """Say why the open file cannot be one of ours that nobody else can read; else nothing."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return f"is no regular file. {AWAY}"
    if found.st_uid != os.geteuid():
        return f"belongs to uid {found.st_uid}. {LEFT}; run as that user, or give it to uid {os.geteuid()}"
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        return (
            f"can be read by others (mode {mode:04o}). {LEFT}; chmod 600 it, and log in again if somebody did"
        )
    return ""


def failed(place: str, happened: str, error: OSError, directory: str) -> StoreError:
    """Return *error* in words: *place* *happened*, because of something in *directory*."""
    number = error.errno or 0
    return StoreError(
        place,
        f"{happened}: {os.strerror(number)}. What was stored stays as it was; "
        f"{remedy_for(number, directory)}",
    )


def _untrusted(found: os.stat_result, path: str) -> str:
    """Say why others could change what is in the directory; else nothing."""
    if found.st_uid not in {0, os.geteuid()}:
        return (
            f"belongs to uid {found.st_uid}, not to uid {os.geteuid()} or root. Nothing was changed; "
            f"run as that user (sudo -u '#{found.st_uid}'), or give it to uid {os.geteuid()}"
        )
    if found.st_mode & _WRITABLE:
        return f"can be written by others. Nothing was changed; chmod go-w {path}"
    return ""


def _content_of(descriptor: int) -> bytes:
    """Return the bytes of the file, one more than allowed at most."""
    content = b""
    while len(content) <= MOST_BYTES and (piece := os.read(descriptor, MOST_BYTES + 1 - len(content))):
        content += piece
    return content


def _sync(path: str) -> None:
    # A parent that we may not read cannot be synced; the directory itself can be used all the same.
    with suppress(PermissionError):
        directory = os.open(path, _DIRECTORY)
        try:
            sync_directory(directory)
        finally:
            os.close(directory)
