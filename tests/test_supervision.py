"""What the supervisor of a session does, by the machine itself."""

from __future__ import annotations

import pytest
from supervising import ALL, UPDATE_ONLY, SessionSim, hangs, new, obeys, offer, raises, returns

from token_keeper._model import Verdict
from token_keeper.supervision import (
    AskRefresh,
    CallEnded,
    Detached,
    Link,
    Offered,
    Phase,
    ReportAccepted,
    Rung,
    Said,
    SessionState,
    Warned,
    link_of,
)


def connected(sdk=obeys, rungs=ALL, **options):
    """Return a session that was made with generation 1 and is connected."""
    sim = SessionSim(sdk, state=SessionState(rungs=rungs), **options).start(offer(1))
    sim.post(Offered(offer(1)))
    sim.post(Said(Link.CONNECTED))
    return sim.run(10)


def accepted(sim):
    return [effect.offer.generation for _, effect in sim.effects if isinstance(effect, ReportAccepted)]


def test_a_session_without_a_token_is_given_one_at_once():
    sim = SessionSim(returns).start()
    new(sim, 1)
    sim.run(1)

    assert sim.handed() == ["token-1"]
    assert sim.told() == ["sessionUpdated"]


def test_a_session_that_was_made_with_the_token_is_not_given_it_again():
    assert connected().handed() == []


def test_a_new_token_is_handed_to_a_live_session_and_accepted_when_it_stays_connected():
    sim = connected(returns)
    new(sim, 2)
    sim.run(20)

    assert sim.rungs() == ["update"]
    assert accepted(sim) == [1, 2]
    assert sim.state.phase is Phase.IDLE


def test_nothing_is_handed_over_while_the_sdk_connects():
    sim = connected()
    sim.post(Said(Link.CONNECTING))
    new(sim, 2, after=1)
    sim.run(50)
    assert sim.handed() == []

    sim.post(Said(Link.CONNECTED))
    sim.run(60)
    assert sim.handed() == ["token-2"]


def test_a_denied_session_gets_another_token_and_recovers():
    sim = connected()
    sim.post(Said(Link.DENIED, 20104))
    new(sim, 2, after=3)
    sim.run(20)

    assert sim.handed() == ["token-2"]
    assert sim.told() == ["sessionDenied", "sessionUpdated", "sessionRecovered"]


def test_a_disconnect_out_of_the_blue_is_a_denial():
    sim = connected()
    sim.post(Said(Link.DISCONNECTED))
    new(sim, 2, after=3)
    sim.run(20)

    assert sim.told() == ["sessionDenied", "sessionUpdated", "sessionRecovered"]


def test_after_the_token_ran_out_nothing_is_handed_over_before_the_connection_is_closed():
    sim = connected()
    sim.post(Said(Link.DISCONNECTED, ran_out=True))
    new(sim, 2, after=0.5)
    sim.post(Said(Link.DISCONNECTED), after=3)
    sim.run(12.9)
    assert sim.handed() == []

    sim.run(20)
    assert sim.handed() == ["token-2"]
    assert sim.told() == ["sessionDenied", "sessionUpdated", "sessionRecovered"]


def test_an_sdk_that_stays_connected_after_its_token_ran_out_is_updated_a_little_later():
    sim = connected(returns)
    sim.post(Said(Link.DISCONNECTED, ran_out=True))
    new(sim, 2, after=0.5)
    sim.run(40)

    assert sim.rungs() == ["update"]
    assert sim.state.phase is Phase.IDLE


def test_an_update_that_hangs_is_followed_by_a_reconnect_and_the_client_gets_no_second_update():
    def hangs_in_update(sim, call):
        (hangs if call.rung is Rung.UPDATE else obeys)(sim, call)

    sim = connected(hangs_in_update)
    new(sim, 2)
    new(sim, 3, after=100)
    sim.run(200)

    assert sim.rungs() == ["update", "reconnect", "reconnect"]
    assert sim.handed() == ["token-2", "token-2", "token-3"]
    assert sim.state.phase is Phase.IDLE


def test_a_call_that_returns_late_frees_the_client_for_updates():
    def late(sim, call):
        if call.rung is Rung.UPDATE and call.call_id == 1:
            sim.post(CallEnded(call.call_id), after=60)
        else:
            obeys(sim, call)

    sim = connected(late)
    new(sim, 2)
    new(sim, 3, after=100)
    sim.run(200)

    assert sim.rungs() == ["update", "reconnect", "update"]


def test_an_update_that_raises_and_yet_connects_is_taken():
    def quirk(sim, call):
        sim.post(CallEnded(call.call_id, "TypeError: initialized"), after=0.1)
        sim.post(Said(Link.CONNECTED), after=2)

    sim = connected(quirk)
    sim.post(Said(Link.DENIED))
    new(sim, 2, after=1)
    sim.run(60)

    assert sim.rungs() == ["update"]
    assert sim.state.phase is Phase.IDLE


def test_everything_is_tried_in_order_and_then_it_gives_up_and_says_what_was_tried():
    sim = connected(raises)
    sim.post(Said(Link.DENIED))
    new(sim, 2, after=1)
    sim.run(100)

    assert sim.rungs()[:3] == ["update", "reconnect", "recreate"]
    assert sim.told() == ["sessionDenied", "sessionGaveUp"]
    assert [line.partition(":")[0] for line in sim.diagnosis()] == ["update", "reconnect", "recreate"]


def test_after_giving_up_it_tries_again_ever_more_slowly_and_tells_it_once():
    sim = connected(raises)
    new(sim, 2)
    sim.run(3_600)

    assert sim.told().count("sessionGaveUp") == 1
    assert 10 < len(sim.rungs()) < 40


