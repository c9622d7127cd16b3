"""`token-keeper doctor --config`: the source of a token, asked as the sidecar would ask it."""

from __future__ import annotations

import json
import os
import re

import pytest
from configuring import CANARY, written
from examining import for_twilio, run

from token_keeper.testing import FakeBackend


def source(name, backend, more=""):
    return f'[tokens.{name}.source]\ntype = "http"\nurl = "{backend.url}"\n{more}\n'


def test_the_only_token_needs_no_name_and_is_asked_for_as_the_file_says(tmp_path):
    (tmp_path / "key").write_text(f"{CANARY}\n")
    more = (
        f'headers = {{ X-Key = "${{file:{tmp_path}/key}}" }}\nparams = {{ v = "2" }}\n'
        f'data = {{ who = "alice", key = "${{env:KEY}}" }}\n'
        '[tokens.chat.policy]\nlead = "3m"\n'
    )
    with FakeBackend(mint=for_twilio()) as backend:
        path = written(
            tmp_path,
            f'[tokens.chat]\nprofile = "twilio"\nexpect.grants = ["chat"]\n{source("chat", backend, more)}',
        )
        result = run("--config", str(path), "--json", env={"KEY": f"{CANARY}-2"})
        request = backend.requests[0]
    document = json.loads(result.stdout)
    steps = {step["step"]: step for step in document["steps"]}

    assert result.exit_code == 0
    assert (request.method, request.path.partition("?")[2]) == ("POST", "v=2")
    assert request.headers["x-key"] == CANARY
    assert request.body == f"who=alice&key={CANARY}-2".encode()
    assert "twilio" in steps["kind"]["summary"]
    # Three minutes before the token's hour is over; by default it would be twelve.
    assert re.search("to 5[67] min", steps["schedule"]["summary"])
    assert document["ok"]
    assert CANARY not in result.output


def test_one_of_several_is_named(tmp_path):
    with FakeBackend(mint=for_twilio()) as backend:
        path = written(tmp_path, source("a", backend) + source("b", backend, 'params = { name = "b" }'))
        named = run("--config", str(path), "b")
        unnamed, unknown = run("--config", str(path)), run("--config", str(path), "c")

    assert named.exit_code == 0
    assert [request.path.partition("?")[2] for request in backend.requests] == ["name=b"]
    assert (unnamed.exit_code, unknown.exit_code) == (os.EX_USAGE, os.EX_DATAERR)
    assert "say which token: a, b" in unnamed.stderr
    assert "no such token; known are a, b" in unknown.stderr


def test_a_failed_fetch_is_a_failed_step(tmp_path):
    with FakeBackend(mint=lambda _: "x") as backend:
        path = written(tmp_path, f'[tokens.chat]\nprofile = "jwt"\n{source("chat", backend)}')
        result = run("--config", str(path), "chat")

    assert result.exit_code == 1
    assert "failed" in result.stdout


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("nonsense = 1", "tokens.chat.source.nonsense: is no key here"),
        ('headers = { A = "${env:NOT_SET}" }', "${env:NOT_SET}"),
        ('ca_file = "/dev/null"', "ca_file: holds no certificates in PEM"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_work_exits_78(tmp_path, more, words):
    with FakeBackend() as backend:
        path = written(tmp_path, source("chat", backend, more))
        result = run("--config", str(path))

    assert result.exit_code == os.EX_CONFIG
    assert words in result.stderr
    assert not backend.requests


def test_what_the_file_says_cannot_be_said_twice(tmp_path):
    with FakeBackend() as backend:
        path = written(tmp_path, source("chat", backend))
        results = [
            run("--config", str(path), *args)
            for args in (("--method", "GET"), ("--url", backend.url), ("--timeout", "5"))
        ]

    assert {result.exit_code for result in results} == {os.EX_USAGE}
    assert all("cannot be combined with --config" in result.stderr for result in results)
