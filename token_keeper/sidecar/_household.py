"""All tokens of the sidecar: one scheduler, one record of events, and the reload as a transaction."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from token_keeper._clock import Clock, SystemClock
from token_keeper._model import TokenEvent
from token_keeper._scheduler import CANCEL_GRACE_S, TICK_S, Scheduler
from token_keeper.logs import keeper_logger
from token_keeper.sidecar._event_log import EventLog
from token_keeper.sidecar._served import ServedToken, TokenParts
from token_keeper.sidecar.deliveries import Deliveries
from token_keeper.sidecar.deliveries._crew import Crew

LIVE_S = 3 * TICK_S
"""After so many seconds without a tick the scheduler counts as dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a reload did, by the names of tokens."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


class Household:
    """Every token that the sidecar keeps.

        async with Household(parts) as household:
            household.tokens["chat"].token

    Args:
        parts: One for each token.
        clock: Where the time comes from.
        logger: A structlog logger.

    Attributes:
        start: Names this start, 8 hex digits: after a restart generations count from 1 again.
        started_at: Unix seconds.
        tokens: By name. Replaced as a whole by a reload.
        events: What happened lately.
    """

    def __init__(
        self, parts: tuple[TokenParts, ...], *, clock: Clock | None = None, logger: Any = None
    ) -> None:
        self.start = secrets.token_hex(4)
        self._clock = clock or SystemClock()
        self._logger = logger
        self._log = keeper_logger(logger, name="sidecar")
        self.started_at = self._clock.wall()
        self.tokens: Mapping[str, ServedToken] = MappingProxyType({})
        self.events = EventLog(self.start)
        self._parts = parts
        self._deliveries: dict[str, Deliveries] = {}
        self._crew = Crew(self._clock)
        self._scheduler: Scheduler | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def clock(self) -> Clock:
        """Where the time comes from."""
        return self._clock

    @property
    def clock_jumps(self) -> int:
        """Jumps of a clock since the start."""
        return self._scheduler.jumps if self._scheduler else 0

    @property
    def is_live(self) -> bool:
        """Whether the scheduler ticked lately."""
        scheduler, task = self._scheduler, self._task
        if scheduler is None or task is None or task.done():
            return False
        return self._clock.monotonic() - scheduler.ticked_at < LIVE_S

    def deliveries(self, name: str) -> Deliveries:
        """Return the sinks and hooks of the token *name*."""
        return self._deliveries[name]

    async def __aenter__(self) -> Self:
        self._scheduler = Scheduler(self._clock, self._log)
        tokens = {parts.name: self._opened(parts) for parts in self._parts}
        self.tokens = MappingProxyType(tokens)
        for served in tokens.values():
            await self._deliveries[served.name].adopt()
            served.begin(self._scheduler)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._scheduler.run(), name="token_keeper scheduler")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop keeping tokens; sinks and hooks get what is still due. Does nothing the second time."""
        task, self._task = self._task, None
        if task is None:
            return
        await asyncio.gather(*(deliveries.close() for deliveries in self._deliveries.values()))
        await asyncio.gather(*(served.end() for served in self.tokens.values()))
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
        self.events.close()

    async def apply(self, parts: tuple[TokenParts, ...]) -> Changes:
        """Keep what *parts* say from now on. Tokens of which nothing changed are not touched."""
        scheduler = self._scheduler
        assert scheduler is not None, "a household reloads while it is entered"  # noqa: S101 - our own invariant
        wanted = {one.name: one for one in parts}
        before = self.tokens
        former = {one.name: one for one in self._parts}
        removed = tuple(name for name in before if name not in wanted)
        added = tuple(name for name in wanted if name not in before)
        changed = tuple(
            name for name, one in wanted.items() if name in before and not former[name].is_like(one)
        )
        for name in changed:
            self._deliveries[name].become(wanted[name].config)
            before[name].become(wanted[name])
        tokens = {name: before[name] if name in before else self._opened(one) for name, one in wanted.items()}
        self.tokens = MappingProxyType(tokens)
        for name in added:
            await self._deliveries[name].adopt()
            tokens[name].begin(scheduler)
        for name in removed:
            await self._deliveries.pop(name).close()
            await before[name].end()
        self.events.forget(removed)
        self._parts = parts
        kept = tuple(name for name in wanted if name in before and name not in changed)
        return Changes(added=added, changed=changed, removed=removed, unchanged=kept)

    def _opened(self, parts: TokenParts) -> ServedToken:
        served = ServedToken(parts, clock=self._clock, logger=self._logger)
        deliveries = Deliveries(served, start=self.start, logger=self._logger, crew=self._crew)
        self._deliveries[parts.name] = deliveries
        served.on()(self._heard)
        return served

    def _heard(self, event: TokenEvent) -> None:
        self.events.append(event)
        # A token that was just removed has none any more.
        if event.name in self._deliveries:
            self._deliveries[event.name].notify(event)
