"""The fake backend is a real server: what it says and does goes over a real socket."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

import jwt
import pytest
import trustme

from token_keeper.testing import BackendFault, FakeBackend


def ask(backend: FakeBackend, method: str = "GET", body: bytes | None = None, **headers: str) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", urlsplit(backend.url).port, timeout=5)
    try:
        connection.request(method, "/token?user=alice", body=body, headers=headers)
        response = connection.getresponse()
        response.text = response.read().decode()
        return response
    finally:
        connection.close()


def token_from(backend: FakeBackend) -> str:
    return json.loads(ask(backend).text)["token"]


def test_it_issues_tokens_that_differ_and_live_as_long_as_it_was_told():
    with FakeBackend(lifetime=60, clock=lambda: 1_800_000_000.25) as backend:
        tokens = [token_from(backend), token_from(backend)]
        claims = jwt.decode(tokens[0], options={"verify_signature": False})

    assert tokens[0] != tokens[1]
    assert tokens == list(backend.issued)
    assert claims["exp"] - claims["iat"] == 60


def test_its_clock_can_be_off_in_its_tokens_and_its_date():
    with FakeBackend(clock=lambda: 1_800_000_000, clock_offset=-600) as backend:
        response = ask(backend)

    assert parsedate_to_datetime(response.headers["Date"]).timestamp() == 1_800_000_000 - 600
    claims = jwt.decode(json.loads(response.text)["token"], options={"verify_signature": False})
    assert claims["iat"] == 1_800_000_000 - 600


def test_a_mint_and_a_shape_of_ones_own_are_used():
    with FakeBackend(mint=lambda now: f"t{now:.0f}", clock=lambda: 7, wrap=lambda token: token) as backend:
        response = ask(backend)

    assert response.text == "t7"
    assert response.headers["Content-Type"] == "text/plain"


def test_it_records_what_it_was_asked():
    with FakeBackend() as backend:
        ask(backend, "POST", b'{"a": 1}', Authorization="Bearer key")
        backend.wait_for_requests(1)
        request = backend.requests[0]

    assert (request.method, request.path, request.json()) == ("POST", "/token?user=alice", {"a": 1})
    assert request.headers["authorization"] == "Bearer key"
    assert "key" not in repr(request)


def test_ordered_answers_come_in_order_and_then_it_behaves_again():
    with FakeBackend() as backend:
        backend.answer(status=503, headers={"Retry-After": "5"}, times=2)
        backend.answer(body={"error": "x"})
        answers = [ask(backend) for _ in range(4)]

    assert [answer.status for answer in answers] == [503, 503, 200, 200]
    assert answers[0].headers["Retry-After"] == "5"
    assert answers[2].text == '{"error": "x"}'
    assert "token" in answers[3].text


def test_an_order_without_a_number_of_times_holds_until_recover():
    with FakeBackend() as backend:
        backend.answer(status=500, times=None)
        before = [ask(backend).status for _ in range(3)]
        backend.recover()
        after = ask(backend).status

    assert before == [500, 500, 500]
    assert after == 200


def test_a_header_can_be_left_out():
    with FakeBackend() as backend:
        backend.answer(headers={"Date": None})
        assert "Date" not in ask(backend).headers


def test_it_repeats_its_last_token_as_a_cache_does():
    with FakeBackend() as backend:
        first = token_from(backend)
        backend.repeat_last()
        assert token_from(backend) == first
        assert token_from(backend) != first


def test_a_redirect_says_where_to():
    with FakeBackend() as backend:
        backend.redirect("https://elsewhere.example/", status=307)
        response = ask(backend)

    assert (response.status, response.headers["Location"]) == (307, "https://elsewhere.example/")


def test_down_refuses_connections_and_up_serves_at_the_same_port():
    with FakeBackend() as backend:
        url = backend.url
        for _ in range(3):
            backend.down()
            with pytest.raises(ConnectionRefusedError):
                ask(backend)
            backend.up()
            backend.up()
            assert ask(backend).status == 200
        assert backend.url == url


def test_down_drops_open_connections():
    with FakeBackend() as backend:
        backend.fail("stall_headers")
        with socket.create_connection(("127.0.0.1", urlsplit(backend.url).port), timeout=5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            backend.wait_for_requests(1)
            backend.down()
            assert client.recv(1) == b""


@pytest.mark.parametrize(
    ("fault", "said"),
    [("html", "<!doctype html>"), ("empty", ""), ("not_json", '{"token": "')],
)
def test_it_answers_200_with_what_is_no_token(fault, said):
    with FakeBackend() as backend:
        backend.fail(fault)
        response = ask(backend)

    assert response.status == 200
    assert response.text.startswith(said)
    assert "eyJ" not in response.text


def test_a_reset_comes_in_the_middle_of_the_body():
    with FakeBackend() as backend:
        backend.fail(BackendFault.RESET)
        with pytest.raises((ConnectionResetError, HTTPException)):
            ask(backend)


def test_what_is_not_http_is_dropped():
    with FakeBackend() as backend:
        for noise in (b"\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"x" * 100_000):
            with socket.create_connection(("127.0.0.1", urlsplit(backend.url).port), timeout=5) as client:
                client.sendall(noise)
                assert client.recv(1) == b""
        assert ask(backend).status == 200


def test_it_serves_https_with_a_given_certificate():
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)

    with FakeBackend(ssl_context=server) as backend:
        connection = HTTPSConnection("127.0.0.1", urlsplit(backend.url).port, timeout=5, context=client)
        connection.request("GET", "/")
        with connection.getresponse() as response:
            assert response.status == 200
            response.read()
        connection.close()


@pytest.mark.parametrize("fault", list(BackendFault))
def test_it_closes_promptly_whatever_it_is_doing(fault):
    with FakeBackend() as backend:
        backend.fail(fault)
        client = socket.create_connection(("127.0.0.1", urlsplit(backend.url).port), timeout=5)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        backend.wait_for_requests(1)
        begin = time.monotonic()
    took = time.monotonic() - begin
    client.close()

    assert took < 2
    assert not any(thread.name == "fake-backend" for thread in threading.enumerate())


def test_closing_twice_is_harmless_and_a_closed_one_says_what_to_do():
    backend = FakeBackend()
    backend.start()
    backend.close()
    backend.close()

    with pytest.raises(RuntimeError, match="with"):
        backend.down()


def test_waiting_for_requests_that_do_not_come_ends():
    with FakeBackend() as backend, pytest.raises(TimeoutError, match="0 of 1"):
        backend.wait_for_requests(1, timeout=0.01)
