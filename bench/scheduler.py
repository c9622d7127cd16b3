"""What one scheduler costs with 1 000, 10 000 and 100 000 tokens: CPU, memory, lateness.

A ladder shows where the cost is: bare timers in a heap; the scheduler with tokens that do
nothing; the scheduler with real machines, and at each wake-up a fetch from a source in memory.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import time
import tracemalloc
from collections.abc import Callable
from typing import Protocol, cast

from report import Figures, heading, note, quantile, run, table

from token_keeper import Issued, RefreshPolicy, Secret
from token_keeper._clock import SystemClock
from token_keeper._inputs import Announce, Effect, Fetched, Input, Started
from token_keeper._kept import KeptToken
from token_keeper._model import Token
from token_keeper._scheduler import Charge, Scheduler
from token_keeper._state import Current, State

SIZES = (1_000, 10_000, 100_000)
TIMERS_PER_S = 5_000
REFRESHES_PER_S = 250
GRID_S = 0.02
RUN_S = 1.2
WEIGHED = 10_000
RAW = "eyJhbGciOiJIUzI1NiJ9." + 150 * "x"
"""Of a usual length, together with a number."""
POLICY = RefreshPolicy(splay=False, jitter_ratio=0.0, lead_min_s=0.0, min_interval_s=0.1)
LIFETIME_TO_DUE = 0.8
"""When a token is due, as a share of its lifetime, by that policy."""


FLOOR = "the floor: a bare heap"
TIMER = "the scheduler's own share"


def dues(size: int) -> list[float]:
    """Return when *size* timers are due first: many at once, so that a turn of the loop counts little."""
    begin = time.monotonic() + 0.1 + size * 10e-6
    at_once = TIMERS_PER_S * GRID_S
    return [begin + number // at_once * GRID_S for number in range(size)]


class Rung(Protocol):
    """So many timers, and a task that runs them and notes how late each was, in seconds."""

    late: list[float]

    def start(self) -> None:
        """Make the timers, due one after the other from a moment ahead on."""

    async def run(self) -> None: ...


class BareTimers:
    """The floor: a heap, one timer of the loop, and nothing that could go wrong."""

    def __init__(self, size: int) -> None:
        self.late: list[float] = []
        self._size = size
        self._heap: list[tuple[float, int]] = []

    def start(self) -> None:
        for number, at in enumerate(dues(self._size)):
            heapq.heappush(self._heap, (at, number))

    async def run(self) -> None:
        loop, wake, period = asyncio.get_running_loop(), asyncio.Event(), self._size / TIMERS_PER_S
        while True:
            now = time.monotonic()
            while self._heap[0][0] <= now:
                at, number = self._heap[0]
                self.late.append(now - at)
                heapq.heapreplace(self._heap, (at + period, number))
            wake.clear()
            loop.call_at(self._heap[0][0], wake.set)
            await wake.wait()


class Idle:
    """Looks like a kept token to the scheduler, and does nothing but want the next turn."""

    __slots__ = ("_at", "_late", "_period", "gone", "name")

    def __init__(self, late: list[float], at: float, period: float) -> None:
        self.name = "idle"
        self.gone = None
        self._late = late
        self._at = at
        self._period = period

    def driven_by(self, *_: object) -> None: ...

    def post(self, _what: Input) -> None:
        self._late.append(time.monotonic() - self._at)
        self._at += self._period

    def take_effects(self) -> tuple[Effect, ...]:
        return ()

    def wakeup(self) -> float:
        return self._at

    def close(self, _why: str) -> None: ...


class MonotonicClock(SystemClock):
    """The boot clock stands for the monotonic one, so that both rungs read the same."""

    boot = staticmethod(time.monotonic)


def no_receive(_fetch_id: int, _issued: Issued) -> Fetched:
    raise AssertionError


def no_tell(_told: Announce) -> None:
    raise AssertionError


class IdleTokens:
    """The scheduler's own share."""

    def __init__(self, size: int) -> None:
        self.late: list[float] = []
        self._size = size
        self._scheduler = Scheduler(MonotonicClock(), None)

    def start(self) -> None:
        for at in dues(self._size):
            idle = cast("KeptToken", Idle(self.late, at, self._size / TIMERS_PER_S))
            self._scheduler.add(Charge(idle, None, no_receive, no_tell))

    async def run(self) -> None:
        await self._scheduler.run()


