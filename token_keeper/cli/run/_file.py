"""A file with the token that nobody else can read, and that is gone in the end."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Self

from token_keeper._secret import Secret
from token_keeper.cli._group import Failure

MEMORY = "/dev/shm"  # noqa: S108 # A directory of a random name is made in it.
TEMPORARY = "/tmp"  # noqa: S108 # As above.
NAME = "token"
NEXT_NAME = "next"


class PrivateFile:
    """A file of mode 0600 in a directory of its own of mode 0700, in memory if possible.

    Attributes:
        path: Of the file.
    """

    def __init__(self) -> None:
        self._directory = ""
        self.path = ""

    def __enter__(self) -> Self:
        self._directory = _private_directory()
        self.path = f"{self._directory}/{NAME}"
        return self

    def __exit__(self, *_: object) -> None:
        for name in (NAME, NEXT_NAME):
            with suppress(FileNotFoundError):
                os.unlink(f"{self._directory}/{name}")  # noqa: PTH108 # pathlib costs too much time.
        with suppress(OSError):
            os.rmdir(self._directory)  # noqa: PTH106 # As above.

    def write(self, token: Secret) -> None:
        """Replace the file's content: readers see the old token or the new one. Raises `OSError`."""
        following = f"{self._directory}/{NEXT_NAME}"
        with suppress(FileNotFoundError):
            os.unlink(following)  # noqa: PTH108 # As above.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(following, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(token.reveal().encode("ascii"))
        os.replace(following, self.path)  # noqa: PTH105 # As above.


def _private_directory() -> str:
    for place in (os.environ.get("XDG_RUNTIME_DIR"), MEMORY, os.environ.get("TMPDIR"), TEMPORARY):
        path = f"{place}/token-keeper-{os.urandom(8).hex()}"
        try:
            if place:
                os.mkdir(path, 0o700)  # noqa: PTH102 # pathlib costs too much time.
                # The umask may have taken away from us what we need.
                os.chmod(path, 0o700)  # noqa: PTH101 # As above.
                return path
        except OSError:
            continue
    raise Failure(
        "the token's file cannot be made: no directory for it is writable; set $XDG_RUNTIME_DIR",
        os.EX_CANTCREAT,
    )
