"""The ways to make a session use a token: update, then reconnect, then recreate, then give up and say why."""

from __future__ import annotations

from dataclasses import replace

from token_keeper.supervision._inputs import (
    Abandon,
    Attempted,
    CallEnded,
    Moment,
    ReportAccepted,
    SlowDown,
    Tell,
    Turned,
)
from token_keeper.supervision._limits import CHANCES_S, PATIENCE_S, SETTLE_S
from token_keeper.supervision._model import (
    BROKEN,
    NEVER,
    SETTLED,
    Call,
    Link,
    Offer,
    Phase,
    Rung,
    SessionEventKind,
    SessionState,
)

ONLY_UPDATES = "this session has neither reconnect() nor recreate(), and the same token is no update"


def advance(state: SessionState, now: Moment) -> Turned:
    """Return what is to be done next: hand over the offer, or try again with what is held."""
    offer, held = state.offer, state.held
    if state.call is not None or state.phase is Phase.DETACHED:
        return state, ()
    is_new = offer is not None and (held is None or offer.secret != held.secret)
    if offer is not None and is_new and now.boot < offer.expires:
        if not offer.flaws:
            return _hand_over(state, offer, now)
        if state.kept_back != offer.generation:
            return _keep_back(state, offer)
    if state.again and held is not None:
        return _try_again(state, held, now)
    return state, ()


def _keep_back(state: SessionState, offer: Offer) -> Turned:
    news = Tell(SessionEventKind.TOKEN_KEPT_BACK, offer.generation, diagnosis=offer.flaws)
    state = replace(state, kept_back=offer.generation)
    if not state.dead and state.held is not None:
        return state, (news,)
    state, effects = give_up(state, *offer.flaws)
    return state, (news, *effects)


def _hand_over(state: SessionState, offer: Offer, now: Moment) -> Turned:
    if state.link not in SETTLED:
        return state, ()
    connects = state.link in BROKEN
    if connects and now.boot < now.clear:
        return replace(state, phase=Phase.PAUSED, until=now.clear), ()
    rung = Rung.UPDATE if not state.stuck else rung_above(state, Rung.UPDATE)
    state = replace(state, tried=(), told_gave_up=False)
    if rung is None:
        if state.phase is Phase.GAVE_UP:
            return replace(state, told_gave_up=True), ()
        return give_up(state, "an update never returned, and this session can only be updated")
    return _attempt(state, rung, offer, now, connects=connects or rung > Rung.UPDATE)


def _try_again(state: SessionState, held: Offer, now: Moment) -> Turned:
    if state.dead or now.boot >= held.expires:
        return awaiting(state, now), ()
    rung = rung_above(state, state.rung)
    if rung is None:
        cannot = () if len(state.rungs) > 1 else (ONLY_UPDATES,)
        return give_up(state, *cannot, until=next_chance(state, now))
    waits = max(now.clear, state.until if state.phase is Phase.PAUSED else now.boot)
    if now.boot < waits:
        return replace(state, phase=Phase.PAUSED, until=waits), ()
    return _attempt(state, rung, held, now, connects=True)


def _attempt(state: SessionState, rung: Rung, offer: Offer, now: Moment, *, connects: bool) -> Turned:
    call = Call(call_id=state.calls + 1, rung=rung, was=state.link, judged=now.boot + state.deadline_s)
    state = replace(
        state,
        phase=Phase.CALLING,
        held=offer,
        dead=False,
        call=call,
        calls=call.call_id,
        rung=rung,
        again=False,
        until=NEVER,
        diagnosis=(),
    )
    return state, (Attempted(call.call_id, rung, offer, connects),)


def next_chance(state: SessionState, now: Moment) -> float:
    """Return when everything is tried again after giving up, on the boot clock."""
    return now.boot + CHANCES_S[min(state.chances, len(CHANCES_S) - 1)]


def rung_above(state: SessionState, rung: Rung) -> Rung | None:
    """Return the next gentlest way that the session has, None if *rung* is its last."""
    return min((one for one in state.rungs if one > rung), default=None)


