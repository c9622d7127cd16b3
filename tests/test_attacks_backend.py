"""What comes from behind: backends that lie, hooks that shout, and what of it reaches logs and terminals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from attacking import (
    EVIL,
    HostileBackend,
    a_hostile_backend,
    at_once,
    events_of,
    harmless,
    memory_of,
    quotes,
    raw,
    says,
    tables,
)
from sidecar import Sidecar, a_config, eventually, running

from token_keeper.testing import FakeBackend, mint

SECRET = "canary-5ecret-0f-the-backend-0123456789"
EXTRA = f'headers = {{ Authorization = "Bearer {SECRET}", X-Api-Key = "{SECRET}" }}\n'
SHELL = "$(touch${IFS}/tmp/x);`id`|&#<>"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

TARGET: dict[str, str] = {}
"""Where redirects lead: filled when the servers are there."""


def redirects(to: str):
    def reply(one):
        says("", status=302, Location=TARGET.get(to, to))(one)

    return reply


REPLIES = {
    "good": says({"token": "good-token", "expires_in": 3600}),
    "ansi": says({"token": f"abc{EVIL}", "expires_in": 3600}),
    "crlf": says({"token": "abc\r\nSet-Cookie: x=1", "expires_in": 3600}),
    "script": says({"token": "<script>alert(1)</script>", "expires_in": 3600}),
    "blank": says({"token": "a b", "expires_in": 3600}),
    "nul": says({"token": "a\x00b", "expires_in": 3600}),
    "unicode": says({"token": "tökén\u202e", "expires_in": 3600}),
    "long": says({"token": "a" * 16_385, "expires_in": 3600}),
    "deep": says("[" * 500_000),
    "errors": says({"error": EVIL, "error_description": EVIL}, status=400),
    "known": says({"error": "invalid_grant", "error_description": EVIL, "error_uri": EVIL}, status=400),
    "page": says(EVIL, status=500),
    "quoting": quotes,
    "later": says("", status=503, Retry_After="9" * 400),
    "past": says({"token": "old-token", "expires_in": -1e308}),
    "forever": says({"token": "long-token", "expires_in": 1e308}),
    "endless": raw(HEAD + b"\r\n", then_endless=b" " * 65_536),
    "headers": raw(b"HTTP/1.1 200 OK\r\n", then_endless=b"X: " + b"y" * 8_000 + b"\r\n"),
    "header": raw(b"HTTP/1.1 200 OK\r\nX: ", then_endless=b"y" * 65_536),
    "gigabyte": raw(HEAD + b"Content-Length: 1073741824\r\n\r\n", then_endless=b"a" * 65_536),
    "split": raw(HEAD + b"X: " + EVIL.encode() + b"\r\nContent-Length: 2\r\n\r\n{}"),
    "reason": raw(b"HTTP/1.1 500 \x1b[31m" + b"\xff" * 100 + b"\r\nContent-Length: 0\r\n\r\n"),
    "nohttp": raw(EVIL.encode() * 10),
    "outside": redirects("outside"),
    "inside": redirects("inside"),
    "metadata": redirects("http://169.254.169.254/latest/meta-data/iam/security-credentials/"),
    "file": redirects("file:///etc/passwd"),
    "gopher": redirects("gopher://127.0.0.1:6379/_FLUSHALL"),
    "evil": redirects(EVIL.replace("\r", "").replace("\n", "")),
    "loop": redirects("/loop"),
    "shell": says({"token": SHELL, "expires_in": 3600}),
}
PUBLISHED = {"good", "shell", "forever", "past"}
"""Whose token is one after all: an expiry that makes no sense is none, `env` sinks quote."""


@dataclass(frozen=True)
class Scene:
    sidecar: Sidecar
    backend: HostileBackend
    other: HostileBackend
    memory_before: float

    def everything(self) -> str:
        """Return all that the sidecar shows without being asked for a token."""
        paths = ("/v1/tokens", "/metrics", "/readyz", "/openapi.json")
        answers = [self.sidecar.ask("GET", path).raw.decode() for path in paths]
        return "\n".join([self.sidecar.log_text, events_of(self.sidecar).decode(), *answers])


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One sidecar, one token for each lie. It is looked at when each backend was asked at least once."""
    other = {"/": says({"token": "stolen"})}
    replies = {f"/{name}": reply for name, reply in REPLIES.items()}
    with a_hostile_backend(other) as other_backend, a_hostile_backend(replies) as backend:
        server = '[server]\nlisten = "127.0.0.1:0"\nlog_level = "debug"\n'
        config = server + tables(backend, {name: f"/{name}" for name in REPLIES}, EXTRA)
        with running(config) as sidecar:
            TARGET["outside"] = other_backend.url("/")
            TARGET["inside"] = f"http://127.0.0.1:{sidecar.port}/v1/tokens/good"
            before = memory_of(sidecar)

            def all_tried() -> bool:
                rows = sidecar.ask("GET", "/v1/tokens").json["tokens"]
                return all(row["failures"] or row["generation"] for row in rows)

            eventually(all_tried, within_s=20, what="every backend was asked")
            yield Scene(sidecar, backend, other_backend, before)