class StoppedClock:
    """Stands still while tokens are made, and then goes on from there."""

    def __init__(self) -> None:
        self._stopped_at: float | None = time.monotonic()
        self._behind = 0.0

    def monotonic(self) -> float:
        return time.monotonic() - self._behind if self._stopped_at is None else self._stopped_at

    boot = wall = monotonic

    def go(self) -> None:
        assert self._stopped_at is not None
        self._behind, self._stopped_at = time.monotonic() - self._stopped_at, None


class MemorySource:
    """Issues at once."""

    origin = "memory"
    splay = False

    def __init__(self, issue: Callable[[], Issued]) -> None:
        self._issue = issue

    async def fetch(self, *, tries: int) -> Issued:
        del tries
        return self._issue()

    async def aclose(self) -> None: ...


class RefreshedTokens:
    """The whole: at each wake-up `tokenAboutToExpire`, a fetch, a new token, `tokenUpdated`."""

    def __init__(self, size: int) -> None:
        self.late: list[float] = []
        self._size = size
        self._clock = StoppedClock()
        self._scheduler = Scheduler(self._clock, None)
        self._source = MemorySource(self._issue)
        self._lifetime = size / REFRESHES_PER_S / LIFETIME_TO_DUE
        self._serial = 0

    def start(self) -> None:
        for number in range(self._size):
            kept = KeptToken("token", policy=POLICY, clock=self._clock, sourced=True)
            # As after a first fetch, which would take most of the time of this program.
            kept.state = self._published(due_in=0.1 + number / REFRESHES_PER_S)
            self._scheduler.add(self._charge(kept))

    async def run(self) -> None:
        self._clock.go()
        await self._scheduler.run()

    def _published(self, due_in: float) -> State:
        received, lifetime = self._clock.boot(), due_in / LIFETIME_TO_DUE
        current = Current(
            token=self._token(self._clock.wall() + lifetime),
            generation=1,
            received=received,
            expires=received + lifetime,
            stale=received + due_in,
        )
        return State(started=True, current=current, generation=1, due=current.stale)

    def _charge(self, kept: KeptToken) -> Charge:
        def receive(fetch_id: int, issued: Issued) -> Fetched:
            return Fetched(fetch_id, Token(secret=issued.secret, expires_at=issued.expires_at))

        def tell(told: Announce) -> None:
            self._tell(kept, told)

        return Charge(kept, self._source, receive, tell)

    def _token(self, expires_at: float) -> Token:
        self._serial += 1
        return Token(secret=Secret(f"{RAW}{self._serial}"), expires_at=expires_at)

    def _issue(self) -> Issued:
        token = self._token(self._clock.wall() + self._lifetime)
        return Issued(secret=token.secret, expires_at=token.expires_at)

    def _tell(self, kept: KeptToken, told: Announce) -> None:
        if told.kind == "tokenAboutToExpire" and kept.state.current is not None:
            self.late.append(self._clock.boot() - kept.state.current.stale)


