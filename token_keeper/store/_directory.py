"""A directory of files, one for each grant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from token_keeper._errors import ConfigError
from token_keeper._secret import Secret
from token_keeper.sinks import sweep
from token_keeper.store._files import envelope_in, made_directory, opened_directory
from token_keeper.store._keys import KeyringKey, Keys, keys_of
from token_keeper.store._lease import DirectoryLease, Grant, read_record
from token_keeper.store._lock import holder_of, locked, unlock
from token_keeper.store._names import checked_name
from token_keeper.store._record import Record

_KEY_LOCK: Final = ".key.lock"


class DirectoryStore:
    """Remember grants in the files of a directory, through restarts and power cuts.

        store = DirectoryStore("/var/lib/app/tokens", key_file="/etc/app/store.key")
        source = OAuth2Source(url, grant="refresh_token", store=store, stored_as="chat", ...)

    Any number of processes may use one directory at once: they take turns. Without
    a key the files are protected by their mode alone, 0600. Nothing is touched
    before the first use; then the directory is made, 0700.

    Args:
        directory: On a local disk: some network file systems have no locks.
        key: 32 bytes in base64. Several, one on each line: the first seals, all open.
        key_file: A file that holds such keys, which only we and root can read.
        key_credential: The name of a systemd credential that holds such keys.
        keyring: True, or a service and a user: the entry of the desktop's keyring
            that holds the key. It is made if it is missing and nothing is sealed yet.
        parents: Whether to make missing directories above it, too, 0700.

    Raises:
        ConfigError: If the words cannot work, or what they need is not installed.
    """

    def __init__(  # noqa: PLR0913 - Four ways to have a key, of which one is used.
        self,
        directory: str | os.PathLike[str],
        *,
        key: str | bytes | Secret | None = None,
        key_file: str | os.PathLike[str] | None = None,
        key_credential: str | None = None,
        keyring: bool | tuple[str, str] | None = None,
        parents: bool = False,
    ) -> None:
        # From here on no frame shows it.
        key = _hidden(key)
        self._directory = _directory_of(directory)
        self._keys: Keys | None = None
        self._keys = keys_of(self._directory, key, key_file, key_credential, keyring)
        self._parents = parents
        self._is_swept = False

    def __repr__(self) -> str:
        return f"DirectoryStore({self._directory!r}, {'sealed' if self._keys else 'not sealed'})"

    @property
    def has_key(self) -> bool:
        """Whether what is written is sealed."""
        return self._keys is not None

    def check_key(self) -> None:
        """Make sure that the key can be had. Blocks.

        One in a keyring is not looked for: that may ask somebody to unlock it, and
        the key is made when something is sealed for the first time.

        Raises:
            StoreError: If it cannot.
        """
        if self._keys is not None and not isinstance(self._keys, KeyringKey):
            self._keys.opening()

    def slot(self, name: str) -> DirectorySlot:
        """As `Store.slot`."""
        return DirectorySlot(self, Grant(self._directory, checked_name(name)))

    def _try_lease(self, grant: Grant) -> DirectoryLease | None:
        directory = made_directory(self._directory, parents=self._parents)
        lock = None
        try:
            lock = locked(directory, grant.lock, f"{self._directory}/{grant.lock}")
        finally:
            if lock is None:
                os.close(directory)
        if lock is None:
            return None
        lease = DirectoryLease(grant, keys=self._keys, alone=self._alone, directory=directory, lock=lock)
        if not self._is_swept:
            self._is_swept = True
            sweep(self._directory)
        return lease

    @contextmanager
    def _alone(self) -> Iterator[str]:
        """Let nobody else make a key; say which record is sealed with the one that is missing."""
        directory = made_directory(self._directory)
        try:
            lock = locked(directory, _KEY_LOCK, f"{self._directory}/{_KEY_LOCK}", wait=True)
            try:
                yield _sealed_in(directory)
            finally:
                if lock is not None:
                    unlock(lock)
        finally:
            os.close(directory)


class DirectorySlot:
    """Where one grant of a `DirectoryStore` is.

    Args:
        store: Whose it is.
        grant: Which.
    """

    def __init__(self, store: DirectoryStore, grant: Grant) -> None:
        self._store = store
        self._grant = grant

    @property
    def place(self) -> str:
        """As `Slot.place`."""
        return self._grant.place

    @property
    def path(self) -> Path | None:
        """As `Slot.path`."""
        return Path(self._grant.place)

    def read(self) -> Record | None:
        """As `Slot.read`."""
        directory = opened_directory(self._grant.directory)
        if directory is None:
            return None
        keys = self._store._keys  # noqa: SLF001 - one thing in two classes
        try:
            return read_record(directory, self._grant, keys.opening if keys else None)
        finally:
            os.close(directory)

    def is_sealed(self) -> bool | None:
        """Return whether the record is sealed; None if there is none, or it is damaged.

        Raises:
            StoreError: If the directory cannot be opened, or others can change what is in it.
        """
        directory = opened_directory(self._grant.directory)
        if directory is None:
            return None
        try:
            envelope = envelope_in(directory, self._grant.file)
        finally:
            os.close(directory)
        return None if envelope is None or isinstance(envelope, str) else envelope.is_sealed

    def try_lease(self) -> DirectoryLease | None:
        """As `Slot.try_lease`."""
        return self._store._try_lease(self._grant)  # noqa: SLF001 - one thing in two classes

    def holder(self) -> str:
        """As `Slot.holder`."""
        directory = opened_directory(self._grant.directory)
        if directory is None:
            return ""
        try:
            return holder_of(directory, self._grant.lock)
        finally:
            os.close(directory)


def _sealed_in(directory: int) -> str:
    """Say which record is sealed, or cannot be told; else nothing."""
    for name in sorted(os.listdir(directory)):
        if name.endswith(".grant"):
            envelope = envelope_in(directory, name)
            if isinstance(envelope, str) or (envelope is not None and envelope.is_sealed):
                return f"{name} is sealed already, or damaged"
    return ""


def _hidden(key: str | bytes | Secret | None) -> Secret | None:
    text = key.decode("ascii", "replace") if isinstance(key, bytes) else key
    return Secret(text) if isinstance(text, str) else text


def _directory_of(path: object) -> str:
    """Return the absolute path of the directory *path*. Raises ConfigError if it is none."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError("directory", "must be the path of a directory")
    if text.startswith("~"):
        raise ConfigError("directory", "starts with ~, which is not replaced: use Path(...).expanduser()")
    # Links stay: where they lead is looked up at each use.
    return os.path.abspath(text)  # noqa: PTH100