def test_no_lie_of_a_backend_becomes_a_token_and_honest_ones_are_served(scene):
    rows = scene.sidecar.ask("GET", "/v1/tokens").json["tokens"]
    assert {row["name"] for row in rows if row["generation"]} == PUBLISHED
    assert scene.sidecar.ask("GET", "/v1/tokens/good").json["token"] == "good-token"


def test_what_a_backend_says_can_be_obeyed_by_no_terminal_and_forges_no_line(scene):
    lines = scene.sidecar.log_text.splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert not [line for line in lines if json.loads(line)["event"] == "forged"]
    shown = scene.everything().replace("\r\n", "\n")
    assert harmless(shown)
    assert "<script>" not in shown


def test_credentials_that_a_backend_quotes_are_shown_nowhere(scene):
    assert SECRET not in scene.everything()


def test_a_redirect_leads_neither_to_us_nor_to_others_nor_to_other_schemes(scene):
    assert scene.other.asked == []
    assert not [line for line in scene.sidecar.logged("request") if line["path"] == "/v1/tokens/{name}"][1:]
    errors = {row["name"]: row["last_error"] for row in scene.sidecar.ask("GET", "/v1/tokens").json["tokens"]}
    for name in ("outside", "inside", "metadata", "file", "gopher", "loop"):
        assert "redirect" in errors[name], errors[name]


def test_bodies_and_headers_without_end_cost_little_memory(scene):
    assert memory_of(scene.sidecar) - scene.memory_before < 60
    assert scene.sidecar.ask("GET", "/healthz").status == 200


def test_no_backend_can_put_off_the_next_attempt_for_ever(scene):
    document = scene.sidecar.ask("GET", "/v1/tokens").json
    rows = {row["name"]: row for row in document["tokens"]}
    assert rows["later"]["next_attempt_at"] < document["started_at"] + 3_700
    assert 0 < rows["forever"]["refresh_at"] < document["started_at"] + 90_000


