"""Twilio's JavaScript clients lose their token while the backend is down, and come back with it.

As test_twilio_js.py, in a file of its own so that the two run side by side.
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


def assert_back(kept):
    kept.all("recovered")
    kept.server.wait_for_live(len(SDKS))


def test_denied_when_they_connect_they_recover_once_the_backend_is_back(kept):
    kept.sidecar.until_token()
    kept.backend.down()
    kept.server.deny(51215, times=len(SDKS))
    kept.open()
    kept.all("denied", generation=1)

    kept.backend.up()

    assert_back(kept)


def test_revoked_they_recover_once_the_backend_is_back(kept):
    kept.opened()
    kept.backend.down()
    kept.server.close_live(401)
    kept.all("denied", generation=1)

    kept.backend.up()

    assert_back(kept)


def test_expired_they_recover_once_the_backend_is_back(kept):
    kept.lifetime = 1.5
    kept.opened()
    kept.backend.down()
    kept.all("state", state="disconnected")
    kept.all("denied")

    kept.lifetime = 3600
    kept.backend.up()

    assert_back(kept)


def test_the_socket_lost_at_the_warning_they_recover_once_the_backend_is_back(kept):
    kept.lifetime = 2
    kept.server.warn_before = 1.5
    kept.opened()
    kept.backend.down()
    kept.all("warned")
    kept.server.down()
    kept.all("state", state="retrying")
    kept.server.up()

    kept.lifetime = 3600
    kept.all("state", state="denied")
    kept.backend.up()

    assert_back(kept)


def test_they_follow_a_sidecar_that_was_started_again(kept):
    kept.opened()
    kept.sidecar.stop()
    kept.all("problem")

    with kept.restarted():
        kept.all("updated", generation=1)

    kept.server.wait_for_live(len(SDKS))
