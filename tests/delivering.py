"""Tokens whose files and hooks are real, and what was logged about them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from token_keeper import RefreshPolicy
from token_keeper._model import EventKind, TokenEvent
from token_keeper.profiles import profile_named
from token_keeper.sidecar._household import Household
from token_keeper.sidecar._served import ServedToken, TokenParts
from token_keeper.sidecar.config._model import FileSinkConfig, HookConfig, HttpSourceConfig, TokenConfig
from token_keeper.sidecar.deliveries import Deliveries
from token_keeper.testing import ScriptedSource, mint

T = TypeVar("T")

PATIENCE_S = 10.0
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and mount")

_serials = itertools.count(1)


def a_raw(lifetime_s: float = 3_600.0, **claims: object) -> str:
    """Return a token unlike any other."""
    return mint(expires_at=time.time() + lifetime_s, jti=f"{next(_serials)}-{os.urandom(4).hex()}", **claims)


def a_config(
    *sinks: FileSinkConfig, hooks: tuple[HookConfig, ...] = (), profile: str = "auto", **expect: object
) -> TokenConfig:
    source = HttpSourceConfig(url="https://backend.example/token")
    return TokenConfig(source=source, sinks=sinks, hooks=hooks, profile=profile, expect=expect)


def parts_of(config: TokenConfig, *script: Any, name: str = "chat") -> TokenParts:
    profile = profile_named(config.profile)
    return TokenParts(
        name=name,
        config=config,
        source=ScriptedSource(*(script or (a_raw,))),
        policy=RefreshPolicy(),
        profile=profile,
        expect=profile.expectations(config.expect),
    )


@dataclass(slots=True)
class Kept:
    """One token of a household that runs."""

    household: Household
    served: ServedToken
    log: Log

    @property
    def deliveries(self) -> Deliveries:
        return self.household.deliveries(self.served.name)

    def renew(self, lifetime_s: float = 3_600.0) -> str:
        """Publish a new token now, and return it."""
        raw = a_raw(lifetime_s)
        self.served.update(raw)
        return raw

    def tell(self, kind: EventKind, generation: int | None = None) -> None:
        """Let the deliveries hear of an event as if it had just happened."""
        number = self.served.snapshot.generation if generation is None else generation
        self.deliveries.notify(TokenEvent(kind=kind, name="chat", at=time.time(), generation=number))

    async def written(self, generation: int | None = None) -> None:
        """Wait until all sinks hold *generation*, by default the current one."""
        wanted = self.served.snapshot.generation if generation is None else generation
        await eventually(lambda: all(sink.generation >= wanted for sink in self.deliveries.sinks))


class Log(logging.Handler):
    """What was logged, as names of events with their values."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, event: str) -> list[logging.LogRecord]:
        return [record for record in self.records if getattr(record, "event", "") == event]

    @property
    def text(self) -> str:
        return "\n".join(f"{record.getMessage()} {record.__dict__}" for record in self.records)

    def logger(self) -> logging.Logger:
        logger = logging.Logger("test", logging.DEBUG)  # noqa: LOG001 - in no tree, so that none else hears it
        logger.addHandler(self)
        return logger


@asynccontextmanager
async def keeping(
    *sinks: FileSinkConfig, hooks: tuple[HookConfig, ...] = (), script: tuple[Any, ...] = ()
) -> AsyncIterator[Kept]:
    """Keep one token that is fetched at once and goes to these sinks and hooks."""
    async with keeping_parts(parts_of(a_config(*sinks, hooks=hooks), *script)) as kept:
        yield kept


@asynccontextmanager
async def keeping_parts(parts: TokenParts) -> AsyncIterator[Kept]:
    log = Log()
    async with Household((parts,), logger=log.logger()) as household:
        yield Kept(household, household.tokens[parts.name], log)


async def eventually(look: Callable[[], T], *, within_s: float = PATIENCE_S) -> T:
    """Return the first true result of *look*."""
    until = time.monotonic() + within_s
    while not (result := look()):
        assert time.monotonic() < until, f"it did not happen within {within_s:g} s"
        await asyncio.sleep(0.005)
    return result


def running(main: Coroutine[Any, Any, T], loop: str = "asyncio") -> T:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main)


def a_file(path: Path, **looks: Any) -> FileSinkConfig:
    return FileSinkConfig(path=str(path), **looks)


def a_script(script: str, **more: Any) -> HookConfig:
    """Return a hook that runs *script* in a shell."""
    return HookConfig(run=("/bin/sh", "-c", script), **more)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def state_of(pid: int) -> str:
    """Return the state of a process, such as ``S`` or ``Z``; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children() -> set[int]:
    """Return the processes that are ours, also those that have ended and were not reaped."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        found |= {int(pid) for pid in path.read_text().split()}
    return found


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[Path]:
    """Mount a small file system in memory; skip the test where that is not allowed."""
    import subprocess

    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)
