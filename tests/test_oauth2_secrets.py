"""No token, key or secret of an OAuth 2.0 source shows in whatever a fetch leaves behind."""

from __future__ import annotations

import asyncio
import logging
import traceback

import pytest
from authorization_server import AuthorizationServer, Client, Fault
from fetching import failure, fetch, shown
from test_oauth2_grants import a_key

from token_keeper import ConfigError
from token_keeper.sources import HttpSource, OAuth2Source, SignedJwt
from token_keeper.store import MemoryStore
from token_keeper.testing import BackendFault, FakeBackend

CANARY = "canary-0123456789abcdef"
# Nothing of a key may show, not even a line of it.
KEY = a_key("EC")[0]
KEY_LINE = KEY.splitlines()[1]

GRANTS = {
    "client_credentials": {"client_secret": f"{CANARY}-1", "extra": {"hidden": f"{CANARY}-2"}},
    "post": {"client_secret": lambda: f"{CANARY}-1", "auth_method": "post", "extra": {"l": [f"{CANARY}-2"]}},
    "private_key_jwt": {"private_key": KEY},
    "jwt_bearer": {"grant": "jwt_bearer", "assertion": f"{CANARY}-3"},
    "claims": {
        "grant": "jwt_bearer",
        "private_key": lambda: KEY,
        "assertion": {"sub": lambda: f"{CANARY}-4"},
    },
    "token_exchange": {
        "grant": "token_exchange",
        "subject_token": lambda: f"{CANARY}-5",
        "actor_token": f"{CANARY}-6",
    },
    "refresh_token": {"grant": "refresh_token", "refresh_token": f"{CANARY}-7", "stored_as": "chat"},
}
ANSWERS = [
    {"body": {"access_token": f"{CANARY} with blanks", "refresh_token": f"{CANARY}-r"}},
    {"body": f'{{"access_token": "{CANARY}'},
    {"body": f"access_token={CANARY}"},
    {"body": {"error": CANARY, "error_description": CANARY}},
    {"status": 400, "body": {"error": "invalid_grant", "error_description": CANARY}},
    {"status": 400, "body": {"error": "invalid_request", "error_description": CANARY, "error_uri": CANARY}},
    {"status": 401, "body": CANARY, "headers": {"WWW-Authenticate": CANARY}},
    {"status": 503, "body": {"error": CANARY}, "headers": {"Retry-After": CANARY}},
    {"status": 302, "headers": {"Location": f"https://elsewhere.example/{CANARY}"}},
    {"status": 307, "headers": {"Location": f"http://[{CANARY}"}},
    {"body": CANARY, "headers": {"Content-Encoding": CANARY}},
    {"body": CANARY, "headers": {f"{CANARY} broken": "header"}},
]


def canary_source(url, grant, **words):
    given = {"client_id": "robot", "timeout": 0.5} | GRANTS[grant] | words
    if "stored_as" in given:
        given["store"] = MemoryStore()
    return OAuth2Source(f"{url}?key={CANARY}-0", **given)


def shown_below(error):
    """Return what could be shown of *error* but for the frame of the test, which holds what it passed."""
    return shown(error.with_traceback(error.__traceback__.tb_next))


def clean(text):
    return CANARY not in text and KEY_LINE not in text


@pytest.fixture
def backend():
    wrap = {"access_token": f"{CANARY}-token", "refresh_token": f"{CANARY}-next", "expires_in": 3600}
    with FakeBackend(wrap=lambda _: wrap) as running:
        yield running


@pytest.fixture
def logged(caplog):
    """Everything that anybody logs, at the finest level."""
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.mark.parametrize("grant", list(GRANTS))
def test_a_fetch_logs_no_secret(backend, logged, grant):
    source = canary_source(backend.url, grant)
    issued = fetch(source)

    assert issued.secret.reveal() == f"{CANARY}-token"
    assert "HTTP Request: POST" in logged.text
    assert clean(logged.text)
    assert clean(repr(issued) + repr(source))


@pytest.mark.parametrize("grant", list(GRANTS))
def test_no_failed_connection_shows_a_secret(backend, logged, grant):
    backend.down()

    assert clean(shown(failure(canary_source(backend.url, grant))))
    assert clean(logged.text)


