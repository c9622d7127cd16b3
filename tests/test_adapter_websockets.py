"""`token_keeper.adapters.websockets` with the real websockets, asyncio and sync."""

import asyncio
import logging
import traceback
from contextlib import asynccontextmanager, contextmanager

import pytest
from guarded_feed import GuardedFeed
from guarding import QUICK, FiveChecks, keeping, loop_in_thread
from websockets.exceptions import ConnectionClosed, InvalidStatus

from token_keeper import AsyncTokenKeeper, ConfigError, HttpSource, TokenUnavailable, Verdict
from token_keeper.adapters.websockets import connect, connect_sync, denied
from token_keeper.testing import FakeBackend


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def feed(backend):
    with GuardedFeed(backend) as feed:
        yield feed


def ws(url):
    return url.replace("http", "ws", 1)


class FiveChecksOfFeeds(FiveChecks):
    @pytest.fixture
    def api(self, backend):
        with GuardedFeed(backend) as feed:
            yield feed


class TestAsyncioConnect(FiveChecksOfFeeds):
    @contextmanager
    def calling(self, keeper, api):
        async def call(url):
            try:
                async with connect(keeper, ws(url), origins=api.origin, proxy=None):
                    return 200
            except InvalidStatus as answer:
                return answer.response.status_code

        with loop_in_thread() as run:
            yield lambda url: run(call(url))


class TestSyncConnect(FiveChecksOfFeeds):
    @contextmanager
    def calling(self, keeper, api):
        def call(url):
            try:
                with connect_sync(keeper, ws(url), origins=api.origin, proxy=None, close_timeout=1):
                    return 200
            except InvalidStatus as answer:
                return answer.response.status_code

        yield call

    def try_elsewhere(self, call, api, other):
        # websockets.sync follows redirects since 17.1 only.
        for url in (f"{api.origin}/away", f"{other.origin}/things", f"{other.origin}/open"):
            call(url)
        api.elsewhere = f"{other.origin}/things"
        call(f"{api.origin}/away")
        assert len(other.seen) >= 2


@asynccontextmanager
async def async_keeper(backend, **options):
    async with AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK, **options) as keeper:
        yield keeper


def test_each_reconnect_sends_the_token_of_that_moment(backend, feed):
    async def follow():
        async with async_keeper(backend) as keeper:
            held = []
            async for websocket in connect(keeper, feed.uri, proxy=None):
                held.append(keeper.token)
                await websocket.close()
                if len(held) == 3:
                    break
                await keeper.refresh()
            return held

    held = asyncio.run(follow())

    assert len(set(held)) == 3
    assert list(feed.seen) == held


def test_a_reconnect_after_a_redirect_to_another_server_still_has_no_token_there(backend, feed):
    async def follow(elsewhere):
        feed.elsewhere = elsewhere
        async with async_keeper(backend) as keeper:
            opened = 0
            async for websocket in connect(keeper, ws(f"{feed.origin}/away"), proxy=None):
                opened += 1
                await websocket.close()
                if opened == 2:
                    return

    with GuardedFeed() as other:
        asyncio.run(follow(f"{other.origin}/open"))

        assert set(other.seen) == {None}
    assert set(feed.seen) == set(backend.issued)


def test_a_reconnect_after_a_redirect_within_the_origin_has_the_current_token(backend, feed):
    feed.elsewhere = f"{feed.origin}/there"

    async def follow():
        async with async_keeper(backend) as keeper:
            held = []
            async for websocket in connect(keeper, ws(f"{feed.origin}/away"), proxy=None):
                held.append((await websocket.recv(), keeper.token))
                await websocket.close()
                if len(held) == 2:
                    break
                await keeper.refresh()
            return held

    assert asyncio.run(follow()) == [("/there", token) for token in backend.issued]


def test_a_connection_that_is_closed_for_its_token_is_opened_again_with_another_one(backend, feed):
    async def follow():
        async with async_keeper(backend) as keeper:
            codes = []
            async for websocket in connect(keeper, ws(f"{feed.origin}/closes"), proxy=None):
                await websocket.recv()
                if codes:
                    await websocket.close()
                    break
                feed.revoke_all()
                try:
                    await websocket.send("go on")
                    await websocket.recv()
                except ConnectionClosed:
                    codes += [websocket.close_code, denied(keeper, websocket)]
            return codes

    assert asyncio.run(follow()) == [4401, Verdict.DENIED]
    assert list(feed.seen) == list(backend.issued)
    assert len(backend.issued) == 2


def test_a_blocking_connection_that_is_closed_for_its_token_is_opened_again_with_another_one(backend, feed):
    uri = ws(f"{feed.origin}/closes")
    with keeping(backend) as keeper:
        with connect_sync(keeper, uri, proxy=None) as websocket:
            websocket.recv()
            feed.revoke_all()
            websocket.send("go on")
            with pytest.raises(ConnectionClosed):
                websocket.recv()
            assert denied(keeper, websocket) is Verdict.DENIED
        with connect_sync(keeper, uri, proxy=None) as websocket:
            assert websocket.recv() == "/closes"

    assert list(feed.seen) == list(backend.issued)


def test_the_reporter_is_the_origin_unless_it_is_named(backend, feed):
    async def deny():
        async with async_keeper(backend) as keeper:
            backend.down()
            async with connect(keeper, feed.uri, proxy=None) as websocket:
                denied(keeper, websocket, code=4401)
                denied(keeper, websocket, by="feed")
            return keeper.snapshot.denied_by

    assert set(asyncio.run(deny())) == {feed.origin, "feed"}


