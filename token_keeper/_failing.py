"""What follows from a fetch that failed: how long to wait, and what to believe meanwhile."""

from __future__ import annotations

from dataclasses import replace

from token_keeper import _schedule as schedule
from token_keeper._inputs import Effects, Failure, Moment
from token_keeper._model import EventKind, Phase
from token_keeper._policy import RefreshPolicy
from token_keeper._state import NEVER, State, Streak, announce, moved


def failed(state: State, failure: Failure, now: Moment, policy: RefreshPolicy) -> tuple[State, Effects]:
    state = _believing_the_wall(state, now)
    entered = state.streak is not None and state.streak.refused is not None
    streak = _longer_streak(state, failure, now)
    if streak.refused is not None:
        phase, wait = Phase.REFUSED, _probe_wait_s(state, streak, now, policy)
    else:
        phase, wait = Phase.BACKING_OFF, _backoff_wait_s(state, streak, now, policy)
    if failure.retry_within_s is not None:
        wait = min(wait, max(failure.retry_within_s, 0.0))
    retry = now.boot + wait
    if now.boot < state.due:
        # A fetch that came early, and failed, does not put off the scheduled one.
        retry = min(retry, state.due)
    state = moved(
        state,
        phase,
        flight=None,
        fetch_ended=now.boot,
        asked=NEVER,
        retry=retry,
        floor=now.boot + _asked_wait_s(state, failure, now, policy),
        streak=streak,
        unchanged=0,
        last_error=failure.message,
        recovery=replace(state.recovery, fetch=NEVER),
    )
    if not failure.refused or streak.refused is None:
        return state, (announce(state, EventKind.REFRESH_FAILED, error=failure.message),)
    if entered:
        return state, ()
    return state, (announce(state, EventKind.REFRESH_REFUSED, error=failure.message),)


def _longer_streak(state: State, failure: Failure, now: Moment) -> Streak:
    current, flight = state.current, state.flight
    remaining = current.remaining_s(now.boot) if current else 0.0
    streak = state.streak
    if streak is None:
        started = flight.started if flight else now.boot
        span = 0.0
        if current is not None and remaining > 0:
            span = current.expires - max(started, min(state.due, current.stale))
        streak = Streak(failures=0, since=now.boot, span_s=span)
    doubted = None
    if failure.refused:
        doubted = streak.doubted if streak.doubted is not None else now.boot
    streak = replace(streak, failures=streak.failures + 1, doubted=doubted)
    confirmed = doubted is not None and now.boot - doubted >= schedule.REFUSED_CONFIRM_S
    if streak.refused is None and failure.refused and (failure.certain or confirmed):
        streak = replace(streak, refused=now.boot, validity_s=remaining)
    return streak


def _backoff_wait_s(state: State, streak: Streak, now: Moment, policy: RefreshPolicy) -> float:
    nominal = schedule.absent_backoff_s(now.boot - streak.since, policy)
    if state.is_valid(now.boot) and streak.span_s > 0:
        backoff = schedule.backoff_s(streak.failures, streak.span_s, policy)
        # Who was refused waits for any token; the others must not wait longer for it.
        nominal = backoff if state.serves_all(now.boot) else min(nominal, backoff)
    return schedule.jittered_s(nominal, now.jitter)


def _probe_wait_s(state: State, streak: Streak, now: Moment, policy: RefreshPolicy) -> float:
    since = streak.refused if streak.refused is not None else now.boot
    validity = streak.validity_s if state.is_valid(now.boot) else 0.0
    nominal = schedule.refused_probe_s(now.boot - since, validity, policy)
    return schedule.jittered_s(nominal, now.jitter)


def _asked_wait_s(state: State, failure: Failure, now: Moment, policy: RefreshPolicy) -> float:
    """Return how much of the backend's `Retry-After` is honoured."""
    remaining = state.current.remaining_s(now.boot) if state.current else 0.0
    wait = schedule.retry_after_s(failure.retry_after_s, remaining, policy)
    if not state.serves_all(now.boot):
        wait = min(wait, schedule.RETRY_AFTER_ABSENT_S)
    return schedule.retry_after_jittered_s(wait, now.jitter)


def _believing_the_wall(state: State, now: Moment) -> State:
    """Return *state* with the token's expiry by the wall clock, if that jumped ahead."""
    current = state.current
    if not state.doubts or current is None or current.token.expires_at is None:
        return state
    remaining = max(current.token.expires_at - (now.wall + current.skew_s), 0.0)
    expires = min(current.expires, now.boot + remaining)
    return replace(state, current=replace(current, expires=expires, stale=min(current.stale, expires)))
