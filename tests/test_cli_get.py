"""`get`, `refresh` and `denied` against the real sidecar."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from commanding import begun, command, environ, json_answer, speaking
from sidecar import a_config, a_directory, eventually, running, started

from token_keeper.testing import FakeBackend, mint

REFUSAL = {"status": 400, "body": {"error": "invalid_grant"}, "times": None}
NAMES = ("chat", "sync", "voice", "denied", "refreshed")


@pytest.fixture(scope="module")
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture(scope="module")
def sidecar(backend):
    with running(a_config(backend.url, *NAMES)) as sidecar:
        for name in NAMES:
            sidecar.until_token(name)
        yield sidecar


@pytest.fixture(scope="module")
def at(sidecar):
    return sidecar.socket_path


def backend_was_asked(sidecar):
    """Wait until a fetch failed: by then whoever asks for the token waits for another."""
    eventually(lambda: sidecar.ask("GET", "/v1/tokens").json["tokens"][0]["failures"])


def test_get_prints_the_token_and_a_line_end(sidecar, at):
    done = command("get", "chat", at=at)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == sidecar.until_token().json["token"] + "\n"


def test_get_raw_prints_the_token_and_nothing_else(sidecar, at):
    assert command("get", "chat", "--raw", at=at).stdout == sidecar.until_token().json["token"]


def test_get_json_is_what_the_api_answers(sidecar, at):
    answer, expected = json.loads(command("get", "chat", "--json", at=at).stdout), sidecar.until_token().json

    assert {**answer, "expires_in": 0} == {**expected, "expires_in": 0}


def test_the_socket_can_be_named(at):
    assert command("get", "chat", "--socket", str(at), env=environ("/nowhere")).returncode == 0


def test_the_socket_is_found_in_the_runtime_directory(sidecar):
    assert command("get", "chat", env=environ(XDG_RUNTIME_DIR=str(sidecar.directory / "run"))).returncode == 0


@pytest.mark.parametrize(
    "args",
    [("get",), ("refresh",), ("denied", "--code", "401"), ("denied", "--code", "401", "--generation", "1")],
)
def test_a_name_that_is_not_kept_exits_65_and_lists_those_that_are(at, args):
    done = command(*args, "unknown-9fk3", at=at)

    assert (done.returncode, done.stdout) == (os.EX_DATAERR, "")
    assert f"it keeps {', '.join(NAMES)}" in done.stderr
    assert "unknown-9fk3" not in done.stderr


@pytest.mark.parametrize(
    "name", ["a/b", "", "eyJhbGciOiJub25lIn0" * 9, "../chat", "chat?by=x", "ch\nat", "-"]
)
def test_what_cannot_be_a_name_is_not_sent_and_not_repeated(at, name):
    done = command("get", "--", name, at=at)

    assert done.returncode == os.EX_USAGE
    assert done.stderr == "token-keeper: the value of NAME cannot be used; see token-keeper get --help\n"


@pytest.mark.parametrize("length", ["", "x", "5 s", "-1s", "61s", "2m", "1e9", "nan", "٣s"])
def test_a_length_that_cannot_be_waited_is_a_usage_error(at, length):
    done = command("get", "chat", "--wait", length, at=at)

    assert done.returncode == os.EX_USAGE
    assert "--wait takes a length of time such as 90s or 3m, at most 60s" in done.stderr


def test_raw_and_json_exclude_each_other(at):
    assert command("get", "chat", "--raw", "--json", at=at).returncode == os.EX_USAGE


def test_a_token_that_is_valid_for_long_enough_is_not_refreshed(sidecar, at):
    before = sidecar.until_token("voice").json["generation"]

    done = command("get", "voice", "--min-validity", "30m", "--json", at=at)

    assert json.loads(done.stdout)["generation"] == before


def test_a_token_that_ends_too_early_is_refreshed_first(backend):
    now = time.time()
    backend.answer(body={"token": mint(iat=now - 3_000, expires_at=now + 600)})
    with running(a_config(backend.url)) as sidecar:
        sidecar.until_token()

        done = command("get", "chat", "--min-validity", "50m", "--json", at=sidecar.socket_path)

    assert json.loads(done.stdout)["generation"] == 2


def test_a_token_that_cannot_live_that_long_exits_75_with_the_reason(at):
    done = command("get", "chat", "--min-validity", "2h", "--wait", "5s", at=at)

    assert (done.returncode, done.stdout) == (os.EX_TEMPFAIL, "")
    assert "no token is valid for 7200 s" in done.stderr


def test_without_a_usable_token_it_says_what_the_backend_said():
    with FakeBackend() as backend:
        backend.answer(**REFUSAL)
        with running(a_config(backend.url)) as sidecar:
            done = command("get", "chat", "--wait", "2s", at=sidecar.socket_path)

    assert (done.returncode, done.stdout) == (os.EX_TEMPFAIL, "")
    assert "invalid_grant" in done.stderr


def test_waiting_outlasts_a_backend_that_comes_back():
    with FakeBackend() as backend:
        backend.down()
        with (
            running(a_config(backend.url)) as sidecar,
            begun("get", "chat", "--wait", "30s", at=sidecar.socket_path) as waiting,
        ):
            backend_was_asked(sidecar)
            backend.up()
            output, _ = waiting.communicate(timeout=30)

    assert (waiting.returncode, output.count(".")) == (0, 2)


def test_waiting_outlasts_a_sidecar_that_is_still_to_come(backend):
    with a_directory() as directory:
        path = directory / "run" / "token-keeper" / "api.sock"
        with (
            begun("get", "chat", "--wait", "30s", at=path) as waiting,
            started(directory, a_config(backend.url)),
        ):
            output, _ = waiting.communicate(timeout=30)

    assert (waiting.returncode, output.count(".")) == (0, 2)


def test_a_refresh_waits_for_the_new_token_and_does_not_show_it(sidecar, at):
    before = sidecar.until_token("refreshed").json["generation"]

    done = command("refresh", "refreshed", at=at)

    after = sidecar.until_token("refreshed").json
    assert (done.returncode, after["generation"]) == (0, before + 1)
    assert done.stdout.startswith(f"generation {before + 1}, expires in 59 min")
    assert after["token"] not in done.stdout


def test_a_refresh_need_not_be_waited_for(at):
    done = command("refresh", "refreshed", "--wait", "0s", at=at)

    assert done.returncode == 0
    assert done.stdout.startswith("a fetch was started; until it ends generation ")


def test_a_refresh_as_json_is_the_answer_without_the_token(at):
    document = json.loads(command("refresh", "refreshed", "--json", at=at).stdout)

    assert document["token_type"] == "Bearer"
    assert "token" not in document


def test_a_refresh_that_fails_exits_75_and_says_why():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        sidecar.until_token()
        backend.answer(**REFUSAL)
        done = command("refresh", "chat", "--wait", "10s", at=sidecar.socket_path)

    assert (done.returncode, done.stdout) == (os.EX_TEMPFAIL, "")
    assert "invalid_grant" in done.stderr


def test_a_denial_is_of_the_current_token_and_its_successor_can_be_waited_for(sidecar, at):
    before = sidecar.until_token("denied").json

    done = command("denied", "denied", "--code", "51215", "--wait", "20s", at=at)

    after = sidecar.until_token("denied").json
    assert (done.returncode, after["generation"]) == (0, before["generation"] + 1)
    assert done.stdout.startswith("denied: this token is withheld from whoever reported it")
    assert f"now there is generation {after['generation']}" in done.stdout
    assert after["token"] not in done.stdout


@pytest.mark.parametrize(
    ("code", "verdict"), [("429", "throttled"), ("51201", "throttled"), ("403", "forbidden")]
)
def test_the_verdict_says_what_to_do(at, code, verdict):
    done = command("denied", "sync", "--code", code, "--reason", "it said so", "--by", "bot", at=at)

    assert done.returncode == 0
    assert done.stdout.startswith(f"{verdict}: ")


@pytest.mark.parametrize("which", [("--generation", "9"), ("--fingerprint", "00000000"), ("--token", "-")])
def test_a_denial_of_another_token_is_superseded(at, which):
    done = command(
        "denied", "sync", "--code", "401", *which, "--json", at=at, stdin="another.token.altogether\n"
    )

    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (0, "superseded")
    assert "token" not in document


def test_the_denied_token_can_be_read_from_standard_input(backend):
    with running(a_config(backend.url)) as sidecar:
        token = sidecar.until_token().json["token"]
        done = command(
            "denied", "chat", "--code", "401", "--token", "-", at=sidecar.socket_path, stdin=f"{token}\n"
        )

    assert done.stdout.startswith("denied: ")


@pytest.mark.parametrize(
    "args",
    [
        ("--code", "401", "--token", "eyJ0"),
        ("--code", "401", "--generation", "1", "--fingerprint", "00000000"),
        ("--code", "401", "--fingerprint", "nonsense"),
        ("--code", "401", "--generation", "-1"),
        ("--code", ""),
        (),
    ],
)
def test_denied_used_wrongly_exits_64_and_repeats_nothing(at, args):
    done = command("denied", "sync", *args, at=at)

    assert done.returncode == os.EX_USAGE
    assert "eyJ0" not in done.stderr


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (json_answer('{"verdict": "gave_up", "generation": 3, "retry_after": 240}'), os.EX_TEMPFAIL),
        (json_answer('{"verdict": "gave_up", "retry_after": 240, "title": "No"}', 503), os.EX_TEMPFAIL),
        (json_answer('{"verdict": "disputed", "generation": 3, "retry_after": null}'), os.EX_OK),
        (json_answer('{"verdict": "brand_new", "generation": 3}'), os.EX_OK),
    ],
)
def test_a_sidecar_that_gave_up_exits_75(answer, code):
    with a_directory() as directory, speaking(directory / "s", answer):
        done = command("denied", "chat", "--code", "401", "--generation", "3", at=directory / "s")

    assert (done.returncode, done.stderr) == (code, "")
    assert ("the next try is in 4 min" in done.stdout) == (code == os.EX_TEMPFAIL)


def test_output_that_cannot_be_written_exits_74(at):
    with Path("/dev/full").open("w") as full, begun("get", "chat", at=at, stdout=full) as program:
        _, said = program.communicate(timeout=20)

    assert (program.returncode, said) == (
        os.EX_IOERR,
        "token-keeper: standard output cannot be written (No space left on device)\n",
    )
