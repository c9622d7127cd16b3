"""Bad answers and bad networks, over real sockets: each has its own clear error."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
import zlib

import httpx
import pytest
import trustme
from fetching import failure, fetch, raw, server_tls

from token_keeper._errors import RefusedError, ResponseError, TransientFetchError
from token_keeper.sources import HttpSource
from token_keeper.testing import FakeBackend

NOW = 1_800_000_000.0


@pytest.fixture
def backend():
    with FakeBackend(clock=lambda: NOW) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("html", "HTML"),
        ("empty", "is empty"),
        ("not_json", "starts like JSON"),
        ("huge", "larger than 1 MiB"),
        ("endless", "larger than 1 MiB"),
        ("gzip_bomb", "larger than 1 MiB"),
    ],
)
def test_a_success_without_a_token_is_a_response_error(backend, fault, said):
    backend.fail(fault)
    error = failure(HttpSource(backend.url), tries=3)

    assert isinstance(error, ResponseError)
    assert said in str(error)
    assert "a valid token stays" in str(error)
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    ("body", "path", "said"),
    [
        ({"message": "hello"}, None, "an object with message"),
        ({"data": {"token": "t"}}, "data.tokne", "finds nothing"),
        ({"token": "one", "jwt": "two"}, None, "token and jwt"),
        ({"error": "invalid_grant"}, None, "the error invalid_grant"),
        (b"\xff\xfe\x00", None, "UTF-8"),
        (b"\x1f\x8b", None, "UTF-8"),
    ],
)
def test_a_wrong_document_says_what_was_found(backend, body, path, said):
    backend.answer(body=body)
    error = failure(HttpSource(backend.url, token_path=path))

    assert isinstance(error, ResponseError)
    assert said in str(error)


def test_no_content_is_a_response_error(backend):
    backend.answer(status=204, headers={"Content-Length": None})

    assert "is empty" in str(failure(HttpSource(backend.url)))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b'{"token": "opaque-1"}', mtime=0)),
        ("deflate", zlib.compress(b'{"token": "opaque-1"}')),
        ("deflate", zlib.compress(b'{"token": "opaque-1"}', wbits=-15)),
        ("identity", b'{"token": "opaque-1"}'),
    ],
)
def test_a_body_that_was_compressed_unasked_is_read(backend, encoding, body):
    backend.answer(body=body, headers={"Content-Encoding": encoding})

    assert raw(HttpSource(backend.url)) == "opaque-1"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", b"opaque-1"),
        ("gzip, gzip", b"opaque-1"),
        ("gzip", b"opaque-1"),
        ("deflate", b"opaque-1"),
        ("gzip", gzip.compress(b'{"token": "opaque-1"}', mtime=0)[:-12]),
    ],
)
def test_a_body_that_cannot_be_decompressed_is_a_response_error(backend, encoding, body):
    backend.answer(body=body, headers={"Content-Encoding": encoding})
    error = failure(HttpSource(backend.url))

    assert isinstance(error, ResponseError)
    assert "opaque-1" not in str(error)


@pytest.mark.parametrize("fault", ["stall_headers", "stall_body", "drip"])
def test_an_answer_that_never_ends_times_out_as_a_whole(backend, fault):
    backend.fail(fault)
    begin = time.monotonic()
    error = failure(HttpSource(backend.url, timeout=0.2))

    assert isinstance(error, TransientFetchError)
    assert error.timed_out
    assert "0.2 s" in str(error)
    assert time.monotonic() - begin < 2


def test_a_reset_in_mid_body_is_transient(backend):
    backend.fail("reset")
    error = failure(HttpSource(backend.url))

    assert isinstance(error, TransientFetchError)
    assert "broke the connection off" in str(error)
    assert not error.timed_out


def test_a_backend_that_is_down_is_transient(backend):
    backend.down()
    error = failure(HttpSource(backend.url))

    assert isinstance(error, TransientFetchError)
    assert "refused the connection" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)


def test_a_host_without_an_address_is_transient():
    error = failure(HttpSource("https://backend.invalid/token"))

    assert isinstance(error, TransientFetchError)
    assert "DNS" in str(error)


def test_an_untrusted_certificate_says_why_and_what_to_do():
    with FakeBackend(ssl_context=server_tls(trustme.CA())) as backend:
        error = failure(HttpSource(backend.url))

    assert isinstance(error, TransientFetchError)
    assert "certificate" in str(error)
    assert "ca_file" in str(error)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert not backend.requests


def test_a_certificate_of_another_host_says_so(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with FakeBackend(ssl_context=server_tls(authority, "other.example")) as backend:
        error = failure(HttpSource(backend.url, ca_file=str(tmp_path / "ca.pem")))

    assert "certificate is not valid for '127.0.0.1'" in str(error)


def test_a_server_that_does_not_speak_tls_is_transient():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        error = failure(HttpSource(url, timeout=0.2))

    assert isinstance(error, TransientFetchError)
    assert error.timed_out


@pytest.mark.parametrize("status", [400, 401, 403, 404])
@pytest.mark.parametrize("code", ["invalid_grant", "invalid_client", "unauthorized_client", "access_denied"])
def test_a_permanent_reason_is_a_refusal(backend, status, code):
    backend.answer(status=status, body={"error": code})
    error = failure(HttpSource(backend.url), tries=3)

    assert isinstance(error, RefusedError)
    assert error.reason == code
    assert len(backend.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "body", ["", "no", {"error": "something_else"}, {"error": {"code": "invalid_grant"}}]
)
def test_a_denial_without_a_known_code_is_an_uncertain_refusal(backend, status, body):
    backend.answer(status=status, body=body, headers={"Retry-After": "7"})
    error = failure(HttpSource(backend.url))

    assert isinstance(error, RefusedError)
    assert error.reason == f"http_{status}"
    assert not error.is_certain
    assert error.retry_after == 7


@pytest.mark.parametrize("status", [401, 403])
def test_the_page_of_a_firewall_is_transient(backend, status):
    backend.answer(status=status, body="\n<!DOCTYPE html><p>Blocked</p>")
    error = failure(HttpSource(backend.url))

    assert isinstance(error, TransientFetchError)
    assert "firewall" in str(error)


@pytest.mark.parametrize("status", [400, 404, 405, 409, 418, 499])
def test_another_4xx_is_transient(backend, status):
    backend.answer(status=status, body={"error": "unsupported"})
    error = failure(HttpSource(backend.url))

    assert isinstance(error, TransientFetchError)
    assert f"answered {status} (unsupported)" in str(error)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_overload_and_outage_are_transient_whatever_the_body_says(backend, status):
    backend.answer(status=status, body={"error": "invalid_grant"})

    assert isinstance(failure(HttpSource(backend.url)), TransientFetchError)


@pytest.mark.parametrize("status", [300, 304, 399])
def test_a_status_that_is_no_answer_is_a_response_error(backend, status):
    backend.answer(status=status)

    assert isinstance(failure(HttpSource(backend.url)), ResponseError)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "Fri, 15 Jan 2027 08:01:00 GMT"}, 60.0),
        ({"Retry-After": "Friday, 15-Jan-27 08:01:00 GMT"}, 60.0),
        ({"Retry-After": "Fri, 15 Jan 2027 07:59:00 GMT"}, None),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "99999999999"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Fri, 99 Jan 99999999999 08:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_clock_of_the_backend(backend, headers, expected):
    backend.answer(status=503, headers=headers)

    assert failure(HttpSource(backend.url)).retry_after == expected


def test_a_retry_date_without_a_date_of_the_answer_is_read_by_our_clock(backend):
    backend.answer(status=503, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT", "Date": None})

    assert failure(HttpSource(backend.url)).retry_after is None


def test_a_transient_failure_is_tried_again_inside_the_fetch(backend):
    backend.answer(status=503, times=2)
    begin = time.monotonic()

    assert raw(HttpSource(backend.url), tries=3) == backend.issued[-1]
    assert len(backend.requests) == 3
    assert 1.5 <= time.monotonic() - begin < 4


def test_no_more_tries_are_made_than_allowed(backend):
    backend.answer(status=503, times=None)

    assert isinstance(failure(HttpSource(backend.url), tries=1), TransientFetchError)
    assert len(backend.requests) == 1


def test_retry_after_ends_the_tries(backend):
    backend.answer(status=503, headers={"Retry-After": "1"}, times=None)

    assert failure(HttpSource(backend.url), tries=3).retry_after == 1
    assert len(backend.requests) == 1


def test_a_redirect_within_the_origin_is_followed_with_the_credentials(backend):
    backend.redirect("/elsewhere?a=1", status=307)
    source = HttpSource(backend.url, json={"key": 1}, headers={"Authorization": "Bearer key"})

    assert raw(source) == backend.issued[-1]
    assert backend.requests[1].path == "/elsewhere?a=1"
    assert backend.requests[1].json() == {"key": 1}
    assert backend.requests[1].headers["authorization"] == "Bearer key"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_is_refused_and_the_credentials_never_arrive_there(backend, status):
    with FakeBackend() as other:
        backend.redirect(other.url, status=status)
        error = failure(HttpSource(backend.url, headers={"X-Key": "canary"}, json={"key": "canary"}), tries=3)

        assert not other.requests
    assert isinstance(error, ResponseError)
    assert "another origin" in str(error)
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "target", ["https://127.0.0.1/", "http://localhost/", "//evil.example/", "http://127.0.0.1/"]
)
def test_another_scheme_host_or_port_is_another_origin(backend, target):
    backend.redirect(target)

    assert "another origin" in str(failure(HttpSource(backend.url)))


def test_redirects_in_a_circle_end(backend):
    backend.redirect("/", times=None)

    assert "more than 5 times" in str(failure(HttpSource(backend.url), tries=3))
    assert len(backend.requests) == 6


@pytest.mark.parametrize("target", ["http://[", "http://a b/", "https://127.0.0.1:99999/"])
def test_a_redirect_to_no_url_at_all_is_a_failed_fetch(backend, target):
    backend.redirect(target)

    assert isinstance(failure(HttpSource(backend.url)), TransientFetchError | ResponseError)


def test_a_function_that_raises_is_a_failed_fetch_that_names_its_setting(backend):
    def unreadable() -> str:
        raise PermissionError("/run/secrets/key")

    error = failure(HttpSource(backend.url, headers={"X-Key": unreadable}))

    assert "headers['X-Key'] raised PermissionError" in str(error)
    assert "/run/secrets" not in str(error)
    assert not backend.requests


@pytest.mark.parametrize("value", ["a\r\nb: c", 3, None, b"bytes"])
def test_a_function_that_returns_what_no_header_can_hold_is_a_failed_fetch(backend, value):
    error = failure(HttpSource(backend.url, headers={"X-Key": lambda: value}))

    assert "headers['X-Key']" in str(error)
    assert not backend.requests


def test_a_function_that_hangs_times_out(backend):
    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    error = failure(HttpSource(backend.url, params={"key": hang}, timeout=0.1))

    assert error.timed_out
    assert "a function for headers, params, json, data or auth did not return within 0.1 s" in str(error)
    assert "raise timeout" in str(error)


@pytest.mark.parametrize("settings", [{"json": object}, {"data": lambda: 3}, {"auth": lambda: 3}])
def test_a_function_that_returns_nonsense_is_a_failed_fetch(backend, settings):
    assert isinstance(failure(HttpSource(backend.url, **settings)), TransientFetchError)


def test_a_proxy_that_needs_another_package_is_a_failed_fetch_that_says_which():
    error = failure(HttpSource("https://backend.example/", proxy="socks5://127.0.0.1:1"))

    assert isinstance(error, TransientFetchError)
    assert "__cause__" in str(error)
    assert "socksio" in str(error.__cause__)


def test_what_an_auth_reads_is_bounded_too(backend):
    class ReadsAll(httpx.Auth):
        requires_response_body = True

        def auth_flow(self, request):
            yield request

    backend.fail("endless")
    assert "larger than 1 MiB" in str(failure(HttpSource(backend.url, auth=ReadsAll())))
    assert raw(HttpSource(backend.url, auth=ReadsAll())) == backend.issued[-1]


def test_a_cancelled_fetch_is_cancelled_and_the_next_one_works(backend):
    async def cancel_one() -> str:
        source = HttpSource(backend.url)
        try:
            backend.fail("stall_headers")
            task = asyncio.create_task(source.fetch())
            await asyncio.to_thread(backend.wait_for_requests, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await source.fetch()).secret.reveal()
        finally:
            await source.aclose()

    assert asyncio.run(cancel_one()) == backend.issued[-1]


def test_a_failure_leaves_nothing_behind_for_the_next_fetch(backend):
    source = HttpSource(backend.url, timeout=0.2)
    for fault in ("reset", "stall_body", "huge"):
        backend.fail(fault)
        failure(source)

    assert fetch(source).secret.reveal() == backend.issued[-1]