@pytest.mark.parametrize(
    "command", ["status", "status --json", "events --history 1h --no-reconnect", "get errors"]
)
def test_a_terminal_shows_what_a_backend_said_as_text(scene, command):
    """With a terminal's width and colours off, so that every escape would be the backend's."""
    program = [str(Path(sys.executable).with_name("token-keeper")), *command.split()]
    socket = ["--socket", str(scene.sidecar.socket_path)]
    with subprocess.Popen(
        [*program, *socket],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**scene.sidecar.environ, "NO_COLOR": "1"},
    ) as process:
        try:
            out, err = process.communicate(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
    text = (out + err).decode()
    assert text
    assert harmless(text)
    assert SECRET not in text


# Logs.


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_one_event_is_one_line_whatever_strangers_choose(log_format):
    """Everything that a client, a backend or a hook can choose, at the level that tells most."""
    shout = ["printf", "%b", '\\033[31mred\\r\\n{"event":"forged"}\\n17:00:00.000 info    forged\\n']
    script = json.dumps(["sh", "-c", f"{' '.join(map(_quoted, shout))} >&2; exit 1"])
    hook = f'[[tokens.chat.hooks]]\non = ["tokenUpdated"]\nrun = {script}\n'
    server = 'listen = "127.0.0.1:0"\nlog_level = "debug"\n'
    with FakeBackend() as backend:
        config = a_config(backend.url, server=server) + hook
        with running(config, log_format=log_format) as sidecar:
            sidecar.until_token()
            hostile = (
                EVIL.encode("ascii", "replace")
                .decode()
                .replace("\r", "")
                .replace("\n", "")
                .replace("\x00", "")
            )
            headers = {"User-Agent": hostile, "Referer": hostile, "X-Forwarded-For": hostile, "Host": hostile}
            for path in (
                "/v1/tokens/%1b%5b31m%0a",
                "/%0d%0aforged",
                "/v1/tokens/forged",
                "/v1/events?token=%0aforged",
            ):
                sidecar.ask("GET", path, host=None, headers=headers)
            report = {"generation": 1, "code": EVIL[:256], "reason": EVIL * 50, "start": EVIL[:64]}
            sidecar.ask("POST", "/v1/tokens/chat/denied", json_body=report)
            report.pop("start")
            assert sidecar.ask("POST", "/v1/tokens/chat/denied", json_body=report).json["verdict"] == "denied"
            sidecar.ask("POST", "/v1/tokens/chat/denied", json_body={**report, "by": EVIL})
            sidecar.ask("POST", "/v1/tokens/chat/accepted", json_body={**report, "generation": 2})
            eventually(lambda: "hookFailed" in sidecar.log_text and "denialReported" in sidecar.log_text)
            sidecar.stop()
            text = sidecar.log_text
    assert harmless(text)
    for line in text.splitlines():
        if log_format == "json":
            assert json.loads(line)["event"] != "forged"
        else:
            assert line.split()[1] in {"debug", "info", "warning", "error"}, line
            assert line.split()[2] != "forged"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# Races.


def test_a_storm_of_denials_from_many_reporters_costs_six_fetches():
    """The first, and what the bucket of denials holds: five."""
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        sidecar.until_token()

        def deny(number: int) -> set[str]:
            told = set()
            for turn in range(40):
                report = {"generation": 1 + turn % 7, "by": f"client-{number}", "code": 401}
                told.add(sidecar.ask("POST", "/v1/tokens/chat/denied", json_body=report).json["verdict"])
            return told

        told = set().union(*at_once(8, deny))
        assert told <= {"denied", "superseded", "gave_up", "disputed"}
        eventually(lambda: sidecar.ask("GET", "/v1/tokens").json["tokens"][0]["phase"] != "fetching")
        assert len(backend.requests) <= 6


def test_reloads_while_others_ask_lose_no_answer_and_mix_up_no_tokens():
    with FakeBackend(mint=_by_turns()) as backend, FakeBackend() as other:
        config = a_config(backend.url, "chat") + a_config(other.url, "mail").partition("\n\n")[2]
        with running(config) as sidecar:
            sidecar.until_token("chat")
            sidecar.until_token("mail")
            only_chat = a_config(backend.url, "chat")

            def act(number: int) -> list[int]:
                if number == 0:
                    told = []
                    for turn in range(10):
                        sidecar.config_path.write_text(only_chat if turn % 2 == 0 else config)
                        told.append(sidecar.ask("POST", "/v1/reload", json_body={}).status)
                    return told
                name = ("chat", "mail")[number % 2]
                with sidecar.connect() as talk:
                    answers = [talk.ask("GET", f"/v1/tokens/{name}") for _ in range(60)]
                for answer in answers:
                    issued = backend.issued if name == "chat" else other.issued
                    assert answer.status != 200 or answer.json["token"] in issued
                return [answer.status for answer in answers]

            reloads, *asked = at_once(5, act)
            assert reloads == [200] * 10
            assert {status for told in asked[1::2] for status in told} == {200}
            assert {status for told in asked for status in told} <= {200, 404, 503}


def _by_turns():
    import itertools

    serial = itertools.count()
    return lambda now: mint(expires_at=now + 3600, jti=f"chat-{next(serial)}")
