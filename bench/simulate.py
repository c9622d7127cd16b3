"""Confirm the schedule's numbers by simulation: python bench/simulate.py [--replicas 1000].

Prints one table for each scenario. Nothing here waits: time is simulated.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from token_keeper._errors import FetchError, TransientFetchError
from token_keeper._inputs import Input
from token_keeper._model import EventKind, Secret, Token
from token_keeper._policy import RefreshPolicy
from token_keeper.testing._simulation import Outcome, Simulation

T0 = 1_700_000_000.0
LIFETIMES_S = {
    "2 s": 2.0,
    "5 s": 5.0,
    "12 s": 12.0,
    "60 s": 60.0,
    "5 min": 300.0,
    "1 h": 3_600.0,
    "1 day": 86_400.0,
}
FETCH_S = 0.2
LIVES = 40
SEEDS = range(12)
BINS = 30
"""Parts of a life in which the fetches of a fleet are counted."""

IsUp = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """What one lifetime showed in one scenario."""

    lifetime: str
    without_token: float
    fetches_per_life: float
    note: str = ""


class Watched(Simulation):
    """A simulation that adds up for how long *by* had no usable token, once there was one."""

    def __init__(self, outcomes: Iterator[Outcome], *, by: str = "", **options: object) -> None:
        self.by = by
        self.without_s = 0.0
        self.gone_at: float | None = None
        super().__init__(outcomes, now=T0, **options)  # type: ignore[arg-type]

    def post(self, what: Input) -> None:
        super().post(what)
        self.history.clear()
        if self.state.generation and self.usable(self.by) is None:
            self.gone_at = self.boot if self.gone_at is None else self.gone_at
        elif self.gone_at is not None:
            self.without_s += self.boot - self.gone_at
            self.gone_at = None

    @property
    def gap_s(self) -> float:
        """Seconds without a usable token."""
        return self.without_s + (0.0 if self.gone_at is None else self.boot - self.gone_at)


def backend(lifetime_s: float, is_up: IsUp = lambda _: True) -> Iterator[Outcome]:
    serials = itertools.count()

    def answer(wall: float) -> Token | FetchError:
        if is_up(wall - T0):
            return Token(secret=Secret(f"token-{next(serials)}"), expires_at=wall + lifetime_s)
        return TransientFetchError("down")

    return itertools.repeat(answer)


def healthy(name: str, lifetime_s: float, *, fetch_s: float = FETCH_S) -> Row:
    runs = [Watched(backend(lifetime_s), seed=seed, fetch_s=fetch_s) for seed in SEEDS]
    for sim in runs:
        sim.run_for(LIVES * lifetime_s)
    return row(name, runs, LIVES * lifetime_s, lifetime_s)


def slow(name: str, lifetime_s: float) -> Row:
    return healthy(name, lifetime_s, fetch_s=2.0)


def outage(name: str, lifetime_s: float) -> Row:
    """Let the backend be away for a sixth of the lifetime, at 24 moments around the refresh."""
    away_s, runs = lifetime_s / 6, []
    for seed, part in itertools.product(SEEDS, range(24)):
        start = 2.5 * lifetime_s + part * lifetime_s / 24

        def is_up(at: float, start: float = start) -> bool:
            return not start <= at < start + away_s

        sim = Watched(backend(lifetime_s, is_up), seed=seed, fetch_s=FETCH_S)
        sim.run_for(6 * lifetime_s)
        runs.append(sim)
    worst = max(sim.gap_s for sim in runs)
    return row(name, runs, 6 * lifetime_s, lifetime_s, note=f"worst gap {worst:.1f} s")


def attempts(name: str, lifetime_s: float) -> Row:
    """Let the backend go for good while the second token is used."""
    runs, fitted = [], []
    for seed in SEEDS:
        sim = Watched(backend(lifetime_s), seed=seed, fetch_s=FETCH_S)
        while sim.state.generation < 2:
            sim.run_for(lifetime_s / 100)
        current, before = sim.state.current, len(sim.fetches)
        sim._outcomes = iter(())  # noqa: SLF001 - from now on every fetch fails
        sim.run_for(2 * lifetime_s)
        expires = current.expires if current else math.inf
        fitted.append(sum(fetch.started < expires for fetch in sim.fetches[before:]))
        runs.append(sim)
    note = f"{min(fitted)} to {max(fitted)} attempts"
    return row(name, runs, 4 * lifetime_s, lifetime_s, note=note)


def storm(name: str, lifetime_s: float) -> Row:
    """Let one server refuse whatever it is shown, for three hours or more; the row is about the others."""
    runs, most = [], 0
    for seed in SEEDS[:2]:
        sim = Watched(backend(lifetime_s), seed=seed, fetch_s=FETCH_S, by="good")
        routine = Watched(backend(lifetime_s), seed=seed, fetch_s=FETCH_S)
        span_s = 3 * 3_600.0
        while sim.boot < span_s:
            sim.run_for(1.0)
            sim.deny("bad")
        routine.run_for(span_s)
        most = max(most, busiest_hour(sim) - busiest_hour(routine))
        runs.append(sim)
    return row(name, runs, span_s, lifetime_s, note=f"at most {most} more fetches in an hour")


def busiest_hour(sim: Simulation) -> int:
    started = [fetch.started for fetch in sim.fetches if fetch.started > 0]
    ends, most = 0, 0
    for index, at in enumerate(started):
        while ends < len(started) and started[ends] <= at + 3_600.0:
            ends += 1
        most = max(most, ends - index)
    return most


def fleet(lifetime_s: float, *, replicas: int, splay: bool) -> float:
    """Return peak over mean of the fetches of a fleet in its lives after the first."""
    counts: Counter[int] = Counter()
    policy, width_s = RefreshPolicy(splay=splay), lifetime_s / BINS
    lives = 6
    for seed in range(replicas):
        sim = Simulation(backend(lifetime_s), now=T0, policy=policy, seed=seed, fetch_s=FETCH_S)
        sim.run_for(lives * lifetime_s)
        counts.update(int(fetch.started / width_s) for fetch in sim.fetches)
    later = [counts[index] for index in range(BINS, lives * BINS)]
    return max(later) * len(later) / sum(later)


def row(name: str, runs: list[Watched], span_s: float, lifetime_s: float, note: str = "") -> Row:
    without = sum(sim.gap_s for sim in runs) / (len(runs) * span_s)
    fetches = sum(len(sim.fetches) for sim in runs) / (len(runs) * span_s / lifetime_s)
    expired = sum(sim.names().count(EventKind.TOKEN_EXPIRED) for sim in runs)
    return Row(name, without, fetches, note or f"{expired} expired")


SCENARIOS = {
    "healthy backend, a fetch takes 0.2 s": healthy,
    "a fetch takes 2 s": slow,
    "outage of a sixth of the lifetime, at 24 moments of a life": outage,
    "the backend goes for good: attempts before the expiry": attempts,
    "one reporter denies everything, once a second: the others": storm,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=1_000, help="size of the fleet")
    replicas = parser.parse_args().replicas
    for title, scenario in SCENARIOS.items():
        print(f"\n{title}\n{'lifetime':>8}  {'without token':>13}  {'fetches/life':>12}")
        for name, lifetime_s in LIFETIMES_S.items():
            shown = scenario(name, lifetime_s)
            figures = f"{shown.without_token:>12.3%}  {shown.fetches_per_life:>12.2f}"
            print(f"{shown.lifetime:>8}  {figures}  {shown.note}")
    print(f"\n{replicas} replicas started together: peak over mean fetch rate in lives 2 to 6")
    print(f"{'lifetime':>8}  {'with splay':>10}  {'without':>7}")
    for name, lifetime_s in LIFETIMES_S.items():
        spread = fleet(lifetime_s, replicas=replicas, splay=True)
        bunched = fleet(lifetime_s, replicas=replicas, splay=False)
        print(f"{name:>8}  {spread:>10.1f}  {bunched:>7.1f}")


if __name__ == "__main__":
    main()
