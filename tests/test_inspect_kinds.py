"""The profiles that know no vendor, and values that nobody should trust."""

from __future__ import annotations

import timeit

import pytest
from minting import NOW, base64url, forged, minted, signed

from token_keeper import ConfigError
from token_keeper._model import Secret, fingerprint_of
from token_keeper.profiles import Severity, inspect

HEADER = b'{"typ":"JWT","alg":"HS256","cty":"twilio-fpa;v=1"}'


def codes(value, profile="twilio", **options):
    return set(inspect(value, profile, **{"now": NOW, **options}).codes)


def errors(value, profile, **options):
    return {finding.code for finding in inspect(value, profile, **{"now": NOW, **options}).errors}


@pytest.mark.parametrize(
    "value",
    [
        forged({"alg": "none", "typ": "x", "cty": "y"}),
        forged(without="exp"),
        forged(without="grants"),
        forged(claims={"iss": 1, "sub": 2}),
        minted(valid_until=NOW + 30 * 86_400),
        minted(valid_until=NOW + 100),
        minted(valid_until=NOW + 20 * 365 * 86_400),
        minted()[:-3],
    ],
)
def test_the_profile_jwt_asks_only_for_structure_and_times(value):
    assert errors(value, "jwt") == set()


@pytest.mark.parametrize(
    ("code", "claims"),
    [
        ("expired", {"exp": NOW}),
        ("not-yet-valid", {"nbf": NOW + 1}),
        ("exp-not-a-number", {"exp": "soon"}),
        ("exp-not-a-number", {"exp": float("inf")}),
        ("exp-in-milliseconds", {"exp": (NOW + 60) * 1000}),
        ("issued-after-expiry", {"iat": NOW + 3600}),
    ],
)
def test_the_profile_jwt_finds_times_that_cannot_work(code, claims):
    assert errors(forged(claims=claims), "jwt") == {code}
    assert errors(forged(claims=claims), "auto") == {code}


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("exp-missing", forged(without="exp")),
        ("lifetime-too-long", minted(valid_until=NOW + 20 * 365 * 86_400)),
    ],
)
def test_an_open_end_is_unwise_for_a_jwt_and_wrong_for_twilio(code, value):
    severities = {
        profile: finding.severity
        for profile in ("jwt", "auto", "twilio")
        for finding in inspect(value, profile, now=NOW).findings
        if finding.code == code
    }

    assert severities == {"jwt": Severity.WARNING, "auto": Severity.WARNING, "twilio": Severity.ERROR}


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (minted(), "jwt"),
        (f" {minted()}", "jwt"),
        (f"{base64url(b'{}').decode()}.broken!.x", "jwt"),
        ("a.b.c", "opaque"),
        ("0123456789abcdef0123456789abcdef", "opaque"),
        ("", "opaque"),
    ],
)
def test_auto_goes_by_the_look_of_the_value(value, chosen):
    assert inspect(value, now=NOW).profile == chosen


def test_auto_keeps_out_a_jwt_that_was_cut_short():
    assert errors(f"{base64url(HEADER).decode()}.eyJ.x", "auto") == {"not-a-jwt"}


@pytest.mark.parametrize("value", ["x", "0123456789abcdef" * 2, "ya29.a0~b/c=", "a.b.c.d", "x" * 16_384])
def test_an_opaque_token_may_be_any_printable_word(value):
    assert codes(value, "opaque") == set()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", {"empty"}),
        ("a b", {"bad-characters"}),
        ('{"access_token": "abc"}', {"bad-characters", "wrapped-json"}),
        ("abc\n", {"bad-characters", "surrounding-whitespace"}),
        ("Bearer abc", {"bad-characters", "bearer-prefix"}),
        ("x" * 16_385, {"too-long"}),
    ],
)
def test_an_opaque_token_stands_alone(value, expected):
    assert codes(value, "opaque") == expected


