"""What is said of each code, with a token that shows the cause, one that excludes it, and none."""

from __future__ import annotations

from pathlib import Path

import pytest
from minting import (
    ACCOUNT,
    AUTH_TOKEN,
    KEY,
    NOW,
    SECRET,
    SERVICE,
    VIDEO,
    VOICE,
    altered,
    forged,
    granting,
    minted,
    without_grants,
)

from token_keeper import ConfigError
from token_keeper.profiles import CATALOGUE, DenialClass, explain
from token_keeper.profiles import _causes as cause
from token_keeper.profiles._docs import errors_page

GOOD = (minted(), {})
CHECKED = (minted(), {"secret": SECRET})
EXPECTED = (
    minted(),
    {
        "expectations": {
            "grants": ["chat"],
            "account_sid": ACCOUNT,
            "api_key_sid": KEY,
            "service_sid": SERVICE,
            "identity": "alice",
        }
    },
)


def expecting(raw, **expectations):
    return raw, {"expectations": expectations}


SHOWN = {
    "NO_TOKEN": [("", {})],
    "JSON_OBJECT": [(f'{{"token": "{minted()}"}}', {}), (f'"{minted()}"', {}), (f"Bearer {minted()}", {})],
    "NOT_A_TOKEN": [("x.y", {}), (AUTH_TOKEN, {}), (SECRET, {}), (KEY, {}), ("", {}), ("x" * 20_000, {})],
    "OTHER_TYPE": [(forged({"cty": "twilio-pkrv;v=1"}), {}), (forged({"alg": "RS256"}), {})],
    "EXPIRED": [(minted(valid_until=NOW), {})],
    "REUSED": [(minted(valid_until=NOW), {})],
    "NOT_YET_VALID": [(minted(nbf=NOW + 5), {})],
    "WRONG_SECRET": [(altered(minted()), {"secret": SECRET}), (minted()[:-4], {})],
    "WRONG_ACCOUNT": [expecting(minted(), account_sid="AC" + "0" * 32), (minted(account_sid=KEY), {})],
    "WRONG_KEY": [expecting(minted(), api_key_sid="SK" + "0" * 32), (minted(signing_key_sid=ACCOUNT), {})],
    "GRANTS_BROKEN": [(forged(without="grants"), {}), (granting(chat=7), {}), (without_grants(), {})],
    "GRANT_MISSING": [expecting(minted(VIDEO), grants=["chat"]), (without_grants(), {})],
    "GRANT_FIELD": [(granting(identity="a", chat={}), {}), (granting(identity="a", voice={}), {})],
    "NO_IDENTITY": [(minted(identity=None), {}), (forged(without="grants"), {})],
    "REGION": [(minted(VIDEO, region="ie1"), {})],
    "BAD_IDENTITY": [(minted(identity="a@b"), {})],
    "OTHER_SERVICE": [expecting(minted(), service_sid="IS" + "0" * 32)],
    "OTHER_USER": [expecting(minted(), identity="bob")],
}
EXCLUDED = {
    "NO_TOKEN": GOOD,
    "JSON_OBJECT": GOOD,
    "NOT_A_TOKEN": GOOD,
    "OTHER_TYPE": GOOD,
    "EXPIRED": GOOD,
    "REUSED": GOOD,
    "NOT_YET_VALID": GOOD,
    "WRONG_SECRET": CHECKED,
    "WRONG_ACCOUNT": EXPECTED,
    "WRONG_KEY": EXPECTED,
    "GRANTS_BROKEN": GOOD,
    "GRANT_MISSING": EXPECTED,
    "GRANT_FIELD": GOOD,
    "NO_IDENTITY": GOOD,
    "REGION": (minted(VIDEO), {}),
    "BAD_IDENTITY": GOOD,
    "OTHER_SERVICE": EXPECTED,
    "OTHER_USER": EXPECTED,
}
UNDECIDABLE = {"TEST_CREDENTIALS", "USER_BARRED"}
OPEN = {
    "WRONG_SECRET": [GOOD],
    "WRONG_ACCOUNT": [GOOD],
    "WRONG_KEY": [GOOD],
    "GRANT_MISSING": [GOOD, expecting(granting(chat=7), grants=["chat"])],
    "OTHER_SERVICE": [GOOD],
    "OTHER_USER": [GOOD],
    "TEST_CREDENTIALS": [GOOD, CHECKED, EXPECTED],
    "USER_BARRED": [GOOD, CHECKED, EXPECTED],
    "EXPIRED": [("x", {}), (forged(without="exp"), {}), (forged(claims={"exp": "soon"}), {})],
    "NO_TOKEN": [("undefined", {}), ("null", {})],
    "JSON_OBJECT": [(f'{{"token": "{AUTH_TOKEN}"}}', {}), ("", {})],
    "NO_IDENTITY": [(AUTH_TOKEN, {}), (granting(chat=7), {}), (granting(identity=""), {})],
    "GRANT_FIELD": [("x", {}), (without_grants(), {})],
    "OTHER_TYPE": [("x", {})],
    "REGION": [("x", {})],
    "BAD_IDENTITY": [(minted(identity=None), {})],
}
CAUSES = {
    51007: {
        *("EXPIRED", "NOT_YET_VALID", "REUSED", "WRONG_SECRET", "GRANTS_BROKEN", "GRANT_MISSING"),
        *("GRANT_FIELD", "NO_IDENTITY", "REGION"),
    },
    51130: {
        *("NOT_A_TOKEN", "JSON_OBJECT", "OTHER_TYPE", "WRONG_SECRET", "WRONG_ACCOUNT", "WRONG_KEY"),
        *("TEST_CREDENTIALS", "GRANTS_BROKEN", "GRANT_MISSING", "BAD_IDENTITY"),
    },
    51215: {
        *("NO_TOKEN", "WRONG_SECRET", "WRONG_ACCOUNT", "WRONG_KEY", "TEST_CREDENTIALS", "EXPIRED"),
        *("NOT_YET_VALID", "GRANTS_BROKEN", "GRANT_MISSING", "NO_IDENTITY", "JSON_OBJECT"),
        *("OTHER_SERVICE", "OTHER_USER", "USER_BARRED"),
    },
}
PAIRS = [(code, name) for code, names in CAUSES.items() for name in sorted(names)]
TRUTHS = ["confirmed", "unknown", "excluded"]


