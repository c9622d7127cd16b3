"""A machine driven through scripted outcomes in simulated time: years in seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from token_keeper._errors import FetchError, TransientFetchError
from token_keeper._inputs import (
    Announce,
    CancelFetch,
    ClockJumped,
    Effect,
    Failure,
    Fetched,
    FetchFailed,
    Input,
    Moment,
    RefreshRequested,
    Started,
    StartFetch,
    Tick,
    TokenAccepted,
    TokenDenied,
    TokenSupplied,
)
from token_keeper._machine import next_wakeup, step
from token_keeper._model import DenialClass, Snapshot, Token, TokenEvent, Verdict
from token_keeper._policy import RefreshPolicy
from token_keeper._recovery import judge
from token_keeper._state import NEVER, State
from token_keeper._view import snapshot_of

MAX_TURNS_AT_ONCE = 100
"""Wake-ups without time passing; more would be a machine that spins."""

Outcome = Token | FetchError | Callable[[float], Token | FetchError]


@dataclass(frozen=True, slots=True)
class SimulatedFetch:
    """One fetch of a simulation. Times are seconds since its start."""

    fetch_id: int
    started: float
    ends: float
    tries: int
    timeout_s: float


class Simulation:
    """A machine, a script of fetch outcomes, and time that passes when told.

        sim = Simulation([token, TransientFetchError("down"), token2], now=T0)
        sim.run_until(T0 + 3600)
        assert sim.names() == ["tokenUpdated", "tokenAboutToExpire", ...]

    Args:
        outcomes: What the fetches bring, one after another: a token, an error,
            or a function of the wall clock that returns one of them. When they
            run out, every fetch fails.
        now: Unix seconds at the start.
        policy: Timing of renewal.
        seed: Of the draws for jitter and splay.
        fetch_s: How long each fetch takes, in seconds. One that takes longer
            than its timeout fails.
        sourced: Whether there is a source at all.
        start: Whether to start at once.
    """

    def __init__(  # noqa: PLR0913 - a test names what it needs
        self,
        outcomes: Iterable[Outcome] = (),
        *,
        now: float = 1_700_000_000.0,
        policy: RefreshPolicy | None = None,
        seed: int = 0,
        fetch_s: float = 0.0,
        sourced: bool = True,
        start: bool = True,
    ) -> None:
        self.policy = policy or RefreshPolicy()
        self.state = State(sourced=sourced)
        self.events: list[TokenEvent] = []
        self.announced: list[Announce] = []
        self.fetches: list[SimulatedFetch] = []
        self.history: list[tuple[Moment, Input]] = []
        self.fetch_s = fetch_s
        self._outcomes: Iterator[Outcome] = iter(outcomes)
        self._draws = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._wall_at_boot = now
        self._boot = 0.0
        self._in_flight: SimulatedFetch | None = None
        if start:
            self.post(Started())

    @property
    def wall(self) -> float:
        """Unix seconds of the simulated wall clock."""
        return self._wall_at_boot + self._boot

    @property
    def boot(self) -> float:
        """Seconds since the start of the simulation."""
        return self._boot

    @property
    def snapshot(self) -> Snapshot:
        """How the token stands now."""
        return snapshot_of(self.state, Moment(self.wall, self._boot), self.policy)

    def names(self) -> list[str]:
        """Return the names of all events so far."""
        return [str(event.kind) for event in self.events]

    def usable(self, by: str = "") -> Token | None:
        """Return the token that *by* may use now, or None."""
        current = self.state.usable_by(by, self._boot)
        return current.token if current else None

    def post(self, what: Input) -> None:
        """Let *what* happen now."""
        now = self._moment()
        self.history.append((now, what))
        self.state, effects = step(self.state, what, now, self.policy)
        for effect in effects:
            self._obey(effect)

    def run_until(self, wall: float) -> None:
        """Let time pass until the wall clock shows *wall*."""
        self.run_for(wall - self.wall)

    def run_for(self, seconds: float) -> None:
        """Let *seconds* pass.

        Raises:
            RuntimeError: If the machine asks for wake-ups without end.
        """
        end, turns = self._boot + seconds, 0
        while (at := self._next()) <= end:
            turns = turns + 1 if at <= self._boot else 0
            if turns > MAX_TURNS_AT_ONCE:
                raise RuntimeError(f"the machine spins at {self._boot} s: {self.state}")
            self._boot = max(at, self._boot)
            if self._in_flight is not None and self._in_flight.ends <= self._boot:
                self._land(self._in_flight)
            else:
                self.post(Tick())
        self._boot = end

    def deny(self, by: str = "", *, meaning: DenialClass = DenialClass.DENIED) -> Verdict:
        """Let a server refuse the current token when *by* shows it."""
        denial = TokenDenied(self.state.generation, by, meaning)
        verdict = judge(self.state, denial, Moment(self.wall, self._boot), self.policy)
        self.post(denial)
        return verdict

    def accept(self, by: str = "") -> None:
        """Let a server accept the current token from *by*."""
        self.post(TokenAccepted(self.state.generation, by))

    def refresh(self) -> None:
        """Ask for a newer token."""
        self.post(RefreshRequested())

    def supply(self, token: Token) -> None:
        """Hand in a token."""
        self.post(TokenSupplied(token))

    def step_wall(self, seconds: float) -> None:
        """Let somebody set the wall clock; the boot clock goes on."""
        self._wall_at_boot += seconds
        self.post(ClockJumped(wall_s=seconds))

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: both clocks go on, nobody looks at them."""
        self._boot += seconds
        self.post(ClockJumped(wall_s=0.0, asleep_s=seconds))

    def _moment(self) -> Moment:
        return Moment(self.wall, self._boot, self._draws.random(), self._draws.random())

    def _next(self) -> float:
        ends = self._in_flight.ends if self._in_flight else NEVER
        return min(next_wakeup(self.state, self.policy), ends)

    def _obey(self, effect: Effect) -> None:
        match effect:
            case StartFetch():
                took = min(self.fetch_s, effect.timeout_s)
                self._in_flight = SimulatedFetch(
                    effect.fetch_id, self._boot, self._boot + took, effect.tries, effect.timeout_s
                )
                self.fetches.append(self._in_flight)
            case CancelFetch():
                self._in_flight = None
            case Announce():
                self.announced.append(effect)
                self.events.append(effect.event(name="token", at=self.wall))

    def _land(self, fetch: SimulatedFetch) -> None:
        self._in_flight = None
        outcome = next(self._outcomes, None) or TransientFetchError("the script has ended")
        if self.fetch_s > fetch.timeout_s:
            outcome = TransientFetchError("the backend did not answer in time", timed_out=True)
        result = outcome(self.wall) if callable(outcome) else outcome
        if isinstance(result, Token):
            self.post(Fetched(fetch.fetch_id, result))
        else:
            self.post(FetchFailed(fetch.fetch_id, Failure.of(result)))
