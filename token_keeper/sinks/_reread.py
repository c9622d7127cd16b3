"""Reads back what a former run wrote, if nobody else can have written it."""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass

from token_keeper._model import Secret

MAX_FILE = 65_536
"""Bytes of a file that is taken back. A token has at most 16 384 characters."""

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Reread:
    """A token of a former run.

    Args:
        secret: The raw token, not yet inspected.
        expires_at: Unix seconds.
    """

    secret: Secret
    expires_at: float


def reread(path: str) -> Reread | str | None:
    """Return the token in the file at *path*, None if there is no file, or why it is not believed.

    Blocks; safe from any thread. Never raises for what it finds.
    """
    directory, name = os.path.split(path)
    try:
        parent = os.open(directory or "/", _DIRECTORY)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"its directory cannot be read: {error.strerror}"
    try:
        return _untrusted_directory(parent) or _from(parent, name)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    finally:
        os.close(parent)


def _untrusted_directory(parent: int) -> str:
    found = os.fstat(parent)
    if found.st_uid not in {0, os.geteuid()}:
        return f"its directory belongs to uid {found.st_uid}, not to uid {os.geteuid()} or root"
    if found.st_mode & _WRITABLE:
        return "others can write its directory; chmod go-w"
    return ""


def _from(parent: int, name: str) -> Reread | str:
    file = os.open(name, _FILE, dir_fd=parent)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return "it is not a regular file"
        if found.st_uid != os.geteuid():
            return f"it belongs to uid {found.st_uid}, not to uid {os.geteuid()}"
        if found.st_mode & _WRITABLE:
            return "others can write it; set a mode such as 0640"
        content = _all_of(file)
    finally:
        os.close(file)
    return "it is too large" if len(content) > MAX_FILE else _parsed(content)


def _all_of(file: int) -> bytes:
    """Return the file's bytes, one more than allowed at most."""
    content = b""
    while len(content) <= MAX_FILE and (chunk := os.read(file, MAX_FILE + 1 - len(content))):
        content += chunk
    return content


def _parsed(content: bytes) -> Reread | str:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        # The decoder's own error holds the text.
        return "it is not JSON"
    if not isinstance(document, dict) or not isinstance(document.get("token"), str):
        return "it holds no token as the format json writes it"
    expires_at = document.get("expires_at")
    if expires_at is None:
        return "it does not say when its token expires"
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        return "its expires_at is not a number"
    try:
        at = float(expires_at)
    except OverflowError:
        at = math.nan
    if not math.isfinite(at):
        return "its expires_at is not a time"
    return Reread(Secret(document["token"]), at)
