"""Reads the configuration again, and applies all of it or nothing. One reload at a time."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from token_keeper._errors import ConfigError
from token_keeper.sidecar._access import KeyFileError, Keys
from token_keeper.sidecar._household import Changes, Household
from token_keeper.sidecar._systemd import Notifier
from token_keeper.sidecar._threads import Threads
from token_keeper.sidecar.config import BadConfig, Checked, load
from token_keeper.sidecar.config._model import ServerConfig, StoreConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded(Changes):
    """What a reload did, and what it could not do.

    Args:
        restart_needed: Keys of `[server]` and `[store]` that changed.
    """

    restart_needed: tuple[str, ...] = ()


class Reload:
    """Reads a configuration again, for whoever asks.

    Args:
        path: The file.
        household: What it is applied to.
        keys: Are read again too.
        running: The `[server]` that we run with.
        store: The `[store]` that we run with.
        notifier: Hears of it.
        logger: A structlog logger.
    """

    def __init__(  # noqa: PLR0913 - One for each that a reload concerns.
        self,
        path: Path,
        *,
        household: Household,
        keys: Keys,
        running: ServerConfig,
        store: StoreConfig,
        notifier: Notifier,
        logger: Any,
    ) -> None:
        self._path = path
        self._household = household
        self._keys = keys
        self._running = running
        self._store = store
        self._notifier = notifier
        self._log = logger
        self._turn = asyncio.Lock()
        self._reader = Threads(1, "token-keeper reload")

    async def __call__(self) -> Reloaded:
        """Reload.

        Raises:
            BadConfig: If the configuration cannot work; nothing was changed.
            OSError: If it cannot be read; nothing was changed.
        """
        async with self._turn:
            self._notifier.reloading()
            try:
                return await self._reloaded()
            finally:
                self._notifier.ready(f"Keeping {len(self._household.tokens)} tokens")

    async def quietly(self) -> None:
        """Reload; what is wrong is only logged."""
        try:
            await self()
        except (BadConfig, OSError):
            return
        except Exception:  # noqa: BLE001 - whatever it is, we go on as before
            self._log.error("reloadCrashed", exc_info=True)

    async def _reloaded(self) -> Reloaded:
        try:
            checked = await self._read()
            keys_changed = self._read_keys()
        except BadConfig as bad:
            for problem in bad.problems:
                self._log.error("configProblem", key=problem.key, problem=problem.problem)
            self._log.error("reloadFailed", problems=len(bad.problems), remedy=REMEDY)
            raise
        except OSError as error:
            self._log.error("reloadFailed", file=str(self._path), reason=error.strerror, remedy=REMEDY)
            raise
        for warning in checked.warnings:
            self._log.warning("configWarning", key=warning.key, problem=warning.problem)
        changes = await self._household.apply(checked.parts)
        done = Reloaded(
            added=changes.added,
            changed=changes.changed,
            removed=changes.removed,
            unchanged=changes.unchanged,
            restart_needed=(
                *restart_needed("server", self._running, checked.config.server),
                *restart_needed("store", self._store, checked.config.store),
            ),
        )
        self._say(done, keys_changed=keys_changed)
        return done

    async def _read(self) -> Checked:
        # It may name thousands of files; meanwhile tokens are served.
        read = functools.partial(load, self._path, store=self._store)
        return await asyncio.wrap_future(self._reader.submit(read))

    def _read_keys(self) -> bool:
        problem = ""
        try:
            return self._keys.read()
        except KeyFileError as error:
            problem = str(error)
        raise BadConfig((ConfigError("server", problem),))

    def _say(self, done: Reloaded, *, keys_changed: bool) -> None:
        self._log.info(
            "configReloaded",
            added=list(done.added),
            changed=list(done.changed),
            removed=list(done.removed),
            unchanged=len(done.unchanged),
            keys_changed=keys_changed,
        )
        if done.restart_needed:
            self._log.warning("restartNeeded", keys=list(done.restart_needed))


REMEDY = "nothing was changed, the tokens are kept as before; correct the file and reload again"


def restart_needed(table: str, running: msgspec.Struct, wanted: msgspec.Struct) -> tuple[str, ...]:
    """Return the keys of *table* in which *wanted* differs from what we run with."""
    names = (field.name for field in msgspec.structs.fields(running))
    return tuple(f"{table}.{name}" for name in names if getattr(running, name) != getattr(wanted, name))
