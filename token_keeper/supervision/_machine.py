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

from token_keeper._model import Verdict
from token_keeper.supervision._model import (
    BROKEN,
    NEVER,
    SETTLED,
    Abandon,
    AskRefresh,
    Attempted,
    Call,
    CallEnded,
    Detached,
    Effects,
    Input,
    Judged,
    Link,
    Moment,
    Offer,
    Offered,
    Phase,
    Report,
    ReportAccepted,
    Rung,
    Said,
    SessionEventKind,
    SessionState,
    SlowDown,
    Start,
    Tell,
    Tick,
    Warned,
)

SETTLE_S = 1.0
"""A live connection that stands so long after an update has taken the token."""
CLOSING_S = 10.0
"""How long a connection may take to close. Twilio's takes 3 s."""
UNSETTLED_S = 60.0
"""How long an SDK may go on connecting with a token that has died."""
CONNECTING_S = 3_600.0
"""How long an SDK may go on connecting with a token whose end is far, or not known."""
PATIENCE_S = 300.0
"""How long a session waits for another token before it says so."""
THROTTLED_S = 1.0
"""Shortest pause before the same token is tried again."""
CHANCES_S = (10.0, 60.0, 300.0)
"""After giving up: the pauses before everything is tried again, the last for ever."""
ONLY_UPDATES = "this session has neither reconnect() nor recreate(), and the same token is no update"
MAX_ROUNDS = 5
"""Connections in vain with a token that is good: after so many it says so, and goes on slowly."""
ROUNDS = {
    Verdict.THROTTLED: f"the server asked for patience {MAX_ROUNDS} times in a row; the token is kept",
    Verdict.DISPUTED: f"the server refused {MAX_ROUNDS} times a token that it had accepted; it is kept",
}
CODE_RAN_OUT = "invalid_token"
"""RFC 6750 section 3.1: the token is expired, revoked or malformed."""

WAITING = frozenset({Phase.PAUSED, Phase.AWAITING_TOKEN, Phase.GAVE_UP})
"""Phases that end at `until`."""

Turned = tuple[SessionState, Effects]


def step(state: SessionState, what: Input, now: Moment) -> Turned:
    """Return what follows from *what* happening at *now*: the new state and the orders."""
    if state.phase is Phase.DETACHED:
        return state, ()
    state, heeded = _heed(state, what, now)
    state, overdue = _due(state, now)
    state, acts = _advance(state, now)
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
                return _awaiting(state, now), ()
            return replace(state, taken=made_with.generation), ()
        case Offered(offer):
            return replace(state, offer=offer), ()
        case Said():
            return _said(state, what, now)
        case Warned():
            return state, _warned(state, now)
        case Judged():
            return _judged(state, what, now)
        case CallEnded():
            return _call_ended(state, what, now)
        case Tick():
            return state, ()
        case Detached():
            return replace(state, phase=Phase.DETACHED), _abandoned(state)


# What the SDK says.


def _said(state: SessionState, said: Said, now: Moment) -> Turned:
    was = state.link
    if said.ran_out:
        return _ran_out(state, said, now)
    state = _linked(state, said.link, now)
    if said.link is Link.CONNECTED:
        return _connected(state)
    if said.link in BROKEN:
        return _broken(state, said, was, now)
    return state, ()


def _linked(state: SessionState, link: Link, now: Moment) -> SessionState:
    since = state.link_since if link is state.link else now.boot
    return replace(state, link=link, link_since=since, closing_to=Link.DISCONNECTED)


def _connected(state: SessionState) -> Turned:
    call = state.call
    if call is None or call.moot:
        # The SDK came back by itself, with the token that it has.
        return _accepted(state)
    call = replace(call, reached=True)
    return _accepted(state) if _has_taken(call) else (replace(state, call=call), ())


def _has_taken(call: Call) -> bool:
    # Conversations rejects an update and connects with its token all the same; others never answer.
    return call.reached and (call.ended or call.rung > Rung.UPDATE or call.was in BROKEN)


def _ran_out(state: SessionState, said: Said, now: Moment) -> Turned:
    """Take the SDK's word that its token ran out: what follows is the end of the connection."""
    if state.link is Link.CONNECTED:
        # An update right now is lost: the SDK is closing, whether it says so or not.
        state = replace(_linked(state, Link.CLOSING, now), closing_to=Link.CONNECTED)
    if state.dead or state.held is None:
        return state, ()
    return _denied(state, said.code or CODE_RAN_OUT, said.reason)


