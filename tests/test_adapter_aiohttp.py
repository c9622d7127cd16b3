"""`token_keeper.adapters.aiohttp` with the real aiohttp."""

import asyncio
import io
import traceback
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import aiohttp.web
import pytest
from guarding import QUICK, FiveChecks, GuardedApi, keeping, loop_in_thread

from token_keeper import AsyncTokenKeeper, ConfigError, HttpSource, TokenUnavailable
from token_keeper.adapters.aiohttp import KeeperMiddleware
from token_keeper.testing import FakeBackend


class TestAiohttp(FiveChecks):
    @contextmanager
    def calling(self, keeper, api):  # noqa: ARG002 - the first origin is found out
        async def begin():
            return aiohttp.ClientSession(middlewares=(KeeperMiddleware(keeper),))

        async def call(url):
            async with session.get(url) as answer:
                await answer.read()
                return answer.status

        with loop_in_thread() as run:
            session = run(begin())
            yield lambda url: run(call(url))
            run(session.close())


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api(backend):
    with GuardedApi(backend) as api:
        yield api


@asynccontextmanager
async def session_of(backend, **options):
    """Yield a session with an async keeper, and the keeper."""
    async with (
        AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK) as keeper,
        aiohttp.ClientSession(middlewares=(KeeperMiddleware(keeper, **options),)) as session,
    ):
        yield session, keeper


async def status_of(request):
    async with request as answer:
        await answer.read()
        return answer.status


def form(**parts):
    filled = aiohttp.FormData()
    for name, part in parts.items():
        filled.add_field(name, part, filename=name)
    return filled


BODIES = {
    "bytes": lambda _: b"the-whole",
    "text": lambda _: "the-whole",
    "a form": lambda _: {"body": "the-whole"},
    "a file in memory": lambda _: io.BytesIO(b"the-whole"),
    "a file in a form": lambda path: form(body=path.open("rb")),
    "a file": lambda path: path.open("rb"),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_can_be_sent_again_comes_whole_with_the_other_token(backend, api, tmp_path, body):
    (tmp_path / "body").write_bytes(b"the-whole" * 50_000)

    async def post():
        async with session_of(backend) as (session, _):
            api.revoke_all()
            return await status_of(session.post(api.url, data=BODIES[body](tmp_path / "body")))

    assert asyncio.run(post()) == 200

    first, second = api.bodies
    assert first == second
    assert b"the-whole" in second


def test_a_body_that_is_gone_is_not_sent_again_but_the_denial_is_reported(backend, api):
    async def parts():
        yield b"a"
        yield b"b"

    async def post():
        async with session_of(backend) as (session, _):
            api.revoke_all()
            posted = await status_of(session.post(api.url, data=parts()))
            return posted, await status_of(session.get(api.url))

    assert asyncio.run(post()) == (401, 200)
    assert len(backend.issued) == 2


def test_the_servers_refusal_stands_if_no_other_token_comes(backend, api):
    async def call():
        async with session_of(backend, timeout=0.1) as (session, _):
            backend.down()
            api.revoke_all()
            async with session.get(api.url) as answer:
                return answer.status, await answer.json()

    assert asyncio.run(call()) == (401, {"error": "no"})


def test_a_session_that_raises_for_a_status_raises_only_if_the_retry_is_refused(backend, api):
    async def call():
        async with session_of(backend) as (session, _):
            api.revoke_all()
            return await status_of(session.get(api.url, raise_for_status=True))

    assert asyncio.run(call()) == 200


def test_a_request_without_any_token_says_so(backend, api):
    backend.down()

    async def call(keeper):
        middlewares = (KeeperMiddleware(keeper, timeout=0.05),)
        async with aiohttp.ClientSession(middlewares=middlewares) as session:
            await status_of(session.get(api.url))

    with keeping(backend, start_timeout=0) as keeper, pytest.raises(TokenUnavailable):
        asyncio.run(call(keeper))
    assert len(api.seen) == 0


def test_the_token_takes_the_place_of_a_header_unless_the_request_has_no_middlewares(backend, api):
    own = {"Authorization": "Bearer own"}

    async def call():
        async with session_of(backend) as (session, keeper):
            await status_of(session.get(api.url, headers=own))
            await status_of(session.get(api.url, headers=own, middlewares=()))
            return keeper.token

    held = asyncio.run(call())

    assert list(api.seen) == [held, "own"]


@asynccontextmanager
async def websocket_server(accepts):
    """Yield the URL of a server of WebSockets that opens those with a token that it *accepts*."""

    async def answer(request):
        if not accepts(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            raise aiohttp.web.HTTPUnauthorized
        websocket = aiohttp.web.WebSocketResponse()
        await websocket.prepare(request)
        await websocket.send_str("welcome")
        await websocket.close()
        return websocket

    app = aiohttp.web.Application()
    app.router.add_get("/feed", answer)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    try:
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/feed"
    finally:
        await runner.cleanup()


def test_the_handshake_of_a_websocket_is_refused_and_tried_again_with_another_token(backend, api):
    async def connect():
        async with (
            session_of(backend) as (session, _),
            websocket_server(api.accepts) as url,
        ):
            api.revoke_all()
            async with session.ws_connect(url) as websocket:
                return await websocket.receive_str()

    assert asyncio.run(connect()) == "welcome"
    assert len(backend.issued) == 2


def test_a_server_that_is_lost_leaves_the_error_of_aiohttp_and_no_token_in_its_traceback(backend):
    async def call():
        async with session_of(backend) as (session, _):
            await status_of(session.get("http://127.0.0.1:1/"))

    with pytest.raises(aiohttp.ClientConnectorError) as caught:
        asyncio.run(call())

    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "token_keeper/adapters/aiohttp.py" in shown
    assert [token for token in backend.issued if token in shown] == []


def test_nothing_of_it_shows_the_token(backend, api):
    async def call():
        async with session_of(backend) as (session, keeper):
            await status_of(session.get(api.url))
            (middleware,) = session._middlewares
            return keeper.token, repr(middleware) + repr(vars(middleware))

    token, shown = asyncio.run(call())

    assert token not in shown
    assert api.origin in shown


def test_an_argument_that_cannot_work_is_named(backend):
    with keeping(backend) as keeper, pytest.raises(ConfigError, match="timeout"):
        KeeperMiddleware(keeper, timeout=-1)
