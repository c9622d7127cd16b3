"""`token-keeper doctor --connect`: what Twilsock itself says of the token."""

import os
import subprocess
import sys
import textwrap

import pytest
from examining import examined, for_twilio, run, statuses
from minting import AUTH_TOKEN, SECRET

from token_keeper.doctor._connect import _region_of
from token_keeper.testing import FakeBackend, FakeTwilsock


@pytest.fixture
def server():
    with FakeTwilsock(key=SECRET) as server:
        yield server


@pytest.fixture
def backend():
    with FakeBackend(mint=for_twilio()) as backend:
        yield backend


def connecting(backend, server, *args):
    return examined(backend.url, "--connect", "--twilsock-url", server.url, *args)


def test_a_token_that_twilsock_accepts_passes(backend, server):
    document = connecting(backend, server)

    assert document["ok"]
    step = document["step"]["twilsock"]
    assert step["status"] == "ok"
    assert "accepted the token" in step["summary"]
    assert step["details"] | {"seconds": 0} == {
        "endpoint": server.url,
        "connected": True,
        "status": 200,
        "code": None,
        "description": "OK",
        "class": None,
        "seconds": 0,
        "retry_after": None,
    }


def test_the_token_that_the_backend_issued_is_shown_once(backend, server):
    connecting(backend, server)

    server.wait_for("close")
    assert [message.method for message in server.received] == ["init", "close"]
    assert [server.received[0].token.reveal()] == list(backend.issued)


def test_without_connect_nobody_else_sees_the_token(backend, server):
    document = examined(backend.url)

    assert "twilsock" not in statuses(document)
    assert not server.received


def test_a_refusal_that_the_token_explains_names_the_cause_and_the_remedy(server):
    with FakeBackend(mint=for_twilio(age=7200)) as backend:
        document = connecting(backend, server)
        page = run(backend.url, "--connect", "--twilsock-url", server.url).stdout

    step = document["step"]["twilsock"]
    assert step["status"] == "failed"
    assert (step["details"]["status"], step["details"]["code"], step["details"]["class"]) == (
        401,
        20104,
        "denied",
    )
    assert "refused the token with 401, 20104: Expired, or expiration invalid" in step["summary"]
    assert step["remedy"]
    assert "(expired: " in page


def test_a_refusal_that_the_token_cannot_explain_says_what_is_left_to_check(server):
    with FakeBackend(mint=for_twilio(secret="AnotherSecretAnotherSecretAnothe")) as backend:
        document = connecting(backend, server)
        page = run(backend.url, "--connect", "--twilsock-url", server.url).stdout

    step = document["step"]["twilsock"]
    assert (step["status"], step["details"]["code"], step["details"]["class"]) == ("failed", 20107, "config")
    assert statuses(document)["findings"] == "ok"
    assert "To check: The token was signed with another API Key Secret" in page


def test_a_denial_of_the_server_alone_fails_the_examination(backend, server):
    server.deny(51215, times=None)

    document = connecting(backend, server)

    assert not document["ok"]
    assert [name for name, status in statuses(document).items() if status == "failed"] == ["twilsock"]


def test_a_code_that_nobody_knows_is_reported_as_it_is(backend, server):
    server.answer(418, code=59999, description="tea only")

    step = connecting(backend, server)["step"]["twilsock"]

    assert (step["status"], step["details"]["code"], step["details"]["class"]) == ("failed", 59999, None)
    assert "418, 59999: tea only" in step["summary"]
    assert "Debugger" in step["remedy"]


def test_a_status_without_a_code_is_explained_as_one_of_http(backend, server):
    server.answer(401)

    step = connecting(backend, server)["step"]["twilsock"]

    assert (step["details"]["status"], step["details"]["code"]) == (401, None)
    assert step["details"]["class"] == "denied"


