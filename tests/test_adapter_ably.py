"""ably's REST and realtime clients take their token from a keeper, over real sockets."""

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest
from ably.types.connectionstate import ConnectionState
from ably.util.exceptions import AblyException
from ably_server import AUTH, DISCONNECTED, NOT_PERMITTED, TOKEN_EXPIRED, AblyServer
from guarding import QUICK, keeping

from token_keeper import AsyncTokenKeeper, ConfigError, HttpSource, TokenKeeper, TokenUnavailable
from token_keeper.adapters.ably import KeeperRealtime, KeeperRest
from token_keeper.testing import FakeBackend


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def server(backend):
    with AblyServer(backend) as server:
        yield server


async def history(rest):
    return (await rest.channels.get("things").history()).items


@asynccontextmanager
async def connected(keeper, server, **options):
    client = KeeperRealtime(keeper, **server.realtime, **options)
    try:
        await state(client, ConnectionState.CONNECTED)
        yield client
    finally:
        await client.close()


async def state(client, wanted):
    await until(lambda: client.connection.state == wanted)


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.002)


def run(main):
    async def whole():
        async with asyncio.timeout(20):
            answer = await main
            # The SDK closes its sockets in tasks of their own. A timer of its heartbeat may outlive them.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                await asyncio.wait(others, timeout=2)
            return answer

    return asyncio.run(whole())


def test_the_token_is_used(backend, server):
    async def main():
        async with KeeperRest(keeper, **server.rest) as rest:
            return await history(rest)

    with keeping(backend) as keeper:
        assert run(main()) == []
        assert list(server.seen) == [keeper.token]


def test_an_async_keeper_serves_it_in_its_own_loop(backend, server):
    async def main():
        async with (
            AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK) as keeper,
            KeeperRest(keeper, **server.rest) as rest,
        ):
            server.revoke_all()
            return await history(rest)

    assert run(main()) == []
    assert server.seen == backend.issued


def test_it_is_renewed_under_load_without_a_failed_call(backend, server):
    async def main():
        async with KeeperRest(keeper, **server.rest) as rest:
            for _ in range(4):
                await asyncio.to_thread(keeper.refresh)
                answers = await asyncio.gather(*(history(rest) for _ in range(5)))
                assert answers == [[]] * 5
                assert server.seen[-1] == keeper.token

    with keeping(backend) as keeper:
        run(main())

        assert len(set(server.seen)) == 4


def test_twenty_concurrent_refusals_cause_one_refresh_and_all_calls_succeed(backend, server):
    async def main():
        async with KeeperRest(keeper, **server.rest) as rest:
            assert await history(rest) == []
            server.revoke_all()
            return await asyncio.gather(*(history(rest) for _ in range(20)))

    with keeping(backend) as keeper:
        assert run(main()) == [[]] * 20
        assert len(backend.issued) == 2


def test_a_low_level_request_is_answered_by_another_token_too(backend, server):
    async def main():
        async with KeeperRest(keeper, **server.rest) as rest:
            server.revoke_all()
            return await rest.request("GET", "/things", "3")

    with keeping(backend) as keeper:
        assert run(main()).success
        assert server.seen == backend.issued


def test_the_servers_time_is_asked_without_a_token(backend, server):
    async def main():
        async with KeeperRest(keeper, **server.rest) as rest:
            with pytest.raises(AblyException):
                await rest.time()

    with keeping(backend) as keeper:
        run(main())

        assert list(server.seen) == [None]
        assert keeper.snapshot.denied_by == ()


def test_while_the_backend_is_down_calls_go_on_with_the_valid_token(backend, server):
    async def main():
        async with KeeperRest(keeper, **server.rest) as rest:
            return [await history(rest) for _ in range(5)]

    with keeping(backend) as keeper:
        backend.down()
        with pytest.raises(Exception, match="token"):
            keeper.refresh(timeout=2)

        assert run(main()) == [[]] * 5
        assert set(server.seen) == {keeper.token}


def test_a_server_that_refuses_everything_gets_one_retry_and_its_refusal_is_raised(backend, server):
    async def main():
        async with KeeperRest(keeper, **server.rest) as rest:
            with pytest.raises(AblyException) as refused:
                await history(rest)
            return refused.value.code

    with keeping(backend) as keeper:
        server.refuses_all = True

        assert run(main()) == TOKEN_EXPIRED
        assert list(server.seen) == list(backend.issued)[:2]


def test_a_missing_right_is_no_denial(backend, server):
    async def main():
        async with KeeperRest(keeper, **server.rest) as rest:
            with pytest.raises(AblyException) as refused:
                await history(rest)
            return refused.value.code

    with keeping(backend) as keeper:
        server.refuses_all = True
        server.refusal = NOT_PERMITTED

        assert run(main()) == NOT_PERMITTED
        assert server.seen == backend.issued
        assert keeper.snapshot.denied_by == ()