@pytest.mark.parametrize("fault", list(BackendFault))
def test_no_fault_shows_a_secret(backend, logged, fault):
    backend.fail(fault)
    error = failure(canary_source(backend.url, "client_credentials", timeout=0.2))

    assert clean(shown(error))
    assert clean(logged.text)


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
@pytest.mark.parametrize("grant", ["client_credentials", "token_exchange", "refresh_token"])
def test_no_bad_answer_shows_itself(backend, grant, answer):
    backend.answer(**answer)

    assert clean(shown(failure(canary_source(backend.url, grant))))


@pytest.mark.parametrize("grant", ["claims", "post"])
def test_a_function_that_fails_shows_its_own_exception_and_nothing_else(backend, grant):
    def broken() -> str:
        secret = f"{CANARY}-local"
        raise ValueError(len(secret))

    word = {"claims": "private_key", "post": "client_secret"}[grant]
    error = failure(canary_source(backend.url, grant, **{word: broken}))

    assert clean(shown(error))
    assert isinstance(error.__cause__, ValueError)
    assert error.__cause__.__traceback__ is None


def test_a_key_that_cannot_be_read_is_not_shown(backend):
    error = failure(canary_source(backend.url, "private_key_jwt", private_key=lambda: KEY[:90] + CANARY))

    assert "private_key" in str(error)
    assert clean(shown(error))


def test_a_cancelled_fetch_shows_no_secret():
    with AuthorizationServer([Client("robot", f"{CANARY}-1")]) as server:
        server.fail(Fault.SLOW)

        async def cancelled() -> str:
            source = canary_source(server.endpoint(), "client_credentials", timeout=5)
            task = asyncio.create_task(source.fetch())
            await asyncio.to_thread(server.arrived.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            await source.aclose()
            rendered = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            return "".join(rendered.format())

        assert clean(asyncio.run(cancelled()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"extra": {"hidden": f"{CANARY}-2", "grant_type": "x"}},
        {"auth_method": "x"},
        {"grant": "x"},
        {"private_key": f"-----BEGIN {CANARY}"},
        {"client_secret": [CANARY]},
        {"token_url": f"https://user:{CANARY}@as.example"},
        {"token_url": f"nonsense {CANARY}"},
        {"scope": "\n"},
        {"refresh_token": CANARY},
        {"proxy": CANARY},
        {"token_path": "not["},
        {"algorithm": "x", "private_key": KEY},
    ],
    ids=range(13),
)
def test_no_wrong_setting_shows_a_secret(wrong):
    given = {"token_url": f"https://as.example/?{CANARY}", "client_id": "a", "client_secret": CANARY}
    with pytest.raises(ConfigError) as caught:
        OAuth2Source(**given | wrong)

    assert clean(shown_below(caught.value))


def test_a_revocation_that_fails_logs_no_secret(backend, logged):
    source = canary_source(
        backend.url, "client_credentials", revoke="access_token", revocation_url=backend.url
    )
    fetch(source)
    backend.answer(status=400, body={"error": CANARY})

    async def retired() -> None:
        await source.retire()
        await source.aclose()

    asyncio.run(retired())

    assert "tokenNotRevoked" in logged.text
    assert clean(logged.text)


def test_a_signed_jwt_shows_neither_itself_nor_its_key(backend, logged):
    signed = SignedJwt(private_key=lambda: KEY, claims={"iss": CANARY})
    fetch(HttpSource(backend.url, headers={"Authorization": signed}))
    sent = backend.requests[0].headers["authorization"]

    assert clean(repr(signed))
    assert sent.startswith("Bearer ey")
    assert sent not in logged.text


def test_a_signed_jwt_that_fails_shows_no_key():
    def broken() -> str:
        return KEY[:100] + CANARY

    with pytest.raises(Exception, match="private_key") as caught:
        SignedJwt(private_key=broken, claims={"iss": CANARY})()

    assert clean(shown(caught.value))
    with pytest.raises(ConfigError) as wrong:
        SignedJwt(private_key=f"-----BEGIN {CANARY}", claims={"iss": CANARY})
    assert clean(shown_below(wrong.value))