def call_ended(state: SessionState, ended: CallEnded, now: Moment) -> Turned:
    """Return what follows from a call that returned."""
    if ended.call_id in state.stuck:
        return replace(state, stuck=state.stuck - {ended.call_id}), ()
    call = state.call
    if call is None or call.call_id != ended.call_id:
        return state, ()
    if call.moot:
        return replace(state, call=None), ()
    call = replace(call, ended=True, problem=ended.problem)
    if call.problem and not (call.rung is Rung.UPDATE and call.was in BROKEN):
        return _escalate(state, call.problem, now)
    if state.link is Link.UNKNOWN or has_taken(call):
        return accepted(replace(state, call=call))
    if call.rung is Rung.UPDATE and call.was is Link.CONNECTED:
        call = replace(call, judged=min(call.judged, now.boot + SETTLE_S))
    return replace(state, call=call, phase=Phase.JUDGING), ()


def judge_call(state: SessionState, call: Call, now: Moment) -> Turned:
    """Decide about a call whose time is over."""
    if not call.ended:
        stuck = state.stuck | {call.call_id} if call.rung is Rung.UPDATE else state.stuck
        state = replace(state, stuck=stuck)
        if call.moot:
            return replace(state, call=None), (Abandon(call.call_id),)
        state, effects = _escalate(state, f"no answer within {state.deadline_s:g} s", now)
        return state, (Abandon(call.call_id), *effects)
    if state.link in {Link.CONNECTED, Link.UNKNOWN} and not call.problem:
        return accepted(state)
    if state.link in BROKEN or call.problem:
        said = call.problem or f"still {state.link} after {state.deadline_s:g} s"
        return _escalate(state, said, now)
    # The SDK goes on connecting, with this token: the network is down, and nothing helps but time.
    return replace(state, call=None, phase=Phase.IDLE, trouble=True), ()


def has_taken(call: Call) -> bool:
    """Whether the session was connected anew by *call*, whatever that returned."""
    # Conversations rejects an update and connects with its token all the same; others never answer.
    return call.reached and (call.ended or call.rung > Rung.UPDATE or call.was in BROKEN)


def accepted(state: SessionState) -> Turned:
    """Note that the session is connected with the token that it holds."""
    held, call = state.held, state.call
    effects: list[ReportAccepted | Tell] = []
    if held is not None:
        if state.link is Link.CONNECTED:
            effects.append(ReportAccepted(held))
        if held.generation != state.taken:
            effects.append(Tell(SessionEventKind.UPDATED, held.generation))
    if state.trouble:
        effects.append(Tell(SessionEventKind.RECOVERED, held.generation if held else 0))
    is_new_client = call is not None and call.rung is Rung.RECREATE and not call.moot
    state = replace(
        state,
        phase=Phase.IDLE,
        call=replace(call, moot=True) if call is not None and not call.ended else None,
        dead=False,
        again=False,
        until=NEVER,
        tried=(),
        taken=held.generation if held else 0,
        trouble=False,
        told_gave_up=False,
        chances=0,
        rounds=0,
        diagnosis=(),
        stuck=frozenset() if is_new_client else state.stuck,
    )
    return state, tuple(effects)


def _escalate(state: SessionState, said: str, now: Moment) -> Turned:
    """Go on to the next rung with the same token."""
    call = state.call
    assert call is not None, "only a call can be in vain"  # noqa: S101 - our own invariant
    tried = (*state.tried, f"{call.rung.name.lower()}: {said}")
    state = replace(state, call=None, tried=tried, again=True, phase=Phase.PAUSED, until=now.boot)
    return replace(state, trouble=True), (SlowDown(),)


def awaiting(state: SessionState, now: Moment) -> SessionState:
    """Return *state* in need of another token."""
    if state.phase is Phase.AWAITING_TOKEN and state.until != NEVER:
        return replace(state, dead=True, again=False)
    return replace(state, phase=Phase.AWAITING_TOKEN, until=now.boot + PATIENCE_S, dead=True, again=False)


def give_up(state: SessionState, *reasons: str, until: float = NEVER) -> Turned:
    """Stop trying until then, or until there is another token; say why, once for each token."""
    generation = state.held.generation if state.held is not None else 0
    diagnosis = (*state.tried, *reasons)
    told = state.told_gave_up
    state = replace(
        state,
        phase=Phase.GAVE_UP,
        again=False,
        trouble=True,
        until=until,
        told_gave_up=True,
        diagnosis=diagnosis,
    )
    return state, () if told else (Tell(SessionEventKind.GAVE_UP, generation, diagnosis=diagnosis),)