def judged(code, name, token):
    raw, options = token
    explanation = explain(code, raw, now=NOW, **options)
    [found] = [each for each in explanation.causes if each.cause is getattr(cause, name)]
    return found


@pytest.mark.parametrize("code", CAUSES)
def test_the_three_codes_have_all_their_causes(code):
    assert set(CATALOGUE[code].causes) == {getattr(cause, name) for name in CAUSES[code]}


@pytest.mark.parametrize(("code", "name"), PAIRS)
def test_a_token_that_shows_a_cause_confirms_it(code, name):
    for token in SHOWN.get(name, []):
        found = judged(code, name, token)
        assert (found.certainty, found.evidence != "") == ("confirmed", True)


@pytest.mark.parametrize(("code", "name"), [(code, name) for code, name in PAIRS if name not in UNDECIDABLE])
def test_a_token_that_shows_the_opposite_excludes_a_cause(code, name):
    found = judged(code, name, EXCLUDED[name])

    assert (found.certainty, found.evidence) == ("excluded", getattr(cause, name).ruled_out)


@pytest.mark.parametrize(("code", "name"), PAIRS)
def test_a_token_that_does_not_tell_leaves_a_cause_open(code, name):
    for token in OPEN.get(name, []):
        found = judged(code, name, token)
        assert (found.certainty, found.evidence) == ("unknown", getattr(cause, name).look)


@pytest.mark.parametrize("raw", [without_grants(), granting(identity="alice", chat=7)])
def test_an_identity_that_is_there_is_seen_beside_broken_grants(raw):
    assert judged(51215, "NO_IDENTITY", (raw, {})).certainty == "excluded"


def test_a_bare_credential_is_no_json_object():
    assert judged(51215, "JSON_OBJECT", (AUTH_TOKEN, {})).certainty == "excluded"


def test_an_opaque_token_excludes_nothing_that_it_does_not_say():
    explanation = explain("invalid_token", "opaque-token", now=NOW)
    excluded = [each.cause.text for each in explanation.causes if each.certainty == "excluded"]

    assert excluded == ["No token was sent, or not in the form that the server reads"]


def test_the_codes_of_voice_expect_a_voice_grant_without_being_told():
    assert judged(31204, "GRANT_MISSING", GOOD).certainty == "confirmed"
    assert judged(31204, "GRANT_MISSING", (minted(VOICE), {})).certainty == "excluded"
    assert judged(31204, "GRANT_MISSING", expecting(minted(), grants=["chat"])).certainty == "excluded"
    assert judged(31204, "GRANT_MISSING", expecting(minted(), service_sid=SERVICE)).certainty == "unknown"


