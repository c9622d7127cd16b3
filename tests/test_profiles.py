"""What codes mean, what may be expected, and profiles of one's own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from minting import NOW, SERVICE, forged, minted, without_grants

from token_keeper import ConfigError
from token_keeper.profiles import DenialClass, Expectations, error, inspect, profile_named

NAMES = ("auto", "jwt", "twilio", "opaque")
MEANINGS = {
    DenialClass.DENIED: [
        *(51007, 51130, 51215, 51207, 20101, 20104, 20105, 20151, 20156, 31204, 31205),
        *(401, 3000, 4401, 1008, "invalid_token"),
    ],
    DenialClass.THROTTLED: [51002, 51126, 51128, 51201, 51202, 429, 1013, 4429],
    DenialClass.FORBIDDEN: [403, 3003, 4403, "insufficient_scope", "invalid_request"],
    DenialClass.CONFIG: [20102, 20103, 20106, 20107, 20157, 20160, 31207],
}
CODES = [(code, meaning) for meaning, codes in MEANINGS.items() for code in codes]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("code", "meaning"), CODES)
def test_each_profile_knows_what_a_code_means(name, code, meaning):
    profile = profile_named(name)

    assert profile.classify(code) is meaning
    assert profile.classify(f" {code} ".upper()) is meaning
    assert profile.knows(code)


@pytest.mark.parametrize("code", [0, -1, 99_999, "", "no_such_word", "9" * 5000, "\ud800", "٣", True, 4.01])
def test_an_unknown_code_counts_as_denied_and_says_that_it_is_unknown(code):
    profile = profile_named("auto")

    assert profile.classify(code) is DenialClass.DENIED
    assert not profile.knows(code)


def test_no_code_counts_as_denied_and_is_nothing_unknown():
    profile = profile_named("auto")

    assert profile.classify(None) is DenialClass.DENIED
    assert profile.knows(None)


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        (minted(), DenialClass.DENIED),
        (minted(valid_until=NOW - 1), DenialClass.DENIED),
        ("", DenialClass.CONFIG),
        ("x", DenialClass.CONFIG),
        ("0123456789abcdef" * 2, DenialClass.CONFIG),
        (f'{{"token": "{minted()}"}}', DenialClass.CONFIG),
        (forged({"cty": "twilio-pkrv;v=1"}), DenialClass.CONFIG),
        (forged({"alg": "RS256"}), DenialClass.CONFIG),
    ],
)
def test_the_code_51130_blames_the_backend_if_the_token_is_malformed(value, meaning):
    profile = profile_named("twilio")
    inspection = inspect(value, profile, now=NOW)

    assert profile.classify(51130, inspection) is meaning
    assert profile.classify(51215, inspection) is DenialClass.DENIED


def test_a_diagnosis_says_what_the_token_shows_and_then_what_is_left_to_check():
    profile = profile_named("twilio")
    inspection = inspect(minted(), profile, now=NOW + 3700)

    first, *middle, last = profile.diagnose(inspection, 51215, "Unauthorized")

    assert first.startswith("expired: the token expired 100 s ago")
    assert all(sentence.startswith("To check: ") for sentence in middle)
    assert any("test credentials" in sentence for sentence in middle)
    assert "Debugger" in last


def test_a_diagnosis_of_a_token_without_fault_says_so():
    profile = profile_named("twilio")

    assert (
        profile.diagnose(inspect(minted(), profile, now=NOW), 51215)[0] == "The token itself shows no fault."
    )


def test_a_diagnosis_by_other_rules_excludes_nothing_that_they_do_not_look_at():
    for_any = profile_named("auto")
    said = for_any.diagnose(inspect(without_grants(), for_any, now=NOW), 51215)

    assert any("To check: grants is missing or malformed" in sentence for sentence in said)
    assert not any("expired" in sentence for sentence in said)
    assert 'With profile="twilio"' in said[-2]


def test_a_diagnosis_looks_up_the_reason_if_there_is_no_code():
    profile = profile_named("auto")

    assert "scope" in profile.diagnose(None, None, "insufficient_scope")[0]
    assert len(profile.diagnose(None, None, f"token {minted()} is bad")) == 1


def test_a_diagnosis_repeats_neither_the_token_nor_the_reason():
    token = minted(valid_until=NOW + 60, nbf=NOW)
    profile = profile_named("twilio")

    said = " ".join(profile.diagnose(inspect(token, profile, now=NOW), 51215, f"bad token {token}"))

    assert not [part for part in token.split(".") if part in said]


def test_twilio_tokens_may_be_expected_to_fit():
    raw = {"grants": ["chat", "chat"], "service_sid": SERVICE, "identity": "alice"}

    expected = profile_named("twilio").expectations(raw)

    assert expected == Expectations(grants=("chat",), service_sid=SERVICE, identity="alice")
    assert profile_named("twilio").expectations(expected) == expected


@pytest.mark.parametrize("nothing", [None, {}, Expectations()])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_may_be_expected_of_any_token(name, nothing):
    assert profile_named(name).expectations(nothing) == Expectations()


@pytest.mark.parametrize(
    ("raw", "key", "problem"),
    [
        (
            {"colour": "red"},
            "expect.colour",
            "known are account_sid, api_key_sid, grants, identity, service_sid",
        ),
        ({"account_sid": 7}, "expect.account_sid", "must be a string"),
        ({"identity": ""}, "expect.identity", "not empty"),
        ({"grants": "chat"}, "expect.grants", "must be a list out of chat, sync, voice, video"),
        ({"grants": ["fax"]}, "expect.grants", "known are chat, sync, voice, video"),
        ({"grants": [7]}, "expect.grants", "known are chat, sync, voice, video"),
        ({"\x1b[31m": 1}, "expect.'\\x1b[31m'", "unknown key"),
    ],
)
def test_an_expectation_that_cannot_be_checked_is_a_configuration_error(raw, key, problem):
    with pytest.raises(ConfigError) as raised:
        profile_named("twilio").expectations(raw)

    assert raised.value.key == key
    assert problem in raised.value.problem


@pytest.mark.parametrize("name", ["auto", "jwt", "opaque"])
def test_a_profile_that_checks_no_expectations_says_which_one_does(name):
    with pytest.raises(ConfigError, match='profile = "twilio"'):
        inspect("x", name, now=NOW, expectations={"identity": "alice"})


def test_a_profile_of_ones_own_adds_rules_to_those_of_another():
    def tenant(context):
        if context.is_jwt and context.claims.get("tenant") != "blue":
            yield error("tenant", "the token is for another tenant", "Ask for a token of tenant blue.")

    jwt = profile_named("jwt")
    ours = replace(jwt, name="ours", rules=(*jwt.rules, tenant))

    assert inspect(forged(claims={"tenant": "blue"}), ours, now=NOW).valid
    assert inspect(minted(), ours, now=NOW).codes == {"tenant"}
    assert inspect("x", ours, now=NOW).codes == {"not-a-jwt"}
    assert ours.classify(429) is DenialClass.THROTTLED


def examples():
    page = (Path(__file__).parent.parent / "docs" / "diagnosing.md").read_text(encoding="utf-8")
    return re.findall(r"<!-- example -->\n```python\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("program", examples())
def test_the_examples_of_the_documentation_run(program, capsys):
    exec(compile(program, "diagnosing.md", "exec"), {})  # That is what a reader does.

    assert capsys.readouterr().err == ""


def test_the_documentation_has_its_examples():
    assert len(examples()) == 2
