"""Fixtures for your own tests: a keeper with a backend that obeys, and one whose time is yours.

    pytest test_with_fixtures.py

Copy the fixtures into your conftest.py. `fetch_inbox` and `remind` stand for your program.
"""

import asyncio
import itertools
from collections.abc import Iterator

import httpx
import pytest

from token_keeper import AsyncTokenKeeper, HttpSource, TokenKeeper, TokenUnavailable, TransientFetchError
from token_keeper.testing import FakeBackend, ScriptedSource, VirtualClock, mint, run_virtual

HOUR = 3600.0


def fetch_inbox(keeper: TokenKeeper, url: str) -> str:
    """Your program: return what the API says, or why that cannot be asked."""
    try:
        token = keeper.get(timeout=0.1)
    except TokenUnavailable:
        return "no token"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"})
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        keeper.report_denied(token, code=401)
        return "denied"
    return answer.text


async def remind(keeper: AsyncTokenKeeper, *, times: int) -> list[str]:
    """Your program: need a token once an hour; return those that it had."""
    had = []
    for _ in range(times):
        had.append(await keeper.get(timeout=60))
        await asyncio.sleep(HOUR)
    return had


# The whole way, down to the socket: a real backend on this machine, in real time.


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api() -> Iterator[FakeBackend]:
    with FakeBackend() as api:
        api.answer(body="two letters", times=None)
        yield api


@pytest.fixture
def keeper(backend: FakeBackend) -> Iterator[TokenKeeper]:
    with TokenKeeper(HttpSource(backend.url), start_timeout=5) as keeper:
        yield keeper


def test_the_inbox_is_fetched_with_the_token(keeper: TokenKeeper, api: FakeBackend) -> None:
    assert fetch_inbox(keeper, api.url) == "two letters"
    assert api.requests[0].headers["authorization"] == f"Bearer {keeper.token}"


def test_an_outage_of_the_backend_is_not_noticed(
    keeper: TokenKeeper, backend: FakeBackend, api: FakeBackend
) -> None:
    backend.down()
    assert fetch_inbox(keeper, api.url) == "two letters"


def test_a_denied_token_is_not_used_again(
    keeper: TokenKeeper, backend: FakeBackend, api: FakeBackend
) -> None:
    backend.down()
    api.recover()
    api.answer(status=401, times=None)
    assert fetch_inbox(keeper, api.url) == "denied"
    assert fetch_inbox(keeper, api.url) == "no token"


# A day in a second: no socket, no thread, and a clock that jumps to the next timer.


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def source(clock: VirtualClock) -> ScriptedSource:
    """Tokens of an hour; the second fetch fails."""
    serials = itertools.count()

    def issue() -> str:
        return mint(expires_at=clock.wall() + HOUR, jti=str(next(serials)))

    return ScriptedSource(issue, TransientFetchError("the backend is down"), issue)


@pytest.fixture
def virtual_keeper(source: ScriptedSource, clock: VirtualClock) -> AsyncTokenKeeper:
    """A keeper that the test starts, in the event loop of its clock."""
    return AsyncTokenKeeper(source, clock=clock)


def test_every_hour_of_a_day_has_a_token(
    virtual_keeper: AsyncTokenKeeper, source: ScriptedSource, clock: VirtualClock
) -> None:
    async def main() -> list[str]:
        async with virtual_keeper:
            return await remind(virtual_keeper, times=24)

    assert len(set(run_virtual(main, clock))) == 24
    assert len(source.calls) > 24
