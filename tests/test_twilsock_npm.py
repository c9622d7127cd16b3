"""The fake Twilsock server speaks the protocol: the real client of npm says so."""

import pytest
from npm_client import NpmClient, modules_or_skip

from token_keeper.testing import FakeTwilsock


@pytest.fixture(scope="module")
def modules(request):
    return modules_or_skip(request.config)


@pytest.fixture
def client(modules):
    with NpmClient(modules) as client:
        yield client


@pytest.fixture
def server():
    # Its clock stands still: how long Node.js takes to start is not taken from a token's lifetime.
    with FakeTwilsock(clock=lambda: 1_800_000_000.0) as server:
        yield server


def connected(client, server, **options):
    client.connect(server.url, server.mint(**options))
    client.next("connected")


def test_a_good_token_connects(client, server):
    connected(client, server)

    assert client.states() == ["connecting", "connected"]
    server.wait_for_live(1)


def test_an_expired_token_is_denied_and_said_to_be_expired(client, server):
    client.connect(server.url, server.mint(lifetime=-10))

    client.next("tokenExpired")
    error = client.next("connectionError")
    assert client.states()[-1] == "denied"
    assert (error["httpStatusCode"], error["errorCode"], error["terminal"]) == (401, 20104, True)


def test_a_token_of_another_key_is_denied(client, server):
    with FakeTwilsock(key="another key, of 32 bytes or more", clock=lambda: 1_800_000_000.0) as other:
        client.connect(server.url, other.mint())

    error = client.next("connectionError")
    assert client.states()[-1] == "denied"
    assert (error["httpStatusCode"], error["errorCode"]) == (401, 20107)


def test_what_is_no_token_is_denied(client, server):
    client.connect(server.url, "not-a-token")

    assert client.next("connectionError")["errorCode"] == 20101
    assert client.states()[-1] == "denied"


def test_an_update_is_sent_and_accepted(client, server):
    connected(client, server)

    client.update(server.mint())

    client.next("updateResolved")
    server.wait_for("update")
    assert [message.status.code for message in server.received if message.method == "update"] == [200]
    assert server.live == 1


def test_an_update_to_another_user_is_refused_and_ends_the_connection(client, server):
    connected(client, server)

    client.update(server.mint(identity="bob"))

    client.next("updateRejected")
    assert client.next("connectionError")["errorCode"] == 51215
    assert client.states()[-1] == "denied"
    server.wait_for_live(0)


def test_the_client_is_told_that_its_token_is_about_to_expire(client, server):
    connected(client, server, lifetime=200)

    client.next("tokenAboutToExpire")
    server.wait_for("reply")


def test_an_update_in_time_keeps_the_connection_past_the_first_expiry(client, server):
    server.warn_before = 1
    connected(client, server, lifetime=2)
    client.next("tokenAboutToExpire")

    client.update(server.mint(lifetime=3))

    client.next("updateResolved")
    # This comes two seconds after the update, so one after the first token's expiry.
    client.next("tokenAboutToExpire")
    assert "tokenExpired" not in [said["event"] for said in client.seen]
    assert server.live == 1


def test_the_connection_ends_when_the_token_runs_out(client, server):
    connected(client, server, lifetime=1)

    client.next("tokenExpired")
    client.next("stateChanged", state="disconnected")
    assert client.states() == ["connecting", "connected", "disconnecting", "disconnected"]


def test_a_client_that_is_throttled_waits_as_long_as_it_is_told(client, server):
    server.throttle(retry_after=1.5)
    client.connect(server.url, server.mint())

    error = client.next("connectionError")
    assert (error["httpStatusCode"], error["errorCode"], error["terminal"]) == (429, 51202, False)
    client.next("connected")
    assert [message.status.code for message in server.received if message.method == "init"] == [429, 200]


def test_a_denied_client_recovers_with_another_token(client, server):
    server.deny(51215)
    client.connect(server.url, server.mint())
    client.next("stateChanged", state="denied")

    client.update(server.mint())

    client.next("connected")


def test_a_connection_that_is_closed_as_unauthorized_ends_without_an_event(client, server):
    connected(client, server)

    server.close_live(401)

    client.next("stateChanged", state="disconnected")
    assert client.states()[-2:] == ["disconnecting", "disconnected"]
    assert {said["event"] for said in client.seen} <= {"stateChanged", "connected", "disconnected"}


@pytest.mark.parametrize("status", [406, 417])
def test_a_client_that_is_not_understood_gives_up(client, server, status):
    connected(client, server)

    server.close_live(status)

    client.next("stateChanged", state="disconnected")
    server.wait_for_live(0)


def test_a_client_connects_again_after_its_connection_was_dropped(client, server):
    connected(client, server)

    server.drop_live()

    client.next("stateChanged", state="connecting")
    client.next("connected")
    server.wait_for("init", 2)


def test_a_client_says_goodbye(client, server):
    connected(client, server)

    client.disconnect()

    client.next("disconnectResolved")
    server.wait_for("close")
    server.wait_for_live(0)
