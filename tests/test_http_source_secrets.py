"""No token and no credential shows in whatever a fetch leaves behind."""

from __future__ import annotations

import asyncio
import logging
import traceback

import httpx
import httpx2
import pytest
from fetching import failure, fetch, shown

from token_keeper.sources import HttpSource
from token_keeper.testing import BackendFault, FakeBackend

CANARY = "canary-0123456789abcdef"


def canary_source(url: str, **settings: object) -> HttpSource:
    return HttpSource(
        f"{url}?key={CANARY}-1",
        headers={"Authorization": f"Bearer {CANARY}-2", "X-Key": lambda: f"{CANARY}-3"},
        params={"q": f"{CANARY}-4", "r": lambda: f"{CANARY}-5"},
        json={"client_secret": f"{CANARY}-6"},
        auth=("user", f"{CANARY}-7"),
        **settings,
    )


@pytest.fixture
def backend():
    with FakeBackend(mint=lambda _: f"{CANARY}-token") as running:
        yield running


@pytest.fixture
def logged(caplog):
    """Everything that anybody logs, at the finest level."""
    caplog.set_level(logging.DEBUG)
    return caplog


def test_a_fetch_logs_no_secret(backend, logged):
    issued = fetch(canary_source(backend.url))

    assert issued.secret.reveal() == f"{CANARY}-token"
    assert "HTTP Request: POST" in logged.text
    assert CANARY not in logged.text
    assert CANARY not in repr(issued)


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_passed_in_client_logs_no_query_either(backend, logged, package):
    async def with_client() -> None:
        async with package.AsyncClient(params={"s": f"{CANARY}-8"}) as client:
            await canary_source(backend.url, client=client).fetch()

    asyncio.run(with_client())

    assert "HTTP Request: POST" in logged.text
    assert CANARY not in logged.text
    assert all(f"{CANARY}-{n}" in backend.requests[0].path for n in (1, 4, 5, 8))


@pytest.mark.parametrize("fault", list(BackendFault))
def test_no_fault_shows_a_secret(backend, logged, fault):
    backend.fail(fault)
    error = failure(canary_source(backend.url, timeout=0.2))

    assert CANARY not in shown(error)
    assert CANARY not in logged.text


@pytest.mark.parametrize(
    "answer",
    [
        {"body": {"token": f"{CANARY} with blanks"}},
        {"body": {"token": f"{CANARY}-1", "jwt": f"{CANARY}-2"}},
        {"body": f'{{"token": "{CANARY}'},
        {"body": f"{CANARY} and more"},
        {"body": {"message": CANARY, "error": f"{CANARY}"}},
        {"body": {"nested": {"very": [CANARY]}}},
        {"status": 400, "body": {"error": f"{CANARY}"}},
        {"status": 401, "body": f"no, {CANARY}"},
        {"status": 503, "body": CANARY, "headers": {"Retry-After": CANARY}},
        {"status": 302, "headers": {"Location": f"https://elsewhere.example/{CANARY}"}},
        {"status": 302, "headers": {"Location": f"http://[{CANARY}"}},
        {"body": CANARY, "headers": {"Content-Encoding": f"{CANARY}"}},
        {"body": CANARY, "headers": {"Content-Length": f"{CANARY}"}},
        {"body": CANARY, "headers": {f"{CANARY} broken": "header"}},
    ],
)
@pytest.mark.parametrize("path", [None, "a.b", "join('-', @)"])
def test_no_bad_answer_shows_itself(backend, answer, path):
    backend.answer(**answer)
    error = failure(canary_source(backend.url, token_path=path))

    assert CANARY not in shown(error)


def test_no_failed_connection_shows_a_secret(backend):
    backend.down()

    assert CANARY not in shown(failure(canary_source(backend.url)))


def test_a_function_that_fails_shows_its_own_exception_and_nothing_else(backend):
    def broken() -> str:
        secret = f"{CANARY}-local"
        raise ValueError(len(secret))

    error = failure(HttpSource(backend.url, headers={"X-Key": broken, "X-Other": CANARY}))

    assert CANARY not in shown(error)
    assert isinstance(error.__cause__, ValueError)
    assert error.__cause__.__traceback__ is None


def test_a_cancelled_fetch_shows_no_secret(backend):
    async def cancel_one() -> str:
        source = canary_source(backend.url)
        backend.fail("stall_headers")
        try:
            async with asyncio.timeout(0.2):
                await source.fetch()
        except TimeoutError as error:
            del source
            return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        return CANARY

    assert CANARY not in asyncio.run(cancel_one())


def test_the_debug_mode_of_asyncio_logs_no_secret(backend, logged):
    async def one() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0  # Everything is slow, so everything is logged.
        source = canary_source(backend.url)
        await source.fetch()
        await source.aclose()

    asyncio.run(one(), debug=True)

    assert "Executing" in logged.text
    assert CANARY not in logged.text


def test_a_source_and_its_parts_have_reprs_without_secrets(backend):
    source = canary_source(backend.url)

    assert CANARY not in repr(source)
    assert CANARY not in repr(vars(source))
