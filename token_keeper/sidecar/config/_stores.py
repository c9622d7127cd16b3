"""`[store]`: which store it is, and what of it can be checked without writing."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from token_keeper._errors import ConfigError, StoreError
from token_keeper.sidecar.config._model import StoreConfig
from token_keeper.sidecar.config._notes import At, Notes, written
from token_keeper.sidecar.config._records import Found, check
from token_keeper.sources._references import CREDENTIALS
from token_keeper.store import DirectoryStore, MemoryStore, Store
from token_keeper.store._keys import KeyFile

LONGEST_NAME: Final = 64
"""Characters of the name under which a grant is kept."""

_KEYS: Final = ("key_file", "key_credential", "keyring")


@check(StoreConfig)
def _store(found: Found, at: At, notes: Notes) -> None:
    """Note what cannot work, whether or not a source needs it."""
    if found.has(*StoreConfig.__struct_fields__):
        stated = (key for key in StoreConfig.__struct_fields__ if key in found.stated)
        notes.storing.store = _opened(StoreConfig(**{key: found[key] for key in stated}), at, notes)
    else:
        notes.storing.store = MemoryStore()


def default_directory(environ: Mapping[str, str]) -> str:
    """Return where grants are kept if `[store]` does not say it."""
    # systemd names several, if StateDirectory= does.
    of_the_unit = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if of_the_unit.startswith("/"):
        return of_the_unit
    state = environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        home = environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
        state = f"{home}/.local/state"
    return f"{state}/token-keeper"


def store_of(config: StoreConfig, environ: Mapping[str, str]) -> DirectoryStore:
    """Return the store that *config* says. Nothing is touched.

    Raises:
        ConfigError: If it cannot be used.
    """
    words: dict[str, Any] = {key: getattr(config, key) for key in _KEYS if getattr(config, key)}
    # Of a fresh account ~/.local/state is not there yet, and XDG has us make it.
    return DirectoryStore(
        config.directory or default_directory(environ), parents=config.directory is None, **words
    )


def place_of(at: At, notes: Notes) -> tuple[Store, str]:
    """Return the store, and the name under which the source at *at* keeps its grant there."""
    # ("tokens", NAME, "source"), and for a link of a chain (..., "sources", LINK).
    name = ".".join(str(at[place]) for place in (1, 4) if place < len(at))
    if len(name) > LONGEST_NAME:
        notes.wrong(at, f"is stored as {name}, which must have at most {LONGEST_NAME} characters")
    else:
        former = notes.storing.names.setdefault(name, at)
        if former != at:
            notes.wrong(at, f"is stored as {name}, and so is {written(former)}: rename one of them")
    storing = notes.storing
    if storing.store is None:
        storing.store = _opened(StoreConfig(), ("store",), notes)
    return storing.store, name


def _opened(config: StoreConfig, at: At, notes: Notes) -> Store:
    """Return the store to use, after notes on what is wrong with the one of *config*."""
    store = _made(config, at, notes)
    _examine(config, at, notes)
    running = notes.storing.running
    return store if running is None else _made(running, at, notes)


def _made(config: StoreConfig, at: At, notes: Notes) -> Store:
    try:
        return store_of(config, notes.environ)
    except ConfigError as error:
        notes.wrong((*at, error.key), error.problem)
    return MemoryStore()


def _examine(config: StoreConfig, at: At, notes: Notes) -> None:
    """Note what can be seen without writing."""
    directory = config.directory or default_directory(notes.environ)
    problem = notes.once(_unusable, _there(directory) if config.directory is None else directory)
    if problem is not None:
        notes.wrong((*at, "directory"), problem)
    elif notes.once(_is_open, directory):
        notes.warn(
            (*at, "directory"), f"can be listed by others, and tokens will be in it: chmod 700 {directory}"
        )
    # A keyring is left alone: it may ask its user to unlock it.
    for key, path in (("key_file", config.key_file), ("key_credential", _credential(config, at, notes))):
        problem = notes.once(_unreadable_key, path, key) if path is not None else None
        if problem is not None:
            notes.wrong((*at, key), problem)


def _credential(config: StoreConfig, at: At, notes: Notes) -> str | None:
    """Return the path of the credential that is the key, if one is."""
    if config.key_credential is None:
        return None
    directory = notes.environ.get(CREDENTIALS)
    if directory:
        return f"{directory}/{config.key_credential}"
    problem = f"needs ${CREDENTIALS}, which systemd sets for units with LoadCredential="
    notes.wrong((*at, "key_credential"), problem)
    return None


def _there(path: str) -> str:
    """Return the first directory on the way to *path* that is missing; *path* itself if none is."""
    above = [one for one in Path(path).parents if not one.exists()]
    return str(above[-1]) if above else path


def _unusable(path: str) -> str | None:
    """Say why nothing can be stored in the directory *path*."""
    parent = os.path.dirname(path.rstrip("/"))  # noqa: PTH120 - pathlib adds nothing here.
    user = os.geteuid()
    try:
        status = os.stat(path)  # noqa: PTH116 - As above.
    except FileNotFoundError:
        if not os.path.isdir(parent):  # noqa: PTH112 - As above.
            return f"cannot be made, since there is no {parent}: mkdir -p {parent}"
        is_writable = os.access(parent, os.W_OK | os.X_OK)
        return None if is_writable else f"cannot be made: this user ({user}) cannot write {parent}"
    except OSError as error:
        return f"cannot be used ({error.strerror}): {path}"
    if not stat.S_ISDIR(status.st_mode):
        return f"is no directory: {path}"
    if status.st_uid not in {user, 0}:
        return f"belongs to user {status.st_uid}, who could replace what is stored: chown {user} {path}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"can be written by others, who could replace what is stored: chmod 700 {path}"
    return None if os.access(path, os.W_OK | os.X_OK) else f"cannot be written by this user ({user}): {path}"


def _is_open(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO))  # noqa: PTH116 - As above.
    except OSError:
        return False


def _unreadable_key(path: str, key: str) -> str | None:
    try:
        KeyFile(path, is_checked=key == "key_file").opening()
    except StoreError as error:
        return error.problem
    except ImportError:
        # That has been said already.
        return None
    return None
