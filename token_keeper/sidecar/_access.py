"""Who may ask for what: the keys, and the one table of which path needs which access.

It knows nothing of HTTP but paths; `server/_guards.py` asks it before anything else sees a request.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

KEY = re.compile(rb"[A-Za-z0-9_-]{43}")
"""32 random bytes in URL-safe base64."""
KEY_FILE_MAX = 1_024
"""Bytes of a key file that are looked at."""
CODE_S = 60.0
"""How long a code for the dashboard can be traded."""
CODES_MAX = 16
"""Codes that are open at once; the oldest is forgotten."""
VIEWERS_MAX = 64
"""Read-only keys that were traded for codes; the oldest is forgotten."""


class Access(IntEnum):
    """What a caller may see; each includes the ones before it."""

    NOTHING = 0
    STATUS = 1
    TOKENS = 2
    OWNER = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Args:
        access: What it may see.
        uid: Of the peer's process, over the Unix socket.
        over: Which kind of socket it came by.
    """

    access: Access
    uid: int | None
    over: Literal["unix", "tcp"]


def needed_access(path: str) -> Access:
    """Return what a request to *path*, with its escapes resolved, needs. What is not known needs most."""
    if path in _NEEDED:
        return _NEEDED[path]
    directory, _, name = path.rpartition("/")
    return Access.NOTHING if directory == "/static" and name else Access.TOKENS


_NEEDED = {
    "/": Access.NOTHING,
    "/healthz": Access.NOTHING,
    "/readyz": Access.NOTHING,
    "/v1/dashboard/keys": Access.NOTHING,
    "/metrics": Access.STATUS,
    "/openapi.json": Access.STATUS,
    "/v1/tokens": Access.STATUS,
    "/v1/events": Access.STATUS,
    "/v1/reload": Access.OWNER,
}


class KeyFileError(Exception):
    """A key file that cannot be used, in words that hold no key."""


class Keys:
    """The keys that callers over TCP can show, and the codes that the dashboard trades for one.

    Nothing is read before `read`. Without an access key no caller over TCP has any access.

    Args:
        access_file: Holds the access key; made if missing. None without TCP.
        metrics_file: Holds the metrics key; made if missing. None is no such key.
        monotonic: Tells the age of codes, in seconds.

    Attributes:
        version: Grows whenever a key was read anew, so that nobody remembers an old one.
    """

    def __init__(
        self,
        access_file: Path | None = None,
        metrics_file: Path | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = (access_file, metrics_file)
        self._access = b""
        self._metrics = b""
        self._monotonic = monotonic
        self._codes: dict[str, float] = {}
        self._viewers: dict[bytes, None] = {}
        self.version = 0

    def read(self) -> bool:
        """Read the key files, and make those that are missing. Returns whether a key changed.

        Raises:
            KeyFileError: If a file cannot be used; the keys are as before.
        """
        access, metrics = (_read_or_make(path) if path else b"" for path in self._files)
        if access and hmac.compare_digest(access, metrics):
            del access, metrics
            raise KeyFileError(
                f"server.metrics_key_file: {self._files[1]} holds the access key; "
                "remove the file, so that a key of its own is made"
            )
        changed = (access, metrics) != (self._access, self._metrics)
        if changed:
            self._access, self._metrics = access, metrics
            self.version += 1
        return changed

    def access_of(self, shown: bytes) -> Access:
        """Return what the key *shown* allows. Takes equally long for every key that is wrong."""
        allowed = Access.NOTHING
        for viewer in self._viewers:
            if hmac.compare_digest(viewer, shown):
                allowed = Access.STATUS
        if self._metrics and hmac.compare_digest(self._metrics, shown):
            allowed = Access.STATUS
        if self._access and hmac.compare_digest(self._access, shown):
            allowed = Access.TOKENS
        return allowed

    def new_code(self) -> str:
        """Return a code that can be traded once within 60 s for a key that reads status and events."""
        while len(self._codes) >= CODES_MAX:
            del self._codes[next(iter(self._codes))]
        code = secrets.token_urlsafe(32)
        self._codes[code] = self._monotonic() + CODE_S
        return code

    def redeem(self, code: str) -> str | None:
        """Trade *code* for a read-only key that lives until we end, or return None if it is not good."""
        given = code.encode(errors="replace")
        found = [one for one in self._codes if hmac.compare_digest(one.encode(), given)]
        if not found or self._codes.pop(found[0]) < self._monotonic():
            return None
        while len(self._viewers) >= VIEWERS_MAX:
            del self._viewers[next(iter(self._viewers))]
        key = secrets.token_urlsafe(32)
        self._viewers[key.encode()] = None
        return key

    def __repr__(self) -> str:
        return f"<Keys version={self.version}>"


def _read_or_make(path: Path) -> bytes:
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    try:
        _make(path)
        return _read(path)
    except OSError as error:
        raise KeyFileError(
            f"the key file {path} cannot be made ({error.strerror}); "
            f"its directory must exist, and uid {os.geteuid()} must be able to write there"
        ) from None


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be read ({error.strerror})") from None
    try:
        _check_private(path, os.fstat(descriptor))
        line = os.read(descriptor, KEY_FILE_MAX).removesuffix(b"\n").removesuffix(b"\r")
    finally:
        os.close(descriptor)
    if not KEY.fullmatch(line):
        # From here on no frame of the traceback holds what was read.
        del line
        raise KeyFileError(
            f"the key file {path} does not hold one line of 43 URL-safe base64 characters; "
            "remove it, and a key is made"
        )
    return line


def _check_private(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise KeyFileError(f"the key file {path} is no file; remove it, and one is made")
    if state.st_uid not in {0, os.geteuid()}:
        raise KeyFileError(f"the key file {path} belongs to uid {state.st_uid}; it must be ours or root's")
    if state.st_mode & 0o077:
        raise KeyFileError(
            f"the key file {path} has mode {stat.S_IMODE(state.st_mode):04o}, so others can reach it; "
            "make it 0600, and remove it first if they may have read it: then a new key is made"
        )


def _make(path: Path) -> None:
    """Make a key file in one step: others see all of it or nothing, also if we are killed."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(draft, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=") + b"\n")
            file.flush()
            os.fsync(descriptor)
        # Unlike a rename, a link replaces nothing: if another process was faster, its key counts.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
