"""What holds for a session whatever its SDK, its server and its keeper do."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from supervising import SessionSim, new, offer

from token_keeper._model import Verdict
from token_keeper.supervision import (
    Attempted,
    CallEnded,
    Link,
    Offered,
    Phase,
    Rung,
    Said,
    SessionState,
    Tell,
    Warned,
)

DAY = 86_400.0
LINKS = st.sampled_from([link for link in Link if link is not Link.UNKNOWN])
CODES = st.sampled_from([None, 20104, 51202, 403, "invalid_token"])
RUNGS = st.sampled_from(
    [
        frozenset({Rung.UPDATE}),
        frozenset({Rung.UPDATE, Rung.RECONNECT}),
        frozenset({Rung.UPDATE, Rung.RECREATE}),
        frozenset(Rung),
    ]
)
SAYINGS = st.builds(Said, LINKS, CODES, st.none(), st.booleans())
TOKENS = st.builds(
    lambda generation, raw, lifetime, flawed: (generation, raw, lifetime, ("a flaw",) if flawed else ()),
    st.integers(2, 40),
    st.one_of(st.none(), st.sampled_from(["same", "other"])),
    st.one_of(st.floats(1, 7_200), st.just(float("inf"))),
    st.booleans(),
)
"""Tokens, some of them with the string of an earlier one, some of which inspection rejects."""
NEWS = st.one_of(
    SAYINGS,
    st.just(Warned()),
    st.just(Offered(None)),
    TOKENS,
    st.builds(CallEnded, st.integers(1, 20), st.sampled_from(["", "late"])),
)
HISTORIES = st.lists(st.tuples(st.floats(0, 400), NEWS), max_size=40)
OUTCOMES = st.lists(
    st.tuples(
        st.sampled_from(["returns", "raises", "hangs", "returns late"]),
        st.lists(st.tuples(st.floats(0, 40), SAYINGS), max_size=3),
    ),
    min_size=1,
    max_size=12,
)
VERDICTS = st.lists(st.sampled_from(list(Verdict)), min_size=1, max_size=8)


def scripted(outcomes):
    """Return an SDK that does what *outcomes* say, one after the other, for ever."""
    calls = []

    def sdk(sim, call):
        how, sayings = outcomes[len(calls) % len(outcomes)]
        calls.append(call)
        if how == "returns late":
            sim.post(CallEnded(call.call_id), after=45)
        elif how != "hangs":
            sim.post(CallEnded(call.call_id, "" if how == "returns" else "Error: no"), after=0.1)
        for after, said in sayings:
            sim.post(said, after=after)

    return sdk


def lived(outcomes, verdicts, history, rungs, made_with):
    """Return a session after a whole history."""
    given_verdicts = []

    def verdict(_):
        given_verdicts.append(1)
        return verdicts[len(given_verdicts) % len(verdicts)]

    sim = SessionSim(scripted(outcomes), verdict, state=SessionState(rungs=rungs))
    sim.start(offer(1) if made_with else None)
    at = 0.0
    for pause, news in history:
        at += pause
        if isinstance(news, tuple):
            generation, raw, lifetime, flaws = news
            new(sim, generation, after=at, raw=raw, received=at, expires=at + lifetime, flaws=flaws)
        else:
            sim.post(news, after=at)
    return sim.run(at)


lives = given(sim=st.builds(lived, OUTCOMES, VERDICTS, HISTORIES, RUNGS, st.booleans()))
often = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@often
@lives
def test_never_two_updates_in_flight_nor_one_in_an_unsettled_state(sim):
    # The simulation asserts both at each call.
    sim.run(sim.now + DAY)


@often
@lives
def test_an_update_never_repeats_the_string_before_it(sim):
    sim.run(sim.now + DAY)

    calls = [effect for _, effect in sim.effects if isinstance(effect, Attempted)]
    before = [sim.made_with, *(call.offer.secret.reveal() for call in calls)]
    for call, previous in zip(calls, before, strict=False):
        assert call.rung is not Rung.UPDATE or call.offer.secret.reveal() != previous


@often
@lives
def test_a_token_with_a_flaw_or_past_its_end_is_never_handed_over(sim):
    sim.run(sim.now + DAY)

    for at, effect in sim.effects:
        if isinstance(effect, Attempted):
            assert not effect.offer.flaws
            assert at < effect.offer.expires


@often
@lives
def test_it_ends_connected_or_gives_up_and_says_why(sim):
    bound = sim.now + 2 * 3_600

    while not sim.is_settled and sim.now < bound:
        sim.run(sim.now + 10)

    assert sim.is_settled


@often
@lives
def test_calls_are_bounded_whatever_happens(sim):
    began = len([1 for _, effect in sim.effects if isinstance(effect, Attempted)])
    start = sim.now

    sim.run(start + 3_600)

    later = len([1 for _, effect in sim.effects if isinstance(effect, Attempted)]) - began
    # One ladder per chance, and the account's pace between what the server throttles.
    assert later <= 120


@often
@lives
def test_it_never_gives_up_without_a_diagnosis(sim):
    sim.run(sim.now + DAY)

    for _, effect in sim.effects:
        if isinstance(effect, Tell) and effect.kind == "sessionGaveUp":
            assert effect.diagnosis


@often
@lives
def test_with_a_good_token_and_a_good_server_every_session_recovers(sim):

    def obeys(sim, call):
        sim.post(CallEnded(call.call_id), after=0.1)
        sim.post(Said(Link.CONNECTED), after=0.2)

    sim.run(sim.now + 100)  # What the SDK still had to say.
    sim.sdk, sim.verdict = obeys, lambda _: Verdict.DENIED
    if sim.state.link in {Link.CONNECTING, Link.CLOSING}:
        sim.post(Said(Link.DISCONNECTED))
    new(sim, 99)
    new(sim, 100, after=700)
    sim.run(sim.now + 1_400)

    stuck_for_good = sim.state.stuck and sim.state.rungs == {Rung.UPDATE}
    assert stuck_for_good or (sim.state.phase is Phase.IDLE and sim.handed()[-1] == "token-100")
