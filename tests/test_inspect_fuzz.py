"""Whatever the value: inspection returns, and explains, and shows no secret."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minting import CHAT, NOW, SECRET, VIDEO, VOICE, base64url, minted, signed

from token_keeper._model import fingerprint_of
from token_keeper.cli._inspect import as_document
from token_keeper.cli._output import finite
from token_keeper.profiles import explain, inspect

PROFILES = st.sampled_from(["twilio", "jwt", "opaque", "auto"])
TEXT = st.text(st.characters(), max_size=200)
BYTES_LIKE = st.binary(max_size=200).map(lambda raw: raw.decode("latin-1"))
NUMBERS = st.integers() | st.floats() | st.sampled_from([NOW, NOW * 1000, 10**30, -1, 0])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
CLAIM = st.sampled_from(["iss", "sub", "exp", "nbf", "iat", "jti", "grants", "scope", "identity"])
GRANTS = st.dictionaries(st.sampled_from(["identity", "chat", "data_sync", "voice", "video", "player"]), JSON)
PAYLOADS = st.dictionaries(CLAIM, JSON | NUMBERS | GRANTS)
HEADERS = st.dictionaries(st.sampled_from(["typ", "alg", "cty", "twr", "kid"]), JSON)
REAL = [minted(), minted(CHAT, VOICE, VIDEO, region="ie1")]
WHOLE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def dumped(document):
    return json.dumps(document, ensure_ascii=True).encode()


JWTS = st.builds(lambda header, payload: signed(dumped(header), dumped(payload)), HEADERS, PAYLOADS)
LOOSE_JWTS = st.lists(st.binary(max_size=60).map(lambda raw: base64url(raw).decode()), max_size=5).map(
    ".".join
)


@st.composite
def mutations(draw):
    value = draw(st.sampled_from(REAL))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(value)))
        cut = draw(st.integers(0, 3))
        value = (
            value[:at] + draw(st.text(max_size=3) | st.sampled_from([".", "=", '"', "{"])) + value[at + cut :]
        )
    return value


@given(TEXT | BYTES_LIKE | JSON.map(json.dumps) | LOOSE_JWTS | JWTS | mutations(), PROFILES, st.booleans())
@WHOLE
def test_inspection_always_returns(value, profile, is_checked):
    inspection = inspect(value, profile, now=NOW, secret=SECRET if is_checked else None)

    assert all(finding.code and finding.message and finding.hint for finding in inspection.findings)
    json.dumps(finite(as_document(inspection, now=NOW)), allow_nan=False)
    assert inspection.expires_at is None or math.isfinite(inspection.expires_at)


@given(JWTS | mutations(), st.sampled_from([51007, 51130, 51215, 20151, 401, "invalid_token"]))
@WHOLE
def test_explaining_always_returns(value, code):
    explanation = explain(code, value, now=NOW)

    assert len(explanation.actions) >= 2


@given(mutations())
@WHOLE
def test_a_changed_token_is_never_said_to_be_signed(value):
    inspection = inspect(value, "twilio", now=NOW, secret=SECRET)

    assert inspection.errors or value in REAL or _is_same_signature(value)


def _is_same_signature(value):
    # The last character of 43 carries two bits that no decoder looks at.
    return any(value[:-1] == real[:-1] for real in REAL)


@given(JWTS)
@WHOLE
def test_no_part_of_a_token_comes_back(value):
    inspection = inspect(value, "twilio", now=NOW)
    shown = json.dumps(finite(as_document(inspection, now=NOW)))

    assert value not in shown
    assert value.rpartition(".")[2] not in shown


@pytest.mark.parametrize("profile", ["twilio", "jwt", "opaque", "auto"])
@given(st.text(st.sampled_from('[{"\\:,}]. eyJ'), min_size=1, max_size=16_384))
@settings(max_examples=25, deadline=None)
def test_text_that_looks_like_structure_is_no_trap(profile, value):
    assert inspect(value, profile, now=NOW).fingerprint == fingerprint_of(value)
