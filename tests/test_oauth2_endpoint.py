"""What comes of one request: a grant, or why there is none and whether it may have been acted on."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import closing

import httpx
import httpx2
import pytest
import trustme
from authorization_server import CLIENT_ID, CLIENT_SECRET, AuthorizationServer, Client, Fault
from fetching import fetch, server_tls

from token_keeper import RefusedError, ResponseError, Secret, TransientFetchError
from token_keeper.sources import OAuth2Source
from token_keeper.sources.oauth2._outcomes import Delivery, Granted, NotGranted
from token_keeper.testing import BackendFault, FakeBackend

FIELDS = {"grant_type": "client_credentials"}
ANSWERED = {Fault.BUSY: "503", Fault.GONE: "404", Fault.FOUND: "GET"}
LOST = [
    Fault.DROPPED_BEFORE,
    Fault.DROPPED_AFTER,
    Fault.CUT,
    Fault.BROKEN_BEFORE,
    Fault.BROKEN_AFTER,
    Fault.GARBAGE,
]


@pytest.fixture
def server():
    with AuthorizationServer() as running:
        yield running


@pytest.fixture
def backend():
    with FakeBackend(wrap=lambda token: {"access_token": token, "token_type": "Bearer"}) as running:
        yield running


def a_source(url, **words):
    return OAuth2Source(url, **{"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET} | words)


def exchanged(source, fields=FIELDS):
    """Return what comes of one request of *source*."""

    async def one():
        try:
            return await source._endpoint.exchange(fields)
        finally:
            await source.aclose()

    return asyncio.run(one())


def a_closed_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize("fault", list(ANSWERED), ids=lambda fault: fault.name)
def test_a_server_that_says_no_has_not_acted(server, fault):
    server.fail(fault)
    outcome = exchanged(a_source(server.endpoint()))

    assert outcome.delivery is Delivery.ANSWERED
    assert ANSWERED[fault] in str(outcome.error)
    assert server.counts["issued"] == 0


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault.name)
def test_what_was_sent_and_not_answered_may_have_been_acted_on(server, fault):
    server.fail(fault)
    outcome = exchanged(a_source(server.endpoint()))

    assert isinstance(outcome, NotGranted)
    assert outcome.delivery is Delivery.LOST
    assert len(server.posted()) == 1


def test_a_server_that_is_too_slow_may_have_acted(server):
    server.fail(Fault.SLOW)
    outcome = exchanged(a_source(server.endpoint(), timeout=0.2))

    assert outcome.delivery is Delivery.LOST
    assert outcome.error.timed_out


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_refused_connection_sent_nothing(package):
    async def refused():
        async with package.AsyncClient() as client:
            source = a_source(f"http://127.0.0.1:{a_closed_port()}/token", client=client)
            return await source._endpoint.exchange(FIELDS)

    outcome = asyncio.run(refused())

    assert outcome.delivery is Delivery.NEVER_SENT
    assert "refused the connection" in str(outcome.error)


def test_a_host_without_an_address_was_sent_nothing():
    outcome = exchanged(a_source("https://nowhere.invalid/token"))

    assert outcome.delivery is Delivery.NEVER_SENT


def test_a_certificate_that_is_not_trusted_gets_nothing():
    tls = server_tls(trustme.CA())
    with FakeBackend(ssl_context=tls) as backend:
        outcome = exchanged(a_source(backend.url))

        assert outcome.delivery is Delivery.NEVER_SENT
        assert "ca_file" in str(outcome.error)
        assert not backend.requests


def test_a_server_that_never_ends_its_handshake_was_sent_nothing():
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        url = f"https://127.0.0.1:{deaf.getsockname()[1]}/token"
        outcome = exchanged(a_source(url, timeout=0.3))

    assert outcome.delivery is Delivery.NEVER_SENT
    assert outcome.error.timed_out


def test_a_proxy_that_refuses_was_sent_no_secret():
    with closing(socket.create_server(("127.0.0.1", 0))) as proxy:
        heard = []

        def refuse() -> None:
            connection, _ = proxy.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        outcome = exchanged(a_source("https://as.example/token", proxy=address))
        thread.join()

    assert outcome.delivery is Delivery.NEVER_SENT
    assert heard[0].startswith(b"CONNECT as.example:443")


def test_a_proxy_that_hangs_up_was_sent_no_secret():
    with closing(socket.create_server(("127.0.0.1", 0))) as proxy:

        def hang_up() -> None:
            connection, _ = proxy.accept()
            with connection:
                connection.recv(4096)

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        outcome = exchanged(a_source("https://as.example/token", proxy=address))
        thread.join()

    assert outcome.delivery is Delivery.NEVER_SENT


def test_a_transport_that_tells_nothing_is_judged_by_its_error():
    def transport(error):
        def answer(_: httpx.Request) -> httpx.Response:
            raise error

        return httpx.MockTransport(answer)

    async def with_transport(error):
        async with httpx.AsyncClient(transport=transport(error)) as client:
            source = a_source("https://as.example/token", client=client)
            return await source._endpoint.exchange(FIELDS)

    assert asyncio.run(with_transport(httpx.ConnectError("x"))).delivery is Delivery.NEVER_SENT
    assert asyncio.run(with_transport(httpx.ReadError("x"))).delivery is Delivery.LOST


def test_a_secret_that_cannot_be_read_sends_nothing(server):
    def missing() -> str:
        raise FileNotFoundError

    outcome = exchanged(a_source(server.endpoint(), client_secret=missing))

    assert outcome.delivery is Delivery.NEVER_SENT
    assert "client_secret" in str(outcome.error)
    assert not server.requests


def test_a_secret_that_takes_for_ever_sends_nothing(server):
    async def hanging() -> str:
        await asyncio.Event().wait()
        return ""

    outcome = exchanged(a_source(server.endpoint(), client_secret=hanging, timeout=0.1))

    assert outcome.delivery is Delivery.NEVER_SENT
    assert outcome.error.timed_out


@pytest.mark.parametrize("value", ["", 5, None], ids=["empty", "number", "none"])
def test_a_secret_that_is_none_sends_nothing(server, value):
    outcome = exchanged(a_source(server.endpoint(), client_secret=lambda: value))

    assert outcome.delivery is Delivery.NEVER_SENT
    assert not server.requests


def test_a_certificate_that_is_no_file_sends_nothing(tmp_path):
    source = a_source("https://as.example/token", ca_file=str(tmp_path / "none.pem"))

    assert exchanged(source).delivery is Delivery.NEVER_SENT


def test_a_redirect_within_the_origin_is_followed_with_all_that_was_posted(server):
    server.fail(Fault.SAME_AGAIN)
    outcome = exchanged(a_source(server.endpoint()))

    assert isinstance(outcome, Granted)
    assert [asked.form for asked in server.posted()] == [{"grant_type": ["client_credentials"]}] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_takes_secrets_elsewhere(backend, status):
    with FakeBackend() as elsewhere:
        backend.redirect(elsewhere.url, status=status)
        outcome = exchanged(a_source(backend.url))

        assert isinstance(outcome.error, ResponseError)
        assert outcome.delivery is Delivery.ANSWERED
        assert not elsewhere.requests


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_drops_the_form_is_an_error(backend, status):
    backend.redirect(backend.url, status=status)
    outcome = exchanged(a_source(backend.url))

    assert isinstance(outcome.error, ResponseError)
    assert "GET" in str(outcome.error)
    assert len(backend.requests) == 1


@pytest.mark.parametrize("code", ["invalid_grant", "invalid_client", "unauthorized_client", "access_denied"])
@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_a_permanent_code_is_a_refusal_whatever_the_status(backend, code, status):
    backend.answer(status=status, body={"error": code, "error_description": "no"})
    outcome = exchanged(a_source(backend.url))

    assert isinstance(outcome.error, RefusedError)
    assert outcome.error.reason == outcome.code == code
    assert outcome.delivery is Delivery.ANSWERED


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("invalid_scope", "scope"),
        ("invalid_request", "extra"),
        ("invalid_target", "audience"),
        ("unsupported_grant_type", "grant"),
    ],
)
def test_a_mistake_of_ours_says_what_to_check(backend, code, word):
    backend.answer(status=400, body={"error": code})
    outcome = exchanged(a_source(backend.url))

    assert isinstance(outcome.error, ResponseError)
    assert f"({code})" in str(outcome.error)
    assert f"Check {word}" in str(outcome.error) or word in str(outcome.error)


@pytest.mark.parametrize("status", [400, 403, 428, 429, 503])
@pytest.mark.parametrize("code", ["slow_down", "authorization_pending", "temporarily_unavailable"])
def test_a_code_that_passes_is_known_whatever_the_status(backend, code, status):
    backend.answer(status=status, body={"error": code}, headers={"Retry-After": "7"})
    outcome = exchanged(a_source(backend.url))

    assert isinstance(outcome.error, TransientFetchError)
    assert outcome.code == code
    assert outcome.error.retry_after == 7


def test_a_permanent_code_with_a_status_that_passes_may_pass(backend):
    backend.answer(status=500, body={"error": "invalid_grant"})
    outcome = exchanged(a_source(backend.url))

    assert isinstance(outcome.error, TransientFetchError)
    assert outcome.code == "invalid_grant"
    assert outcome.delivery is Delivery.LOST


@pytest.mark.parametrize("status", [401, 403])
def test_a_denial_without_a_code_is_a_refusal_but_not_on_a_page(backend, status):
    backend.answer(status=status, body={"message": "no"})
    backend_says = exchanged(a_source(backend.url)).error
    backend.answer(status=status, body="<html>no</html>", headers={"Content-Type": "text/html"})
    firewall_says = exchanged(a_source(backend.url)).error

    assert backend_says.reason == f"http_{status}"
    assert isinstance(firewall_says, TransientFetchError)


def test_the_description_of_an_error_is_never_shown(backend):
    backend.answer(status=400, body={"error": "invalid_scope", "error_description": "canary"})

    assert "canary" not in str(exchanged(a_source(backend.url)).error)


@pytest.mark.parametrize(
    "body",
    [
        "OK",
        "",
        "access_token=a&token_type=bearer",
        ["a"],
        '{"access_token": "cut',
        {"access_token": "a" * 1_100_000},
    ],
    ids=range(6),
)
def test_a_success_that_cannot_be_read_may_have_been_acted_on(backend, body):
    backend.answer(body=body)
    outcome = exchanged(a_source(backend.url))

    assert isinstance(outcome.error, ResponseError)
    assert outcome.delivery is Delivery.LOST


@pytest.mark.parametrize(
    "members", [{}, {"token_type": "Bearer"}, {"access_token": 5}, {"access_token": "two words"}]
)
def test_a_success_without_a_token_still_says_the_next_refresh_token(backend, members):
    backend.answer(body=members | {"refresh_token": "r"})
    outcome = exchanged(a_source(backend.url))

    assert isinstance(outcome.error, ResponseError)
    assert outcome.delivery is Delivery.ANSWERED
    assert outcome.refresh_token == Secret("r")


def test_all_that_stands_beside_the_token_is_returned(backend):
    answer = {"access_token": "a", "refresh_token": "r", "scope": "read", "expires_in": "60", "id_token": "i"}
    backend.answer(body=answer)
    outcome = exchanged(a_source(backend.url))

    assert outcome.issued.secret == Secret("a")
    assert outcome.issued.expires_in == 60
    assert outcome.refresh_token == Secret("r")
    assert outcome.scope == "read"
    assert outcome.issued.server_time is not None


@pytest.mark.parametrize("odd", [5, "", None, ["r"]], ids=["number", "empty", "null", "list"])
def test_a_refresh_token_that_is_none_is_not_said(backend, odd):
    backend.answer(body={"access_token": "a", "refresh_token": odd, "scope": odd})

    assert exchanged(a_source(backend.url)).refresh_token is None


def test_the_token_is_found_by_its_path(backend):
    backend.answer(body={"access_token": "a", "inner": {"jwt": "b", "life": 9}})
    outcome = exchanged(a_source(backend.url, token_path="inner.jwt", expires_path="inner.life"))

    assert outcome.issued.secret == Secret("b")
    assert outcome.issued.expires_in == 9


@pytest.mark.parametrize("fault", list(BackendFault))
def test_no_fault_is_raised(backend, fault):
    backend.fail(fault)
    outcome = exchanged(a_source(backend.url, timeout=0.3))

    assert isinstance(outcome, Granted | NotGranted)


def test_a_cancelled_exchange_is_cancelled(server):
    server.fail(Fault.SLOW)

    async def cancelled() -> None:
        source = a_source(server.endpoint())
        task = asyncio.create_task(source._endpoint.exchange(FIELDS))
        await asyncio.to_thread(server.arrived.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await source.aclose()

    asyncio.run(cancelled())


def test_a_fetch_asks_again_at_once_what_may_pass_at_once(server):
    server.fail(Fault.DROPPED_BEFORE)

    assert server.is_active(fetch(a_source(server.endpoint()), tries=2).secret.reveal())
    assert len(server.posted()) == 2


def revoked(source):
    async def given_back():
        try:
            return await source._endpoint.revoke(Secret("t"), "access_token")
        finally:
            await source.aclose()

    return asyncio.run(given_back())


def test_revoking_says_why_it_failed(server):
    words = {"revocation_url": server.endpoint("revocation")}

    assert revoked(a_source(server.endpoint(), **words)) is None
    wrong = a_source(server.endpoint(), client_secret="wrong", **words)
    assert revoked(wrong).reason == "invalid_client"


def test_a_revocation_that_could_not_be_sent_says_why():
    url = f"http://127.0.0.1:{a_closed_port()}/"

    assert "refused the connection" in str(revoked(a_source(url, revocation_url=url)))


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"device_code": ""}, "device_code"),
        ({"user_code": "\x1b[31m"}, "user_code"),
        ({"verification_uri": "javascript:alert(1)"}, "verification_uri"),
        ({"verification_uri": "https://as.example/\x1b"}, "verification_uri"),
        ({"expires_in": None}, "expires"),
    ],
)
def test_a_device_login_that_cannot_be_shown_is_an_error(backend, change, missing):
    good = {"device_code": "d", "user_code": "U", "verification_uri": "https://as.example", "expires_in": 60}
    backend.answer(body=good | change)

    begun = begin_login(backend)

    assert missing in str(begun.error)
    assert "canary" not in str(begun.error)


@pytest.mark.parametrize("answer", [{"status": 403}, {"body": "<html>"}, {"body": "[]"}], ids=range(3))
def test_a_server_that_begins_no_device_login_is_an_error(backend, answer):
    backend.answer(**answer)

    assert isinstance(begin_login(backend), NotGranted)


def test_a_device_login_has_the_usual_interval_if_none_is_said(backend):
    good = {"device_code": "d", "user_code": "U", "verification_url": "https://as.example", "expires_in": 60}
    backend.answer(body=good | {"verification_uri_complete": "file:///etc/passwd"})

    begun = begin_login(backend)

    assert begun.code.interval == 5
    assert begun.code.verification_uri == "https://as.example"
    assert begun.code.verification_uri_complete is None
    assert begun.device_code == Secret("d")


def begin_login(backend):
    from token_keeper.store import MemoryStore

    async def begun():
        source = a_source(
            backend.url,
            grant="device_code",
            device_authorization_url=backend.url,
            store=MemoryStore(),
            stored_as="chat",
        )
        try:
            return await source._endpoint.authorize_device({})
        finally:
            await source.aclose()

    return asyncio.run(begun())


def test_whoever_a_record_belongs_to_is_the_server_and_the_client():
    source = a_source("https://as.example/token?tenant=7")

    assert source._endpoint.owner == f"https://as.example/token {CLIENT_ID}"
    assert source.origin == "https://as.example:443"
    assert repr(source) == "<OAuth2Source https://as.example:443/token client_credentials>"


def test_a_public_client_may_only_do_what_it_may():
    with AuthorizationServer([Client(methods=["client_secret_post"])]) as strict:
        outcome = exchanged(a_source(strict.endpoint()))

    assert outcome.code == "invalid_client"
