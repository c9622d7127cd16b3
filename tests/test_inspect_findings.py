"""Every row of the table of findings, from both sides."""

from __future__ import annotations

import pytest
from minting import (
    ACCOUNT,
    APPLICATION,
    AUTH_TOKEN,
    CHAT,
    KEY,
    NOW,
    SECRET,
    SERVICE,
    SYNC,
    VIDEO,
    VOICE,
    altered,
    forged,
    granting,
    minted,
    without_grants,
)
from twilio.jwt.access_token.grants import ChatGrant, TaskRouterGrant, VideoGrant, VoiceGrant
from twilio.jwt.client import ClientCapabilityToken

from token_keeper.profiles import Severity, inspect

HALF = ChatGrant()
EVERYTHING = minted(CHAT, SYNC, VOICE, VIDEO)


def capability() -> str:
    token = ClientCapabilityToken(ACCOUNT, AUTH_TOKEN, nbf=NOW, valid_until=NOW + 3600)
    token.allow_client_incoming("alice")
    return str(token.to_jwt())


def said(value: str, **options: object) -> dict[str, object]:
    return {"raw": value, "profile": "twilio", "now": NOW + 60, **options}


def expecting(value: str, **expectations: object) -> dict[str, object]:
    return said(value, expectations=expectations)


