"""What the machine knows of one kept token.

Only facts are stored; status, deadlines and the next wake-up are derived.
All points in time are seconds of the boot clock, which no setting of the date
moves and no suspend stops, unless a name says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from token_keeper._inputs import Announce
from token_keeper._model import EventKind, Phase, Token, Verdict

NEVER = math.inf
MAX_REPORTERS = 256
"""Reporters in trouble that are told apart; the one that was quiet longest is forgotten.

Also from how many one token can be withheld: by then its successor is long wanted.
"""
MAX_DENIED = 16
"""Denied tokens that are remembered and not published again."""

SUCCESSIONS: Mapping[Phase, Mapping[Phase, str]] = {
    Phase.WAITING: {
        Phase.FETCHING: "a fetch is due, asked for, or caused by a denial or a jump",
        Phase.CLOSED: "closed",
    },
    Phase.FETCHING: {
        Phase.WAITING: "a token came, or update() made the fetch needless",
        Phase.BACKING_OFF: "the fetch failed",
        Phase.REFUSED: "the backend will not issue a token",
        Phase.CLOSED: "closed",
    },
    Phase.BACKING_OFF: {
        Phase.FETCHING: "the wait is over",
        Phase.WAITING: "update(), new credentials",
        Phase.CLOSED: "closed",
    },
    Phase.REFUSED: {
        Phase.FETCHING: "a probe is due, or refresh()",
        Phase.WAITING: "update(), new credentials",
        Phase.CLOSED: "closed",
    },
    Phase.CLOSED: {},
}
"""The legal successions of phases, and what brings them. `step` asserts it, the docs draw it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The published token.

    Args:
        token: The token.
        generation: 1, 2, 3 ...
        received: When it was received.
        expires: When it expires; `NEVER` if that is not known.
        stale: When `tokenAboutToExpire` is due; `NEVER` without an expiry.
        skew_s: The issuer's clock minus the wall clock at receipt.
        withheld: Reporters that were refused with it.
        accepted: Reporters that were accepted with it.
        told_stale: `tokenAboutToExpire` was announced.
        told_expired: `tokenExpired` was announced.
    """

    token: Token
    generation: int
    received: float
    expires: float
    stale: float
    skew_s: float = 0.0
    withheld: frozenset[str] = frozenset()
    accepted: frozenset[str] = frozenset()
    told_stale: bool = False
    told_expired: bool = False

    @property
    def expires_at(self) -> float | None:
        """When it expires, in Unix seconds by our own clock; None if that is not known."""
        return None if self.token.expires_at is None else self.token.expires_at - self.skew_s

    @property
    def lifetime_s(self) -> float:
        """How long such tokens live: what was left at receipt, or more if its claims say so."""
        return max(self.expires - self.received, self.token.nominal_lifetime_s or 0.0)

    def remaining_s(self, boot: float) -> float:
        """Return for how long it is valid from *boot* on; 0 if it has expired."""
        return max(self.expires - boot, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """The fetch in flight.

    *routine*: it is a scheduled refresh, neither asked for nor caused by trouble.
    """

    fetch_id: int
    started: float
    routine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Streak:
    """Failed fetches in a row.

    Args:
        failures: How many.
        since: When the first one failed.
        span_s: From when the refresh was due to the token's expiry; 0 without a valid token.
        doubted: When the backend first refused without saying why, unless it did otherwise since.
        refused: When the backend's refusal was first believed.
        validity_s: Validity that the token had then.
    """

    failures: int
    since: float
    span_s: float
    doubted: float | None = None
    refused: float | None = None
    validity_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """What one reporter said of the tokens that it was given.

    Args:
        strikes: Tokens in vain since it last recovered.
        heard: When it last reported anything.
        recovers: When its silence counts as acceptance; `NEVER` while it waits for another token.
        gave_up: Its last denial has to wait until the bucket allows a fetch.
        told_failed: `recoveryFailed` was announced for it.
    """

    strikes: int = 0
    heard: float = 0.0
    recovers: float = NEVER
    gave_up: bool = False
    told_failed: bool = False

    @property
    def is_recovering(self) -> bool:
        """Whether it was refused and has not been accepted since."""
        return self.strikes > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Everything about denials.

    Args:
        reporters: Those in trouble, by name. Never changed in place.
        denied: Fingerprints of the last denied tokens, the latest last.
        fetch: When denials want a fetch.
        level: Fetches that denials might cause at *level_at*.
        level_at: When that was so.
    """

    reporters: Mapping[str, Reporter] = field(default_factory=dict)
    denied: tuple[str, ...] = ()
    fetch: float = NEVER
    level: float = NEVER
    level_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """A fetched token that replaces the valid one a little later."""

    current: Current
    publish: float
    splayed: bool


