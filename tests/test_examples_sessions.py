"""The examples of sessions over WebSockets, with a server that judges their tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from feeding import Feed, a_feed
from programs import read_until, running, stopped
from sidecar import eventually

from token_keeper.testing import FakeBackend


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def in_band() -> Iterator[Feed]:
    with a_feed(in_band=True) as feed:
        yield feed


@pytest.fixture
def at_handshake() -> Iterator[Feed]:
    with a_feed(in_band=False) as feed:
        yield feed


# websocket_session.py: a session that takes another token while it lives.


def test_a_session_is_given_a_token_hears_the_feed_and_ends_when_told(
    backend: FakeBackend, in_band: Feed
) -> None:
    with running("websocket_session.py", TOKEN_URL=backend.url, FEED_URL=in_band.url) as program:
        eventually(lambda: in_band.live)
        in_band.say("good news")
        read_until(program.stdout, "heard: good news")
        assert stopped(program).endswith("stopped\n")
    assert in_band.shown == [backend.issued[0]]


def test_a_session_is_given_each_new_token_on_the_same_connection(
    backend: FakeBackend, in_band: Feed
) -> None:
    backend.lifetime = 3
    with running("websocket_session.py", TOKEN_URL=backend.url, FEED_URL=in_band.url) as program:
        read_until(program.stdout, "sessionUpdated, generation 3")
        stopped(program)
    assert in_band.shown[:3] == list(backend.issued)[:3]
    assert in_band.most_live == 1


def test_a_session_whose_token_is_revoked_comes_back_with_another(
    backend: FakeBackend, in_band: Feed
) -> None:
    with running("websocket_session.py", TOKEN_URL=backend.url, FEED_URL=in_band.url) as program:
        eventually(lambda: in_band.live)
        in_band.revoke()
        read_until(program.stdout, "sessionDenied, generation 1")
        read_until(program.stdout, "sessionRecovered, generation 2")
        in_band.say("good news")
        read_until(program.stdout, "heard: good news")
    assert in_band.shown == list(backend.issued)[:2]


def test_a_session_whose_first_token_is_denied_comes_back_with_another(
    backend: FakeBackend, in_band: Feed
) -> None:
    in_band.deny_next()
    with running("websocket_session.py", TOKEN_URL=backend.url, FEED_URL=in_band.url) as program:
        read_until(program.stdout, "sessionRecovered, generation 2")
    assert in_band.shown == list(backend.issued)[:2]


def test_a_session_that_was_lost_is_connected_again(backend: FakeBackend, in_band: Feed) -> None:
    with running("websocket_session.py", TOKEN_URL=backend.url, FEED_URL=in_band.url) as program:
        eventually(lambda: in_band.live)
        in_band.close()
        read_until(program.stdout, "sessionRecovered")


def test_a_session_that_is_warned_of_a_token_that_is_new_goes_on(backend: FakeBackend, in_band: Feed) -> None:
    with running("websocket_session.py", TOKEN_URL=backend.url, FEED_URL=in_band.url) as program:
        eventually(lambda: in_band.live)
        in_band.warn()
        in_band.say("good news")
        read_until(program.stdout, "heard: good news")
        stopped(program)
    assert in_band.shown == [backend.issued[0]]


def test_a_session_waits_for_the_end_of_an_outage(backend: FakeBackend, in_band: Feed) -> None:
    backend.down()
    with running("websocket_session.py", TOKEN_URL=backend.url, FEED_URL=in_band.url) as program:
        read_until(program.stdout, "refreshFailed")
        backend.up()
        read_until(program.stdout, "sessionUpdated, generation 1")


# websocket_reconnect.py: the token counts only in the handshake.


def test_a_connection_is_made_with_a_token_and_the_program_ends_when_told(
    backend: FakeBackend, at_handshake: Feed
) -> None:
    with running("websocket_reconnect.py", TOKEN_URL=backend.url, FEED_URL=at_handshake.url) as program:
        read_until(program.stdout, "connected with generation 1")
        eventually(lambda: at_handshake.live)
        at_handshake.say("good news")
        read_until(program.stdout, "heard: good news")
        assert stopped(program).endswith("stopped\n")
    assert at_handshake.shown == [backend.issued[0]]
    eventually(lambda: not at_handshake.live)


def test_a_new_connection_is_there_before_the_old_one_is_closed(
    backend: FakeBackend, at_handshake: Feed
) -> None:
    backend.lifetime = 3
    with running("websocket_reconnect.py", TOKEN_URL=backend.url, FEED_URL=at_handshake.url) as program:
        read_until(program.stdout, "connected with generation 3")
        stopped(program)
    assert at_handshake.most_live == 2
    assert at_handshake.shown[:3] == list(backend.issued)[:3]


def test_a_handshake_that_is_denied_is_tried_again_with_another_token(
    backend: FakeBackend, at_handshake: Feed
) -> None:
    at_handshake.deny_next()
    with running("websocket_reconnect.py", TOKEN_URL=backend.url, FEED_URL=at_handshake.url) as program:
        read_until(program.stdout, "connected with generation 2")
    assert at_handshake.shown == list(backend.issued)[:2]


def test_a_connection_whose_token_is_revoked_is_followed_by_one_with_another(
    backend: FakeBackend, at_handshake: Feed
) -> None:
    with running("websocket_reconnect.py", TOKEN_URL=backend.url, FEED_URL=at_handshake.url) as program:
        read_until(program.stdout, "connected with generation 1")
        eventually(lambda: at_handshake.live)
        at_handshake.revoke()
        read_until(program.stdout, "the connection ended: received 4401")
        read_until(program.stdout, "connected with generation 2")
    assert at_handshake.shown == list(backend.issued)[:2]


def test_a_connection_that_was_lost_is_followed_by_another(backend: FakeBackend, at_handshake: Feed) -> None:
    with running("websocket_reconnect.py", TOKEN_URL=backend.url, FEED_URL=at_handshake.url) as program:
        read_until(program.stdout, "connected with generation 1")
        eventually(lambda: at_handshake.live)
        at_handshake.close()
        read_until(program.stdout, "connected with generation 1")
    assert at_handshake.shown == [backend.issued[0]] * 2
