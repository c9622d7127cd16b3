"""What becomes of an attached session, by the clock of a virtual loop."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum, IntEnum
from pathlib import Path
from string import ascii_lowercase

import pytest
from session_peers import (
    DAY,
    HOUR,
    PLAIN,
    Peer,
    Reconnecting,
    Recreating,
    attached,
    connects,
    fresh,
    hangs,
    lies,
    raises,
    returns,
    run,
)

from token_keeper import AsyncTokenKeeper, ConfigError, KeeperClosed, TransientFetchError
from token_keeper.sessions import Link, SessionEventKind
from token_keeper.supervision import Phase
from token_keeper.supervision import _limits as limits
from token_keeper.testing import FakeTwilsock, ScriptedSource

PAGE = (Path(__file__).parent.parent / "docs" / "sessions.md").read_text(encoding="utf-8")


def test_a_session_is_given_the_token_at_once_and_each_new_one_in_time():
    async def main(clock):
        peer = Peer(returns)
        ends = []
        source = ScriptedSource(fresh(clock))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
            peer.handle = keeper.attach(peer)
            for _ in range(int(DAY / 600)):
                await asyncio.sleep(600)
                assert peer.tokens[-1] == keeper.token
                ends.append(keeper.snapshot.usable_for)
        assert len(peer.tokens) == len(set(peer.tokens)) == len(source.calls) >= 24
        assert min(ends) > 0
        assert peer.most_updating == 1

    run(main)


def test_a_session_that_was_made_with_the_token_is_not_given_it_again():
    async def main(clock):
        peer = Peer(returns)
        async with attached(clock, peer):
            await asyncio.sleep(600)
        assert peer.calls == []

    run(main)


def test_a_session_that_was_made_with_an_older_token_is_given_the_current_one():
    async def main(clock):
        peer = Peer(returns)
        async with AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock) as keeper:
            older = keeper.token
            await keeper.refresh()
            peer.handle = keeper.attach(peer, token=older)
            await asyncio.sleep(1)
            assert peer.tokens == [keeper.token]

    run(main)


def test_a_denied_session_gets_another_token_and_recovers():
    async def main(clock):
        peer = Peer()
        source = ScriptedSource(fresh(clock))
        async with attached(clock, peer, source) as keeper:
            denied = keeper.token
            peer.handle.denied(code=51207)
            await asyncio.sleep(10)
            assert peer.tokens == [keeper.token]
            assert keeper.token != denied
            assert peer.kinds == ["sessionDenied", "sessionUpdated", "sessionRecovered"]
            assert [event.generation for event in peer.told] == [1, 2, 2]
            assert (peer.told[0].code, peer.told[0].session, peer.told[0].by) == (51207, "peer", "sessions")
            assert peer.handle.snapshot.phase is Phase.IDLE
        assert len(source.calls) == 2

    run(main)


def test_a_token_that_ran_out_is_replaced_only_after_the_sdk_has_closed():
    async def main(clock):
        peer = Peer()
        async with attached(clock, peer):
            peer.handle.state_changed("disconnecting")
            peer.handle.expired()
            await asyncio.sleep(3)
            assert peer.calls == []
            peer.handle.disconnected()
            await asyncio.sleep(10)
        assert peer.methods == ["update"]
        assert peer.kinds == ["sessionDenied", "sessionUpdated", "sessionRecovered"]

    run(main)


def test_a_disconnect_out_of_the_blue_is_treated_as_a_denial():
    async def main(clock):
        peer = Peer()
        async with attached(clock, peer) as keeper:
            peer.handle.disconnected(code=1006)
            await asyncio.sleep(10)
            assert keeper.snapshot.generation == 2
        assert peer.kinds[-1] == "sessionRecovered"

    run(main)


@pytest.mark.parametrize("answer", [raises, hangs, lies], ids=["raises", "hangs", "lies"])
def test_an_update_in_vain_is_followed_by_what_helps(answer):
    async def main(clock):
        peer = Reconnecting(answer, connects)
        async with attached(clock, peer) as keeper:
            await keeper.refresh()
            await asyncio.sleep(120)
            assert peer.handle.snapshot.phase is Phase.IDLE
            assert peer.handle.snapshot.generation == keeper.snapshot.generation
        # A token that was denied needs a successor; one that was not used yet needs another connection.
        assert peer.methods == ["update", "update" if answer is lies else "reconnect"]
        assert peer.kinds[-1] == "sessionRecovered"
        assert peer.most_updating == 1

    run(main)


def test_the_last_resort_is_a_new_client_which_is_the_session_from_then_on():
    async def main(clock):
        peer = Recreating(raises, raises, returns)
        async with attached(clock, peer) as keeper:
            await keeper.refresh()
            await asyncio.sleep(60)
            assert peer.calls == [("update", keeper.token), ("reconnect", None), ("recreate", keeper.token)]
            await keeper.refresh()
            await asyncio.sleep(60)
            assert peer.successor.calls == [("update", keeper.token)]
        assert len(peer.calls) == 3

    run(main)


def test_a_session_that_nothing_helps_gives_up_says_why_and_starts_anew_with_the_next_token(caplog):
    caplog.set_level(logging.INFO, "token_keeper")

    async def main(clock):
        peer = Recreating(connects, raises, raises, raises, connects)
        async with attached(clock, peer) as keeper:
            await keeper.refresh()
            await asyncio.sleep(60)
            await keeper.refresh()
            await asyncio.sleep(9)
            assert peer.handle.snapshot.phase is Phase.GAVE_UP
            assert len(peer.handle.snapshot.diagnosis) == 3
            assert "GAVE_UP" in repr(peer.handle).upper()
            assert peer.kinds[-1] == "sessionGaveUp"
            assert "update: RuntimeError: InvalidState; reconnect: RuntimeError" in peer.diagnosis()
            await keeper.refresh()
            await asyncio.sleep(60)
            assert peer.handle.snapshot.diagnosis == ()
        assert peer.kinds[-2:] == ["sessionUpdated", "sessionRecovered"]
        assert peer.kinds.count("sessionGaveUp") == 1

    run(main)
    lines = [record for record in caplog.records if record.event == "sessionGaveUp"]
    assert len(lines) == 1
    assert lines[0].levelno == logging.ERROR
    assert "recreate: RuntimeError" in lines[0].getMessage()


def test_it_recovers_by_itself_when_the_server_is_back():
    async def main(clock):
        mends = clock.monotonic() + HOUR / 2

        async def down_for_half_an_hour(peer):
            if clock.monotonic() < mends:
                raise ConnectionRefusedError("no server")
            peer.handle.connected()

        peer = Reconnecting(down_for_half_an_hour)
        async with attached(clock, peer):
            peer.handle.disconnected()
            await asyncio.sleep(HOUR / 2 + 400)
        assert peer.kinds.count("sessionGaveUp") == 1
        assert peer.kinds[-1] == "sessionRecovered"
        assert len(peer.calls) < 40

    run(main)


def test_a_token_of_somebody_else_is_kept_back_and_the_healthy_session_stays_as_it_is():
    async def main(clock):
        alice, bob = fresh(clock, sub="alice"), fresh(clock, sub="bob")
        peer = Peer()
        async with attached(clock, peer, ScriptedSource(alice, bob, alice)) as keeper:
            await keeper.refresh()
            await asyncio.sleep(10)
            assert peer.calls == []
            assert peer.kinds == ["sessionTokenKeptBack"]
            assert "sub is not what it was" in peer.diagnosis()
            await keeper.refresh()
            await asyncio.sleep(10)
            assert peer.tokens == [keeper.token]

    run(main)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"identity": "bob"}, "grants.identity is not"),
        ({"grants": {"chat": {"service_sid": "IS" + "1" * 32}}}, "grants.chat.service_sid is not"),
        ({"grants": {"data_sync": {"service_sid": "IS" + "0" * 32}}}, "grants.chat.service_sid is not"),
    ],
    ids=["identity", "service", "grant"],
)
def test_under_twilio_a_token_of_another_session_is_kept_back(changed, said):
    async def main(clock):
        issue = FakeTwilsock(clock=clock.wall).mint
        source = ScriptedSource(issue, lambda: issue(**changed))
        peer = Peer()
        async with attached(clock, peer, source, profile="twilio") as keeper:
            await keeper.refresh()
            await asyncio.sleep(10)
        assert peer.calls == []
        assert said in peer.diagnosis()

    run(main)


def test_a_throttled_session_keeps_its_token_and_the_whole_account_slows_down():
    async def main(clock):
        peer, other = Reconnecting(), Reconnecting()
        source = ScriptedSource(fresh(clock))
        async with attached(clock, peer, source) as keeper:
            other.handle = keeper.attach(other, token=keeper.token)
            other.handle.connected()
            at = []
            for one in (peer, other):
                one.answers = [lambda one: _noted(one, at, clock)]
            peer.handle.disconnected(code=51202)
            other.handle.disconnected(code=429)
            before = clock.monotonic()
            await asyncio.sleep(60)
        assert peer.methods == other.methods == ["reconnect"]
        assert peer.kinds == ["sessionDenied", "sessionRecovered"]
        assert all(began - before >= 1 for began in at)
        assert len(source.calls) == 1

    run(main)


async def _noted(peer, at, clock):
    at.append(clock.monotonic())
    peer.handle.connected()


def test_a_session_whose_token_lacks_a_right_gives_up_until_there_is_another():
    async def main(clock):
        peer = Reconnecting()
        source = ScriptedSource(fresh(clock))
        async with attached(clock, peer, source) as keeper:
            peer.handle.denied(code="insufficient_scope")
            await asyncio.sleep(HOUR / 2)
            assert len(source.calls) == 1
            assert peer.kinds == ["sessionDenied", "sessionGaveUp"]
            assert peer.calls == []
            await keeper.refresh()
            await asyncio.sleep(10)
        assert peer.kinds[-1] == "sessionRecovered"

    run(main)


def test_a_server_that_refuses_every_token_cannot_cause_many_fetches():
    async def main(clock):
        async def refused(peer):
            peer.handle.state_changed("connecting")
            asyncio.get_running_loop().call_later(0.1, peer.handle.denied)

        peer = Reconnecting(refused)
        source = ScriptedSource(fresh(clock, DAY))
        async with attached(clock, peer, source):
            peer.handle.denied()
            await asyncio.sleep(6 * HOUR)
            assert peer.handle.snapshot.phase is not Phase.IDLE
        # One for each refill of the bucket, and its content at the beginning.
        assert len(source.calls) <= 6 * 12 + 6
        assert "sessionGaveUp" in peer.kinds
        assert len(set(peer.tokens) - {None}) > 5

    run(main)


def test_the_servers_warning_hurries_the_refresh_once_and_a_spurious_one_does_not():
    async def main(clock):
        peer = Peer(returns)
        source = ScriptedSource(fresh(clock))
        async with attached(clock, peer, source):
            await asyncio.sleep(HOUR / 4)
            peer.handle.about_to_expire()
            await asyncio.sleep(60)
            assert len(source.calls) == 1
            await asyncio.sleep(HOUR / 2)
            for _ in range(5):
                peer.handle.about_to_expire(240_000)
            await asyncio.sleep(60)
            assert len(source.calls) == len(peer.calls) + 1 == 2
            peer.handle.about_to_expire()
            await asyncio.sleep(60)
        assert len(source.calls) == 2

    run(main)


def test_a_backend_that_is_down_during_a_denial_delays_the_recovery_and_nothing_else():
    async def main(clock):
        issue, mends = fresh(clock), clock.monotonic() + HOUR / 4

        def backend():
            served = not source.calls[1:] or clock.monotonic() >= mends
            return issue() if served else TransientFetchError("down")

        source = ScriptedSource(backend)
        peer = Peer()
        async with attached(clock, peer, source) as keeper:
            peer.handle.denied(code=401)
            await asyncio.sleep(HOUR / 4)
            assert peer.calls == []
            assert "no other token came within 300 s" in peer.diagnosis()
            assert keeper.token
            await asyncio.sleep(400)
            assert peer.tokens == [keeper.token]
        assert peer.kinds == ["sessionDenied", "sessionGaveUp", "sessionUpdated", "sessionRecovered"]

    run(main)


def test_the_same_token_again_after_a_denial_is_not_handed_over():
    async def main(clock):
        issue = fresh(clock)
        first = issue()
        peer = Peer()
        async with attached(clock, peer, ScriptedSource(first, first, first, issue)) as keeper:
            peer.handle.denied(code=20104)
            await asyncio.sleep(60)
            assert peer.tokens == [keeper.token] != [first]

    run(main)


class Voice(IntEnum):
    OPEN = 1
    CLOSED = 3


class Words(Enum):
    READY = "ready"


@pytest.mark.parametrize(
    ("word", "link"),
    [
        ("unknown", Link.UNKNOWN),
        ("connecting", Link.CONNECTING),
        ("connected", Link.CONNECTED),
        ("retrying", Link.CONNECTING),
        ("disconnecting", Link.CLOSING),
        ("disconnected", Link.DISCONNECTED),
        ("denied", Link.DENIED),
        ("error", Link.DISCONNECTED),
        ("registering", Link.CONNECTING),
        ("registered", Link.CONNECTED),
        ("unregistered", Link.DISCONNECTED),
        ("destroyed", Link.DISCONNECTED),
        (Voice.OPEN, Link.CONNECTED),
        (Voice.CLOSED, Link.DISCONNECTED),
        (Words.READY, Link.CONNECTED),
    ],
    ids=str,
)
def test_an_sdk_may_say_its_state_in_its_own_words(word, link, caplog):
    async def main(clock):
        peer = Peer(returns)
        async with AsyncTokenKeeper(clock=clock) as keeper:
            peer.handle = keeper.attach(peer)
            peer.handle.state_changed(word, "what else the SDK passes")
            await asyncio.sleep(0.1)
            assert peer.handle.snapshot.link is link

    run(main)
    assert "sessionWordUnknown" not in caplog.text


def test_a_word_that_means_nothing_is_logged_once_and_changes_nothing(caplog):
    async def main(clock):
        peer = Peer(returns)
        async with attached(clock, peer):
            for word in ["half-open", "half-open", *(f"{letter}x" for letter in ascii_lowercase)]:
                peer.handle.state_changed(word)
            for odd in (None, 7, object(), "x" * 100_000, Exception("a callback of another kind")):
                peer.handle.state_changed(odd)
            await asyncio.sleep(1)
            assert peer.handle.snapshot.link is Link.CONNECTED
            assert peer.kinds == []

    run(main)
    assert caplog.text.count("half-open") == 1
    assert caplog.text.count("sessionWordUnknown") == 16
    assert max(map(len, caplog.messages)) < 200


def test_what_an_sdk_passes_is_taken_as_it_is_whatever_it_is():
    class Unprintable:
        def __str__(self):
            raise RuntimeError("no")

    async def main(clock):
        peer = Peer()
        async with attached(clock, peer):
            peer.handle.connected({"any": "thing"}, 7)
            peer.handle.denied(object(), code=Unprintable(), reason=Unprintable())
            await asyncio.sleep(10)
            peer.handle.disconnected(code=True, reason=b"bytes")
            peer.handle.expired(code=51207.5)
            await asyncio.sleep(60)
            assert peer.handle.snapshot.phase is Phase.IDLE
        assert peer.told[0].code == "<unprintable Unprintable>"

    run(main)


def test_a_call_in_flight_is_cancelled_when_the_keeper_closes():
    async def main(clock):
        peer = Peer(hangs)
        async with attached(clock, peer) as keeper:
            await keeper.refresh()
            await asyncio.sleep(1)
            assert peer.updating == 1
        assert peer.updating == 0
        assert peer.handle.snapshot.phase is Phase.DETACHED

    run(main)


def test_a_denial_at_the_end_of_the_keeper_is_not_told_as_giving_up():
    async def main(clock):
        peer = Peer()
        async with attached(clock, peer):
            await asyncio.sleep(1)
            peer.handle.state_changed("denied")
        assert peer.told[-1].kind is SessionEventKind.DENIED
        assert peer.handle.snapshot.phase is Phase.DETACHED
        assert peer.handle.snapshot.diagnosis == ()

    run(main)


def test_a_call_that_refuses_to_be_cancelled_does_not_hold_up_the_end():
    async def stubborn(_):
        for _ in range(5):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def main(clock):
        peer = Peer(stubborn)
        async with attached(clock, peer) as keeper:
            await keeper.refresh()
            await asyncio.sleep(1)
            closing = clock.monotonic()
        assert clock.monotonic() - closing < 5
        # So that the loop may end without a task.
        await asyncio.sleep(400)

    run(main)


def test_all_calls_that_hang_end_with_the_session():
    async def main(clock):
        peer = Reconnecting(hangs)
        async with attached(clock, peer) as keeper:
            await keeper.refresh()
            await asyncio.sleep(90)
            assert peer.methods[:2] == ["update", "reconnect"]
            peer.handle.detach()
            await asyncio.sleep(1)
            assert not [task for task in asyncio.all_tasks() if "peer" in task.get_name()]

    run(main)


def test_a_detached_session_is_left_alone():
    async def main(clock):
        peer = Peer()
        async with attached(clock, peer) as keeper:
            with peer.handle:
                pass
            peer.handle.detach()
            await keeper.refresh()
            peer.handle.denied()
            await asyncio.sleep(10)
            assert keeper.snapshot.generation == 2
            assert peer.handle.snapshot.phase is Phase.DETACHED
        assert peer.calls == []
        assert peer.kinds == []

    run(main)


def test_what_an_sdk_goes_on_to_say_after_the_end_is_not_kept():
    async def main(clock):
        peer = Peer()
        async with attached(clock, peer):
            pass
        for _ in range(1_000):
            peer.handle.connected()
            peer.handle.denied(code=401)
        assert len(peer.handle._supervisor._inbox) == 0

    run(main)


@pytest.mark.parametrize("when", ["before the start", "after the end"])
def test_nothing_can_be_attached_to_a_keeper_that_does_not_run(when):
    async def main(clock):
        keeper = AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock)
        if when == "after the end":
            async with keeper:
                pass
        with pytest.raises(KeeperClosed, match="start" if when == "before the start" else "closed"):
            keeper.attach(Peer())

    run(main)


@pytest.mark.parametrize(
    ("session", "options", "said"),
    [
        (object(), {}, "session: a object has no update_token"),
        (Peer, {}, "session: is a class"),
        (Peer(), {"token": 7}, "token: must be the raw token"),
        (Peer(), {"by": 7}, "by: must be a string"),
        (Peer(), {"name": ""}, "name: must be a string of 1 to 256"),
        (Peer(), {"deadline": 0}, "deadline: must be more than 0"),
        (Peer(), {"deadline": -1}, "deadline: must be 0 or more"),
    ],
    ids=["no method", "class", "token", "by", "name", "no deadline", "negative deadline"],
)
def test_an_argument_that_cannot_work_is_named(session, options, said):
    async def main(clock):
        async with AsyncTokenKeeper(clock=clock) as keeper:
            with pytest.raises(ConfigError, match=said):
                keeper.attach(session, **options)

    run(main)


@pytest.mark.parametrize("wrong", ["sessionUpdate", len])
def test_a_listener_of_no_event_is_refused(wrong):
    async def main(clock):
        async with AsyncTokenKeeper(clock=clock) as keeper:
            handle = keeper.attach(Peer())
            with pytest.raises(ConfigError, match="on: "):
                handle.on(wrong)
            with pytest.raises(ConfigError, match="must be a function"):
                handle.on("sessionUpdated")("not one")

    run(main)


def test_a_token_is_given_to_what_needs_one_argument_or_has_one_of_that_name():
    class Delaying(Peer):
        async def reconnect(self, delay=0):
            await self.answer("reconnect", delay)

        async def recreate(self, token=None, *, fast=False):
            await self.answer("recreate", None if fast else token)

    async def main(clock):
        peer = Delaying(raises, raises, connects)
        async with attached(clock, peer) as keeper:
            await keeper.refresh()
            await asyncio.sleep(30)
            assert peer.calls == [("update", keeper.token), ("reconnect", 0), ("recreate", keeper.token)]

    run(main)


def test_a_keeper_without_a_source_keeps_sessions_too():
    async def main(clock):
        issue = fresh(clock)
        peer = Peer(returns)
        async with AsyncTokenKeeper(clock=clock) as keeper:
            peer.handle = keeper.attach(peer)
            await asyncio.sleep(1)
            assert peer.calls == []
            for _ in range(3):
                keeper.update(issue())
                await asyncio.sleep(10)
                assert peer.tokens[-1] == keeper.token
            peer.handle.denied()
            await asyncio.sleep(600)
            keeper.update(issue())
            await asyncio.sleep(10)
        assert len(peer.calls) == 4

    run(main)


def test_updates_in_quick_succession_are_made_one_after_the_other_and_the_last_one_wins():
    async def slow(peer):
        await asyncio.sleep(5)
        peer.handle.connected()

    async def main(clock):
        issue = fresh(clock)
        peer = Peer(slow)
        async with AsyncTokenKeeper(clock=clock) as keeper:
            peer.handle = keeper.attach(peer)
            for _ in range(10):
                keeper.update(issue())
                await asyncio.sleep(1)
            await asyncio.sleep(20)
            assert peer.tokens[-1] == keeper.token
        assert peer.most_updating == 1
        assert len(peer.tokens) < 6

    run(main)


def test_a_laptop_that_slept_over_night_brings_its_session_back():
    async def main(clock):
        peer = Reconnecting()
        async with attached(clock, peer) as keeper:
            clock.suspend(8 * HOUR)
            peer.handle.state_changed("connecting")
            await asyncio.sleep(5)
            peer.handle.disconnected()
            await asyncio.sleep(30)
            assert peer.tokens == [keeper.token]
            assert peer.handle.snapshot.link is Link.CONNECTED

    run(main)


@pytest.mark.parametrize("ending", [SystemExit, StopIteration, GeneratorExit])
def test_a_session_cannot_end_the_keepers_loop(ending):
    async def ends(_):
        raise ending

    async def main(clock):
        peer = Reconnecting(ends, connects)
        async with attached(clock, peer) as keeper:
            await keeper.refresh()
            await asyncio.sleep(60)
            assert peer.handle.snapshot.phase is Phase.IDLE
        assert peer.methods == ["update", "reconnect"]

    run(main)


@pytest.mark.parametrize("kind", SessionEventKind)
def test_each_event_of_a_session_has_its_row(kind):
    assert f"| `{kind}` |" in PAGE


def test_the_page_states_the_times_that_are_in_force():
    waits = "after 10 s, then 1 min, then every 5 min"
    assert waits in PAGE
    assert limits.CHANCES_S == (10, 60, 300)
    assert "stands for 1 s after the call" in PAGE.replace("\n   ", " ")
    assert limits.SETTLE_S == 1
    assert "None within 5 min" in PAGE
    assert limits.PATIENCE_S == 300
    assert "nothing is handed over for 10 s" in PAGE
    assert limits.CLOSING_S == 10
    assert "after 5 times in vain" in PAGE
    assert limits.MAX_ROUNDS == 5