GOOD = said(minted())
FIRES = [
    ("wrapped-json", said(f'{{"token": "{minted()}"}}')),
    ("wrapped-json", said(f'[{{"a": 1}}, "{minted()}"]')),
    ("wrapped-json", said(f'"{minted()}"')),
    ("wrapped-json", said(f'"{{\\"token\\": \\"{minted()}\\"}}"')),
    ("wrapped-json", said(f'Bearer {{"token": "Bearer {minted()}"}}')),
    ("bearer-prefix", said(f"Bearer {minted()}")),
    ("bearer-prefix", said(f"authorization: bearer {minted()}")),
    ("surrounding-whitespace", said(f" {minted()}")),
    ("surrounding-whitespace", said(f"{minted()}\r\n")),
    ("surrounding-whitespace", said(f"\ufeff{minted()}")),
    ("empty", said("")),
    ("empty", said(" \n")),
    ("looks-like-auth-token", said(AUTH_TOKEN)),
    ("looks-like-api-secret", said(SECRET)),
    ("looks-like-sid", said(KEY)),
    ("looks-like-sid", said(ACCOUNT)),
    ("not-a-jwt", said("hello")),
    ("not-a-jwt", said(minted().rpartition(".")[0])),
    ("not-a-jwt", said(minted() + "=")),
    ("not-a-jwt", said(minted().replace(".", ".+", 1))),
    ("capability-token", said(capability())),
    ("client-validation-token", said(forged({"cty": "twilio-pkrv;v=1"}))),
    ("header-typ", said(forged({"typ": "JOSE"}))),
    ("header-typ", said(forged(without="typ"))),
    ("header-alg", said(forged({"alg": "none"}))),
    ("header-alg", said(forged({"alg": "RS256"}))),
    ("header-alg", said(forged(without="alg"))),
    ("header-cty", said(forged({"cty": "twilio-fpa;v=2"}))),
    ("header-cty", said(forged(without="cty"))),
    ("issuer", said(minted(signing_key_sid="SK123"))),
    ("issuer", said(minted(signing_key_sid=ACCOUNT))),
    ("issuer", said(forged(without="iss"))),
    ("subject", said(minted(account_sid="AC123"))),
    ("subject", said(forged(without="sub"))),
    ("issuer-subject-swapped", said(minted(account_sid=KEY, signing_key_sid=ACCOUNT))),
    ("exp-missing", said(forged(without="exp"))),
    ("exp-not-a-number", said(forged(claims={"exp": "1800003600"}))),
    ("exp-not-a-number", said(forged(claims={"exp": float("nan")}))),
    ("exp-not-a-number", said(forged(claims={"exp": True}))),
    ("exp-not-a-number", said(forged(claims={"exp": None}))),
    ("exp-not-a-number", said(forged(claims={"exp": 10**400}))),
    ("exp-in-milliseconds", said(minted(valid_until=(NOW + 3600) * 1000))),
    ("expired", said(minted(), now=NOW + 3600)),
    ("expired", said(minted(), now=NOW + 3609, leeway=9)),
    ("expired", said(minted(), now=NOW + 3600, leeway=9, exp_leeway=0)),
    ("not-yet-valid", said(minted(), now=NOW - 1)),
    ("not-yet-valid", said(minted(), now=NOW - 10, leeway=9)),
    ("lifetime-too-long", said(minted(valid_until=NOW + 86_401))),
    ("lifetime-too-long", said(minted(VOICE, valid_until=NOW + 86_400))),
    ("lifetime-too-long", said(minted(nbf=None, valid_until=NOW + 60 + 86_401))),
    ("lifetime-too-long", said(forged(claims={"iat": NOW - 1, "exp": NOW + 86_400}))),
    ("lifetime-too-short", said(minted(valid_until=NOW + 179))),
    ("issued-after-expiry", said(forged(claims={"iat": NOW + 3600}))),
    ("issued-after-expiry", said(forged(claims={"iat": NOW * 1000}))),
    ("too-long", said("x" * 16_385)),
    ("too-long", said(f"{minted()}{' ' * 16_385}")),
    ("bad-characters", said("a b", profile="opaque")),
    ("bad-characters", said('a"b', profile="opaque")),
    ("bad-characters", said("a\\b", profile="opaque")),
    ("bad-characters", said("a\x7f", profile="opaque")),
    ("bad-characters", said("é", profile="opaque")),
    ("grants-missing", said(forged(without="grants"))),
    ("grants-malformed", said(forged(claims={"grants": [1]}))),
    ("grants-malformed", said(forged(claims={"grants": None}))),
    ("grants-malformed", said(granting(identity="alice", chat=SERVICE))),
    ("grants-malformed", said(granting(identity="alice", chat={}, player=None))),
    ("grants-empty", said(without_grants())),
    ("grants-empty", said(granting())),
    ("grant-missing", expecting(minted(), grants=["video"])),
    ("grant-missing", expecting(minted(TaskRouterGrant()), grants=["chat"])),
    ("grant-field-missing", said(minted(HALF))),
    ("grant-field-missing", said(granting(identity="alice", data_sync={"service_sid": ""}))),
    ("grant-field-missing", said(granting(identity="alice", data_sync={"service_sid": None}))),
    ("grant-field-missing", said(minted(VoiceGrant()))),
    ("grant-field-missing", said(granting(identity="alice", voice={"incoming": {"allow": "true"}}))),
    ("grant-field-malformed", said(minted(ChatGrant(service_sid="default")))),
    ("grant-field-malformed", said(minted(ChatGrant(service_sid=APPLICATION)))),
    ("grant-field-malformed", said(granting(identity="alice", data_sync={"service_sid": 7}))),
    ("grant-field-malformed", said(minted(VoiceGrant(True, SERVICE)))),
    ("grant-field-malformed", said(granting(identity="alice", voice={"outgoing": APPLICATION}))),
    ("identity-missing", said(minted(identity=None))),
    ("identity-missing", said(granting(identity="", chat={"service_sid": SERVICE}))),
    ("identity-missing", said(granting(identity=7, chat={"service_sid": SERVICE}))),
    ("identity-missing", said(granting())),
    *(("identity-reserved-characters", said(minted(identity=f"a{sign}"))) for sign in "!*'();:@&=+$,/?%#[]"),
    ("identity-voice-characters", said(minted(VOICE, identity="al-ice"))),
    ("identity-voice-characters", said(minted(VOICE, identity="älice"))),
    ("region-not-us1", said(minted(VIDEO, region="ie1"))),
    ("account-mismatch", expecting(minted(), account_sid="AC" + "f" * 32)),
    ("key-mismatch", expecting(minted(), api_key_sid="SK" + "f" * 32)),
    ("service-mismatch", expecting(minted(), service_sid="IS" + "f" * 32)),
    ("service-mismatch", expecting(minted(CHAT, VIDEO), service_sid=SERVICE, grants=["video"])),
    ("service-mismatch", expecting(minted(VIDEO), service_sid=SERVICE)),
    ("identity-mismatch", expecting(minted(), identity="bob")),
    ("signature-invalid", said(altered(minted()), secret=SECRET)),
    ("signature-invalid", said(minted(), secret=SECRET[::-1])),
    ("signature-invalid", said(forged({"alg": "none"}), secret=SECRET)),
    ("signature-invalid", said(minted()[:-3])),
    ("signature-unchecked", GOOD),
]
SPARES = [
    ("wrapped-json", GOOD),
    ("wrapped-json", said('{"error": "no"}')),
    ("bearer-prefix", GOOD),
    ("surrounding-whitespace", GOOD),
    ("empty", GOOD),
    ("looks-like-auth-token", said(AUTH_TOKEN[:-1])),
    ("looks-like-auth-token", said(AUTH_TOKEN.upper())),
    ("looks-like-api-secret", said(SECRET.lower())),
    ("looks-like-api-secret", said(SECRET + "1")),
    ("looks-like-sid", said(KEY[:-1])),
    ("not-a-jwt", GOOD),
    ("not-a-jwt", said("")),
    ("capability-token", said(forged(claims={"scope": "read"}, without="cty"))),
    ("capability-token", said(forged(claims={"scope": "scope:client:incoming"}))),
    ("client-validation-token", GOOD),
    ("header-typ", GOOD),
    ("header-alg", GOOD),
    ("header-cty", GOOD),
    ("issuer", GOOD),
    ("issuer", said(minted(account_sid=KEY, signing_key_sid=ACCOUNT))),
    ("subject", GOOD),
    ("subject", said(minted(account_sid=KEY, signing_key_sid=ACCOUNT))),
    ("issuer-subject-swapped", said(minted(signing_key_sid=ACCOUNT))),
    ("exp-missing", said(forged(claims={"exp": None}))),
    ("exp-not-a-number", said(forged(claims={"exp": NOW + 3600.5}))),
    ("exp-in-milliseconds", said(minted(valid_until=253_402_300_799))),
    ("expired", said(minted(), now=NOW + 3599)),
    ("expired", said(minted(), now=NOW + 3608, leeway=9)),
    ("not-yet-valid", said(minted(), now=NOW)),
    ("not-yet-valid", said(minted(), now=NOW - 9, leeway=9)),
    ("not-yet-valid", said(minted(nbf=None))),
    ("not-yet-valid", said(forged(claims={"iat": NOW + 600}))),
    ("lifetime-too-long", said(minted(valid_until=NOW + 86_400))),
    ("lifetime-too-long", said(minted(VOICE, valid_until=NOW + 86_399))),
    ("lifetime-too-long", said(minted(nbf=None, valid_until=NOW + 60 + 86_400))),
    ("lifetime-too-long", said(forged(claims={"iat": NOW, "nbf": NOW - 9, "exp": NOW + 86_400}))),
    ("lifetime-too-short", said(minted(valid_until=NOW + 180))),
    ("lifetime-too-short", said(minted(nbf=None, valid_until=NOW + 100))),
    ("lifetime-too-short", said(forged(claims={"iat": NOW + 3600}))),
    ("issued-after-expiry", said(forged(claims={"iat": NOW + 3599}))),
    ("too-long", said("x" * 16_384)),
    ("bad-characters", said("a~!b", profile="opaque")),
    ("bad-characters", said("a b")),
    ("grants-missing", GOOD),
    ("grants-malformed", said(minted(TaskRouterGrant()))),
    ("grants-empty", said(minted(TaskRouterGrant()))),
    ("grant-missing", expecting(EVERYTHING, grants=["chat", "sync", "voice", "video"])),
    ("grant-missing", expecting(without_grants(), grants=["chat"])),
    ("grant-missing", expecting(forged(without="grants"), grants=["chat"])),
    ("grant-missing", expecting(granting(chat=1), grants=["video"])),
    ("grant-field-missing", said(EVERYTHING)),
    ("grant-field-missing", said(minted(VoiceGrant(incoming_allow=True)))),
    ("grant-field-missing", said(minted(VideoGrant()))),
    ("grant-field-malformed", said(EVERYTHING)),
    ("grant-field-malformed", said(granting(identity="alice", data_sync={"service_sid": "default"}))),
    ("identity-missing", GOOD),
    ("identity-missing", said(forged(without="grants"))),
    ("identity-missing", said(granting(chat=1))),
    ("identity-missing", said(granting(identity=""))),
    ("identity-reserved-characters", GOOD),
    ("identity-reserved-characters", said(minted(SYNC, identity="alice@example.com"))),
    ("identity-voice-characters", said(minted(VOICE, identity="Alice_1"))),
    ("identity-voice-characters", said(minted(identity="al-ice"))),
    ("region-not-us1", said(minted(VIDEO))),
    ("region-not-us1", said(minted(VIDEO, region="us1"))),
    ("region-not-us1", said(minted(region="ie1"))),
    ("account-mismatch", expecting(minted(), account_sid=ACCOUNT)),
    ("key-mismatch", expecting(minted(), api_key_sid=KEY)),
    ("service-mismatch", expecting(minted(), service_sid=SERVICE)),
    ("service-mismatch", expecting(minted(CHAT, VIDEO), service_sid=SERVICE, grants=["chat"])),
    ("service-mismatch", expecting(minted(HALF, SYNC), service_sid=SERVICE)),
    ("service-mismatch", expecting(without_grants(), service_sid=SERVICE)),
    ("identity-mismatch", expecting(minted(), identity="alice")),
    ("signature-invalid", said(minted(), secret=SECRET)),
    ("signature-invalid", GOOD),
    ("signature-unchecked", said(minted(), secret=SECRET)),
    ("signature-unchecked", said(minted()[:-3])),
]
WARNINGS = {"lifetime-too-short", "identity-reserved-characters"}
REMARKS = {"signature-unchecked"}
ALONE = {
    "too-long",
    "empty",
    "looks-like-auth-token",
    "looks-like-api-secret",
    "looks-like-sid",
    "capability-token",
    "client-validation-token",
}


