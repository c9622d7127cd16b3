"""One file that always gets the latest token: when it is written, and what happens if that fails.

While one write runs, only the latest token waits. A sink that fails or hangs holds up nobody else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from token_keeper._redact import describe
from token_keeper.logs import KeeperLog
from token_keeper.sidecar.config._model import FileSinkConfig
from token_keeper.sidecar.deliveries._crew import Crew
from token_keeper.sinks import NotWritten, as_env, as_json, as_raw, as_template, replace_file

RETRY_MIN_S = 1.0
RETRY_MAX_S = 30.0
"""Waits between failed writes double from the first to the second."""
SLOW_S = 5.0
"""A write that takes longer counts as failed until it ends; hooks wait for it no more."""
STUCK_S = 2.0
"""A thread that is at one file for longer is not counted any more when others have to wait."""


@dataclass(slots=True)
class SinkState:
    """How one sink is doing.

    Args:
        path: The file.
        generation: The last one that was written; 0: none yet.
        error: Why the last write failed and what to do, until one succeeds.
        behind_since: Since when a newer generation waits to be written, in seconds of the
            monotonic clock; None if none does.
    """

    path: str
    generation: int = 0
    error: str | None = None
    behind_since: float | None = None


class FileSink:
    """Write each generation of one token into a file, in a thread. Only in the loop.

    Args:
        config: Where, and how it looks.
        name: The token's.
        answer: Returns the API's answer of now, or None if no token is usable.
        crew: Whose threads write.
        log: Where to say that writing fails, and works again.
        on_tried: Called whenever a generation was tried.

    Attributes:
        state: How it is doing.
        tried: The last generation that was written, or could not be.
    """

    def __init__(  # noqa: PLR0913 - each is something else that it needs
        self,
        config: FileSinkConfig,
        *,
        name: str,
        answer: Callable[[], Mapping[str, Any] | None],
        crew: Crew,
        log: KeeperLog,
        on_tried: Callable[[], None],
    ) -> None:
        self.state = SinkState(config.path)
        self.tried = 0
        self._config = config
        self._name = name
        self._answer = answer
        self._crew = crew
        self._log = log
        self._on_tried = on_tried
        self._wanted = 0
        self._offered_at = 0.0
        self._is_outdated = False
        self._is_closed = False
        self._failures = 0
        self._logged: object = None
        self._write: _Write | None = None
        self._timer: asyncio.TimerHandle | None = None
        crew.sweep(os.path.split(config.path)[0], config.owner)

    @property
    def config(self) -> FileSinkConfig:
        """Where, and how it looks."""
        return self._config

    def offer(self, generation: int) -> None:
        """Write *generation*, or a newer one, as soon as can be. Never blocks."""
        if self._is_closed or (generation <= self._wanted and not self._is_outdated):
            return
        self._wanted = max(generation, self._wanted)
        self._offered_at = self._crew.clock.monotonic()
        if self.state.behind_since is None:
            self.state.behind_since = self._offered_at
        self._begin()

    def become(self, config: FileSinkConfig) -> None:
        """Look as *config* says from the next offer on."""
        self._is_outdated = True
        self._config = config
        self._crew.sweep(os.path.split(config.path)[0], config.owner)

    async def flush(self, timeout: float) -> None:  # noqa: ASYNC109 - it gives up, it does not raise
        """Write what is due, within *timeout* seconds; also what failed and waits to be tried again."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        if self._write is None and self.state.behind_since is not None:
            self._begin()
        while self._write is not None and (rest := until - loop.time()) > 0:
            await asyncio.wait({self._write.future}, timeout=rest)

    def close(self, *, abandon: bool = False) -> None:
        """Write nothing more; what is under way ends. With *abandon* nobody hears of its end."""
        self._is_closed = True
        self._stop_timer()
        if abandon and self._write is not None:
            self._write.future.cancel()

    def _begin(self) -> None:
        if self._is_closed or self._write is not None:
            return
        self._stop_timer()
        other = self._crew.writing.get(self._config.path)
        if other is not None:
            other.add_done_callback(lambda _: self._begin())
            return
        answer = self._answer()
        if answer is None:
            # Expired or withheld meanwhile: the file stays as it is, nothing newer waits.
            self.state.behind_since = None
            self._has_tried(self._wanted)
            return
        content = content_of(self._config, self._name, answer)
        self._write = write = _Write(self._config, int(answer["generation"]))
        loop = asyncio.get_running_loop()
        write.future = loop.run_in_executor(self._crew.writers, write.run, content)
        del content, answer
        self._crew.writing[self._config.path] = write.future
        write.future.add_done_callback(partial(self._ended, write))
        self._timer = loop.call_later(SLOW_S, self._slow, write)

    def _ended(self, write: _Write, future: asyncio.Future[Any]) -> None:
        self._write = None
        self._crew.writing.pop(write.config.path, None)
        self._stop_timer()
        if future.cancelled():
            return
        problem = _problem_of(write.config.path, future)
        if problem is None:
            self._succeeded(write)
        else:
            self._failed(str(problem), key=problem.number or str(problem))
        self._has_tried(write.generation)
        if self._is_closed:
            return
        if self._wanted > write.generation or write.config is not self._config:
            self._begin()
        elif problem is not None:
            self._failures += 1
            wait = min(RETRY_MIN_S * 2.0 ** min(self._failures - 1, 16), RETRY_MAX_S)
            self._timer = asyncio.get_running_loop().call_later(wait, self._begin)

    def _succeeded(self, write: _Write) -> None:
        state = self.state
        state.generation = write.generation
        self._failures = 0
        self._is_outdated = write.config is not self._config
        waits = self._is_outdated or self._wanted > write.generation
        state.behind_since = self._offered_at if waits else None
        if state.error is not None:
            state.error, self._logged = None, None
            self._log.info("sinkRecovered", path=state.path, generation=write.generation)

    def _failed(self, problem: str, *, key: object) -> None:
        self.state.error = problem
        # Once per change: an outage of a day is not a line every 30 s.
        if key != self._logged:
            self._logged = key
            self._log.error("sinkFailed", path=self.state.path, generation=self._wanted, error=problem)

    def _slow(self, write: _Write) -> None:
        self._crew.writers.relieve(STUCK_S)
        if not write.has_begun:
            self._timer = asyncio.get_running_loop().call_later(SLOW_S, self._slow, write)
            return
        path = write.config.path
        self._failed(
            f"{path} was not written within {SLOW_S:g} s: its file system does not answer. "
            f"The file stays as it was; check what is mounted at {os.path.split(path)[0] or '/'}",
            key="slow",
        )
        self._has_tried(write.generation)

    def _has_tried(self, generation: int) -> None:
        self.tried = max(self.tried, generation)
        self._on_tried()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


