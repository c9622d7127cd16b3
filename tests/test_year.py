"""A simulated year with a token of one hour, and everything that may go wrong in it."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass

from helpers import DAY, HOUR, MINUTE, a_token

from token_keeper._errors import FetchError, RefusedError, TransientFetchError
from token_keeper._inputs import CredentialsChanged, Input
from token_keeper._model import Token
from token_keeper.testing._simulation import Simulation

YEAR = 365 * DAY
FETCH_S = 2.0
SLACK_S = 1.0 + FETCH_S
"""`min_interval`, then the fetch."""
LONG_ENOUGH_S = 300 * 1.1 + SLACK_S
"""No wait without a valid token is longer than 5 min, and a tenth more after `Retry-After`."""
LONG_ENOUGH_AFTER_REFUSAL_S = 900 + SLACK_S
"""A backend that refused, and gave no token since, is probed every 15 min."""

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fault:
    """The backend answers with *error* from *start* to *end*, seconds since the simulation's start."""

    start: float
    end: float
    error: FetchError


class Year(Simulation):
    """A simulation whose backend has faults, and which notes when no token was usable."""

    def __init__(self, faults: list[Fault], *, seed: int) -> None:
        self.faults = faults
        self.starts = [fault.start for fault in faults]
        self.gaps: list[Span] = []
        self.gone_at: float | None = 0.0
        self.excuses: list[Span] = [(0.0, FETCH_S)]
        super().__init__(iter(lambda: self.answer, None), seed=seed, fetch_s=FETCH_S)

    def answer(self, wall: float) -> Token | FetchError:
        latest = bisect_right(self.starts, self.boot) - 1
        if latest < 0 or self.boot >= self.faults[latest].end:
            return a_token(expires_at=wall + HOUR)
        fault = self.faults[latest]
        streak = self.state.streak
        refused = isinstance(fault.error, RefusedError) or (streak is not None and streak.refused is not None)
        long_enough_s = LONG_ENOUGH_AFTER_REFUSAL_S if refused else LONG_ENOUGH_S
        self.excuses.append((fault.start, fault.end + long_enough_s))
        return fault.error

    def post(self, what: Input) -> None:
        super().post(what)
        self.history.clear()
        usable = self.usable() is not None
        if usable and self.gone_at is not None:
            self.gaps.append((self.gone_at, self.boot))
        self.gone_at = None if usable else self.boot if self.gone_at is None else self.gone_at

    def suspend(self, seconds: float) -> None:
        self.excuses.append((self.boot, self.boot + seconds + SLACK_S))
        super().suspend(seconds)

    def live(self, seed: int) -> None:
        """Let the year pass with denials, clock steps, requests and suspends now and then."""
        draw = random.Random(seed)
        while self.boot < YEAR:
            self.run_for(draw.expovariate(1 / (6 * HOUR)))
            match draw.randrange(5):
                case 0:
                    self.deny("bad")
                case 1:
                    self.step_wall(draw.uniform(-HOUR, HOUR))
                case 2:
                    self.refresh()
                case 3:
                    self.post(CredentialsChanged())
                case 4:
                    self.suspend(draw.uniform(0.0, 8 * HOUR))


def a_year_of_faults(seed: int, *, longest_s: float, apart_s: float, errors: list[FetchError]) -> list[Fault]:
    """Return faults of up to *longest_s*, most of them short, at least *apart_s* apart."""
    draw, faults, at = random.Random(seed), list[Fault](), 0.0
    while at < YEAR:
        start = at + apart_s + draw.expovariate(1 / (6 * HOUR))
        at = start + longest_s * draw.random() ** 3
        faults.append(Fault(start, at, draw.choice(errors)))
    return faults


def unexcused(gaps: list[Span], excuses: list[Span]) -> list[Span]:
    """Return what of *gaps* lies in none of *excuses*."""
    left, known = [], sorted(set(excuses))
    for start, end in gaps:
        at = start
        for since, until in known:
            at = until if since <= at < until else at
        if at < end:
            left.append((at, end))
    return left


ERRORS = [
    TransientFetchError("the backend is down", timed_out=True),
    TransientFetchError("busy", retry_after=60.0),
    TransientFetchError("busy", retry_after=3_600.0),
    TransientFetchError("busy", retry_after=1e9),
    RefusedError("http_401"),
    RefusedError("invalid_grant"),
]


def test_in_a_year_a_token_was_usable_whenever_the_backend_was_up_for_long_enough() -> None:
    """Long enough is five and a half minutes, or a quarter of an hour after it had refused."""
    sim = Year(a_year_of_faults(1, longest_s=4 * HOUR, apart_s=0.0, errors=ERRORS), seed=1)
    sim.live(1)

    assert unexcused(sim.gaps, sim.excuses) == []
    assert len(sim.gaps) > 100


def test_in_a_year_no_outage_of_up_to_8_min_is_noticed_by_any_user() -> None:
    """The lead of an hour's token is 12 min, and no wait in it is longer than 3 min."""
    faults = a_year_of_faults(3, longest_s=8 * MINUTE, apart_s=HOUR, errors=ERRORS[:1])
    sim = Year(faults, seed=3)
    sim.run_for(YEAR)

    assert sim.gaps == [(0.0, FETCH_S)]
    assert len(faults) > 1_000
