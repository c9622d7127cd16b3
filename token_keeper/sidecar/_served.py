"""One token of the sidecar: what a keeper offers without waiting, on a scheduler that all share."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from token_keeper._clock import Clock
from token_keeper._errors import FetchError, RefusedError, ResponseError
from token_keeper._face import Face
from token_keeper._inputs import CredentialsChanged, Fetched, Started
from token_keeper._kept import KeptToken
from token_keeper._model import Issued, Verdict
from token_keeper._policy import RefreshPolicy
from token_keeper._scheduler import CANCEL_GRACE_S, Charge, Scheduler
from token_keeper.inspection import Expectations, Profile
from token_keeper.sidecar.config._exact import Exact
from token_keeper.sidecar.config._model import TokenConfig
from token_keeper.sources import Retiring, Source, Watched

OUTCOMES = ("issued", "unchanged", "invalid", "transient", "refused", "cancelled")
"""How a fetch can end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenParts:
    """What the configuration of one token was turned into.

    Args:
        name: The token's name.
        config: What stands in the file. Two that are equal need no reload.
        source: Where it comes from.
        policy: When it is refreshed.
        profile: The rules that it must pass.
        expect: What it must be good for.
        settled: What files said that are read only at a load. Something else is a change, too.
        links: The sources that a chain is made of, by name.
    """

    name: str
    config: TokenConfig
    source: Source
    policy: RefreshPolicy
    profile: Profile
    expect: Expectations
    settled: Exact = field(default_factory=lambda: Exact([]))
    links: Mapping[str, Source] = field(default_factory=dict)

    def is_like(self, other: TokenParts) -> bool:
        """Whether a reload has nothing to do if it finds *other* instead."""
        return self.config == other.config and self.settled == other.settled


class Tally:
    """Plain counters of one token; exported when somebody scrapes."""

    __slots__ = ("denials", "fetch_s", "fetches", "waiters")

    def __init__(self) -> None:
        self.fetches: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.fetch_s = 0.0
        self.denials: Counter[str] = Counter(dict.fromkeys(Verdict, 0))
        self.waiters = 0


class ServedToken(Face):
    """A kept token that the sidecar gives to others.

    Args:
        parts: What the configuration says of it.
        clock: Where the time comes from.
        logger: A structlog logger.

    Attributes:
        config: What the configuration says of it now.
        tally: Counters for the metrics.
        published_at: When the current generation came, in seconds of the monotonic clock.
    """

    _sync_in_thread = False

    def __init__(self, parts: TokenParts, *, clock: Clock, logger: Any = None) -> None:
        self.tally = Tally()
        super().__init__(
            _timed(parts.source, self.tally),
            policy=parts.policy,
            profile=parts.profile,
            expect=parts.expect,
            name=parts.name,
            clock=clock,
            logger=logger,
        )
        self.config = parts.config
        self.last_success_at: float | None = None
        self._charged = Charge(self._kept, self._source, self._received, self._teller.tell)
        self._scheduler: Scheduler | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def kept(self) -> KeptToken:
        """The machine behind it."""
        return self._kept

    @property
    def profile(self) -> Profile:
        """The rules that it must pass."""
        return self._profile

    @property
    def listener_failures(self) -> int:
        """How many calls of listeners raised or took too long."""
        return self._listeners.failures

    def begin(self, scheduler: Scheduler) -> None:
        """Have *scheduler* keep it fresh. Only in the scheduler's loop."""
        self._scheduler = scheduler
        scheduler.add(self._charged)
        self._kept.post(Started())

    def become(self, parts: TokenParts) -> bool:
        """Do as *parts* say from now on: fetch anew, count on.

        Returns whether the current token still serves: it is withdrawn if it does not pass the new rules.
        """
        former, self._source = self._source, _timed(parts.source, self.tally)
        self._charged.source = self._source
        if self._scheduler is not None:
            self._scheduler.watch(self._charged)
        self.config = parts.config
        self._profile, self._expect = parts.profile, parts.expect
        self._kept.policy = parts.policy if parts.source.splay else replace(parts.policy, splay=False)
        fits = self._teller.judge_by(parts.profile, parts.expect)
        self._kept.post(CredentialsChanged(keeps=fits))
        if former is not None:
            task = asyncio.get_running_loop().create_task(former.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return fits

    async def end(self) -> None:
        """Keep it no longer: waiters get `KeeperClosed`. Does nothing the second time."""
        self._kept.close()
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is None:
            return
        scheduler.remove(self._charged)
        charged = self._charged
        tasks = {task for task in (charged.flight, charged.call, charged.watch) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_GRACE_S)
        await self._listeners.drain(CANCEL_GRACE_S)
        await self._close_source()

    def report_denied(
        self, token: str, *, by: str = "", code: int | str | None = None, reason: str | None = None
    ) -> Verdict:
        """As the keeper's, counted."""
        given, token = token, ""
        verdict = super().report_denied(given, by=by, code=code, reason=reason)
        self.tally.denials[verdict] += 1
        return verdict

    def _received(self, fetch_id: int, issued: Issued) -> Fetched:
        try:
            fetched = self._teller.receive(fetch_id, issued)
        except FetchError:
            self.tally.fetches["invalid"] += 1
            raise
        current = self._kept.state.current
        is_same = current is not None and current.token.secret == fetched.token.secret
        self.tally.fetches["unchanged" if is_same else "issued"] += 1
        self.last_success_at = self._clock.wall()
        return fetched


class _Timed:
    """A source whose fetches are counted and timed."""

    __slots__ = ("_source", "_tally")

    def __init__(self, source: Source, tally: Tally) -> None:
        self._source = source
        self._tally = tally

    @property
    def origin(self) -> str:
        return self._source.origin

    @property
    def splay(self) -> bool:
        return self._source.splay

    async def fetch(self, *, tries: int) -> Issued:
        began = time.monotonic()
        try:
            return await self._source.fetch(tries=tries)
        except ResponseError:
            self._tally.fetches["invalid"] += 1
            raise
        except RefusedError:
            self._tally.fetches["refused"] += 1
            raise
        except asyncio.CancelledError:
            self._tally.fetches["cancelled"] += 1
            raise
        except Exception:
            self._tally.fetches["transient"] += 1
            raise
        finally:
            self._tally.fetch_s += time.monotonic() - began

    async def retire(self) -> None:
        if isinstance(self._source, Retiring):
            await self._source.retire()

    async def aclose(self) -> None:
        await self._source.aclose()


class _TimedWatched(_Timed):
    """The same for one that notices by itself when it has another token."""

    __slots__ = ()

    def changes(self) -> AsyncIterator[None]:
        assert isinstance(self._source, Watched)  # noqa: S101 - `_timed` looked
        return self._source.changes()


def _timed(source: Source, tally: Tally) -> _Timed:
    return (_TimedWatched if isinstance(source, Watched) else _Timed)(source, tally)