def found(options):
    return {finding.code: finding for finding in inspect(**options).findings}


@pytest.mark.parametrize(("code", "options"), FIRES)
def test_a_fault_is_found(code, options):
    assert code in found(options)


@pytest.mark.parametrize(("code", "options"), SPARES)
def test_what_is_no_such_fault_is_spared(code, options):
    assert code not in found(options)


@pytest.mark.parametrize(("code", "options"), FIRES)
def test_each_finding_has_its_severity_a_sentence_and_a_hint(code, options):
    finding = found(options)[code]
    expected = Severity.WARNING if code in WARNINGS else Severity.INFO if code in REMARKS else Severity.ERROR

    assert finding.severity is expected
    assert finding.message
    assert finding.hint


def test_both_sides_of_every_row_are_tried():
    assert {code for code, _ in FIRES} == {code for code, _ in SPARES}
    assert len({code for code, _ in FIRES}) == 42


@pytest.mark.parametrize(("code", "options"), [case for case in FIRES if case[0] in ALONE])
def test_after_another_kind_of_value_nothing_else_is_said(code, options):
    assert set(found(options)) - {"surrounding-whitespace"} == {code}


@pytest.mark.parametrize("grants", [(CHAT,), (SYNC,), (VOICE,), (VIDEO,), (CHAT, SYNC, VOICE, VIDEO)])
def test_a_good_token_has_no_findings_once_its_signature_is_checked(grants):
    inspection = inspect(minted(*grants), "twilio", now=NOW, secret=SECRET)

    assert inspection.valid
    assert inspection.findings == ()