def test_it_recovers_by_itself_when_reconnecting_works_again():
    def down_for_an_hour(sim, call):
        (raises if sim.now < 3_600 else obeys)(sim, call)

    sim = connected(down_for_an_hour)
    sim.post(Said(Link.DISCONNECTED))
    new(sim, 2, after=1)
    sim.run(4_200)

    assert sim.state.phase is Phase.IDLE
    assert sim.told()[-2:] == ["sessionUpdated", "sessionRecovered"]


def test_a_session_that_can_only_be_updated_asks_for_other_tokens_a_few_times():
    sim = connected(raises, UPDATE_ONLY)
    for generation in range(2, 9):
        new(sim, generation, after=generation * 400)
    sim.run(10_000)

    assert len(sim.handed()) == len(set(sim.handed())) == 7
    assert 1 <= len(sim.asked) <= 4


def test_a_token_with_a_flaw_is_kept_back_and_the_healthy_session_stays_as_it_is():
    sim = connected()
    new(sim, 2, flaws=("sub is not what it was",))
    sim.run(100)

    assert sim.handed() == []
    assert sim.told() == ["sessionTokenKeptBack"]
    assert sim.state.phase is Phase.IDLE


def test_a_broken_session_gives_up_on_a_token_with_a_flaw_and_takes_the_next():
    sim = connected()
    sim.post(Said(Link.DENIED))
    new(sim, 2, after=1, flaws=("the grant for chat is missing",))
    sim.run(100)
    assert sim.diagnosis() == ("the grant for chat is missing",)

    new(sim, 3)
    sim.run(200)
    assert sim.handed() == ["token-3"]
    assert sim.told()[-1] == "sessionRecovered"


@pytest.mark.parametrize("verdict", [Verdict.THROTTLED, Verdict.DISPUTED])
def test_a_token_that_is_still_good_is_kept_and_the_connection_made_anew(verdict):
    sim = connected(verdict=lambda _: verdict)
    sim.post(Said(Link.DISCONNECTED, 51202))
    sim.run(30)

    assert sim.rungs() == ["reconnect"]
    assert sim.handed() == ["token-1"]
    assert sim.told()[-1] == "sessionRecovered"


def test_a_server_that_asks_for_patience_again_and_again_is_asked_ever_more_slowly():
    def throttles(sim, call):
        sim.post(CallEnded(call.call_id), after=0.1)
        sim.post(Said(Link.DENIED, 51202), after=0.2)

    sim = connected(throttles, verdict=lambda _: Verdict.THROTTLED)
    sim.post(Said(Link.DENIED, 51202))
    sim.run(3_600)

    assert 10 < len(sim.rungs()) < 60


def test_when_a_right_is_missing_it_gives_up_until_the_next_token():
    sim = connected(verdict=lambda _: Verdict.FORBIDDEN)
    sim.post(Said(Link.DENIED, 403))
    sim.run(3_600)
    assert sim.rungs() == []
    assert sim.told() == ["sessionDenied", "sessionGaveUp"]

    new(sim, 2)
    sim.run(3_700)
    assert sim.told()[-1] == "sessionRecovered"


def test_a_session_that_waits_in_vain_for_another_token_says_so_and_takes_the_one_that_comes():
    sim = connected()
    sim.post(Said(Link.DENIED))
    new(sim, 2, after=7_200)
    sim.run(7_000)
    assert "no other token came" in sim.diagnosis()[0]

    sim.run(8_000)
    assert sim.told()[-1] == "sessionRecovered"


def test_an_sdk_that_goes_on_connecting_by_itself_is_left_alone_while_its_token_lives():
    sim = connected()
    new(sim, 2, expires=2_000)
    sim.run(20)
    sim.post(Said(Link.CONNECTING))
    sim.run(2_000)
    assert sim.rungs() == ["update"]

    new(sim, 3)
    sim.run(2_100)
    assert sim.handed()[-1] == "token-3"


def test_the_same_denial_said_twice_is_told_once():
    sim = connected()
    sim.post(Said(Link.DENIED))
    sim.post(Said(Link.DENIED, 20104), after=0.1)
    sim.post(Said(Link.DISCONNECTED), after=0.2)
    sim.run(20)

    assert sim.told() == ["sessionDenied"]


def test_a_warning_asks_for_a_refresh_but_one_in_the_first_half_of_a_token_does_not():
    sim = connected(returns)
    new(sim, 2, received=10.0, expires=110.0)
    sim.post(Warned(), after=30)
    sim.run(50)
    assert sim.asked == []

    sim.post(Warned(), after=20)
    sim.run(80)
    assert [effect for _, effect in sim.effects if isinstance(effect, AskRefresh)] == [AskRefresh(2)]


def test_a_detached_session_is_left_alone():
    sim = connected()
    sim.post(Detached())
    new(sim, 2, after=1)
    sim.post(Said(Link.DENIED), after=2)
    sim.run(1_000)

    assert sim.handed() == []
    assert sim.told() == []


@pytest.mark.parametrize(
    ("word", "link"),
    [
        ("connecting", Link.CONNECTING),
        ("retrying", Link.CONNECTING),
        ("connected", Link.CONNECTED),
        ("disconnecting", Link.CLOSING),
        ("disconnected", Link.DISCONNECTED),
        ("denied", Link.DENIED),
        ("error", Link.DISCONNECTED),
        (" Registered ", Link.CONNECTED),
        ("unknown", None),
        ("", None),
    ],
)
def test_the_words_of_sdks_are_understood(word, link):
    assert link_of(word) is link
