import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_keeper.twilsock import Status, about_to_expire, close, decode, encode, init, reply
from token_keeper.twilsock._frames import MAX_FRAME

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def framed(header, payload=b"", *, length=None):
    """Write a frame by hand, as the protocol says, and with another *length* if one is given."""
    head = header if isinstance(header, bytes) else json.dumps(header, ensure_ascii=False).encode()
    return b"TWILSOCK V3.0 %d\r\n%s\r\n%s" % (len(head) if length is None else length, head, payload)


def test_a_frame_is_a_magic_line_a_header_and_a_payload():
    assert encode({"id": "1"}, {"a": 1}) == (
        b'TWILSOCK V3.0 63\r\n{"id":"1","payload_type":"application/json","payload_size":7}\r\n{"a":1}'
    ).replace(b"63", str(len('{"id":"1","payload_type":"application/json","payload_size":7}')).encode())


def test_a_frame_without_a_payload_ends_with_the_header():
    assert encode({"id": "1"}) == b'TWILSOCK V3.0 27\r\n{"id":"1","payload_size":0}\r\n'


@given(st.dictionaries(st.text().filter(lambda name: not name.startswith("payload")), JSON), JSON)
def test_what_was_encoded_is_decoded_to_the_same(header, payload):
    frame = decode(encode(header, payload))

    assert frame is not None
    assert {**frame.header} == {
        **header,
        "payload_size": frame.header["payload_size"],
        **({} if payload is None else {"payload_type": "application/json"}),
    }
    assert frame.document() == (payload if isinstance(payload, dict) else {})


@given(st.binary())
def test_any_bytes_are_a_frame_or_none(raw):
    assert decode(raw) is None


@given(st.binary(), st.integers(0, 200))
def test_any_header_and_any_length_are_a_frame_or_none(head, length):
    frame = decode(framed(head, length=length))

    assert frame is None or isinstance(frame.method, str)


@given(st.integers(0, 60))
def test_a_frame_that_was_cut_is_none(kept):
    whole = encode({"method": "reply", "id": "1"}, {"a": 1})

    assert decode(whole[:kept]) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"TWILSOCK V2.0 2\r\n{}\r\n",
        b"TWILSOCK V3.0 -2\r\n{}\r\n",
        b"TWILSOCK V3.0 99999999999999999999\r\n{}\r\n",
        b"TWILSOCK V3.0 2\n{}\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        framed(b"[1]"),
        framed(b"null"),
        framed(b"\xff\xfe"),
        framed(b'{"a":' * 50_000),
        framed(b'{"a":' + b"1" * 5_000 + b"}"),
        framed({"payload_size": -1}),
        framed({"payload_size": True}),
        framed({"payload_size": "2"}, b"{}"),
        framed({"payload_size": 10**12}),
        framed({"payload_size": 3}, b"{}"),
        framed({}, bytes(MAX_FRAME)),
    ],
    ids=lambda raw: raw[:24],
)
def test_what_is_no_whole_frame_is_none(raw):
    assert decode(raw) is None


def test_a_length_counts_bytes_and_not_characters():
    frame = decode(framed({"id": "ü€", "payload_size": 5}, '"ü€"'.encode()[:5]))

    assert frame is not None
    assert frame.id == "ü€"


def test_a_payload_that_is_no_object_says_nothing():
    frame = decode(framed({"payload_size": 2}, b"[]"))

    assert frame is not None
    assert frame.document() == {}


@pytest.mark.parametrize("status", [None, "401", 401, [401], {}])
def test_a_status_that_is_no_object_or_empty_has_no_code(status):
    frame = decode(encode({"status": status}))

    assert frame is not None
    assert frame.status == Status(code=None)
    assert not frame.status.is_success


@pytest.mark.parametrize("code", ["401", True, 4.01, -1, 10**9, None, {}])
def test_a_code_that_is_no_sensible_number_is_none(code):
    frame = decode(encode({"status": {"code": code, "errorCode": code}}))

    assert frame is not None
    assert (frame.status.code, frame.status.error_code) == (None, None)


def test_a_status_survives_the_wire():
    status = Status(code=401, status="UNAUTHORIZED", error_code=20104, description="expired")

    frame = decode(reply("TM1", status, payload={"backoff_policy": {"reconnect_min_ms": 5}}))

    assert frame is not None
    assert (frame.method, frame.id, frame.status) == ("reply", "TM1", status)
    assert frame.document() == {"backoff_policy": {"reconnect_min_ms": 5}}


def test_init_has_the_members_that_the_npm_client_sends():
    frame = decode(init("TM1", "the-token", metadata={"sdk": "x"}))

    assert frame is not None
    assert {**frame.header} == {
        "method": "init",
        "id": "TM1",
        "token": "the-token",
        "continuation_token": None,
        "metadata": {"sdk": "x"},
        "registrations": None,
        "tweaks": None,
        "capabilities": ["client_update"],
        "payload_size": 0,
    }


def test_the_server_says_goodbye_with_a_reason_and_the_client_without():
    said = [decode(close("TM1")), decode(close("TM2", Status(code=410)))]

    assert [frame and (frame.method, frame.status.code) for frame in said] == [
        ("close", None),
        ("close", 410),
    ]


def test_the_warning_of_expiry_is_a_client_update():
    frame = decode(about_to_expire("TM1"))

    assert frame is not None
    assert (frame.method, frame.text("client_update_type")) == ("client_update", "token_about_to_expire")


def test_a_frame_shows_neither_its_header_nor_its_payload():
    frame = decode(init("TM1", "the-token", metadata={}))

    assert "the-token" not in repr(frame)