def _broken(state: SessionState, said: Said, was: Link, now: Moment) -> Turned:
    if said.link is Link.DISCONNECTED and _is_of_our_making(state):
        assert state.call is not None  # noqa: S101 - our own invariant
        return replace(state, call=replace(state.call, reached=False)), ()
    if state.held is None:
        return (state if state.phase in WAITING else _awaiting(state, now)), ()
    if said.code is None and (state.dead or was in BROKEN):
        return state, ()
    return _denied(state, said.code, said.reason)


def _is_of_our_making(state: SessionState) -> bool:
    """Whether a connection is being replaced: that it ends is part of it."""
    call = state.call
    return call is not None and not call.moot and (call.rung > Rung.UPDATE or call.was in BROKEN)


def _denied(state: SessionState, code: int | str | None, reason: str | None) -> Turned:
    """Report the held token; what is to be done follows from the verdict."""
    assert state.held is not None, "only a token can be denied"  # noqa: S101 - our own invariant
    told = state.dead
    call = replace(state.call, moot=True) if state.call is not None and not state.call.ended else None
    phase = state.phase if state.phase is Phase.GAVE_UP else Phase.AWAITING_TOKEN
    state = replace(state, call=call, dead=True, trouble=True, phase=phase, again=False)
    news = () if told else (Tell(SessionEventKind.DENIED, state.held.generation, code),)  # type: ignore[union-attr]
    return state, (*news, Report(state.held, code, reason))  # type: ignore[arg-type]


def _warned(state: SessionState, now: Moment) -> Effects:
    held = state.held
    if held is None or state.phase is not Phase.IDLE:
        return ()
    if held.expires != NEVER and held.expires - now.boot > (held.expires - held.received) / 2:
        return ()  # A timer of the token before: Voice has such.
    return (AskRefresh(held.generation),)


# What the keeper says.


def _judged(state: SessionState, judged: Judged, now: Moment) -> Turned:
    if state.held is None or judged.generation != state.held.generation or not state.dead:
        return state, ()
    match judged.verdict:
        case Verdict.DENIED | Verdict.SUPERSEDED:
            if state.phase is Phase.GAVE_UP:
                return state, (SlowDown(),)
            return _awaiting(state, now), (SlowDown(),)
        case Verdict.THROTTLED | Verdict.DISPUTED:
            again = state.link in BROKEN
            state = replace(state, dead=False, again=again, rung=Rung.UPDATE, rounds=state.rounds + 1)
            if state.rounds >= MAX_ROUNDS and again:
                pause = CHANCES_S[min(state.chances, len(CHANCES_S) - 1)]
                state, effects = _give_up(state, ROUNDS[judged.verdict], until=now.boot + pause)
                return state, (SlowDown(), *effects)
            if not again:
                return replace(state, phase=Phase.IDLE), (SlowDown(),)
            return replace(state, phase=Phase.PAUSED, until=now.boot + THROTTLED_S), (SlowDown(),)
        case Verdict.FORBIDDEN:
            return _give_up(state, "another token would be refused, too", *judged.diagnosis)
        case Verdict.GAVE_UP:
            return _give_up(
                state, "too many tokens were refused: the next one has to wait", *judged.diagnosis
            )


# What became of a call.


def _call_ended(state: SessionState, ended: CallEnded, now: Moment) -> Turned:
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
    if state.link is Link.UNKNOWN or _has_taken(call):
        return _accepted(replace(state, call=call))
    if call.rung is Rung.UPDATE and call.was is Link.CONNECTED:
        call = replace(call, judged=min(call.judged, now.boot + SETTLE_S))
    return replace(state, call=call, phase=Phase.JUDGING), ()


def _accepted(state: SessionState) -> Turned:
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


def _awaiting(state: SessionState, now: Moment) -> SessionState:
    """Return *state* in need of another token."""
    if state.phase is Phase.AWAITING_TOKEN and state.until != NEVER:
        return replace(state, dead=True, again=False)
    return replace(state, phase=Phase.AWAITING_TOKEN, until=now.boot + PATIENCE_S, dead=True, again=False)


def _escalate(state: SessionState, said: str, now: Moment) -> Turned:
    """Go on to the next rung with the same token."""
    call = state.call
    assert call is not None, "only a call can be in vain"  # noqa: S101 - our own invariant
    tried = (*state.tried, f"{call.rung.name.lower()}: {said}")
    state = replace(state, call=None, tried=tried, again=True, phase=Phase.PAUSED, until=now.boot)
    return replace(state, trouble=True), (SlowDown(),)


