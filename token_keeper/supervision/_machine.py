"""All decisions about one live session, as a pure function.

    state, effects = step(state, input, now)

The rules, learnt from what sessions really do with tokens:

- one call at a time, and an update only in a settled state;
- never the string that was handed over last, never a token with a flaw;
- the connection state that follows decides, not what the call returns;
- update, then reconnect, then recreate, then give up and say why;
- a connection that ends out of the blue is a denial that was not said;
- all sessions of an account share one pace of connecting.

Whoever drives it carries out the effects, posts what happened as inputs, and
calls again at `next_wakeup(state)` at the latest.
"""

from __future__ import annotations

from dataclasses import replace

from token_keeper.supervision._inputs import (
    Abandon,
    AskRefresh,
    CallEnded,
    Detached,
    Effects,
    Input,
    Judged,
    Moment,
    Offered,
    Said,
    Start,
    Tick,
    Turned,
    Warned,
)
from token_keeper.supervision._ladder import (
    advance,
    awaiting,
    call_ended,
    give_up,
    judge_call,
    rung_above,
)
from token_keeper.supervision._limits import CHANCES_S, CLOSING_S, CONNECTING_S, PATIENCE_S, UNSETTLED_S
from token_keeper.supervision._model import BROKEN, NEVER, WAITING, Link, Phase, Rung, SessionState
from token_keeper.supervision._news import broken, hear, heed_verdict, linked, warned


def step(state: SessionState, what: Input, now: Moment) -> Turned:
    """Return what follows from *what* happening at *now*: the new state and the orders."""
    if state.phase is Phase.DETACHED:
        return state, ()
    state, heeded = _heed(state, what, now)
    state, overdue = _due(state, now)
    state, acts = advance(state, now)
    return state, (*heeded, *overdue, *acts)


def next_wakeup(state: SessionState) -> float:
    """Return the boot time at which `step` wants a `Tick` at the latest; `NEVER` if it wants none."""
    if state.phase is Phase.DETACHED:
        return NEVER
    if state.call is not None:
        return state.call.judged
    times = [state.until if state.phase in WAITING else NEVER]
    if state.link is Link.CLOSING:
        times.append(state.link_since + CLOSING_S)
    elif state.link is Link.CONNECTING:
        times.append(_unsettled_until(state))
    return min(times)


def _heed(state: SessionState, what: Input, now: Moment) -> Turned:
    match what:
        case Start(made_with):
            state = replace(state, held=made_with, link_since=now.boot)
            if made_with is None:
                return awaiting(state, now), ()
            return replace(state, taken=made_with.generation), ()
        case Offered(offer):
            return replace(state, offer=offer), ()
        case Said():
            return hear(state, what, now)
        case Warned():
            return state, warned(state, now)
        case Judged():
            return heed_verdict(state, what, now)
        case CallEnded():
            return call_ended(state, what, now)
        case Tick():
            return state, ()
        case Detached():
            return replace(state, phase=Phase.DETACHED), _abandoned(state)


def _due(state: SessionState, now: Moment) -> Turned:
    effects: Effects = ()
    if state.call is not None and now.boot >= state.call.judged:
        state, effects = judge_call(state, state.call, now)
    if state.call is not None:
        return state, effects
    if state.link is Link.CLOSING and now.boot >= state.link_since + CLOSING_S:
        was, became = state.link, state.closing_to
        state = linked(state, became, now)
        if became in BROKEN:
            state, more = broken(state, Said(became), was, now)
            return state, (*effects, *more)
    if state.link is Link.CONNECTING and now.boot >= _unsettled_until(state):
        state = awaiting(replace(linked(state, Link.DISCONNECTED, now), trouble=True), now)
    if state.phase in WAITING and now.boot >= state.until:
        state, more = _waited(state, now)
        return state, (*effects, *more)
    return state, effects


def _waited(state: SessionState, now: Moment) -> Turned:
    if state.phase is Phase.PAUSED:
        state = replace(state, phase=Phase.IDLE, until=NEVER)
        return awaiting(state, now) if state.dead else state, ()
    if state.phase is Phase.AWAITING_TOKEN:
        return give_up(state, f"no other token came within {PATIENCE_S:g} s; see why the keeper has none")
    state = replace(state, until=NEVER, chances=state.chances + 1)
    if rung_above(state, Rung.UPDATE) is not None:
        return replace(state, again=True, rung=Rung.UPDATE, tried=()), ()
    if state.held is None or state.chances > len(CHANCES_S):
        return state, ()
    # The same string cannot be handed over again: another one is needed.
    return state, (AskRefresh(state.held.generation),)


def _unsettled_until(state: SessionState) -> float:
    died = state.link_since if state.dead or state.held is None else state.held.expires
    return min(max(died, state.link_since), state.link_since + CONNECTING_S) + UNSETTLED_S


def _abandoned(state: SessionState) -> Effects:
    return (Abandon(state.call.call_id),) if state.call is not None and not state.call.ended else ()
