"""python-socketio takes its token from a keeper: its own clients against its own server."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import socketio
from guarding import QUICK, keeping, until
from socketio_server import SocketIoServer

from token_keeper import AsyncTokenKeeper, ConfigError, HttpSource, TokenKeeper, TokenUnavailable
from token_keeper.adapters.socketio import KeeperAsyncClient, KeeperClient
from token_keeper.testing import FakeBackend

FAST = {"reconnection_delay": 0.02, "reconnection_delay_max": 0.05, "randomization_factor": 0}
ONLY_WS = {"transports": ["websocket"]}


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def server(backend):
    with SocketIoServer(backend) as server:
        yield server


@contextmanager
def connected(keeper, server, **options):
    sio = KeeperClient(keeper, **FAST, **options)
    sio.connect(server.url, **ONLY_WS)
    try:
        yield sio
    finally:
        sio.shutdown()


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 20))


def reconnected(sio, server, connects):
    """Wait for it. The SDK's shutdown() is for clients that know that they are connected."""
    until(lambda: len(server.seen) == connects and len(server.live) == 1 and sio.connected)


async def awaited(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the SDK has no event for it
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]], ids=["ws", "polling"])
def test_the_token_is_used(backend, server, transports):
    with keeping(backend) as keeper:
        sio = KeeperClient(keeper)
        sio.connect(server.url, transports=transports)
        answer = sio.call("echo", "hello")
        sio.shutdown()

        assert answer == "hello"
        assert list(server.seen) == [keeper.token]


def test_the_async_client_uses_the_token(backend, server):
    async def main(keeper):
        sio = KeeperAsyncClient(keeper)
        await sio.connect(server.url, **ONLY_WS)
        answer = await sio.call("echo", "hello")
        await sio.shutdown()
        return answer

    with keeping(backend) as keeper:
        assert run(lambda: main(keeper)) == "hello"
        assert list(server.seen) == [keeper.token]


def test_an_async_keeper_serves_an_async_client_in_its_own_loop(backend, server):
    async def main():
        async with AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK) as keeper:
            server.revoke_all()
            sio = KeeperAsyncClient(keeper)
            await sio.connect(server.url, **ONLY_WS)
            await sio.shutdown()
            return keeper.token

    assert run(main) == server.seen[-1]
    assert len(server.seen) == 2


def test_renewals_under_load_fail_no_call_and_the_next_connect_shows_the_newest(backend, server):
    with keeping(backend) as keeper, connected(keeper, server) as sio:
        done = threading.Event()

        def load():
            answers = set()
            while not done.is_set():
                answers.add(sio.call("echo", "hello", timeout=5))
            return answers

        with ThreadPoolExecutor(1) as threads:
            answers = threads.submit(load)
            for _ in range(4):
                keeper.refresh()
            done.set()
            assert answers.result() == {"hello"}

        server.drop_all()
        reconnected(sio, server, 2)
        assert server.seen[1] == keeper.token
        assert server.seen[0] != keeper.token


def test_twenty_refused_clients_cause_one_refresh_and_all_connect(backend, server):
    async def main(keeper):
        clients = [KeeperAsyncClient(keeper) for _ in range(20)]
        await asyncio.gather(*(sio.connect(server.url, wait_timeout=10, **ONLY_WS) for sio in clients))
        live = len(server.live)
        await asyncio.gather(*(sio.shutdown() for sio in clients))
        return live

    with keeping(backend) as keeper:
        server.revoke_all()

        assert run(lambda: main(keeper)) == 20
        assert len(backend.issued) == 2
        assert set(server.seen) == set(backend.issued)


def test_a_blocking_client_that_is_refused_connects_with_another_token(backend, server):
    with keeping(backend) as keeper:
        server.revoke_all()
        with connected(keeper, server):
            assert server.seen[1] == keeper.token
            assert keeper.snapshot.denied_by == ()


def test_a_reconnect_that_is_refused_shows_another_token(backend, server):
    with keeping(backend) as keeper, connected(keeper, server) as sio:
        server.revoke_all()
        server.drop_all()
        reconnected(sio, server, 3)

        assert list(server.seen) == [backend.issued[0], *backend.issued]
        assert len(backend.issued) == 2


def test_while_the_backend_is_down_reconnects_go_on_with_the_valid_token(backend, server):
    with keeping(backend) as keeper, connected(keeper, server) as sio:
        backend.down()
        with pytest.raises(Exception, match="token"):
            keeper.refresh(timeout=2)
        for connects in (2, 3):
            server.drop_all()
            reconnected(sio, server, connects)

        assert set(server.seen) == {keeper.token}


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "refusing"])
def test_another_origin_never_sees_the_token(backend, server, is_open):
    with keeping(backend) as keeper, connected(keeper, server) as sio, SocketIoServer() as other:
        sio.disconnect()
        other.refuses_all = not is_open
        with pytest.raises(socketio.exceptions.ConnectionError):
            sio.connect(other.url, **ONLY_WS)

        assert list(other.seen) == [None]
        assert keeper.snapshot.denied_by == ()
        assert len(backend.issued) == 1


