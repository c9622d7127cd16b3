"""`token-keeper doctor` shows no token, no credential, no query and no body, whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from examining import for_twilio, run
from minting import SECRET

from token_keeper._model import Secret
from token_keeper.doctor import Order, Request, examine
from token_keeper.testing import BackendFault, FakeBackend

CANARY = "canary-0123456789abcdef"


def everything(url: str, tmp_path, *args: str) -> str:
    """Return all that the command writes, as a page and as JSON, with secrets wherever they can be."""
    (tmp_path / "key").write_text(f"{CANARY}-2\n")
    (tmp_path / "body").write_text(json.dumps({"client_secret": f"{CANARY}-3"}))
    given = (
        f"{url}?key={CANARY}-1",
        *("--header", f"X-Key: ${{file:{tmp_path / 'key'}}}"),
        *("--header", "Authorization: Bearer ${env:BACKEND_KEY}"),
        *("--header", f"Cookie: {CANARY}-4"),
        *("--json-body", f"@{tmp_path / 'body'}", "--timeout", "0.4"),
        *args,
    )
    results = [run(*given, *more, env={"BACKEND_KEY": f"{CANARY}-5"}) for more in ((), ("--json",))]
    assert all(result.exit_code in {0, 1} for result in results)
    return "".join(result.output for result in results)


def without_parts(token: str, text: str) -> bool:
    return not any(part in text for part in (token, *token.split(".")[1:]))


def test_a_good_run_shows_no_secret(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with FakeBackend(mint=for_twilio()) as backend:
        shown = everything(backend.url, tmp_path, "--timeout", "10") + caplog.text
        request, tokens = backend.requests[0], list(backend.issued)

    assert "fingerprint" in shown
    assert f"{CANARY}-1" in request.path
    assert {f"{CANARY}-2", f"Bearer {CANARY}-5", f"{CANARY}-4"} <= set(request.headers.values())
    assert f"{CANARY}-3".encode() in request.body
    assert CANARY not in shown
    assert SECRET not in shown
    assert all(without_parts(token, shown) for token in tokens)


@pytest.mark.parametrize("fault", list(BackendFault))
def test_no_fault_shows_a_secret(tmp_path, fault):
    with FakeBackend(mint=lambda _: f"{CANARY}-token") as backend:
        backend.fail(fault, times=2)
        assert CANARY not in everything(backend.url, tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        {"body": {"token": f"{CANARY}"}},
        {"body": {"token": f"{CANARY} with blanks"}},
        {"body": {"token": f"{CANARY}-1", "jwt": f"{CANARY}-2"}},
        {"body": f'{{"token": "{CANARY}'},
        {"body": {"message": CANARY, "error": f"{CANARY}"}},
        {"body": {f"{CANARY} as a name": [CANARY]}},
        {"status": 400, "body": {"error": CANARY}},
        {"status": 401, "body": f"no, {CANARY}"},
        {"status": 503, "body": CANARY, "headers": {"Retry-After": CANARY}},
        {"status": 302, "headers": {"Location": f"https://elsewhere.example/{CANARY}"}},
        {"body": CANARY, "headers": {"Content-Encoding": CANARY}},
        {"body": {"token": "a.b.c"}, "headers": {"Content-Type": CANARY, "Date": CANARY}},
    ],
)
def test_no_answer_shows_itself(tmp_path, answer):
    with FakeBackend() as backend:
        backend.answer(**answer, times=None)
        assert CANARY not in everything(backend.url, tmp_path)


def test_a_secret_in_a_claim_is_not_shown(tmp_path):
    def swapped(now: float) -> str:
        return for_twilio(signing_key_sid=SECRET)(now)

    with FakeBackend(mint=swapped) as backend:
        shown = everything(backend.url, tmp_path, "--timeout", "10")

    assert "cannot work" in shown
    assert SECRET not in shown


def test_a_secret_around_which_a_claim_was_written_is_not_shown(tmp_path):
    def mixed_up(now: float) -> str:
        return for_twilio(account_sid=f"AC{SECRET}")(now)

    (tmp_path / "secret").write_text(SECRET)
    with FakeBackend(mint=mixed_up) as backend:
        asked = (backend.url, "--secret-file", str(tmp_path / "secret"))
        shown = [run(*asked).output, run(*asked, "--json").output]

    assert all("AC<secret>" in each and SECRET not in each for each in shown)


def test_no_failed_connection_shows_a_secret(tmp_path):
    with FakeBackend() as backend:
        backend.down()
        assert CANARY not in everything(backend.url, tmp_path)


def test_a_report_and_an_order_have_reprs_without_secrets():
    with FakeBackend(mint=for_twilio()) as backend:
        request = Request(
            url=f"{backend.url}?key={CANARY}", headers={"X-Key": Secret(CANARY)}, json={"k": CANARY}
        )
        order = Order(request=request, key=Secret(CANARY))
        report = asyncio.run(examine(order))
        (token,) = backend.issued

    assert CANARY not in repr(order) + repr(report)
    assert without_parts(token, repr(report))


def test_control_characters_of_a_claim_do_not_reach_the_terminal():
    with FakeBackend(mint=for_twilio(identity="alice\x1b[31m")) as backend:
        result = run(backend.url, "--expect", "identity=bob")

    assert "identity-mismatch" in result.stdout
    assert "\x1b" not in result.stdout
