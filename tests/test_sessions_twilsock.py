"""A session from end to end: backend, keeper, a client of Twilsock, and its server, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from session_feed import until
from session_twilsock import Client

from token_keeper import AsyncTokenKeeper, HttpSource, RefreshPolicy
from token_keeper.testing import FakeBackend, FakeTwilsock

QUICK = RefreshPolicy(min_interval_s=0.1, splay=False)
WITHIN_S = 8.0


@pytest.fixture
def server():
    with FakeTwilsock() as server:
        yield server


@pytest.fixture
def backend(server):
    with FakeBackend(mint=server.mint) as backend:
        yield backend


@asynccontextmanager
async def live(server, backend):
    """Run a keeper with one connected client; yield both, and what its listeners hear."""
    client, told = Client(server.url), []
    source = HttpSource(backend.url)
    async with AsyncTokenKeeper(source, policy=QUICK, profile="twilio") as keeper:
        client.handle = keeper.attach(client, name="client")
        client.handle.on()(lambda event: told.append(str(event.kind)))
        try:
            await until(lambda: client.states[-1:] == ["connected"], "the first connection", WITHIN_S)
            yield keeper, client, told
        finally:
            client.handle.detach()
            await client.close()


async def recovered(client, told):
    await until(lambda: told[-1:] == ["sessionRecovered"], "the recovery", WITHIN_S)
    assert client.states[-1] == "connected"


def test_a_live_client_is_updated_in_place(server, backend):
    async def main():
        async with live(server, backend) as (keeper, client, told):
            newest = await keeper.refresh()
            await until(lambda: told.count("sessionUpdated") == 2, "the update", WITHIN_S)
            assert client.tokens[-1] == newest
            assert client.states == ["connecting", "connected"]
        assert [one.method for one in server.received][:2] == ["init", "update"]

    asyncio.run(main())


def test_a_client_that_is_denied_at_the_door_gets_another_token(server, backend):
    server.deny(20104)

    async def main():
        async with live(server, backend) as (_, client, told):
            assert client.states == ["connecting", "denied", "connecting", "connected"]
            await recovered(client, told)
            assert len(set(client.tokens)) == len(client.tokens) == len(backend.issued) == 2

    asyncio.run(main())


@pytest.mark.parametrize("status", [410, 401])
def test_a_client_whose_token_dies_on_a_live_connection_comes_back(server, backend, status):
    async def main():
        async with live(server, backend) as (keeper, client, told):
            server.close_live(status)
            await recovered(client, told)
            assert client.states == [
                *("connecting", "connected", "disconnecting", "disconnected", "connecting", "connected")
            ]
            assert client.tokens[-1] == keeper.token
            assert len(backend.issued) == 2

    asyncio.run(main())


def test_an_update_that_is_refused_on_a_live_connection_is_recovered_from(server, backend):
    server.deny(51215, on="update")

    async def main():
        async with live(server, backend) as (keeper, client, told):
            await keeper.refresh()
            await recovered(client, told)
            assert len(set(client.tokens)) == len(client.tokens) == 3

    asyncio.run(main())


def test_a_socket_that_is_lost_at_the_moment_of_the_warning_does_no_harm(server, backend):
    async def main():
        async with live(server, backend) as (keeper, client, told):
            server.warn()
            server.drop_live()
            await until(lambda: client.states.count("connected") == 2, "the connection", WITHIN_S)
            newest = await keeper.refresh()
            await until(lambda: client.tokens[-1] == newest, "the next token", WITHIN_S)
            await until(lambda: told.count("sessionUpdated") == 2, "the update", WITHIN_S)
            assert "sessionDenied" not in told

    asyncio.run(main())


def test_a_backend_that_is_down_all_the_while_is_waited_for(server, backend):
    async def main():
        async with live(server, backend) as (_, client, told):
            backend.down()
            server.close_live(410)
            await until(lambda: client.states[-1] == "disconnected", "the end", WITHIN_S)
            await asyncio.get_running_loop().run_in_executor(None, backend.up)
            await recovered(client, told)

    asyncio.run(main())


def test_a_throttled_client_keeps_its_token(server, backend):
    async def main():
        async with live(server, backend) as (keeper, client, told):
            before = keeper.token
            server.throttle(retry_after=0.1)
            await client.reconnect()
            await recovered(client, told)
            assert client.tokens == [before]
            assert len(backend.issued) == 1

    asyncio.run(main())