TITLES = {
    51007: "Client Connection: Token authentication is rejected",
    51130: "Twilsock: Token is invalid",
    51215: "Twilsock: Unauthorized",
    51207: "Twilsock: Token expired (a live connection's token ran out)",
    20101: "Invalid Access Token",
    20102: "Invalid Access Token header",
    20103: "Invalid issuer/subject",
    20104: "Expired, or expiration invalid",
    20105: "Not yet valid",
    20106: "Invalid grants",
    20107: "Invalid signature",
    20151: "Authentication failed",
    20156: "Expired or invalid expiration",
    20157: "Expiration exceeds the maximum",
    20160: "Invalid Token",
    31204: "Voice: JWT invalid",
    31205: "Voice: JWT expired",
    31207: "Voice: expiration too long",
}


@pytest.mark.parametrize(("code", "title"), TITLES.items())
def test_the_titles_do_not_change(code, title):
    assert CATALOGUE[code].title == title


@pytest.mark.parametrize("code", CATALOGUE)
def test_without_a_token_nothing_is_certain(code):
    explanation = explain(code)

    assert {each.certainty for each in explanation.causes} == {"unknown"}
    assert len(explanation.actions) == len(explanation.causes) + 2


@pytest.mark.parametrize("code", CATALOGUE)
def test_confirmed_causes_come_first_and_excluded_ones_last(code):
    for raw in (minted(), minted(valid_until=NOW - 1), "", "x"):
        truths = [TRUTHS.index(each.certainty) for each in explain(code, raw, now=NOW).causes]
        assert truths == sorted(truths)


@pytest.mark.parametrize("code", CATALOGUE)
def test_there_is_one_remedy_for_each_cause_that_is_not_excluded_then_where_to_look(code):
    explanation = explain(code, minted(), now=NOW)
    remedies = [each.cause.remedy for each in explanation.causes if each.certainty != "excluded"]

    assert explanation.actions[:-2] == tuple(remedies)
    assert "token-keeper inspect" in explanation.actions[-2]
    assert ("Debugger" in explanation.actions[-1]) is (CATALOGUE[explanation.code].source == "Twilio")


def test_every_remedy_is_of_its_own_and_names_the_helper_or_the_claim():
    entries = [entry for entry in CATALOGUE.values() if entry.source == "Twilio"]
    causes = {each for entry in entries if entry.denial_class != "throttled" for each in entry.causes}

    assert len({each.remedy for each in causes}) == len(causes)
    assert not [each.remedy for each in causes if not mentions_minting(each.remedy)]


def mentions_minting(remedy):
    return any(word in remedy for word in ("AccessToken", "Grant", "exp", "nbf", "grants", "token"))


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=lambda entry: str(entry.code))
def test_every_entry_is_complete(entry):
    assert entry.title
    assert entry.causes
    for each in entry.causes:
        assert each.text
        assert each.remedy
        assert each.look
        assert bool(each.ruled_out) or not each.needs


def test_the_shape_for_programs_is_the_documented_one():
    document = explain("51215", minted(), now=NOW).as_dict()

    assert list(document) == ["code", "title", "class", "causes", "actions"]
    assert document["code"] == 51215
    assert document["class"] == "denied"
    assert {tuple(each) for each in document["causes"]} == {("cause", "certainty", "evidence")}


def test_a_word_stays_a_word():
    assert explain("Invalid_Token").as_dict()["code"] == "invalid_token"


def test_the_class_of_51130_depends_on_the_token():
    assert explain(51130).denial_class is DenialClass.DENIED
    assert explain(51130, minted(), now=NOW).denial_class is DenialClass.DENIED
    assert explain(51130, "x", now=NOW).denial_class is DenialClass.CONFIG


def test_a_fault_that_a_code_is_not_known_for_is_named_all_the_same():
    explanation = explain(51215, minted(valid_until=NOW + 90_000), now=NOW)

    assert explanation.causes[0].evidence.startswith("lifetime-too-long: ")
    assert "ttl=3600" in explanation.actions[0]


def test_a_fault_of_the_token_does_not_explain_a_limit():
    assert {each.certainty for each in explain(51201, "x", now=NOW).causes} == {"unknown"}


def test_an_unknown_code_is_an_error_that_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"51007, 51130, 51215.*invalid_token"):
        explain(99_999)


def test_the_page_of_errors_is_current():
    page = Path(__file__).parent.parent / "docs" / "errors.md"

    assert page.read_text(encoding="utf-8") == errors_page(), "see the first lines of profiles/_docs.py"


def test_the_page_of_errors_names_every_code_and_cause():
    page = errors_page()

    assert not [code for code in CATALOGUE if f"### {code}\n" not in page]
    assert not [each.text for entry in CATALOGUE.values() for each in entry.causes if each.text not in page]