def test_without_another_token_in_time_the_servers_refusal_is_raised(backend, server):
    async def main():
        async with KeeperRest(keeper, timeout=0.05, **server.rest) as rest:
            with pytest.raises(AblyException) as refused:
                await history(rest)
            return refused.value.code

    with keeping(backend) as keeper:
        server.revoke_all()
        backend.down()

        assert run(main()) == TOKEN_EXPIRED
        assert len(server.seen) == 1


def test_without_any_token_the_error_says_why(server):
    async def main():
        async with KeeperRest(keeper, timeout=0.05, **server.rest) as rest:
            with pytest.raises(TokenUnavailable, match="there is no source"):
                await rest.request("GET", "/things", "3")

    with TokenKeeper() as keeper:
        run(main())

        assert list(server.seen) == []


def test_a_new_token_is_shown_on_the_open_connection(backend, server):
    async def main():
        async with connected(keeper, server):
            for _ in range(3):
                await asyncio.to_thread(keeper.refresh)
                await until(lambda: keeper.token in server.shown)

    with keeping(backend) as keeper:
        run(main())

        assert [*server.dialled, *server.shown] == list(backend.issued)


def test_a_connect_that_is_refused_is_tried_at_once_with_another_token(backend, server):
    async def main():
        async with connected(keeper, server):
            assert keeper.snapshot.denied_by == ()

    with keeping(backend) as keeper:
        server.revoke_all()
        run(main())

        assert server.dialled == backend.issued
        assert len(backend.issued) == 2


@pytest.mark.parametrize("times", [1, 2])
def test_a_connection_that_the_server_ends_for_its_token_comes_back_with_another(backend, server, times):
    async def main():
        async with connected(keeper, server) as client:
            for ended in range(times):
                server.revoke_all()
                await asyncio.to_thread(server.tell_all, DISCONNECTED, TOKEN_EXPIRED)
                await until(lambda ended=ended: len(set(server.dialled)) == ended + 2)
                await state(client, ConnectionState.CONNECTED)

    with keeping(backend) as keeper:
        run(main())

        # The SDK shows the second one once more: it asks for another only once in a row.
        assert sorted(set(server.dialled)) == sorted(backend.issued)
        assert len(server.dialled) <= 2 * times


def test_twenty_connections_that_end_at_once_cause_one_refresh(backend, server):
    async def main():
        clients = [KeeperRealtime(keeper, **server.realtime) for _ in range(20)]
        for client in clients:
            await state(client, ConnectionState.CONNECTED)
        server.revoke_all()
        await asyncio.to_thread(server.tell_all, DISCONNECTED, TOKEN_EXPIRED)
        await until(lambda: len(server.dialled) == 40)
        for client in clients:
            await state(client, ConnectionState.CONNECTED)
            await client.close()

    with keeping(backend) as keeper:
        run(main())

        assert len(backend.issued) == 2


def test_a_server_that_asks_for_a_new_token_gets_it_on_the_open_connection(backend, server):
    async def main():
        async with connected(keeper, server):
            await asyncio.to_thread(server.tell_all, AUTH)
            await until(lambda: server.shown)

    with keeping(backend) as keeper:
        run(main())

        assert [*server.dialled, server.shown[0]] == list(backend.issued)
        assert len(backend.issued) == 2


def test_a_closed_client_is_not_opened_by_a_new_token(backend, server):
    async def main():
        async with connected(keeper, server) as client:
            pass
        await asyncio.to_thread(keeper.refresh)
        return client.connection.state

    with keeping(backend) as keeper:
        assert run(main()) == ConnectionState.CLOSED
        assert len(server.dialled) == 1


def test_arguments_that_cannot_work_are_named(backend):
    with keeping(backend) as keeper:
        for options, named in (
            ({"key": "a.b:c"}, "key: comes from the keeper"),
            ({"auth_callback": None}, "auth_callback"),
            ({"timeout": -1}, "timeout"),
        ):
            with pytest.raises(ConfigError, match=named):
                KeeperRest(keeper, **options)


def test_the_token_is_in_no_repr_and_no_log_of_ours(backend, server, caplog):
    async def main():
        async with KeeperRest(keeper, **server.rest) as rest, connected(keeper, server) as client:
            await history(rest)
            return repr(rest) + repr(client) + repr(vars(client._live))

    caplog.set_level(logging.DEBUG, "token_keeper")
    caplog.set_level(logging.WARNING, "ably")
    with keeping(backend) as keeper:
        server.revoke_all()
        shown = run(main())

    assert not [raw for raw in backend.issued if raw in caplog.text or raw in shown]