async def turned(rung: Rung) -> Figures:
    """Run *rung* for a while and return what each of its wake-ups cost."""
    gc.collect()
    gc.disable()  # Many objects are made, none is garbage.
    rung.start()
    gc.enable()
    gc.freeze()  # Else the collector would look at all of them within our short run.
    task = asyncio.ensure_future(rung.run())
    while not rung.late:  # noqa: ASYNC110 - the rungs know no events
        await asyncio.sleep(0.05)
    rung.late.clear()
    cpu, begin = time.process_time(), time.monotonic()
    await asyncio.sleep(RUN_S)
    cpu, took = time.process_time() - cpu, time.monotonic() - begin
    late = rung.late.copy()
    task.cancel()
    await asyncio.wait({task})
    gc.unfreeze()
    return {
        "wakeups_per_s": len(late) / took,
        "cpu_us": cpu / len(late) * 1e6,
        "late_p50_ms": quantile(late, 0.5) * 1e3,
        "late_p99_ms": quantile(late, 0.99) * 1e3,
    }


def measure_turns() -> Figures:
    heading("One scheduler: a wake-up, with its share of the event loop's work")
    rungs: dict[str, Callable[[int], Rung]] = {
        FLOOR: BareTimers,
        TIMER: IdleTokens,
        "a whole refresh": RefreshedTokens,
    }
    found: Figures = {}
    rows = []
    for size in SIZES:
        for name, rung in rungs.items():
            turn = asyncio.run(_in_loop(rung, size))
            found[f"{name}, {size}"] = turn
            rows.append(
                [
                    f"{size:>7,} {name}",
                    f"{turn['wakeups_per_s']:.0f}",
                    f"{turn['cpu_us']:.1f}",
                    f"{turn['late_p50_ms']:.2f}",
                    f"{turn['late_p99_ms']:.2f}",
                ]
            )
    table(["tokens", "wake-ups/s", "CPU us each", "late ms, p50", "p99"], rows)
    note("A refresh: tokenAboutToExpire, a fetch from a source in memory, publication, tokenUpdated.")
    return found


async def _in_loop(rung: Callable[[int], Rung], size: int) -> Figures:
    return await turned(rung(size))


class Scale:
    """Weighs what is made, in bytes for each token."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self._made: list[object] = []
        tracemalloc.start()

    def weigh(self, name: str, make: Callable[[], object]) -> None:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        self._made.append(make())
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        self.found[name] = (after - before) / WEIGHED

    def close(self) -> None:
        tracemalloc.stop()


async def weights() -> dict[str, float]:
    scale, clock = Scale(), SystemClock()
    heap: list[tuple[float, int]] = []
    raws: list[str] = []
    tokens: list[Token] = []
    kept: list[KeptToken] = []
    scheduler = Scheduler(clock, None)
    expires_at = clock.wall() + 1000

    def push() -> None:
        for number in range(WEIGHED):
            heapq.heappush(heap, (expires_at + number, number))

    def supply() -> None:
        for one, token in zip(kept, tokens, strict=True):
            one.supply(token)
            one.post(Started())
            one.take_effects()

    def schedule() -> None:
        for one in kept:
            scheduler.add(Charge(one, None, no_receive, no_tell))

    scale.weigh(FLOOR, push)
    scale.weigh("raw string", lambda: raws.extend(f"{RAW}{number}" for number in range(WEIGHED)))
    scale.weigh(
        "Token and Secret",
        lambda: tokens.extend(
            Token(secret=Secret(raw), expires_at=expires_at + number) for number, raw in enumerate(raws)
        ),
    )
    scale.weigh(
        "KeptToken: lock, machine",
        lambda: kept.extend(
            KeptToken("token", policy=POLICY, clock=clock, sourced=True) for _ in range(WEIGHED)
        ),
    )
    scale.weigh("its state, once a token is published", supply)
    scale.weigh(TIMER, schedule)
    scale.close()
    return scale.found


def measure_memory() -> dict[str, float]:
    found = asyncio.run(weights())
    heading(f"One scheduler: memory, of {WEIGHED:,} tokens")
    table(["", "bytes each"], [[name, f"{weight:.0f}"] for name, weight in found.items()])
    return found


def measure() -> Figures:
    return {"turns": measure_turns(), "bytes": measure_memory()}


if __name__ == "__main__":
    run(measure)
