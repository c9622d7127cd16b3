"""`token-keeper doctor --config` on commands, files, chains and signed requests; the library on the rest."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import jwt
import pytest
from configuring import CANARY, written
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from examining import examined, for_twilio, run, statuses

from token_keeper import CallableSource, HttpSource, RefusedError
from token_keeper.doctor import Order, Request, Subject, examine
from token_keeper.sources import ChainSource, FileSource
from token_keeper.testing import FakeBackend, mint


def a_token(lifetime_s: float = 3600.0, **claims: object) -> str:
    now = int(time.time())
    return mint(expires_at=now + lifetime_s, iat=now, **claims)


def file_table(path, at="chat.source"):
    return f'[tokens.{at}]\ntype = "file"\npath = "{path}"\n'


def command_table(*run, at="chat.source", more=""):
    return f'[tokens.{at}]\ntype = "command"\nrun = {json.dumps(run)}\n{more}\n'


def private(path, text):
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@pytest.fixture
def closed(tmp_path):
    """A directory that only we can write."""
    directory = tmp_path / "tokens"
    directory.mkdir(mode=0o700)
    return directory


def looked_at(tmp_path, text, *args):
    return examined("--config", str(written(tmp_path, text)), *args)


def test_a_good_file_passes_each_step(tmp_path, closed):
    path = private(closed / "token", f"{a_token()}\n")
    document = looked_at(tmp_path, file_table(path))

    assert statuses(document) == {
        "file": "ok",
        "directory": "ok",
        "token": "ok",
        "kind": "ok",
        "findings": "ok",
        "clock": "skipped",
        "schedule": "ok",
    }
    assert document["url"] == str(path)
    details = document["step"]["file"]["details"]
    assert (details["mode"], details["links"], details["size"]) == ("0600", [], path.stat().st_size)
    assert 0 <= details["age"] < 60


def test_the_links_that_kubernetes_makes_are_shown(tmp_path, closed):
    (closed / "..2026_01").mkdir()
    private(closed / "..2026_01" / "token", a_token())
    (closed / "..data").symlink_to("..2026_01")
    (closed / "token").symlink_to("..data/token")
    document = looked_at(tmp_path, file_table(closed / "token"))

    assert document["ok"]
    assert document["step"]["file"]["details"]["links"] == [
        f"{closed}/token -> ..data/token",
        f"{closed}/..data -> ..2026_01",
    ]


def test_links_that_lead_in_a_circle_end(tmp_path, closed):
    (closed / "a").symlink_to("b")
    (closed / "b").symlink_to("a")
    document = looked_at(tmp_path, file_table(closed / "a"))

    assert document["step"]["file"]["status"] == "failed"
    assert document["step"]["file"]["remedy"]


def test_a_file_that_others_can_read_or_replace_is_warned_of(tmp_path, closed):
    path = private(closed / "token", a_token())
    path.chmod(0o644)
    closed.chmod(0o770)
    document = looked_at(tmp_path, file_table(path))

    assert document["ok"]
    assert document["step"]["file"]["status"] == "warning"
    assert "chmod o-r" in document["step"]["file"]["remedy"]
    assert document["step"]["directory"]["status"] == "warning"
    assert f"chmod go-w {closed}" in document["step"]["directory"]["remedy"]


@pytest.mark.parametrize(
    ("make", "step", "words"),
    [
        (str, "file", "no such file"),
        (lambda path: path.symlink_to("gone"), "file", "the link leads nowhere"),
        (lambda path: path.mkdir(), "file", "no regular file"),
        (os.mkfifo, "file", "no regular file"),
        (lambda path: private(path, ""), "token", "is empty"),
        (lambda path: private(path, '{"token": "'), "token", "cut off"),
    ],
    ids=["missing", "dangling", "directory", "pipe", "empty", "half"],
)
def test_a_file_without_a_token_is_a_failed_step_that_says_what_to_do(tmp_path, closed, make, step, words):
    make(closed / "token")
    document = looked_at(tmp_path, file_table(closed / "token"))

    assert not document["ok"]
    found = document["step"][step]
    assert (found["status"], words in found["summary"], bool(found["remedy"])) == ("failed", True, True)


def test_an_expired_token_in_a_file_is_a_finding(tmp_path, closed):
    path = private(closed / "token", a_token(-60.0))
    document = looked_at(tmp_path, file_table(path))

    assert document["step"]["findings"]["status"] == "failed"
    assert document["step"]["schedule"]["status"] == "skipped"


def test_nobody_wonders_that_the_token_of_a_file_is_half_used(tmp_path, closed):
    now = int(time.time())
    path = private(closed / "token", mint(expires_at=now + 900, iat=now - 2700))
    document = looked_at(tmp_path, file_table(path))

    assert document["step"]["schedule"]["status"] == "ok"


def script(directory, text, name="give token"):
    path = directory / name
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o700)
    return str(path)


def test_a_program_is_found_run_once_and_its_token_judged(tmp_path, closed):
    token = a_token()
    count = closed / "count"
    path = script(closed, f"open({str(count)!r}, 'a').write('x'); print({token!r})")
    document = looked_at(tmp_path, command_table(path, CANARY))

    assert document["ok"]
    assert count.read_text() == "x"
    assert list(document["step"])[:3] == ["program", "run", "token"]
    assert document["step"]["program"]["details"] == {"path": path, "mode": "0700"}
    assert document["step"]["run"]["details"]["timeout"] == 10.0
    assert CANARY not in json.dumps(document)
    assert token not in json.dumps(document)


@pytest.mark.parametrize(
    ("text", "mode", "step", "words"),
    [
        ("import sys; sys.stderr.write('CANARY'); sys.exit(3)", 0o700, "run", "ended with exit status 3"),
        ("import time; time.sleep(60)", 0o700, "run", "0.5 s"),
        ("print('CANARY is no token')", 0o700, "token", "cannot be used"),
        ("print('x')", 0o600, "program", "may not be executed"),
        ("print('x')", None, "program", "is not there"),
    ],
    ids=["fails", "hangs", "prose", "not executable", "missing"],
)
def test_a_program_without_a_token_is_a_failed_step_that_says_what_to_do(closed, text, mode, step, words):
    path = script(closed, text.replace("CANARY", CANARY))
    if mode is None:
        Path(path).unlink()
    else:
        Path(path).chmod(mode)
    document = looked_at(closed, command_table(path, more='timeout = "500ms"'))

    found = document["step"][step]
    assert (found["status"], bool(found["remedy"])) == ("failed", True)
    assert words in found["summary"]
    assert CANARY not in json.dumps(document)


def test_a_program_is_looked_for_where_its_own_path_says(tmp_path, closed):
    script(closed, f"print({a_token()!r})", name="only-here")
    text = command_table("only-here", more=f'env = {{ PATH = "{closed}" }}')
    document = looked_at(tmp_path, text)

    assert document["ok"]
    assert document["step"]["program"]["details"]["path"] == f"{closed}/only-here"


def test_what_a_shell_runs_is_not_looked_for(tmp_path, closed):
    path = private(closed / "token", a_token())
    document = looked_at(tmp_path, command_table(f"cat {path} | head -1", more="shell = true"))

    assert document["ok"]
    assert document["step"]["program"]["status"] == "skipped"


def chain(*tables):
    return '[tokens.chat.source]\ntype = "chain"\n' + "".join(tables)


def link(name):
    return f"chat.source.sources.{name}"


def test_each_source_of_a_chain_is_examined_and_the_first_that_works_is_named(tmp_path, closed):
    good = private(closed / "token", a_token())
    text = chain(
        file_table(closed / "none", link("first")),
        file_table(good, link("second")),
        command_table("false", at=link("third")),
    )
    document = looked_at(tmp_path, text)

    assert document["ok"]
    assert document["step"]["chain"]["status"] == "warning"
    assert document["step"]["chain"]["details"]["used"] == "second"
    assert list(document["step"]["chain"]["details"]["failed"]) == ["first", "third"]
    assert document["step"]["schedule"]["status"] == "ok"
    assert {name: one["ok"] for name, one in document["links"].items()} == {
        "first": False,
        "second": True,
        "third": False,
    }


def test_a_chain_of_which_nothing_works_has_failed(tmp_path, closed):
    private(closed / "old", a_token(-5.0))
    text = chain(file_table(closed / "none", link("a")), file_table(closed / "old", link("b")))
    page = run("--config", str(written(tmp_path, text)))

    assert page.exit_code == 1
    assert "Failed: chain: none of its sources works" in page.stdout
    assert "b does not work: its token cannot work: expired" in page.stdout


def test_the_page_of_a_chain_shows_each_source_under_its_name(tmp_path, closed):
    good = private(closed / "token", a_token())
    text = chain(file_table(good, link("primary")), file_table(closed / "none", link("spare")))
    page = run("--config", str(written(tmp_path, text))).stdout

    assert f"\nprimary: {good}\n" in page
    assert f"\nspare: {closed}/none\n" in page
    assert "the token of primary would be used" in page
    assert page.count("kind ") == 2
    assert "It works, with 1 warning." in page


def test_a_request_that_is_signed_reaches_the_backend(tmp_path, closed):
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    private(closed / "key.pem", pem)
    with FakeBackend(mint=for_twilio()) as backend:
        text = (
            f'[tokens.chat.source]\ntype = "http"\nurl = "{backend.url}"\nheaders = {{ X-Own = "1" }}\n'
            f'[tokens.chat.source.bearer_jwt]\nprivate_key = "${{file:{closed}/key.pem}}"\n'
            'claims = { iss = "12345" }\n'
        )
        document = looked_at(tmp_path, text)
        headers = backend.requests[0].headers
    scheme, _, raw = headers["authorization"].partition(" ")

    assert document["ok"]
    assert (scheme, headers["x-own"]) == ("Bearer", "1")
    assert jwt.decode(raw, key.public_key(), algorithms=["RS256"])["iss"] == "12345"
    assert raw not in json.dumps(document)


def test_remedies_for_a_configuration_do_not_name_options(tmp_path):
    with FakeBackend() as backend:
        text = f'[tokens.chat.source]\ntype = "http"\nurl = "{backend.url}"\ntoken_path = "nowhere"\n'
        document = looked_at(tmp_path, text)

    assert document["step"]["token"]["status"] == "failed"
    assert "token_path" in document["step"]["token"]["remedy"]
    assert "--" not in document["step"]["token"]["remedy"]


def report_on(subject):
    return asyncio.run(examine(Order(request=subject)))


def test_a_source_that_is_written_in_python_is_asked_and_what_was_left_out_is_said():
    report = report_on(Subject.of(CallableSource, a_token))
    [asked, *_] = report.steps

    assert report.ok
    assert asked.name == "source"
    assert "CallableSource was asked" in asked.summary
    assert "cannot be seen from outside" in asked.summary


def test_a_function_that_refuses_is_a_failed_step():
    def refuse() -> str:
        raise RefusedError("invalid_grant")

    report = report_on(Subject.of(CallableSource, refuse))
    token = next(step for step in report.steps if step.name == "token")

    assert not report.ok
    assert token.summary == "the backend refused to issue a token: invalid_grant"


def test_from_python_a_chain_is_made_of_subjects_and_requests(closed):
    path = closed / "none"
    with FakeBackend(mint=for_twilio()) as backend:
        report = report_on(
            Subject.of(
                ChainSource,
                {"file": Subject.of(FileSource, path), "backend": Request(url=backend.url)},
            )
        )
        other = report_on(Subject.of(HttpSource, backend.url, auth=("user", CANARY)))

    assert report.ok
    assert report.steps[0].details["used"] == "backend"
    assert other.steps[0].name == "source"
    assert CANARY not in repr(other)
