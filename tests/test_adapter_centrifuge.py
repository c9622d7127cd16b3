"""centrifuge-python takes its token from a keeper, over real WebSockets."""

import asyncio
import logging
from collections import deque
from contextlib import asynccontextmanager

import pytest
from centrifuge import ClientEventHandler, ClientState
from centrifugo import INVALID_TOKEN, PERMISSION_DENIED, TOKEN_EXPIRED, Centrifugo
from guarding import QUICK, keeping

from token_keeper import AsyncTokenKeeper, ConfigError, HttpSource, TokenUnavailable
from token_keeper.adapters.centrifuge import KeeperClient
from token_keeper.testing import FakeBackend

FAST = {"min_reconnect_delay": 0.01, "max_reconnect_delay": 0.05, "proxy": None}


class Told(ClientEventHandler):
    """What the SDK tells the application."""

    def __init__(self):
        self.errors = deque()
        self.ends = deque()

    async def on_error(self, ctx):
        self.errors.append(ctx.error)

    async def on_disconnected(self, ctx):
        self.ends.append(ctx.code)


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def server(backend):
    with Centrifugo(backend) as server:
        yield server


@asynccontextmanager
async def client_of(keeper, server, **options):
    client = KeeperClient(keeper, server.url, **{"events": Told(), **FAST, **options})
    try:
        await client.connect()
        yield client
    finally:
        await client.disconnect()


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.002)


def run(main):
    async def whole():
        async with asyncio.timeout(20):
            answer = await main
            # The SDK closes its sockets in tasks of their own.
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
            return answer

    return asyncio.run(whole())


def test_the_token_is_used(backend, server):
    async def main():
        async with client_of(keeper, server) as client:
            return (await client.rpc("echo", {"said": "hello"})).data

    with keeping(backend) as keeper:
        assert run(main()) == {"said": "hello"}
        assert list(server.shown) == [keeper.token]


def test_an_async_keeper_serves_it_in_its_own_loop(backend, server):
    async def main():
        async with AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK) as keeper:
            server.revoke_all()
            async with client_of(keeper, server) as client:
                await client.ready()
                return keeper.token

    assert run(main()) == server.shown[-1]
    assert server.shown == backend.issued


def test_it_is_renewed_under_load_on_the_same_connection_without_a_failed_call(backend):
    async def main():
        async with client_of(keeper, server) as client:
            for _ in range(4):
                await asyncio.to_thread(keeper.refresh)
                fresh = keeper.token
                while fresh not in server.refreshed:
                    assert (await client.rpc("echo", 1)).data == 1

    with Centrifugo(backend, ttl=0.05) as server, keeping(backend) as keeper:
        run(main())

        assert len(server.shown) == 1
        assert set(server.refreshed) >= set(list(backend.issued)[1:])


def test_a_reconnect_shows_the_newest_token(backend, server):
    async def main():
        async with client_of(keeper, server) as client:
            await client.ready()
            await asyncio.to_thread(keeper.refresh)
            await asyncio.to_thread(server.close_all, 3001, "shutdown")
            await until(lambda: len(server.shown) == 2)
            await client.ready()
            return list(client.events.errors)

    with keeping(backend) as keeper:
        assert run(main()) == []
        assert server.shown == backend.issued


@pytest.mark.parametrize("refusal", [TOKEN_EXPIRED, INVALID_TOKEN, 101])
def test_twenty_refused_clients_cause_one_refresh_and_all_connect(backend, server, refusal):
    async def main():
        clients = [KeeperClient(keeper, server.url, **FAST) for _ in range(20)]
        await asyncio.gather(*(client.connect() for client in clients))
        await asyncio.gather(*(client.ready(timeout=10) for client in clients))
        await asyncio.gather(*(client.disconnect() for client in clients))

    with keeping(backend) as keeper:
        server.revoke_all()
        server.refusal = refusal
        run(main())

        assert len(backend.issued) == 2
        assert set(server.shown) == set(backend.issued)
        assert keeper.snapshot.denied_by == ()


@pytest.mark.parametrize("refusal", [TOKEN_EXPIRED, INVALID_TOKEN])
def test_a_refresh_that_is_refused_leads_to_a_connection_with_another_token(backend, refusal):
    async def main():
        async with client_of(keeper, server) as client:
            await client.ready()
            server.refusal = refusal
            server.revoke_all()
            await until(lambda: client.events.ends)
            await client.ready()
            return list(client.events.ends)

    with Centrifugo(backend, ttl=0.05) as server, keeping(backend) as keeper:
        assert run(main()) == [refusal]
        assert server.shown == backend.issued
        assert len(backend.issued) == 2


def test_while_the_backend_is_down_reconnects_go_on_with_the_valid_token(backend, server):
    async def main():
        async with client_of(keeper, server) as client:
            await client.ready()
            for connects in (2, 3):
                await asyncio.to_thread(server.close_all, 3001, "shutdown")
                await until(lambda connects=connects: len(server.shown) == connects)
                await client.ready()

    with keeping(backend) as keeper:
        backend.down()
        with pytest.raises(Exception, match="token"):
            keeper.refresh(timeout=2)
        run(main())

        assert set(server.shown) == {keeper.token}