def _give_up(state: SessionState, *reasons: str, until: float = NEVER) -> Turned:
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


# What time brings.


def _due(state: SessionState, now: Moment) -> Turned:
    effects: Effects = ()
    if state.call is not None and now.boot >= state.call.judged:
        state, effects = _judge_call(state, state.call, now)
    if state.call is not None:
        return state, effects
    if state.link is Link.CLOSING and now.boot >= state.link_since + CLOSING_S:
        was, became = state.link, state.closing_to
        state = _linked(state, became, now)
        if became in BROKEN:
            state, more = _broken(state, Said(became), was, now)
            return state, (*effects, *more)
    if state.link is Link.CONNECTING and now.boot >= _unsettled_until(state):
        state = _awaiting(replace(_linked(state, Link.DISCONNECTED, now), trouble=True), now)
    if state.phase in WAITING and now.boot >= state.until:
        state, more = _waited(state, now)
        return state, (*effects, *more)
    return state, effects


def _judge_call(state: SessionState, call: Call, now: Moment) -> Turned:
    """Decide about a call whose time is over."""
    if not call.ended:
        stuck = state.stuck | {call.call_id} if call.rung is Rung.UPDATE else state.stuck
        state = replace(state, stuck=stuck)
        if call.moot:
            return replace(state, call=None), (Abandon(call.call_id),)
        state, effects = _escalate(state, f"no answer within {state.deadline_s:g} s", now)
        return state, (Abandon(call.call_id), *effects)
    if state.link in {Link.CONNECTED, Link.UNKNOWN} and not call.problem:
        return _accepted(state)
    if state.link in BROKEN or call.problem:
        said = call.problem or f"still {state.link} after {state.deadline_s:g} s"
        return _escalate(state, said, now)
    # The SDK goes on connecting, with this token: the network is down, and nothing helps but time.
    return replace(state, call=None, phase=Phase.IDLE, trouble=True), ()


def _waited(state: SessionState, now: Moment) -> Turned:
    if state.phase is Phase.PAUSED:
        state = replace(state, phase=Phase.IDLE, until=NEVER)
        return _awaiting(state, now) if state.dead else state, ()
    if state.phase is Phase.AWAITING_TOKEN:
        return _give_up(state, f"no other token came within {PATIENCE_S:g} s; see why the keeper has none")
    state = replace(state, until=NEVER, chances=state.chances + 1)
    if _rung_above(state, Rung.UPDATE) is not None:
        return replace(state, again=True, rung=Rung.UPDATE, tried=()), ()
    if state.held is None or state.chances > len(CHANCES_S):
        return state, ()
    # The same string cannot be handed over again: another one is needed.
    return state, (AskRefresh(state.held.generation),)


def _unsettled_until(state: SessionState) -> float:
    died = state.link_since if state.dead or state.held is None else state.held.expires
    return min(max(died, state.link_since), state.link_since + CONNECTING_S) + UNSETTLED_S


# What to do next.


def _advance(state: SessionState, now: Moment) -> Turned:
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
    state, effects = _give_up(state, *offer.flaws)
    return state, (news, *effects)


def _hand_over(state: SessionState, offer: Offer, now: Moment) -> Turned:
    if state.link not in SETTLED:
        return state, ()
    connects = state.link in BROKEN
    if connects and now.boot < now.clear:
        return replace(state, phase=Phase.PAUSED, until=now.clear), ()
    rung = Rung.UPDATE if not state.stuck else _rung_above(state, Rung.UPDATE)
    state = replace(state, tried=(), told_gave_up=False)
    if rung is None:
        if state.phase is Phase.GAVE_UP:
            return replace(state, told_gave_up=True), ()
        return _give_up(state, "an update never returned, and this session can only be updated")
    return _attempt(state, rung, offer, now, connects=connects or rung > Rung.UPDATE)


def _try_again(state: SessionState, held: Offer, now: Moment) -> Turned:
    if state.dead or now.boot >= held.expires:
        return _awaiting(state, now), ()
    rung = _rung_above(state, state.rung)
    if rung is None:
        pause = CHANCES_S[min(state.chances, len(CHANCES_S) - 1)]
        cannot = () if len(state.rungs) > 1 else (ONLY_UPDATES,)
        return _give_up(state, *cannot, until=now.boot + pause)
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


def _rung_above(state: SessionState, rung: Rung) -> Rung | None:
    return min((one for one in state.rungs if one > rung), default=None)


def _abandoned(state: SessionState) -> Effects:
    return (Abandon(state.call.call_id),) if state.call is not None and not state.call.ended else ()