BOMBS = {
    "lists": b"[" * 6000,
    "closed lists": b"[" * 5000 + b"]" * 5000,
    "objects": b'{"a":' * 2000 + b"1" + b"}" * 2000,
    "lists in a claim": b'{"exp":1800003600,"a":' + b"[" * 900 + b"]" * 900 + b"}",
    "a long number": b'{"exp":' + b"9" * 9000 + b"}",
    "a large exponent": b'{"exp":1e999999}',
    "not a number": b'{"exp":NaN,"nbf":Infinity,"iat":-Infinity}',
    "the same key twice": b'{"exp":1800003600,"exp":1}',
    "the same grant twice": b'{"grants":{"chat":{},"chat":{}}}',
    "a lone surrogate": b'{"sub":"\\ud800","grants":{"identity":"\\udfff","chat":{"service_sid":"\\ud800"}}}',
    "no UTF-8": b'{"sub":"\xff"}',
    "UTF-16": '{"sub":"x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"sub":"x"}',
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a string": b'"exp"',
    "objects as claims": b'{"iss":{},"sub":[],"exp":{},"nbf":[],"grants":{"chat":{"service_sid":{}}}}',
}


@pytest.mark.parametrize("payload", BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.parametrize("profile", ["twilio", "jwt", "opaque", "auto"])
def test_a_hostile_payload_ends_in_findings(payload, profile):
    assert profile == "opaque" or errors(signed(HEADER, payload), profile, secret="s" * 32)


@pytest.mark.parametrize("payload", BOMBS.values(), ids=BOMBS.keys())
def test_a_hostile_header_is_no_access_token(payload):
    assert errors(signed(payload, payload), "twilio", secret="s" * 32)
    assert errors(payload.decode("latin-1"), "twilio")


@pytest.mark.parametrize(
    "bomb", ["lists", "objects", "lists in a claim", "the same key twice", "no UTF-8", "UTF-16"]
)
def test_what_cannot_be_read_in_one_way_only_is_no_jwt(bomb):
    assert codes(signed(HEADER, BOMBS[bomb])) == {"not-a-jwt"}


def test_a_token_without_signature_and_algorithm_is_refused():
    unsigned = forged({"alg": "none"}).rpartition(".")[0] + "."

    assert errors(unsigned, "twilio") == {"header-alg"}


@pytest.mark.parametrize("value", ["x" * 1_000_000, "[" * 1_000_000, " " * 1_000_000, "." * 1_000_000])
def test_a_megabyte_takes_less_than_fifty_milliseconds(value):
    assert min(timeit.repeat(lambda: inspect(value, "twilio", now=NOW), number=1, repeat=3)) < 0.05


@pytest.mark.parametrize(
    "value",
    ["[" * 16_000, '["' * 8_000, "{" * 16_000, '"\\' * 8_000, " \t" * 8_000, "Bearer " * 2_000, "a." * 8_000],
)
def test_the_longest_value_that_is_read_takes_less_than_fifty_milliseconds(value):
    assert min(timeit.repeat(lambda: inspect(value, "twilio", now=NOW), number=1, repeat=3)) < 0.05


def test_the_fingerprint_is_of_the_value_as_given():
    assert inspect(f" {minted()}", now=NOW).fingerprint == fingerprint_of(f" {minted()}")


def test_a_secret_is_inspected_like_its_text():
    assert inspect(Secret(minted()), "twilio", now=NOW) == inspect(minted(), "twilio", now=NOW)


def test_times_are_reported_where_they_are_numbers():
    inspection = inspect(forged(claims={"iat": NOW - 1, "nbf": "now"}), "jwt", now=NOW)

    assert (inspection.issued_at, inspection.not_before, inspection.expires_at) == (NOW - 1, None, NOW + 3600)


def test_an_inspection_shows_neither_the_token_nor_its_signature():
    token = minted()
    inspection = inspect(token, "twilio", now=NOW)

    for part in (token, *token.split(".")):
        assert part not in repr(inspection)
        assert part not in repr((inspection.header, inspection.claims, inspection.findings))


def test_an_unknown_profile_is_a_configuration_error_that_names_the_known_ones():
    with pytest.raises(ConfigError, match="profile: unknown; known are auto, jwt, twilio, opaque"):
        inspect("x", "twillio", now=NOW)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("undefined", "held no token"),
        (f"b'{minted()}'", "decode()"),
        (f"'{minted()}'", "quotes"),
        ("a.b.c.d.e", "JWE"),
        ('{"error": "denied"}', "another answer"),
        ("<html>", "web page"),
        (minted().rpartition(".")[0], "complete and unchanged"),
    ],
)
def test_the_hint_says_what_the_value_is_likely_to_be(value, words):
    hints = [finding.hint for finding in inspect(value, "twilio", now=NOW).errors]

    assert any(words in hint for hint in hints)