class _Write:
    """One attempt to write one generation."""

    __slots__ = ("config", "future", "generation", "has_begun")

    future: asyncio.Future[Any]

    def __init__(self, config: FileSinkConfig, generation: int) -> None:
        self.config = config
        self.generation = generation
        self.has_begun = False

    def run(self, content: bytes) -> NotWritten | None:
        """Replace the file, in a thread. Returns what went wrong."""
        self.has_begun = True
        config = self.config
        try:
            replace_file(config.path, content, mode=config.mode, owner=config.owner, group=config.group)
        except NotWritten as problem:
            # Without its traceback: the frames on it held the token.
            return problem.with_traceback(None)
        return None


def content_of(config: FileSinkConfig, name: str, answer: Mapping[str, Any]) -> bytes:
    """Return what the file is to hold.

    Args:
        config: Says the format.
        name: The token's.
        answer: As the API gives it.
    """
    match config.format:
        case "raw":
            return as_raw(answer)
        case "json":
            return as_json(answer)
        case "env":
            return as_env(answer, config.variable or "ACCESS_TOKEN")
        case "template":
            return as_template(answer, name, config.template or "")


def _problem_of(path: str, future: asyncio.Future[Any]) -> NotWritten | None:
    error = future.exception()
    if error is None:
        problem: NotWritten | None = future.result()
        return problem
    return NotWritten(f"{path} was not written: {describe(error)}. The file stays as it was")
