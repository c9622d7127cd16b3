"""Twilio's JavaScript clients survive all that happens to a token: the real ones of npm, kept by the example.

Each test has one client of twilsock, one of Sync and one of Conversations. An SDK takes 3 s
to say that a connection was closed: no such test can be quicker.
"""

import itertools

import pytest
from npm_client import NodeProgram, modules_or_skip
from twilio_js import SDKS, sessions

SERIALS = itertools.count()


@pytest.fixture(scope="module")
def program(request):
    with NodeProgram("kept-client.mjs", modules_or_skip(request.config)) as program:
        yield program


@pytest.fixture
def kept(program):
    with sessions(program, next(SERIALS)) as kept:
        yield kept


def inits(kept):
    return [message.status.code for message in kept.server.received if message.method == "init"]


def test_their_tokens_are_renewed_before_they_expire_and_they_stay_connected(kept):
    kept.lifetime = 3
    kept.opened()

    kept.all("updated", generation=2)
    kept.all("updated", generation=3)

    updates = [message.status.code for message in kept.server.received if message.method == "update"]
    assert inits(kept) == [200] * len(SDKS)
    assert set(updates) == {200}
    assert {said["state"] for said in kept.said() if said["event"] == "state"} == {"connecting", "connected"}
    assert kept.server.live == len(SDKS)


def test_denied_when_they_connect_they_recover_with_another_token(kept):
    kept.server.deny(51215, times=len(SDKS))

    kept.open()

    assert {said["code"] for said in kept.all("denied", generation=1)} == {51215}
    kept.all("recovered", generation=2)
    kept.server.wait_for_live(len(SDKS))
    # Conversations says so when all its parts have the token.
    kept.program.next("client", name=kept.name("conversations"), state="initialized")
    assert len(kept.backend.issued) == 2


def test_revoked_in_mid_session_they_recover(kept):
    kept.opened()

    kept.server.close_live(401)

    kept.all("denied", generation=1)
    kept.all("recovered", generation=2)
    kept.server.wait_for_live(len(SDKS))
    assert len(kept.backend.issued) == 2


def test_expired_while_live_they_recover(kept):
    kept.opened()

    kept.server.close_live(410)

    assert {said["code"] for said in kept.all("denied", generation=1)} == {51207}
    kept.all("recovered", generation=2)
    kept.server.wait_for_live(len(SDKS))


def test_socket_lost_at_the_moment_of_the_warning_they_go_on_with_a_newer_token(kept):
    kept.lifetime = 4
    kept.server.warn_before = 3
    kept.opened()
    kept.all("warned")

    kept.server.drop_live()

    kept.all("state", state="connecting")
    kept.all("updated", generation=2)
    assert 401 not in inits(kept)
    kept.server.wait_for_live(len(SDKS))


def test_a_denied_update_is_reported_and_the_next_token_taken(kept):
    kept.lifetime = 3
    kept.opened()
    kept.server.deny(51215, on="update", times=len(SDKS))

    assert {said["code"] for said in kept.all("denied", generation=2)} == {51215}

    kept.all("recovered", generation=3)
    kept.server.wait_for_live(len(SDKS))


def test_an_update_without_an_answer_is_followed_by_another_connection_or_client(kept):
    kept.lifetime = 6
    kept.opened(limits={"deadline": 500}, recreates=True)
    kept.server.fail("silent", on="update", times=len(SDKS))

    # twilsock has connect(); Conversations connects when it gets another token; Sync needs a new client.
    kept.program.next("recreated", name=kept.name("sync"))
    kept.all("recovered")

    kept.server.wait_for_live(len(SDKS))


def test_a_socket_lost_during_an_update_costs_no_token(kept):
    kept.lifetime = 3
    kept.opened()
    kept.server.fail("drop", on="update", times=len(SDKS))

    kept.all("updated", generation=2)

    kept.server.wait_for_live(len(SDKS))
    assert 401 not in inits(kept)


def test_a_token_of_another_user_is_not_handed_over(kept):
    kept.lifetime = 3
    kept.opened()
    kept.backend.answer(body={"token": kept.server.mint(identity="bob")})

    problems = kept.all("problem")

    assert {"another identity" in said["message"] for said in problems} == {True}
    assert "bob" not in str(kept.said())
    assert [message.method for message in kept.server.received].count("update") == 0


def test_nothing_that_they_say_holds_a_token(kept):
    kept.server.deny(51215, times=len(SDKS))
    kept.open()
    kept.all("recovered", generation=2)

    told = str(kept.said())

    assert not [token for token in kept.backend.issued if token in told]
