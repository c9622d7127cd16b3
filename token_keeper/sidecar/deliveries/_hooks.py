"""When a hook runs: after the sinks, one run at a time, never more than once a second.

A hook that cannot keep up runs once for all that happened meanwhile. For each kind of event that it
listens to, a run starts after the last event of that kind.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from token_keeper._model import EventKind, Secret, TokenEvent
from token_keeper._redact import describe
from token_keeper.logs import KeeperLog
from token_keeper.sidecar.config._model import HookConfig
from token_keeper.sidecar.deliveries._crew import Crew
from token_keeper.sidecar.deliveries._processes import Command, Outcome, run_command
from token_keeper.sidecar.deliveries._signals import NotSent, send_signal

APART_S = 1.0
"""Least time between two starts of one hook."""


class Hook:
    """One command or signal of one token. Only in the loop.

    Args:
        config: What to do, and on which events.
        label: Names it in logs.
        crew: Whose threads run it.
        log: Where to say that it failed.
        is_ripe: Whether the sinks are done with what an event is about.
        secret: Returns the token of now, or None. Called in a thread.
        on_ended: Called with whether a run went well, whenever one ended.
    """

    def __init__(  # noqa: PLR0913 - each is something else that it needs
        self,
        config: HookConfig,
        label: str,
        *,
        crew: Crew,
        log: KeeperLog,
        is_ripe: Callable[[TokenEvent], bool],
        secret: Callable[[], Secret | None],
        on_ended: Callable[[Hook, bool], None],
    ) -> None:
        self.config = config
        self._label = label
        self._crew = crew
        self._log = log
        self._is_ripe = is_ripe
        self._secret = secret
        self._on_ended = on_ended
        self._pending: dict[EventKind, TokenEvent] = {}
        self._started_at = -math.inf
        self._is_hurried = False
        self._run: _Run | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def run(self) -> asyncio.Future[Any] | None:
        """The run that is under way, or waits for a free place; None if nothing runs."""
        return None if self._run is None else self._run.future

    @property
    def has_begun(self) -> bool:
        """Whether a run is under way, not only waiting for a free place."""
        return self._run is not None and self._run.began_at != math.inf

    def hear(self, event: TokenEvent) -> None:
        """Run for *event* soon, if it is one of ours. The latest of a kind replaces earlier ones."""
        if event.kind in self.config.on:
            self._pending.pop(event.kind, None)
            self._pending[event.kind] = event
            self.look()

    def look(self) -> None:
        """Start the next run if it is time. Never blocks."""
        if self._run is not None or not self._pending:
            return
        event = next(iter(self._pending.values()))
        # Events keep their order: what came after one that waits for the sinks waits with it.
        if not self._is_hurried and not self._is_ripe(event):
            return
        loop = asyncio.get_running_loop()
        wait = self._started_at + APART_S - loop.time()
        if wait > 0 and not self._is_hurried:
            if self._timer is None:
                self._timer = loop.call_later(wait, self._due)
            return
        del self._pending[event.kind]
        self._start(event)

    def hurry(self) -> None:
        """Let what waits run at once, as the sidecar ends: however short ago the last run was."""
        self._is_hurried = True
        self._stop_timer()
        self.look()

    def forget(self) -> None:
        """Start no more runs. One that is under way goes on."""
        self._pending.clear()
        self._stop_timer()

    def stop(self) -> None:
        """End the run that is under way."""
        if self._run is not None:
            self._run.stop()

    def abandon(self) -> None:
        """Wait no more for a run that cannot be ended."""
        if self._run is not None:
            self._run.future.cancel()

    def _due(self) -> None:
        self._timer = None
        self.look()

    def _start(self, event: TokenEvent) -> None:
        loop = asyncio.get_running_loop()
        self._started_at = loop.time()
        self._run = run = _Run(self.config, event, self._secret)
        run.future = loop.run_in_executor(self._crew.hooks, run.work)
        run.future.add_done_callback(lambda future: self._ended(run, future))

    def _ended(self, run: _Run, future: asyncio.Future[Any]) -> None:
        self._run = None
        if future.cancelled():
            return
        # It may have waited for a free place: what counts is when it began.
        self._started_at = asyncio.get_running_loop().time() - (time.monotonic() - run.began_at)
        run.close()
        outcome = _outcome_of(future)
        if outcome.problem:
            self._tell(run.event, outcome)
        self._on_ended(self, not outcome.problem)
        self.look()

    def _tell(self, event: TokenEvent, outcome: Outcome) -> None:
        values: dict[str, object] = {"output": outcome.output} if outcome.output else {}
        self._log.error(
            "hookFailed",
            hook=self._label,
            kind=str(event.kind),
            generation=event.generation,
            error=outcome.problem,
            **values,
        )

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


class _Run:
    """One run of a hook, in a thread."""

    __slots__ = ("_config", "_secret", "_stop", "began_at", "event", "future")

    future: asyncio.Future[Any]

    def __init__(self, config: HookConfig, event: TokenEvent, secret: Callable[[], Secret | None]) -> None:
        self.event = event
        self._config = config
        self.began_at = math.inf
        self._secret = secret
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def work(self) -> Outcome:
        """Run it to its end."""
        self.began_at = time.monotonic()
        config = self._config
        if config.signal is not None:
            try:
                send_signal(config.signal, config.pid_file or "")
            except NotSent as problem:
                return Outcome(str(problem))
            return Outcome()
        command = Command(
            run=config.run,
            environment=environment_of(self.event),
            timeout_s=config.timeout,
            secret=self._secret,
            gives=config.stdin == "token",
        )
        return run_command(command, self._stop)

    def stop(self) -> None:
        """Have it end early, or not begin."""
        os.eventfd_write(self._stop, 1)
        if self.began_at == math.inf:
            self.future.cancel()

    def close(self) -> None:
        """Let go of what `stop` needs. Only after the end."""
        os.close(self._stop)


def environment_of(event: TokenEvent) -> dict[str, str]:
    """Return all of the environment in which a hook runs."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "TOKEN_KEEPER_EVENT": str(event.kind),
        "TOKEN_KEEPER_NAME": event.name,
        "TOKEN_KEEPER_GENERATION": str(event.generation),
    }


def label_of(index: int, config: HookConfig) -> str:
    """Return how a hook is named in logs: its place in the file, and its program without arguments."""
    what = config.signal or (PurePath(config.run[0]).name if config.run else "")
    return f"hooks[{index}] {what}"


def _outcome_of(future: asyncio.Future[Any]) -> Outcome:
    error = future.exception()
    if error is not None:
        return Outcome(f"could not be run: {describe(error)}")
    outcome: Outcome = future.result()
    return outcome