def test_a_server_that_refuses_everything_gets_one_more_try_and_its_refusal_is_raised(backend, server):
    with keeping(backend) as keeper:
        server.refuses_all = True
        sio = KeeperClient(keeper)
        with pytest.raises(socketio.exceptions.ConnectionError, match="namespaces failed to connect"):
            sio.connect(server.url, **ONLY_WS)

        assert list(server.seen) == list(backend.issued)[:2]


def test_a_refusal_that_is_not_about_the_token_is_no_denial(backend, server):
    with keeping(backend) as keeper:
        server.refuses_all = True
        server.says = ("the room is full",)
        sio = KeeperClient(keeper, denies=lambda said: "token" in said["message"])
        with pytest.raises(socketio.exceptions.ConnectionError):
            sio.connect(server.url, **ONLY_WS)

        assert server.seen == backend.issued
        assert keeper.snapshot.denied_by == ()


def test_without_another_token_in_time_the_servers_refusal_is_raised(backend, server):
    with keeping(backend) as keeper:
        server.revoke_all()
        backend.down()
        sio = KeeperClient(keeper, timeout=0.1)
        with pytest.raises(socketio.exceptions.ConnectionError, match="namespaces failed to connect"):
            sio.connect(server.url, **ONLY_WS)

        assert len(server.seen) == 1
        assert keeper.snapshot.denied_by == (server.url,)


def test_without_any_token_connecting_says_why(server):
    with TokenKeeper() as keeper:
        sio = KeeperClient(keeper, timeout=0.05)
        with pytest.raises(TokenUnavailable, match="there is no source"):
            sio.connect(server.url, **ONLY_WS)

        assert list(server.seen) == []


def test_a_reconnect_outlasts_the_time_without_a_token(backend, server):
    with keeping(backend) as keeper, connected(keeper, server, timeout=0.05) as sio:
        backend.down()
        sio.report_denied()
        server.drop_all()
        until(lambda: not server.live)
        backend.up()
        reconnected(sio, server, 2)

        assert server.seen == backend.issued


def test_a_client_that_the_server_ended_connects_again_when_the_application_says_so(backend, server):
    async def main(keeper):
        sio = KeeperAsyncClient(keeper, **FAST)
        reasons = []
        sio.on("disconnect", reasons.append)
        await sio.connect(server.url, **ONLY_WS)
        server.revoke_all()
        await asyncio.to_thread(server.kick_all)
        await awaited(lambda: not sio.connected)
        sio.report_denied(code="revoked")
        await awaited(lambda: sio.eio.state == "disconnected")
        await sio.connect(server.url, **ONLY_WS)
        await sio.shutdown()
        return reasons[0]

    with keeping(backend) as keeper:
        assert run(lambda: main(keeper)) == KeeperAsyncClient.reason.SERVER_DISCONNECT
        assert server.seen == backend.issued
        assert len(backend.issued) == 2


def test_the_application_makes_what_is_sent_out_of_the_token(backend, server):
    with keeping(backend) as keeper, connected(keeper, server, auth=lambda raw: {"token": raw, "room": 1}):
        assert list(server.seen) == [keeper.token]


def test_a_url_may_be_a_function_that_is_asked_at_each_connect(backend, server):
    asked = []

    def url():
        asked.append(1)
        return server.url

    with keeping(backend) as keeper:
        sio = KeeperClient(keeper, **FAST)
        sio.connect(url, **ONLY_WS)
        server.drop_all()
        reconnected(sio, server, 2)
        sio.shutdown()

    assert len(asked) == 2


def test_arguments_that_cannot_work_are_named(backend):
    with keeping(backend) as keeper:
        with pytest.raises(ConfigError, match="auth: comes from the keeper"):
            KeeperClient(keeper).connect("http://127.0.0.1:1", auth={"token": "x"})
        with pytest.raises(ConfigError, match="auth: must be a function"):
            KeeperClient(keeper, auth={"token": "x"})
        with pytest.raises(ConfigError, match="timeout"):
            KeeperAsyncClient(keeper, timeout=-1)


def test_the_token_is_in_no_log_and_no_repr(backend, server, caplog):
    caplog.set_level(logging.DEBUG)
    with keeping(backend) as keeper:
        server.revoke_all()
        with connected(keeper, server) as sio:
            shown = repr(sio) + repr(vars(sio._shown))

    assert not [raw for raw in backend.issued if raw in caplog.text or raw in shown]
