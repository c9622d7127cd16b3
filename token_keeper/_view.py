"""How a state looks from outside: the snapshot, derived and without secrets."""

from __future__ import annotations

import math

from token_keeper import _schedule as schedule
from token_keeper._inputs import Moment
from token_keeper._machine import fetch_due
from token_keeper._model import Phase, Snapshot, Status
from token_keeper._policy import RefreshPolicy
from token_keeper._state import NEVER, Current, State, Streak

MAX_ATTEMPTS = 100
"""Attempts are counted up to here; more are as good as many."""


def snapshot_of(state: State, now: Moment, policy: RefreshPolicy) -> Snapshot:
    """Return what may be shown of *state* at *now*."""
    current = state.current
    usable = state.usable_by("", now.boot)

    def wall(boot: float) -> float | None:
        return None if math.isinf(boot) else now.wall + (boot - now.boot)

    return Snapshot(
        status=status_of(state, now.boot),
        phase=state.phase,
        generation=state.generation,
        fingerprint=current.token.fingerprint if current else None,
        expires_at=_expires_at(current, now) if current else None,
        issued_at=current.token.issued_at if current else None,
        stale_at=wall(current.stale) if current else None,
        refresh_at=wall(state.due) if state.sourced else None,
        next_attempt_at=wall(max(fetch_due(state, policy), now.boot)),
        failures=state.failures,
        unchanged=state.unchanged,
        last_error=state.last_error,
        usable_for=usable.remaining_s(now.boot) if usable else 0.0,
        attempts_left=attempts_left(state, now.boot, policy),
        denied_by=tuple(sorted(current.withheld)) if current else (),
        source=current.token.source if current else None,
    )


def _expires_at(current: Current, now: Moment) -> float | None:
    """Return when the token expires by our wall clock, which may have been set since the receipt."""
    said = current.expires_at
    if said is None:
        return None
    derived = now.wall + (current.expires - now.boot)
    # To the digit as the token says it, wherever that is true.
    return derived if schedule.has_jumped(said - derived) else said


def status_of(state: State, boot: float) -> Status:
    """Return what the token is good for to the keeper's own reader."""
    current = state.current
    if state.phase is Phase.CLOSED:
        return Status.CLOSED
    if current is None:
        return Status.ABSENT
    if "" in current.withheld:
        return Status.DENIED
    if boot >= current.expires:
        return Status.EXPIRED
    return Status.STALE if boot >= current.stale else Status.FRESH


def attempts_left(state: State, boot: float, policy: RefreshPolicy) -> int | None:
    """Return how many fetches start before the token expires, if all fail at once.

    Nominal waits are counted, which jitter only shortens; so at least that many fit.
    """
    current = state.current
    if not state.sourced or current is None or current.expires == NEVER:
        return None
    at = boot if state.phase is Phase.FETCHING else max(fetch_due(state, policy), boot)
    failures, count = state.failures, 0
    streak = state.streak or Streak(failures=0, since=at, span_s=current.expires - at)
    while at < current.expires and count < MAX_ATTEMPTS:
        count += 1
        failures += 1
        if streak.refused is None:
            wait = schedule.backoff_s(failures, streak.span_s, policy)
        else:
            since = at - streak.refused
            wait = schedule.refused_probe_s(since, streak.validity_s, policy)
        at += max(wait, policy.min_interval_s)
    return count