def test_throttling_is_a_warning_and_says_how_long_to_wait(backend, server):
    server.throttle(retry_after=5)

    document = connecting(backend, server)

    step = document["step"]["twilsock"]
    assert document["ok"]
    assert (step["status"], step["details"]["retry_after"], step["details"]["class"]) == (
        "warning",
        5.0,
        "throttled",
    )
    assert step["remedy"].startswith("Wait 5 s")


def test_a_server_that_is_not_reached_fails_with_what_to_check(backend, server):
    server.down()

    step = connecting(backend, server)["step"]["twilsock"]

    assert step["status"] == "failed"
    assert "the host refused the connection" in step["summary"]
    assert "firewall" in step["remedy"]


def test_a_server_that_keeps_silent_fails_in_time(backend, server):
    server.fail("silent")

    step = connecting(backend, server, "--timeout", "0.5")["step"]["twilsock"]

    assert "no answer within 0.5 s" in step["summary"]


def test_a_token_of_another_issuer_is_not_shown(server):
    with FakeBackend() as backend:
        document = connecting(backend, server)

    assert statuses(document)["twilsock"] == "skipped"
    assert not server.received


def test_a_token_of_another_look_is_shown_if_the_profile_says_so(server):
    with FakeBackend() as backend:
        document = connecting(backend, server, "--profile", "twilio")

    assert document["step"]["twilsock"]["details"]["code"] == 20102


def test_a_credential_is_not_shown(server):
    with FakeBackend(mint=lambda _: AUTH_TOKEN) as backend:
        document = connecting(backend, server, "--profile", "twilio")

    assert statuses(document)["twilsock"] == "skipped"
    assert not server.received


def test_without_a_token_there_is_nothing_to_show(backend, server):
    backend.answer(status=500, times=None)
    without_token = connecting(backend, server)
    backend.down()
    without_backend = connecting(backend, server)

    assert statuses(without_token)["twilsock"] == statuses(without_backend)["twilsock"] == "skipped"
    assert not server.received


def test_neither_form_shows_the_token_even_if_the_server_repeats_it(backend, server):
    for form in ([], ["--json"]):
        raw = for_twilio()(1_800_000_000)
        backend.answer(body={"token": raw})
        server.answer(401, code=51215, description=f"no: {raw} {raw.split('.')[1]}")

        output = run(backend.url, "--connect", "--twilsock-url", server.url, *form).output

        assert "no: <token> <token>" in output
        assert not [part for part in raw.split(".") if part in output]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--twilsock-url", "wss://example.com/s3cret"], "--twilsock-url and --region need --connect"),
        (["--region", "s3cret"], "--twilsock-url and --region need --connect"),
        (["--connect", "--twilsock-url", "ws://example.com/s3cret"], "--twilsock-url has to be wss://"),
        (["--connect", "--twilsock-url", "wss://u:s3cret@example.com"], "--twilsock-url has to be wss://"),
        (["--connect", "--region", "s3cret.example.com"], "--region is the name"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_fetched(backend, args, said):
    result = run(backend.url, *args)

    assert result.exit_code == os.EX_USAGE
    assert said in result.stderr
    assert "s3cret" not in result.output
    assert not backend.requests


def test_without_the_extra_it_says_which_line_installs_it(backend):
    program = textwrap.dedent("""
        import sys
        sys.modules["websockets"] = None
        from token_keeper.cli import main
        sys.exit(main())
    """)
    command = [sys.executable, "-c", program, "doctor", backend.url, "--connect"]

    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert run.returncode == os.EX_UNAVAILABLE
    assert "--connect needs the package websockets: pip install 'token-keeper[twilio]'" in run.stderr
    assert not backend.requests


@pytest.mark.parametrize(
    ("header", "region"),
    [
        ({}, "us1"),
        ({"twr": "ie1"}, "ie1"),
        ({"twr": "evil.example.com/"}, "us1"),
        ({"twr": 1}, "us1"),
        ({"twr": ""}, "us1"),
    ],
)
def test_the_region_goes_by_the_token_if_it_names_one(header, region):
    assert _region_of(header) == region