QUIET = Recovery()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that is known of one kept token.

    Args:
        sourced: There is a source to fetch from.
        phase: What the machine is doing.
        started: Fetches are wanted.
        current: The published token.
        generation: Of the last published token.
        fetches: Fetches ever started; the last one's id.
        flight: The fetch in flight, in `FETCHING` only.
        fetch_ended: When the last fetch ended.
        due: When the routine refresh is due.
        asked: When somebody asked for a fetch; `NEVER` if nobody did.
        retry: When to try again, in `BACKING_OFF` and `REFUSED`.
        floor: No fetch before this: the backend asked for it.
        streak: The failed fetches since the last answer.
        unchanged: How often in a row the source returned the current token.
        window_s: Before its expiry, the source renews a token only within this; None if unknown.
        doubts: The wall clock jumped ahead; if a fetch fails, it is believed.
        settling: A token that waits to be published.
        recovery: Everything about denials.
    """

    sourced: bool = True
    phase: Phase = Phase.WAITING
    started: bool = False
    current: Current | None = None
    generation: int = 0
    fetches: int = 0
    flight: Flight | None = None
    fetch_ended: float = -NEVER
    due: float = NEVER
    asked: float = NEVER
    retry: float = NEVER
    floor: float = -NEVER
    streak: Streak | None = None
    unchanged: int = 0
    window_s: float | None = None
    doubts: bool = False
    settling: Settling | None = None
    recovery: Recovery = QUIET
    last_error: str | None = None

    @property
    def failures(self) -> int:
        """Failed fetches in a row."""
        return self.streak.failures if self.streak else 0

    def usable_by(self, by: str, boot: float) -> Current | None:
        """Return the current token if *by* may use it at *boot*."""
        current = self.current
        if self.phase is Phase.CLOSED or current is None:
            return None
        if boot >= current.expires or by in current.withheld:
            return None
        return current

    def is_valid(self, boot: float) -> bool:
        """Whether there is a token that has not expired at *boot*."""
        return self.current is not None and boot < self.current.expires

    def serves_all(self, boot: float) -> bool:
        """Whether the current token is valid and no reporter waits for another one."""
        return self.is_valid(boot) and self.current is not None and not self.current.withheld


def moved(state: State, phase: Phase, **changes: object) -> State:
    """Return *state* in *phase*, with *changes*: the only way from one phase to another."""
    assert phase is state.phase or phase in SUCCESSIONS[state.phase], (state.phase, phase)  # noqa: S101 - our own invariant
    return replace(state, phase=phase, **changes)  # type: ignore[arg-type]


def announce(
    state: State,
    kind: EventKind,
    *,
    error: str | None = None,
    by: str = "",
    verdict: Verdict | None = None,
) -> Announce:
    """Return the news of *kind* about the current token."""
    current = state.current
    return Announce(
        kind=kind,
        generation=state.generation,
        fingerprint=current.token.fingerprint if current else None,
        expires_at=current.expires_at if current else None,
        failures=state.failures,
        error=error,
        verdict=verdict,
        by=by,
    )
