"""The command `token-keeper explain`."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner
from minting import ACCOUNT, NOW, SECRET, altered, minted

from token_keeper.cli._group import cli
from token_keeper.profiles import CATALOGUE

AT = ("--now", str(NOW))


def run(*args, stdin="", env=None):
    return CliRunner().invoke(
        cli, ["explain", *args], input=stdin, env={"TOKEN_KEEPER_SECRET": None, **(env or {})}
    )


def certainties(*args, **options):
    document = json.loads(run("--json", *AT, *args, **options).stdout)
    return {each["cause"]: each["certainty"] for each in document["causes"]}


def certainty(words, *args, **options):
    [found] = [truth for text, truth in certainties(*args, **options).items() if words in text]
    return found


@pytest.mark.parametrize("code", [str(code) for code in CATALOGUE])
def test_every_known_code_exits_0(code):
    assert run(code).exit_code == 0
    document = json.loads(run(code, "--json").stdout)
    assert list(document) == ["code", "title", "class", "causes", "actions"]
    assert str(document["code"]) == code
    assert {each["certainty"] for each in document["causes"]} == {"unknown"}


@pytest.mark.parametrize("code", ["99999", "nonsense", "51215x", minted(), "9" * 5000])
def test_an_unknown_code_exits_65_and_lists_the_known_ones(code):
    result = run(code, "--json")

    assert (result.exit_code, result.stdout) == (os.EX_DATAERR, "")
    assert "51007, 51130, 51215" in result.stderr
    assert "invalid_token" in result.stderr
    assert code not in result.stderr


def test_a_code_is_a_number_and_a_word_is_a_word():
    assert json.loads(run("51215", "--json").stdout)["code"] == 51215
    assert json.loads(run("invalid_token", "--json").stdout)["code"] == "invalid_token"


def test_the_token_from_standard_input_decides_what_is_certain():
    expired = minted(valid_until=NOW - 1)

    assert certainty("has expired", "51215", "--token", "-", stdin=f"{expired}\n") == "confirmed"
    assert certainty("has expired", "51215", "--token", minted()) == "excluded"
    assert certainty("has expired", "51215") == "unknown"


def test_an_empty_standard_input_is_no_token_at_all():
    assert certainty("no token at all", "51215", "--token", "-", stdin="") == "confirmed"


def test_what_is_expected_decides_too():
    other = ("--expect", "account_sid=AC" + "0" * 32)
    same = ("--expect", f"account_sid={ACCOUNT}")

    assert certainty("another account", "51215", "--token", minted()) == "unknown"
    assert certainty("another account", "51215", "--token", minted(), *other) == "confirmed"
    assert certainty("another account", "51215", "--token", minted(), *same) == "excluded"
    assert certainty("product's grant", "51007", "--token", minted(), "--for", "video") == "confirmed"
    assert certainty("product's grant", "51007", "--token", minted(), "--for", "chat") == "excluded"


def test_the_secret_decides_about_the_signature(tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    secret = ("--secret-file", str(file))

    assert certainty("another API Key Secret", "20107", "--token", minted()) == "unknown"
    assert certainty("another API Key Secret", "20107", "--token", minted(), *secret) == "excluded"
    assert certainty("another API Key Secret", "20107", "--token", altered(minted()), *secret) == "confirmed"


def test_a_secret_file_that_cannot_be_read_exits_66(tmp_path):
    assert run("51215", "--secret-file", str(tmp_path / "none")).exit_code == os.EX_NOINPUT


def test_the_leeway_counts():
    expired = minted(valid_until=NOW - 9)

    assert certainty("has expired", "20104", "--token", expired, "--leeway", "10") == "excluded"


def test_a_code_of_http_takes_any_token():
    assert certainty("No token was sent", "401", "--token", "opaque-token") == "excluded"
    assert certainty("has expired", "invalid_token", "--token", minted(valid_until=NOW - 1)) == "confirmed"


def test_the_class_of_51130_follows_the_token():
    assert json.loads(run("51130", "--json", "--token", "x").stdout)["class"] == "config"
    assert json.loads(run("51130", "--json", *AT, "--token", minted()).stdout)["class"] == "denied"


def test_the_form_for_people_sums_up_what_the_token_shows():
    one = run("20104", *AT, "--token", minted(valid_until=NOW - 1)).stdout
    none = run("20104", *AT, "--token", minted()).stdout

    assert " shows 1 cause, excludes 2, and cannot tell of 0\n" in one
    assert " shows none of the causes, excludes 3, and cannot tell of 0\n" in none
    assert " cannot tell of " not in run("20104").stdout


def test_the_form_for_people_says_what_is_so_why_and_what_to_do():
    shown = run("51215", *AT, "--token", "-", stdin=minted(valid_until=NOW - 1)).stdout

    assert shown.startswith("51215  Twilsock: Unauthorized\n  denied  ")
    assert "expired: the token expired 1 s ago (exp)" in shown
    assert shown.index("confirmed") < shown.index("unknown") < shown.index("excluded")
    assert "Debugger" in shown.splitlines()[-1]
