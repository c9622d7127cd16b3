"""How the commands find the sidecar and talk to it, also if it is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from commanding import command, command_as_nobody, environ, json_answer, speaking
from sidecar import a_directory

from token_keeper.cli._client import SYSTEM_SOCKET, Nonsense, Sidecar, Unreachable, find_socket
from token_keeper.cli._wire import HEAD_MAX, AnswerParser, Garbled, Message, MessageParser
from token_keeper.sidecar.server._sockets import usual_path

COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-Other: a b\r\n\r\nhello world"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.0 200\r\n\r\nhello world"
GARBAGE = (
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x00\x01\x02\x03\r\n\r\n",
    b"HTTP/1.1 banana\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD_MAX,
    b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * (1 << 20) + b"y",
)


@pytest.fixture
def directory():
    with a_directory() as made:
        yield made


def pieces_of(raw, size):
    return [raw[begin : begin + size] for begin in range(0, len(raw), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize("raw", [COUNTED, CHUNKED, UNTIL_CLOSE])
def test_an_answer_is_the_same_in_pieces_of_any_size(raw, size):
    parser = AnswerParser()

    for piece in pieces_of(raw, size):
        parser.feed(piece)
    if not parser.is_complete:
        parser.end()

    assert (parser.answer.status, parser.answer.body) == (200, b"hello world")


@pytest.mark.parametrize("raw", GARBAGE)
def test_what_is_no_answer_is_refused(raw):
    with pytest.raises(Garbled):
        AnswerParser().feed(raw)


@pytest.mark.parametrize("raw", [COUNTED[:-1], CHUNKED[:-1], COUNTED[:20]])
def test_an_answer_that_ends_in_the_middle_is_refused(raw):
    parser = AnswerParser()
    parser.feed(raw)

    with pytest.raises(Garbled):
        parser.end()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_events_are_the_same_in_pieces_of_any_size(size):
    raw = b": comment\r\n\r\nid: a-1\nevent: x\ndata: 1\ndata:2\n\n"
    raw += b"event: none\n\ndata: \xc3\xa4\r\n\r\ndata: half"
    parser = MessageParser()

    found = [message for piece in pieces_of(raw, size) for message in parser.feed(piece)]

    assert found == [Message("a-1", "x", "1\n2"), Message("", "message", "ä")]


@pytest.mark.parametrize("raw", [b"data: " + b"x" * 200, b"data: x\n" * 50])
def test_an_event_without_end_is_refused(raw):
    with pytest.raises(Garbled):
        MessageParser(message_max=100).feed(raw)


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        ("/a", {"TOKEN_KEEPER_SOCKET": "/b", "XDG_RUNTIME_DIR": "/c"}, "/a"),
        (None, {"TOKEN_KEEPER_SOCKET": "/b", "XDG_RUNTIME_DIR": "/c"}, "/b"),
        (None, {"TOKEN_KEEPER_SOCKET": "", "XDG_RUNTIME_DIR": "/c"}, "/c/token-keeper/api.sock"),
        (None, {"XDG_RUNTIME_DIR": "relative"}, SYSTEM_SOCKET),
        (None, {}, SYSTEM_SOCKET),
    ],
)
def test_the_socket_is_the_first_that_is_set(given, variables, expected):
    assert find_socket(given, variables) == expected


@pytest.mark.parametrize("variables", [{"XDG_RUNTIME_DIR": "/c"}, {"XDG_RUNTIME_DIR": ""}, {}])
def test_clients_look_where_the_server_listens(variables):
    assert find_socket(None, variables) == str(usual_path(variables))


def test_without_a_sidecar_it_says_where_it_looked_and_what_to_do(directory):
    done = command("get", "chat", env=environ(XDG_RUNTIME_DIR=str(directory)))

    assert done.returncode == os.EX_UNAVAILABLE
    assert f"{directory}/token-keeper/api.sock does not exist" in done.stderr
    assert "token-keeper serve" in done.stderr


def test_a_socket_that_was_left_behind_is_told_from_a_missing_one(directory):
    path = directory / "api.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    done = command("get", "chat", "--socket", str(path))

    assert done.returncode == os.EX_UNAVAILABLE
    assert f"the sidecar is gone: nobody answers at {path}" in done.stderr


def test_a_path_that_no_socket_can_have_is_a_usage_error():
    done = command("get", "chat", "--socket", f"/{'x' * 120}")

    assert done.returncode == os.EX_USAGE
    assert "longer than 107 bytes" in done.stderr


def test_the_path_is_shown_without_what_a_terminal_would_obey():
    done = command("get", "chat", "--socket", "/nowhere/\x1b[31mred")

    assert done.returncode == os.EX_UNAVAILABLE
    assert "\x1b" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_user_who_may_not_connect_is_told_so(directory):
    path = directory / "api.sock"
    with speaking(path, b""):
        done = command_as_nobody("get", "chat", at=path)

    assert done.returncode == os.EX_NOPERM
    assert "this user (65534) may not connect" in done.stderr
    assert "allow_uids" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_user_whom_the_sidecar_hangs_up_on_is_told_so(directory):
    directory.chmod(0o711)
    path = directory / "api.sock"
    with speaking(path, lambda connection: connection.close()):
        path.chmod(0o666)
        done = command_as_nobody("get", "chat", at=path)

    assert done.returncode == os.EX_NOPERM
    assert "does not serve this user (65534)" in done.stderr


def test_a_sidecar_that_hangs_up_on_its_own_user_is_stopping(directory):
    with speaking(directory / "api.sock", lambda connection: connection.close()):
        done = command("get", "chat", at=directory / "api.sock")

    assert done.returncode == os.EX_UNAVAILABLE
    assert "it may be stopping" in done.stderr


@pytest.mark.parametrize(
    "raw",
    [
        GARBAGE[0],
        json_answer("[]"),
        json_answer("{"),
        json_answer("[" * 100_000),
        json_answer('{"token": 5}'),
        json_answer('{"token": "a b"}'),
        json_answer("{}", 404),
        json_answer("{}", 500),
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_whoever_is_no_sidecar_is_not_believed(directory, raw):
    with speaking(directory / "api.sock", raw):
        done = command("get", "chat", at=directory / "api.sock")

    assert (done.returncode, done.stdout) == (76, "")
    assert "is no sidecar" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_answer_without_end_is_not_read_without_end(directory):
    def flood(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65_536)

    with speaking(directory / "api.sock", flood), pytest.raises(Nonsense):
        Sidecar(str(directory / "api.sock")).ask("GET", "/v1/tokens/chat")


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"])
def test_a_sidecar_that_stalls_is_given_up(directory, beginning):
    def stall(connection):
        connection.sendall(beginning)
        connection.recv(65_536)
        connection.recv(65_536)

    began = time.monotonic()
    with speaking(directory / "api.sock", stall):
        exchange = Sidecar(str(directory / "api.sock")).begin("GET", "/v1/tokens/chat")
        with exchange, pytest.raises(Unreachable, match="does not answer"):
            exchange.finish(0.2)

    assert time.monotonic() - began < 5


def test_words_of_the_sidecar_are_shown_without_what_a_terminal_would_obey(directory):
    problem = (
        '{"type": "urn:token-keeper:problem:unavailable", "title": "No\\u001b[2J", "detail": "a\\nb\\u202e"}'
    )
    with speaking(directory / "api.sock", json_answer(problem, 503)):
        done = command("get", "chat", at=directory / "api.sock")

    assert done.returncode == os.EX_TEMPFAIL
    assert done.stderr == "token-keeper: no\\x1b[2J: a\\nb\\u202e\n"


def test_get_loads_nothing_that_it_does_not_need(directory):
    program = (
        "import sys; from token_keeper.cli._group import cli; cli.run(['get', 'chat']); print(*sys.modules)"
    )
    answer = json_answer('{"token": "abc", "generation": 1, "expires_at": 1, "expires_in": 1, "start": "a"}')
    with speaking(directory / "api.sock", answer):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environ(directory / "api.sock"),
            capture_output=True,
            text=True,
            check=True,
        )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}

    assert done.stdout.startswith("abc\n")
    slow = {
        "http",
        "email",
        "ssl",
        "urllib",
        "asyncio",
        "httpx",
        "rich",
        "structlog",
        "msgspec",
        "subprocess",
    }
    assert (
        loaded & (slow | {"ctypes", "tempfile", "pathlib", "starlette", "uvicorn", "jwt", "tenacity"})
        == set()
    )