def test_a_loop_of_reconnects_outlives_a_server_that_refuses_two_tokens_in_a_row(backend, feed):
    refused = []

    async def follow():
        async with async_keeper(backend) as keeper:
            feed.revoke_all()

            @keeper.on("tokenUpdated")
            def revoke(event):
                if event.generation == 2:
                    refused.append(event.generation)
                    feed.revoke_all()

            connecting = connect(keeper, feed.uri, proxy=None)
            await anext_at_once(connecting)

    asyncio.run(follow())

    assert refused == [2]
    assert len(set(feed.seen)) >= 3
    assert feed.statuses[-1] == 200


async def anext_at_once(connecting):
    """Wait for the next connection, and for its pauses only some milliseconds."""
    judge = connecting._process
    assert judge(TokenUnavailable("none")) is None
    while True:
        try:
            async with connecting as websocket:
                await websocket.recv()
                return
        except InvalidStatus as error:
            # What `async for` asks before it pauses for some seconds.
            if judge(error) is not None:
                raise


def test_a_loop_of_reconnects_ends_with_the_refusal_once_the_keeper_gave_up(backend, feed):
    async def follow():
        async with async_keeper(backend) as keeper:
            feed.refuse_all()
            connecting = connect(keeper, feed.uri, proxy=None, timeout=0.05)
            for _ in range(20):
                try:
                    await connecting
                except InvalidStatus as error:
                    if connecting._process(error) is error:
                        return
                except TokenUnavailable:
                    await keeper.refresh()

    asyncio.run(follow())

    assert 2 <= len(set(feed.seen)) <= 20


def test_other_failures_are_judged_by_websockets_or_by_who_connects(backend, feed):
    judged = []

    async def follow():
        async with async_keeper(backend) as keeper:
            uri = ws(f"{feed.origin}/forbidden")
            async for _ in connect(
                keeper, uri, proxy=None, process_exception=lambda e: judged.append(e) or e
            ):
                raise AssertionError

    with pytest.raises(InvalidStatus):
        asyncio.run(follow())
    assert [error.response.status_code for error in judged] == [403]


def test_other_headers_are_sent_as_well_and_the_token_takes_the_place_of_one(backend, feed):
    headers = {"Authorization": "Bearer own", "X-Trace": "7"}

    async def open_one():
        async with (
            async_keeper(backend) as keeper,
            connect(keeper, feed.uri, proxy=None, additional_headers=list(headers.items())) as websocket,
        ):
            return websocket.request.headers["X-Trace"]

    assert asyncio.run(open_one()) == "7"
    with (
        keeping(backend) as keeper,
        connect_sync(keeper, feed.uri, proxy=None, additional_headers=headers) as websocket,
    ):
        assert websocket.request.headers["X-Trace"] == "7"
    assert list(feed.seen) == list(backend.issued)


def test_the_servers_refusal_stands_if_no_other_token_comes(backend, feed):
    with keeping(backend) as keeper:
        backend.down()
        feed.revoke_all()

        with pytest.raises(InvalidStatus):
            connect_sync(keeper, feed.uri, proxy=None, timeout=0.1)

        async def open_one():
            await connect(keeper, feed.uri, proxy=None, timeout=0.1, by="another")

        with pytest.raises(InvalidStatus):
            asyncio.run(open_one())


def test_a_handshake_without_any_token_says_so(backend, feed):
    backend.down()
    with keeping(backend, start_timeout=0) as keeper:
        with pytest.raises(TokenUnavailable):
            connect_sync(keeper, feed.uri, timeout=0.05)

        async def open_one():
            await connect(keeper, feed.uri, timeout=0.05)

        with pytest.raises(TokenUnavailable):
            asyncio.run(open_one())
    assert len(feed.seen) == 0


def test_a_server_that_is_not_named_gets_no_token(backend, feed):
    with (
        keeping(backend) as keeper,
        connect_sync(
            keeper, ws(f"{feed.origin}/open"), proxy=None, origins="https://api.example"
        ) as websocket,
    ):
        assert denied(keeper, websocket) is Verdict.SUPERSEDED
    assert list(feed.seen) == [None]


def test_no_frame_of_a_refused_handshake_shows_the_token(backend, feed, caplog):
    caplog.set_level(logging.INFO)
    with keeping(backend) as keeper:
        feed.refuse_all()
        errors = []

        async def open_one():
            await connect(keeper, feed.uri, proxy=None)

        def open_blocking():
            connect_sync(keeper, feed.uri, proxy=None, timeout=0.05, by="another")

        for attempt in (lambda: asyncio.run(open_one()), open_blocking):
            with pytest.raises(InvalidStatus) as caught:
                attempt()
            errors.append(caught.value)

    shown = caplog.text
    for error in errors:
        shown += "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "token_keeper/adapters/websockets.py" in shown
    assert [token for token in backend.issued if token in shown] == []


@pytest.mark.parametrize("opening", [connect, connect_sync])
def test_arguments_that_cannot_work_are_named(backend, opening):
    with keeping(backend) as keeper:
        with pytest.raises(ConfigError, match="uri") as caught:
            opening(keeper, "ws://somebody:pass-word@127.0.0.1:9/")
        assert "pass-word" not in str(caught.value)
        with pytest.raises(ConfigError, match="timeout"):
            opening(keeper, "ws://127.0.0.1:9/", timeout=-1)
