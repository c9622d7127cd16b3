"""`events` against the real sidecar, and against one that loses connections."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from commanding import begun, command, json_answer, line_of, speaking
from sidecar import a_config, a_directory, running, started

from token_keeper.cli._event_words import line_of as words_of
from token_keeper.cli._event_words import snapshot_line
from token_keeper.testing import FakeBackend

EVENT = {
    "kind": "tokenUpdated",
    "name": "chat",
    "at": 1_700_000_000.0,
    "generation": 5,
    "fingerprint": "e3b0c442",
    "expires_at": 1_700_003_600.0,
    "failures": 0,
    "error": None,
    "verdict": None,
    "diagnosis": [],
}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.fixture(scope="module")
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture(scope="module")
def sidecar(backend):
    with running(a_config(backend.url, "chat", "sync")) as sidecar:
        sidecar.until_token("chat")
        sidecar.until_token("sync")
        yield sidecar


@pytest.fixture
def directory():
    with a_directory() as made:
        yield made


def refresh(sidecar, name="chat"):
    assert sidecar.ask("POST", f"/v1/tokens/{name}/refresh?wait=20", json_body={}).status == 200


def message(number, **changes):
    document = {**EVENT, **changes}
    return f"id: a-{number}\nevent: {document['kind']}\ndata: {json.dumps(document)}\n\n".encode()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "generation 5, e3b0c442, expires in 1 h"),
        ({"expires_at": None}, "generation 5, e3b0c442, without a known expiry"),
        ({"kind": "tokenAboutToExpire"}, "generation 5, expires in 1 h"),
        ({"kind": "tokenExpired", "expires_at": EVENT["at"] - 60}, "generation 5, expired 1 min ago"),
        ({"kind": "tokenExpired", "expires_at": EVENT["at"]}, "generation 5, expired"),
        (
            {"kind": "tokenDenied", "verdict": "denied"},
            "generation 5 was refused by a server; another is being fetched",
        ),
        (
            {"kind": "tokenDenied", "verdict": "gave_up"},
            "generation 5 was refused by a server; verdict gave_up",
        ),
        ({"kind": "recovered"}, "generation 5 is accepted"),
        ({"kind": "refreshFailed", "failures": 2, "error": "HTTP 503"}, "2 in a row: HTTP 503"),
        ({"kind": "refreshRefused", "error": "invalid_client"}, "invalid_client"),
        ({"kind": "recoveryFailed", "diagnosis": ["it expired", "clock"]}, "it expired; clock"),
        ({"kind": "recoveryFailed"}, "too many tokens were denied"),
        ({"kind": "clockJumped"}, "a clock of this machine was set, or it slept"),
        ({"kind": "brandNew", "error": "\x1b[2J"}, "\\x1b[2J"),
    ],
)
def test_each_event_says_what_matters(changes, text):
    assert words_of({**EVENT, **changes}).text == text


@pytest.mark.parametrize("at", [None, "x", 1e300, float("inf"), True])
def test_a_strange_time_is_no_trouble(at):
    assert words_of({**EVENT, "at": at}).at


def test_a_snapshot_names_what_is_not_usable():
    tokens = [{"name": "a", "usable_for": None}, {"name": "b", "usable_for": 0, "status": "expired"}]

    assert snapshot_line({"tokens": tokens}, 0.0).text == "2 tokens, b is expired"
    assert snapshot_line({"tokens": tokens[:1]}, 0.0).text == "1 token, all usable"


def test_events_come_as_lines_for_people(sidecar):
    with begun("events", at=sidecar.socket_path) as following:
        assert "2 tokens, all usable" in line_of(following.stdout)
        refresh(sidecar)

        line = line_of(following.stdout, containing="tokenUpdated").split()

    assert line[1:4] == ["chat", "tokenUpdated", "generation"]


def test_events_come_as_lines_of_json_for_programs(sidecar):
    with begun("events", "--json", at=sidecar.socket_path) as following:
        snapshot = json.loads(line_of(following.stdout))
        refresh(sidecar)

        event = json.loads(line_of(following.stdout))

    assert (snapshot["kind"], len(snapshot["tokens"])) == ("snapshot", 2)
    assert (event["kind"], event["name"]) == ("tokenUpdated", "chat")
    assert event["id"].startswith(f"{snapshot['start']}-")


def test_events_of_one_token_are_of_no_other(sidecar):
    with begun("events", "--token", "sync", at=sidecar.socket_path) as following:
        line_of(following.stdout)
        refresh(sidecar, "chat")
        refresh(sidecar, "sync")

        assert line_of(following.stdout).split()[1] == "sync"


def test_history_begins_with_what_happened_before(sidecar):
    refresh(sidecar)
    with begun("events", "--history", "1h", "--json", at=sidecar.socket_path) as following:
        line_of(following.stdout)

        assert json.loads(line_of(following.stdout))["generation"] == 1


def test_an_unknown_token_exits_65(sidecar):
    with begun("events", "--token", "nope", at=sidecar.socket_path) as following:
        _, said = following.communicate(timeout=20)

    assert following.returncode == os.EX_DATAERR
    assert "nope" not in said


def test_an_interrupt_ends_it_with_130(sidecar):
    with begun("events", at=sidecar.socket_path) as following:
        line_of(following.stdout)
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=20)

    assert following.returncode == 130
    assert "Traceback" not in said


def test_a_reader_that_goes_away_ends_it_at_once_although_nothing_happens(sidecar):
    with begun("events", at=sidecar.socket_path) as following:
        line_of(following.stdout)
        following.stdout.close()

        assert following.wait(20) == 141
        assert following.stderr.read() == ""


def test_output_that_cannot_be_written_exits_74(sidecar):
    with (
        Path("/dev/full").open("w") as full,
        begun("events", at=sidecar.socket_path, stdout=full) as following,
    ):
        assert following.wait(20) == os.EX_IOERR


def test_without_a_sidecar_it_ends_at_once():
    assert command("events", at="/nowhere/api.sock").returncode == os.EX_UNAVAILABLE


def test_it_goes_on_after_a_restart_of_the_sidecar(backend, directory):
    with running(a_config(backend.url), directory=directory) as sidecar:
        sidecar.until_token()
        with begun("events", "--json", at=sidecar.socket_path) as following:
            line_of(following.stdout)
            sidecar.stop()
            assert "the stream was lost" in line_of(following.stderr)
            with started(directory, a_config(backend.url)):
                assert json.loads(line_of(following.stdout))["kind"] == "snapshot"
                assert "the stream is back" in line_of(following.stderr)


def test_without_reconnecting_the_end_of_the_stream_is_the_end(backend):
    with (
        running(a_config(backend.url)) as sidecar,
        begun("events", "--no-reconnect", at=sidecar.socket_path) as following,
    ):
        line_of(following.stdout)
        sidecar.stop()
        _, said = following.communicate(timeout=20)

    assert following.returncode == os.EX_UNAVAILABLE
    assert "the stream ended" in said


def test_after_a_lost_connection_no_event_is_missing_or_doubled(directory):
    answers = (STREAM + message(1) + message(2) + b"id: a-3\ndata: {", STREAM + message(3))
    with (
        speaking(directory / "s", *answers) as requests,
        begun("events", "--json", at=directory / "s") as following,
    ):
        ids = [json.loads(line_of(following.stdout))["id"] for _ in range(3)]

    assert ids == ["a-1", "a-2", "a-3"]
    assert b"Last-Event-ID" not in requests[0]
    assert b"\r\nLast-Event-ID: a-2\r\n" in requests[1]


def test_an_id_that_is_none_is_not_sent_back(directory):
    stream = STREAM + message(1).replace(b"id: a-1", b"id: a-1 HTTP/1.1")
    with (
        speaking(directory / "s", stream) as requests,
        begun("events", "--json", at=directory / "s") as following,
    ):
        line_of(following.stdout)
        line_of(following.stdout)

    assert not any(b"Last-Event-ID" in request for request in requests)


def test_a_sidecar_with_too_many_streams_is_asked_again(directory):
    with (
        speaking(directory / "s", json_answer("{}", 503), STREAM + message(1)),
        begun("events", "--json", at=directory / "s") as following,
    ):
        assert json.loads(line_of(following.stdout))["id"] == "a-1"


@pytest.mark.parametrize("stream", [b"data: nonsense\n\n", b"data: [1]\n\n"])
def test_events_that_are_none_end_it(directory, stream):
    with speaking(directory / "s", STREAM + stream), begun("events", at=directory / "s") as following:
        _, said = following.communicate(timeout=20)

    assert (following.returncode, "is no sidecar" in said) == (76, True)