def test_a_redirect_does_not_take_the_token_to_another_origin(backend, server):
    async def main():
        async with asyncio.timeout(10):
            client = KeeperClient(keeper, server.url, events=Told(), **FAST)
            await client.connect()
            await until(lambda: client.events.errors)
            await client.disconnect()
            return str(client.events.errors[0])

    with keeping(backend) as keeper, Centrifugo(backend) as other:
        server.leads_to = f"{other.url}/there"

        assert "redirects to another origin" in run(main())
        assert list(other.shown) == []


def test_a_redirect_within_the_origin_is_followed(backend, server):
    async def main():
        async with client_of(keeper, server) as client:
            await client.ready()

    with keeping(backend) as keeper:
        server.leads_to = f"{server.url}/there"
        run(main())

        assert list(server.shown) == [keeper.token]


def test_a_server_that_refuses_everything_gets_one_more_try(backend, server):
    async def main():
        async with client_of(keeper, server) as client:
            await until(lambda: client.state is ClientState.DISCONNECTED and len(client.events.ends) == 2)
            return list(client.events.ends)

    with keeping(backend) as keeper:
        server.refuses_all = True
        server.refusal = INVALID_TOKEN

        assert run(main()) == [INVALID_TOKEN] * 2
        assert list(server.shown) == list(backend.issued)[:2]


@pytest.mark.parametrize("refusal", [PERMISSION_DENIED, 3507])
def test_a_missing_right_is_no_denial(backend, server, refusal):
    async def main():
        async with client_of(keeper, server) as client:
            await until(lambda: client.events.ends)
            return list(client.events.ends)

    with keeping(backend) as keeper:
        server.refuses_all = True
        server.refusal = refusal

        assert run(main()) == [refusal]
        assert server.shown == backend.issued
        assert keeper.snapshot.denied_by == ()


def test_codes_of_a_connect_proxy_can_be_denials_too(backend, server):
    async def main():
        async with client_of(keeper, server, denials={4001, 4501}) as client:
            await client.ready()
            server.revoke_all()
            server.refusal = 4501
            await asyncio.to_thread(server.close_all, 4001, "session revoked")
            await until(lambda: len(server.shown) == 2)
            await client.ready()

    with keeping(backend) as keeper:
        run(main())

        assert server.shown == backend.issued


def test_the_timeout_is_that_of_the_sdk(backend):
    async def main():
        dialled = []
        async with await asyncio.start_server(lambda *peer: dialled.append(peer), "127.0.0.1", 0) as silent:
            address = f"ws://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
            client = KeeperClient(keeper, address, Told(), timeout=0.05, **FAST)
            await client.connect()
            # It gives up the handshake, and dials again.
            await until(lambda: len(dialled) > 1)
            await client.disconnect()
            for _, writer in dialled:
                writer.close()

    with keeping(backend) as keeper:
        run(main())


def test_without_a_token_in_time_the_application_is_told_and_the_client_goes_on_trying(backend, server):
    async def main():
        async with client_of(keeper, server, token_timeout=0.05) as client:
            await until(lambda: len(client.events.errors) > 1)
            shown = list(client.events.errors)
            backend.up()
            await client.ready(timeout=10)
            return shown

    with keeping(backend) as keeper:
        server.revoke_all()
        backend.down()
        refusal, missing = run(main())[:2]

        assert refusal.code == TOKEN_EXPIRED
        assert isinstance(missing, TokenUnavailable)


def test_events_that_are_set_later_are_told_too(backend, server):
    async def main():
        async with client_of(keeper, server) as client:
            await client.ready()
            client.events = Told()
            server.revoke_all()
            await asyncio.to_thread(server.close_all, INVALID_TOKEN, "invalid token")
            await until(lambda: client.events.ends)
            await client.ready()

    with keeping(backend) as keeper:
        run(main())

        assert server.shown == backend.issued


def test_arguments_that_cannot_work_are_named(backend):
    with keeping(backend) as keeper:
        for options, named in (
            ({"address": "live.example"}, "address"),
            ({"token": "x"}, "token: comes from the keeper"),
            ({"get_token": None}, "get_token"),
            ({"token_timeout": -1}, "token_timeout"),
        ):
            with pytest.raises(ConfigError, match=named):
                KeeperClient(keeper, **{"address": "ws://127.0.0.1:1", **options})


def test_the_token_is_in_no_repr_and_no_log_above_debug(backend, server, caplog):
    async def main():
        async with client_of(keeper, server) as client:
            await client.ready()
            return repr(client) + repr(vars(client.events)) + repr(vars(client._shown))

    caplog.set_level(logging.INFO)
    with keeping(backend) as keeper:
        server.revoke_all()
        shown = run(main())

    assert not [raw for raw in backend.issued if raw in caplog.text or raw in shown]
