"""A session under simulated supervision: an SDK that obeys a script, in a time that is a number."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from token_keeper._model import Secret, Verdict
from token_keeper.supervision import (
    Abandon,
    AskRefresh,
    Attempted,
    CallEnded,
    Effect,
    Input,
    Judged,
    Link,
    Moment,
    Offer,
    Offered,
    Pace,
    Phase,
    Report,
    Rung,
    Said,
    SessionState,
    SlowDown,
    Start,
    Tell,
    Tick,
    next_wakeup,
    step,
)
from token_keeper.supervision._model import SETTLED

ALL = frozenset(Rung)
TICK = Tick()
UPDATE_ONLY = frozenset({Rung.UPDATE})

Sdk = Callable[["SessionSim", Attempted], None]
"""What an SDK does when it is called: it posts inputs, now or later."""


def offer(generation: int, *, raw: str | None = None, expires: float = 1e9, **more: Any) -> Offer:
    return Offer(secret=Secret(raw or f"token-{generation}"), generation=generation, expires=expires, **more)


@dataclass
class SessionSim:
    """Steps the machine as its driver does, and notes all that it orders.

    Args:
        sdk: What the SDK does when it is called.
        verdict: What the keeper makes of a denial.
        state: Where it starts.
    """

    sdk: Sdk
    verdict: Callable[[Report], Verdict] = lambda _: Verdict.DENIED
    state: SessionState = field(default_factory=lambda: SessionState(rungs=ALL))
    now: float = 0.0
    pace: Pace = field(default_factory=Pace)
    effects: list[tuple[float, Effect]] = field(default_factory=list)
    under_way: dict[int, Attempted] = field(default_factory=dict)
    made_with: str | None = None
    asked: list[int] = field(default_factory=list)
    _agenda: list[tuple[float, int, Input]] = field(default_factory=list)
    _serial: Any = field(default_factory=itertools.count)

    def post(self, what: Input, *, after: float = 0.0) -> None:
        """Let *what* happen *after* seconds."""
        heapq.heappush(self._agenda, (self.now + after, next(self._serial), what))

    def start(self, made_with: Offer | None = None) -> SessionSim:
        self.made_with = made_with.secret.reveal() if made_with is not None else None
        self._step(Start(made_with))
        return self

    def run(self, until: float) -> SessionSim:
        """Let time pass, with all that falls due."""
        turns = 0
        while (due := self._next()) <= until:
            turns = turns + 1 if due <= self.now else 0
            assert turns < 1_000, "a hot loop: time stands still"
            self.now = max(self.now, due)
            if self._agenda and self._agenda[0][0] <= self.now:
                self._step(heapq.heappop(self._agenda)[2])
            else:
                self._step(TICK)
        self.now = max(self.now, until)
        return self

    def handed(self, rung: Rung | None = None) -> list[str]:
        """Return the tokens that were handed over, in order."""
        return [
            effect.offer.secret.reveal()
            for _, effect in self.effects
            if isinstance(effect, Attempted) and rung in {None, effect.rung}
        ]

    def rungs(self) -> list[str]:
        return [effect.rung.name.lower() for _, effect in self.effects if isinstance(effect, Attempted)]

    def told(self) -> list[str]:
        return [str(effect.kind) for _, effect in self.effects if isinstance(effect, Tell)]

    def diagnosis(self) -> tuple[str, ...]:
        return next(
            effect.diagnosis
            for _, effect in reversed(self.effects)
            if isinstance(effect, Tell) and effect.diagnosis
        )

    @property
    def is_settled(self) -> bool:
        """Whether it is connected, or said that it gave up (and goes on slowly)."""
        state = self.state
        if state.told_gave_up:
            return True
        return state.phase is Phase.IDLE and state.link in {Link.CONNECTED, Link.UNKNOWN}

    def _next(self) -> float:
        planned = self._agenda[0][0] if self._agenda else float("inf")
        return min(planned, max(next_wakeup(self.state), self.now))

    def _step(self, what: Input) -> None:
        if isinstance(what, CallEnded):
            self.under_way.pop(what.call_id, None)
        before = self.state
        self.state, effects = step(before, what, Moment(self.now, self.pace.clear))
        # Those of a client that was replaced are of no concern to the new one.
        for call_id in before.stuck - self.state.stuck:
            self.under_way.pop(call_id, None)
        for effect in effects:
            self.effects.append((self.now, effect))
            self._obey(effect)

    def _obey(self, effect: Effect) -> None:
        match effect:
            case Attempted():
                assert self.state.link in SETTLED or effect.rung > Rung.UPDATE
                if effect.rung is Rung.UPDATE:
                    updates = [call for call in self.under_way.values() if call.rung is Rung.UPDATE]
                    assert not updates, "two updates in flight"
                self.under_way[effect.call_id] = effect
                if effect.connects:
                    self.pace = self.pace.attempted(self.now)
                self.sdk(self, effect)
            case Report():
                # The driver posts the verdict before anything else can happen.
                self._step(Judged(effect.offer.generation, self.verdict(effect)))
            case SlowDown():
                self.pace = self.pace.failed(self.now, 1.0)
            case AskRefresh(generation):
                self.asked.append(generation)
            case Abandon(call_id):
                assert call_id in self.under_way
            case _:
                pass


def obeys(sim: SessionSim, call: Attempted) -> None:
    """Take the token, and be connected."""
    sim.post(CallEnded(call.call_id), after=0.1)
    sim.post(Said(Link.CONNECTED), after=0.2)


def returns(sim: SessionSim, call: Attempted) -> None:
    """Return, and say nothing."""
    sim.post(CallEnded(call.call_id), after=0.1)


def raises(sim: SessionSim, call: Attempted) -> None:
    sim.post(CallEnded(call.call_id, "TypeError: no"), after=0.1)


def hangs(_sim: SessionSim, _call: Attempted) -> None:
    """Never return."""


def new(sim: SessionSim, generation: int, *, after: float = 0.0, **more: Any) -> None:
    """Let the keeper have a new token."""
    sim.post(Offered(offer(generation, **more)), after=after)
