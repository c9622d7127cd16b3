"""Where a token may stand in an answer, and what is never taken for one."""

from __future__ import annotations

import json
import math
import traceback
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_keeper._errors import ConfigError, ResponseError
from token_keeper._extract import check_path, extract

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl"
OTHER = "another-token-0123456789"


def found(body: object, **paths: str) -> tuple[str, str]:
    extracted = extract(body, **paths)
    return extracted.secret.reveal(), extracted.path


def expiry(body: object, **paths: str) -> tuple[float | None, float | None]:
    extracted = extract(body, **paths)
    return extracted.expires_in, extracted.expires_at


def complaint(body: object, **paths: str) -> str:
    with pytest.raises(ResponseError) as caught:
        extract(body, **paths)
    return str(caught.value)


@pytest.mark.parametrize("name", ["token", "access_token", "accessToken", "jwt", "id_token"])
def test_a_token_is_found_under_the_usual_names(name):
    assert found(json.dumps({name: TOKEN, "user": "alice"})) == (TOKEN, name)


@pytest.mark.parametrize("scope", ["data", "result", "auth"])
def test_a_token_is_found_one_level_down(scope):
    assert found(json.dumps({scope: {"jwt": TOKEN}})) == (TOKEN, f"{scope}.jwt")


def test_a_path_finds_a_token_anywhere():
    body = json.dumps({"tokens": [{"kind": "chat", "value": TOKEN}, {"kind": "video", "value": OTHER}]})

    assert found(body, token_path="tokens[?kind=='chat'].value | [0]")[0] == TOKEN


def test_a_bare_json_string_is_the_token():
    assert found(f'"{TOKEN}"') == (TOKEN, "@")


@pytest.mark.parametrize("body", [TOKEN, f"  {TOKEN}\r\n", f"\ufeff{TOKEN}"])
def test_a_raw_text_is_the_token_without_what_surrounds_it(body):
    assert found(body) == (TOKEN, "")


def test_a_long_number_is_an_opaque_token():
    assert found("12345678901234567890") == ("12345678901234567890", "")


def test_an_answer_that_is_parsed_already_is_searched_alike():
    assert found({"data": {"token": TOKEN}}) == (TOKEN, "data.token")


def test_the_same_token_under_two_names_is_one_token():
    assert found({"token": TOKEN, "data": {"access_token": TOKEN}}) == (TOKEN, "token")


def test_two_different_tokens_are_an_error_that_names_both_places():
    message = complaint({"token": TOKEN, "data": {"jwt": OTHER}})

    assert "token and data.jwt" in message
    assert "token_path" in message


def test_an_oauth_answer_is_about_its_access_token():
    answer = {"access_token": TOKEN, "id_token": OTHER, "token_type": "Bearer", "expires_in": 3600}

    assert found(answer) == (TOKEN, "access_token")
    assert found({"data": answer}) == (TOKEN, "data.access_token")


def test_an_access_token_and_an_id_token_without_a_type_are_ambiguous():
    assert "access_token and id_token" in complaint({"access_token": TOKEN, "id_token": OTHER})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        ("<!doctype html><p>Log in</p>", "HTML"),
        ('{"token": "abc', "starts like JSON"),
        ('"abc', "starts like JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"n": ' + "9" * 5_000 + "}", "starts like JSON"),
        ('{"token": "one", "token": "two"}', "stands twice"),
        ("[]", "a list of 0"),
        ("null", "nothing"),
        ("true", "a boolean"),
        ("404", "a number"),
        ("NaN", "a number"),
        ("undefined", "a word"),
        ("OK", "a word"),
        ("two words", "blanks"),
        ("access_token=abc&token_type=bearer", "form-encoded"),
        ("{}", "an empty object"),
        ('{"message": "hello"}', "an object with message"),
        ('{"token": null}', "token is nothing"),
        ('{"token": 12}', "token is a number"),
        ('{"token": ""}', "token is an empty string"),
        ('{"token": {"value": "x"}}', "token is an object with value"),
        ('{"token": "undefined"}', "a word"),
        ('{"token": "Bearer abc"}', "blanks"),
        ('{"token": "abc\\n"}', "blanks"),
        ('{"token": "\\u0000abc"}', "control characters"),
        ('{"token": "\\ud800"}', "control characters"),
        ('{"token": "{\\"token\\": 1}"}', "a JSON document"),
        ('{"token": "<html>"}', "HTML"),
        ('{"error": "rate_limited"}', "the error rate_limited"),
        ('{"error": "invalid_grant", "token": "old"}', "the error invalid_grant"),
    ],
)
def test_what_is_not_a_token_is_never_taken_for_one(body, said):
    message = complaint(body)

    assert said in message
    assert "a valid token stays" in message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("data.tokne", "finds nothing"),
        ("data", "an object with token"),
        ("length(data.token)", "a number"),
        ("abs(data.token)", "finds nothing"),
    ],
)
def test_a_path_that_finds_no_string_says_what_it_found(path, said):
    message = complaint({"data": {"token": TOKEN}}, token_path=path)

    assert said in message
    assert TOKEN not in message