@pytest.mark.parametrize(
    "value", [f'{{"data": {{"jwt": "{minted()}"}}}}', f'{{"data": {{"jwt": "Bearer {minted()}"}}}}']
)
def test_the_hint_names_the_path_of_the_token(value):
    assert "'data.jwt'" in found(said(value))["wrapped-json"].hint


def test_what_is_wrapped_is_inspected_too():
    wrapped = f'{{"token": "{minted()}"}}'

    inspection = inspect(wrapped, "twilio", now=NOW + 9999)

    assert inspection.codes >= {"wrapped-json", "expired"}
    assert inspection.claims["sub"] == ACCOUNT


def test_a_wrapped_secret_is_known_for_what_it_is():
    assert set(found(said(f'{{"token": "{AUTH_TOKEN}"}}'))) == {"looks-like-auth-token"}


def test_times_that_are_wrong_say_by_how_much():
    assert "39 s ago" in found(said(minted(), now=NOW + 3639))["expired"].message
    assert "in 41 s" in found(said(minted(), now=NOW - 41))["not-yet-valid"].message


def test_a_secret_in_place_of_a_sid_is_not_shown():
    mixed_up = minted(signing_key_sid=SECRET, secret=KEY)

    inspection = inspect(mixed_up, "twilio", now=NOW)

    assert SECRET not in repr((inspection, inspection.claims))
    assert "secret" in found(said(mixed_up))["issuer"].message


def test_a_token_within_a_claim_is_not_shown():
    inspection = inspect(forged(claims={"upstream": minted(SYNC)}), "twilio", now=NOW)

    assert inspection.claims["upstream"] == "<token>"
