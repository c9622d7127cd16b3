"""All decisions about one kept token, as a pure function.

    state, effects = step(state, input, now, policy)

Whoever drives it carries out the effects, posts what happened as inputs, and
calls again at `next_wakeup(state, policy)` at the latest. Nothing here acts,
asks what time it is, or draws a random number; a list of `(now, input)` is a
complete bug report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from token_keeper import _recovery as recovery
from token_keeper import _schedule as schedule
from token_keeper._failing import failed
from token_keeper._inputs import (
    Announce,
    CancelFetch,
    ClockJumped,
    Closed,
    CredentialsChanged,
    Effects,
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
from token_keeper._model import EventKind, Phase, Token
from token_keeper._policy import RefreshPolicy
from token_keeper._state import NEVER, Current, Flight, Settling, State, announce, moved

Turn = Callable[[State, Moment, RefreshPolicy], tuple[State, Effects]]

TRIES = 3
"""Tries inside the first fetch of a streak; later ones have one."""

EXPIRED_AGAIN = (
    "the source returned the token that has expired; it was not published. "
    "Make the backend issue a new one instead of a cached one"
)
EXPIRED_ON_ARRIVAL = "the token expired before it could be published; mind how long the backend takes"
DENIED_AGAIN = (
    "the source returned a token that a server had refused; it was not published. "
    "Make the backend issue a new one instead of a cached one"
)


def step(state: State, what: Input, now: Moment, policy: RefreshPolicy) -> tuple[State, Effects]:
    """Return what follows from *what* happening at *now*: the new state and the orders."""
    if state.phase is Phase.CLOSED:
        return state, ()
    # What fell due before the input comes first; but a jump explains what it made due.
    early: tuple[Turn, ...] = () if isinstance(what, ClockJumped | Closed) else (_tell,)
    late: tuple[Turn, ...] = () if isinstance(what, Closed) else (_tell, _settle, _start_fetch)
    effects: Effects = ()
    for turn in early:
        state, more = turn(state, now, policy)
        effects += more
    state, more = _react(state, what, now, policy)
    effects += more
    for turn in late:
        state, more = turn(state, now, policy)
        effects += more
    return state, effects


def next_wakeup(state: State, policy: RefreshPolicy) -> float:
    """Return the boot time at which `step` wants a `Tick` at the latest; `NEVER` if none."""
    if state.phase is Phase.CLOSED:
        return NEVER
    settles = state.settling.publish if state.settling else NEVER
    return min(fetch_due(state, policy), _tells_at(state), settles, recovery.wakeup(state.recovery))


def fetch_due(state: State, policy: RefreshPolicy) -> float:
    """Return the boot time at which the next fetch starts; `NEVER` while one is in flight."""
    idle = state.sourced and state.started and state.settling is None
    if not idle or state.phase in {Phase.FETCHING, Phase.CLOSED}:
        return NEVER
    planned = state.due if state.phase is Phase.WAITING else state.retry
    wish = min(planned, state.asked, recovery.wanted(state.recovery, policy))
    return max(wish, state.fetch_ended + policy.min_interval_s, state.floor)


def _react(  # noqa: C901 - one arm for each input, no more
    state: State, what: Input, now: Moment, policy: RefreshPolicy
) -> tuple[State, Effects]:
    match what:
        case Tick():
            return state, ()
        case Started():
            return _started(state, now), ()
        case Fetched(fetch_id=fetch_id) if _is_in_flight(state, fetch_id):
            return _fetched(state, what, now, policy)
        case FetchFailed(fetch_id=fetch_id) if _is_in_flight(state, fetch_id):
            return failed(state, what.failure, now, policy)
        case Fetched() | FetchFailed():
            return state, ()  # A late outcome lost its race on purpose.
        case TokenDenied():
            return recovery.denied(state, what, now, policy)
        case TokenAccepted():
            return recovery.accepted(state, what)
        case RefreshRequested():
            return _ask(state, now), ()
        case CredentialsChanged():
            return _renounce(state, what, now)
        case TokenSupplied():
            return _supplied(state, what, now, policy)
        case ClockJumped():
            return _jumped(state, what, now)
        case Closed():
            state, effects = _cancel(state, now)
            return moved(state, Phase.CLOSED), effects


def _started(state: State, now: Moment) -> State:
    if state.started:
        return state
    asked = now.boot if state.current is None else NEVER
    return replace(state, started=True, asked=asked)


def _ask(state: State, now: Moment) -> State:
    joins = state.phase is Phase.FETCHING or state.settling is not None
    return state if joins or not state.sourced else replace(state, asked=now.boot)


def _renounce(state: State, what: CredentialsChanged, now: Moment) -> tuple[State, Effects]:
    state, effects = _cancel(state, now)
    state = moved(
        state,
        Phase.WAITING,
        current=state.current if what.keeps else None,
        streak=None,
        floor=-NEVER,
        settling=None,
        unchanged=0,
        window_s=None,
    )
    return _ask(state, now), effects


def _cancel(state: State, now: Moment) -> tuple[State, Effects]:
    if state.flight is None:
        return state, ()
    order = CancelFetch(state.flight.fetch_id)
    return moved(state, Phase.WAITING, flight=None, fetch_ended=now.boot), (order,)


def _is_in_flight(state: State, fetch_id: int) -> bool:
    return state.flight is not None and state.flight.fetch_id == fetch_id


def _fetched(state: State, what: Fetched, now: Moment, policy: RefreshPolicy) -> tuple[State, Effects]:
    current, fingerprint, valid = state.current, what.token.fingerprint, state.is_valid(now.boot)
    if current is not None and current.token.fingerprint == fingerprint:
        if not valid:
            return failed(state, Failure(message=EXPIRED_AGAIN), now, policy)
        return _unchanged(state, current, now, policy)
    if recovery.is_denied(state.recovery, fingerprint):
        if current is None or not valid or not current.withheld:
            return failed(state, Failure(message=DENIED_AGAIN), now, policy)
        return _unchanged(state, current, now, policy)
    learned = _learn_window(state, now)
    arrived = _received(learned, what.token, what.skew_s, now, policy)
    if arrived.expires <= now.boot:
        return failed(state, Failure(message=EXPIRED_ON_ARRIVAL), now, policy)
    routine = state.flight is not None and state.flight.routine
    splayed = policy.splay and not routine and not state.unchanged
    state = _answered(learned, now)
    if current is None or not state.serves_all(now.boot) or policy.settle_s <= 0:
        return _publish(state, arrived, now, policy, splayed=splayed)
    publish = now.boot + schedule.settle_s(current.remaining_s(now.boot), policy)
    settling = Settling(current=arrived, publish=publish, splayed=splayed)
    return replace(state, settling=settling, due=NEVER), ()


def _answered(state: State, now: Moment) -> State:
    """Return *state* after the source gave a token, whichever it was."""
    return moved(
        state,
        Phase.WAITING,
        flight=None,
        fetch_ended=now.boot,
        asked=NEVER,
        retry=NEVER,
        floor=-NEVER,
        streak=None,
        last_error=None,
        doubts=False,
    )


def _learn_window(state: State, now: Moment) -> State:
    if not state.unchanged or state.current is None or state.current.expires == NEVER:
        return state
    return replace(state, window_s=state.current.remaining_s(now.boot))


def _unchanged(state: State, current: Current, now: Moment, policy: RefreshPolicy) -> tuple[State, Effects]:
    state = replace(_answered(state, now), unchanged=state.unchanged + 1)
    if current.expires == NEVER:
        due = now.boot + _no_expiry_refresh_s(now, policy)
    elif now.boot < current.stale:
        due = min(current.stale, now.boot + schedule.longest_refresh_s(now.jitter, policy))
    else:
        due = now.boot + schedule.unchanged_wait_s(current.remaining_s(now.boot))
    state = replace(state, due=due)
    if not current.withheld:
        return state, ()
    return recovery.no_progress(state, now, policy)


def _supplied(state: State, what: TokenSupplied, now: Moment, policy: RefreshPolicy) -> tuple[State, Effects]:
    arrived = _received(state, what.token, what.skew_s, now, policy)
    current, fingerprint = state.current, what.token.fingerprint
    known = current is not None and current.token.fingerprint == fingerprint
    if known or recovery.is_denied(state.recovery, fingerprint) or arrived.expires <= now.boot:
        return state, ()
    state, effects = _cancel(state, now)
    state = replace(
        state, asked=NEVER, retry=NEVER, streak=None, last_error=None, doubts=False, settling=None
    )
    state, more = _publish(state, arrived, now, policy, splayed=policy.splay)
    return state, effects + more


def _publish(
    state: State, current: Current, now: Moment, policy: RefreshPolicy, *, splayed: bool
) -> tuple[State, Effects]:
    withheld = state.current.withheld if state.current else frozenset[str]()
    if current.expires == NEVER:
        due_in = _no_expiry_refresh_s(now, policy)
    elif splayed:
        lifetime, stale_after = current.expires - current.received, current.stale - current.received
        due_in = schedule.splay_after_s(lifetime, stale_after, now.splay)
    else:
        due_in = current.stale - current.received
    due_in = min(due_in, schedule.longest_refresh_s(now.jitter, policy))
    state = moved(
        state,
        Phase.WAITING,
        current=current,
        generation=current.generation,
        due=current.received + due_in,
        unchanged=0,
    )
    state = recovery.progress(state, withheld, now)
    return state, (announce(state, EventKind.TOKEN_UPDATED),)


def _no_expiry_refresh_s(now: Moment, policy: RefreshPolicy) -> float:
    hourly = schedule.jittered_s(schedule.NO_EXPIRY_REFRESH_S, now.jitter)
    return min(hourly, schedule.longest_refresh_s(now.jitter, policy))


def _received(state: State, token: Token, skew_s: float, now: Moment, policy: RefreshPolicy) -> Current:
    """Return *token* as the next generation, its expiry anchored on the boot clock."""
    expires = stale = NEVER
    if token.expires_at is not None:
        lifetime = max(token.expires_at - (now.wall + skew_s), 0.0)
        expires = now.boot + lifetime
        stale = now.boot + _stale_after_s(state, lifetime, now.jitter, policy)
    return Current(
        token=token,
        generation=state.generation + 1,
        received=now.boot,
        expires=expires,
        stale=stale,
        skew_s=skew_s,
    )


def _stale_after_s(state: State, lifetime_s: float, draw: float, policy: RefreshPolicy) -> float:
    if not state.sourced:
        return lifetime_s - schedule.warning_lead_s(lifetime_s)
    if state.window_s is not None:
        return schedule.stale_in_window_s(lifetime_s, state.window_s, draw, policy)
    return schedule.stale_after_s(lifetime_s, draw, policy)


def _settle(state: State, now: Moment, policy: RefreshPolicy) -> tuple[State, Effects]:
    waiting = state.settling
    if waiting is None or (now.boot < waiting.publish and state.serves_all(now.boot)):
        return state, ()
    state = replace(state, settling=None)
    if now.boot >= waiting.current.expires:
        return replace(state, asked=now.boot), ()
    return _publish(state, waiting.current, now, policy, splayed=waiting.splayed)


def _start_fetch(state: State, now: Moment, policy: RefreshPolicy) -> tuple[State, Effects]:
    if fetch_due(state, policy) > now.boot:
        return state, ()
    waiting = state.phase is Phase.WAITING
    planned = (state.due if waiting else state.retry) <= now.boot
    asked = state.asked <= now.boot
    if not planned and not asked:
        state = recovery.drawn(state, now, policy)
    flight = Flight(
        fetch_id=state.fetches + 1,
        started=now.boot,
        routine=waiting and planned and not asked and state.streak is None,
    )
    remaining = state.current.remaining_s(now.boot) if state.current else 0.0
    order = StartFetch(
        fetch_id=flight.fetch_id,
        timeout_s=schedule.fetch_timeout_s(remaining, policy),
        tries=TRIES if state.streak is None else 1,
    )
    state = moved(
        state,
        Phase.FETCHING,
        flight=flight,
        fetches=flight.fetch_id,
        recovery=replace(state.recovery, fetch=NEVER),
    )
    return state, (order,)


def _jumped(state: State, what: ClockJumped, now: Moment) -> tuple[State, Effects]:
    doubts = state.doubts or schedule.has_jumped(max(what.wall_s, 0.0))
    # A token that settles was fetched before the jump: it does not stand for that fetch.
    wants = state.started and state.sourced and state.phase is not Phase.FETCHING
    state = replace(state, doubts=doubts, asked=now.boot if wants else state.asked)
    story = f"the machine slept for {what.asleep_s:.0f} s, " if what.asleep_s else ""
    story += f"the wall clock moved by {what.wall_s:+.1f} s against the time that passed"
    return state, (announce(state, EventKind.CLOCK_JUMPED, error=story),)


def _tell(state: State, now: Moment, _policy: RefreshPolicy) -> tuple[State, Effects]:
    state, effects = recovery.quiet(state, now)
    current = state.current
    if current is None or _tells_at(state) > now.boot:
        return state, effects
    news: list[Announce] = []
    if not current.told_stale and now.boot >= current.stale:
        current = replace(current, told_stale=True)
        news.append(announce(state, EventKind.TOKEN_ABOUT_TO_EXPIRE))
    if not current.told_expired and now.boot >= current.expires:
        current = replace(current, told_expired=True)
        news.append(announce(state, EventKind.TOKEN_EXPIRED))
    return replace(state, current=current), (*effects, *news)


def _tells_at(state: State) -> float:
    current = state.current
    if current is None or "" in current.withheld:
        return NEVER
    if not current.told_stale:
        return current.stale
    return current.expires if not current.told_expired else NEVER