def test_a_path_finds_nothing_in_a_raw_text():
    assert "not JSON" in complaint(TOKEN, token_path="data.token")


def test_values_and_strange_names_stay_out_of_messages():
    message = complaint({"secret": OTHER, TOKEN: 1, "error": {"detail": OTHER}})

    assert "secret" in message
    assert TOKEN not in message
    assert OTHER not in message


@pytest.mark.parametrize("body", [json.dumps({"token": f"{TOKEN} x"}), f'{{"token": "{TOKEN}', f"{TOKEN} x"])
def test_a_traceback_with_locals_does_not_show_the_answer(body):
    error = None
    try:
        extract(body)
    except ResponseError as raised:
        error = raised
    assert error is not None
    error.__traceback__ = error.__traceback__.tb_next  # Ours holds the body as a parameter.
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())

    assert TOKEN not in shown
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"expires_in": 3600}, (3600.0, None)),
        ({"expiresIn": "3600"}, (3600.0, None)),
        ({"expires_at": 1_800_000_000}, (None, 1_800_000_000.0)),
        ({"expires_at": "1800000000"}, (None, 1_800_000_000.0)),
        ({"expiresAt": 1_800_000_000_000}, (None, 1_800_000_000.0)),
        ({"expires_at": "2027-01-15T08:00:00Z"}, (None, 1_800_000_000.0)),
        ({"expires_at": "2027-01-15T09:00:00+01:00"}, (None, 1_800_000_000.0)),
        ({"expires_in": 60, "expires_at": 1_800_000_000}, (60.0, 1_800_000_000.0)),
    ],
)
def test_a_stated_lifetime_is_read_beside_the_token(said, expected):
    assert expiry({"data": {"token": TOKEN, **said}}) == expected


def test_a_lifetime_at_the_top_counts_if_there_is_none_beside_the_token():
    assert expiry({"data": {"token": TOKEN}, "expires_in": 60}) == (60.0, None)
    assert expiry({"data": {"token": TOKEN, "expires_in": 30}, "expires_in": 60}) == (30.0, None)
    assert expiry({"chat": {"v": TOKEN, "expires_in": 30}}, token_path="chat.v") == (30.0, None)


@pytest.mark.parametrize(
    "value", [True, None, math.nan, math.inf, -5, 0, 10**30, 10**400, "soon", "1e3", "nan", []]
)
def test_a_nonsense_lifetime_is_as_if_it_was_not_said(value):
    assert expiry({"token": TOKEN, "expires_in": value, "expires_at": value}) == (None, None)


@pytest.mark.parametrize("value", ["2027-01-15T08:00:00", "2027-01-15", 3600, 10**11, "9" * 50, "é" * 50])
def test_a_time_that_could_mean_another_one_is_as_if_it_was_not_said(value):
    assert expiry({"token": TOKEN, "expires_at": value}) == (None, None)


def test_an_expiry_path_finds_a_lifetime_or_a_time():
    body = {"token": TOKEN, "meta": {"ttl": 90, "until": 1_800_000_000}}

    assert expiry(body, expires_path="meta.ttl") == (90.0, None)
    assert expiry(body, expires_path="meta.until") == (None, 1_800_000_000.0)


@pytest.mark.parametrize("body", [{"token": TOKEN, "ttl": "never"}, TOKEN])
def test_an_expiry_path_that_finds_no_lifetime_is_an_error(body):
    assert "expires_path finds" in complaint(body, expires_path="ttl")


@pytest.mark.parametrize("expression", ["data.", "data[", "nosuch(@)", "abs()", "", 3, "(" * 5_000])
def test_a_path_that_is_not_jmespath_is_an_error_of_the_configuration(expression):
    with pytest.raises(ConfigError) as caught:
        check_path("token_path", expression)
    assert caught.value.key == "token_path"


@pytest.mark.parametrize("expression", [None, "data.token", "tokens[0].value", "join('', parts)"])
def test_a_path_that_may_work_is_accepted(expression):
    check_path("token_path", expression)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["token", "access_token", "jwt", "data", "auth", "error", "expires_in", "token_type", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
PATHS = st.none() | st.sampled_from(["token", "data.token", "*", "@", "x[0]", "join('-', @)", "length(@)"])


def strings(document: object) -> set[str]:
    if isinstance(document, str):
        return {document}
    inner = (
        document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    )
    return set().union(*(strings(value) for value in inner))


@given(JSON, PATHS)
def test_for_any_json_a_token_was_in_it_or_there_is_a_response_error(document, path):
    body = json.dumps(document)
    with suppress(ResponseError):
        raw = extract(body, token_path=path).secret.reveal()
        assert raw in strings(document) or path == "join('-', @)" or raw == body


@given(st.text() | st.text(alphabet='{}[]":,\\ tokenabc123'), PATHS)
def test_for_any_text_a_token_was_in_it_or_there_is_a_response_error(body, path):
    with suppress(ResponseError):
        assert extract(body, token_path=path).secret.reveal() in body
