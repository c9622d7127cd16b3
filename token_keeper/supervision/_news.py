"""What follows from what the SDK says of its connection, and the keeper of a denial."""

from __future__ import annotations

from dataclasses import replace

from token_keeper._model import Verdict
from token_keeper.supervision._inputs import (
    AskRefresh,
    Effects,
    Judged,
    Moment,
    Report,
    Said,
    SlowDown,
    Tell,
    Turned,
)
from token_keeper.supervision._ladder import accepted, awaiting, give_up, has_taken, next_chance
from token_keeper.supervision._limits import MAX_ROUNDS, THROTTLED_S
from token_keeper.supervision._model import (
    BROKEN,
    NEVER,
    WAITING,
    Link,
    Phase,
    Rung,
    SessionEventKind,
    SessionState,
)

ROUNDS = {
    Verdict.THROTTLED: f"the server asked for patience {MAX_ROUNDS} times in a row; the token is kept",
    Verdict.DISPUTED: f"the server refused {MAX_ROUNDS} times a token that it had accepted; it is kept",
}
CODE_RAN_OUT = "invalid_token"
"""RFC 6750 section 3.1: the token is expired, revoked or malformed."""


def hear(state: SessionState, said: Said, now: Moment) -> Turned:
    """Return what follows from a state that the SDK tells."""
    was = state.link
    if said.ran_out:
        return _ran_out(state, said, now)
    state = linked(state, said.link, now)
    if said.link is Link.CONNECTED:
        return _connected(state)
    if said.link in BROKEN:
        return broken(state, said, was, now)
    return state, ()


def linked(state: SessionState, link: Link, now: Moment) -> SessionState:
    """Return *state* with the connection in another state, or in the same as before."""
    since = state.link_since if link is state.link else now.boot
    return replace(state, link=link, link_since=since, closing_to=Link.DISCONNECTED)


def _connected(state: SessionState) -> Turned:
    call = state.call
    if call is None or call.moot:
        # The SDK came back by itself, with the token that it has.
        return accepted(state)
    call = replace(call, reached=True)
    return accepted(state) if has_taken(call) else (replace(state, call=call), ())


def _ran_out(state: SessionState, said: Said, now: Moment) -> Turned:
    """Take the SDK's word that its token ran out: what follows is the end of the connection."""
    if state.link is Link.CONNECTED:
        # An update right now is lost: the SDK is closing, whether it says so or not.
        state = replace(linked(state, Link.CLOSING, now), closing_to=Link.CONNECTED)
    if state.dead or state.held is None:
        return state, ()
    return _denied(state, said.code or CODE_RAN_OUT, said.reason)


def broken(state: SessionState, said: Said, was: Link, now: Moment) -> Turned:
    """Return what follows from a connection that ended; out of the blue it is a denial that was not said."""
    if said.link is Link.DISCONNECTED and _is_of_our_making(state):
        assert state.call is not None  # noqa: S101 - our own invariant
        return replace(state, call=replace(state.call, reached=False)), ()
    if state.held is None:
        return (state if state.phase in WAITING else awaiting(state, now)), ()
    if said.code is None and (state.dead or was in BROKEN):
        return state, ()
    return _denied(state, said.code, said.reason)


def _is_of_our_making(state: SessionState) -> bool:
    """Whether a connection is being replaced: that it ends is part of it."""
    call = state.call
    return call is not None and not call.moot and (call.rung > Rung.UPDATE or call.was in BROKEN)


def _denied(state: SessionState, code: int | str | None, reason: str | None) -> Turned:
    """Report the held token; what is to be done follows from the verdict."""
    held = state.held
    assert held is not None, "only a token can be denied"  # noqa: S101 - our own invariant
    news = () if state.dead else (Tell(SessionEventKind.DENIED, held.generation, code),)
    call = replace(state.call, moot=True) if state.call is not None and not state.call.ended else None
    phase = state.phase if state.phase is Phase.GAVE_UP else Phase.AWAITING_TOKEN
    state = replace(state, call=call, dead=True, trouble=True, phase=phase, again=False)
    return state, (*news, Report(held, code, reason))


def warned(state: SessionState, now: Moment) -> Effects:
    """Hurry the refresh, if the warning can be about the held token."""
    held = state.held
    if held is None or state.phase is not Phase.IDLE:
        return ()
    if held.expires != NEVER and held.expires - now.boot > (held.expires - held.received) / 2:
        return ()  # A timer of the token before: Voice has such.
    return (AskRefresh(held.generation),)


def heed_verdict(state: SessionState, judged: Judged, now: Moment) -> Turned:
    """Return what follows from the keeper's verdict on a denial."""
    if state.held is None or judged.generation != state.held.generation or not state.dead:
        return state, ()
    match judged.verdict:
        case Verdict.DENIED | Verdict.SUPERSEDED:
            if state.phase is Phase.GAVE_UP:
                return state, (SlowDown(),)
            return awaiting(state, now), (SlowDown(),)
        case Verdict.THROTTLED | Verdict.DISPUTED:
            again = state.link in BROKEN
            state = replace(state, dead=False, again=again, rung=Rung.UPDATE, rounds=state.rounds + 1)
            if state.rounds >= MAX_ROUNDS and again:
                state, effects = give_up(state, ROUNDS[judged.verdict], until=next_chance(state, now))
                return state, (SlowDown(), *effects)
            if not again:
                return replace(state, phase=Phase.IDLE), (SlowDown(),)
            return replace(state, phase=Phase.PAUSED, until=now.boot + THROTTLED_S), (SlowDown(),)
        case Verdict.FORBIDDEN:
            return give_up(state, "another token would be refused, too", *judged.diagnosis)
        case Verdict.GAVE_UP:
            return give_up(state, "too many tokens were refused: the next one has to wait", *judged.diagnosis)
