"""The adapter for redis-py, against a real redis-server."""

import asyncio
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis
import redis.asyncio
from guarding import QUICK, keeping, until
from postgres import in_a_loop
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_server import needs_redis, running_redis

from token_keeper import (
    AsyncTokenKeeper,
    ConfigError,
    HttpSource,
    KeeperClosed,
    TokenKeeper,
    TokenUnavailable,
)
from token_keeper.adapters.redis import KeeperCredentialProvider
from token_keeper.testing import FakeBackend

pytestmark = needs_redis


@pytest.fixture(scope="module")
def started():
    with running_redis() as server:
        yield server


@pytest.fixture
def server(started):
    started.is_locked = False
    started.revoke_all()
    return started


@pytest.fixture
def backend(server):
    def issue(_):
        token = f"token-{len(backend.issued)}"
        server.accept(token)
        return token

    with FakeBackend(mint=issue) as backend:
        yield backend


@pytest.fixture
def keeper(backend):
    with keeping(backend) as keeper:
        yield keeper


@contextmanager
def client_of(keeper, server, *, protocol=3, retries=0, **options):
    shown = KeeperCredentialProvider(keeper, username="app", **options)
    with redis.Redis(
        **server.where,
        credential_provider=shown,
        redis_connect_func=shown.connect,
        protocol=protocol,
        retry=Retry(NoBackoff(), retries),
    ) as client:
        yield client
    shown.close()


@contextmanager
def blocking(keeper, server, **options):
    """Yield a call of a blocking client; whether its answer is its own."""

    def call():
        text = secrets.token_bytes(8)
        return client.echo(text) == text

    with client_of(keeper, server, **options) as client:
        yield call


@contextmanager
def awaiting(keeper, server, *, protocol=3, retries=0, **options):
    """Yield a call of an asyncio client, for any thread; whether its answer is its own."""
    shown = KeeperCredentialProvider(keeper, username="app", **options)

    async def opened():
        return redis.asyncio.Redis(
            **server.where,
            credential_provider=shown,
            redis_connect_func=shown.connect_async,
            protocol=protocol,
            retry=redis.asyncio.retry.Retry(NoBackoff(), retries),
        )

    async def call():
        text = secrets.token_bytes(8)
        return await client.echo(text) == text

    with in_a_loop() as run:
        client = run(opened())
        yield lambda: run(call())
        run(client.aclose())
    shown.close()


both_kinds = pytest.mark.parametrize("calling", [blocking, awaiting], ids=["blocking", "asyncio"])
both_protocols = pytest.mark.parametrize("protocol", [2, 3])


@both_kinds
@both_protocols
def test_the_token_is_used(calling, protocol, keeper, server):
    with calling(keeper, server, protocol=protocol) as call:
        assert call()

    assert keeper.snapshot.denied_by == ()


@both_kinds
def test_it_is_renewed_under_load_without_a_failed_call(calling, keeper, server):
    done = threading.Event()
    calls = []

    def load(call):
        while not done.is_set():
            calls.append(call())

    with calling(keeper, server) as call, ThreadPoolExecutor(4) as threads:
        loads = [threads.submit(load, call) for _ in range(4)]
        try:
            for _ in range(4):
                keeper.refresh()
                before = len(calls)
                until(lambda before=before: len(calls) > before + 8)
        finally:
            done.set()
        for each in loads:
            each.result()

    assert all(calls)


@both_kinds
def test_twenty_concurrent_refusals_cause_one_refresh_and_all_calls_succeed(calling, keeper, server, backend):
    server.revoke_all()

    with calling(keeper, server) as call, ThreadPoolExecutor(20) as threads:
        answers = [each.result() for each in [threads.submit(call) for _ in range(20)]]

    assert answers == [True] * 20
    assert len(backend.issued) == 2


@both_kinds
def test_while_the_backend_is_down_calls_go_on_with_the_valid_token(calling, keeper, server, backend):
    backend.down()
    with pytest.raises(Exception, match="token"):
        keeper.refresh(timeout=1)

    with calling(keeper, server, retries=1) as call:
        assert call()
        server.disconnect_all()
        assert call()


@both_kinds
def test_an_idle_connection_gets_each_new_token_at_once(calling, keeper, server):
    with calling(keeper, server) as call:
        call()
        before = server.count("auth")
        keeper.refresh()

        until(lambda: server.count("auth") > before)
        assert call()


@both_kinds
def test_a_server_that_refuses_everything_gets_one_login_more_with_another_token(
    calling, keeper, server, backend
):
    server.revoke_all()
    server.is_locked = True
    refused = server.refusals()

    with calling(keeper, server) as call, pytest.raises(redis.ConnectionError, match="invalid username"):
        call()

    assert server.refusals() == refused + 2
    until(lambda: len(backend.issued) > 1)


@both_kinds
def test_the_servers_refusal_stands_if_no_other_token_comes_in_time(calling, keeper, server, backend):
    server.revoke_all()
    backend.down()
    refused = server.refusals()

    # However often redis-py tries, it waits only once.
    with (
        calling(keeper, server, retries=10, timeout=0.1) as call,
        pytest.raises(redis.ConnectionError, match="invalid username"),
    ):
        call()

    assert server.refusals() == refused + 1
    assert len(backend.issued) == 1


@both_kinds
def test_a_client_that_was_refused_recovers_with_the_next_token(calling, keeper, server, backend):
    server.revoke_all()
    backend.down()
    with calling(keeper, server, timeout=0.1) as call:
        with pytest.raises(redis.ConnectionError):
            call()
        backend.up()
        keeper.refresh()

        assert call()


@both_kinds
def test_without_a_token_a_call_says_so_in_time_and_works_later(calling, server):
    with TokenKeeper() as keeper, calling(keeper, server, timeout=0.05) as call:
        with pytest.raises(TokenUnavailable, match="hand one in"):
            call()
        server.accept("handed-in")
        keeper.update("handed-in")

        assert call()


@both_kinds
def test_with_a_closed_keeper_a_call_says_so(calling, backend, server):
    with keeping(backend) as keeper:
        pass

    with calling(keeper, server) as call, pytest.raises(KeeperClosed):
        call()


def test_a_busy_connection_gets_the_new_token_when_it_is_free(keeper, server):
    with client_of(keeper, server) as client, ThreadPoolExecutor(1) as threads:
        client.delete("queue")
        before = server.count("auth")
        popped = threads.submit(client.blpop, "queue", 10)
        until(lambda: server.count("blpop") or "blpop" in str(server._ask("CLIENT", "LIST")))
        keeper.refresh()
        client.rpush("queue", "x")

        assert popped.result() == [b"queue", b"x"]
        until(lambda: server.count("auth") > before)


def test_busy_connections_of_asyncio_never_mix_up_answers(backend, server):
    async def main():
        async with AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK) as keeper:
            shown = KeeperCredentialProvider(keeper, username="app")
            async with redis.asyncio.Redis(
                **server.where,
                credential_provider=shown,
                redis_connect_func=shown.connect_async,
            ) as client:
                done = asyncio.Event()

                async def load(text):
                    while not done.is_set():
                        assert await client.echo(text) == text

                async with asyncio.TaskGroup() as tasks:
                    for number in range(10):
                        tasks.create_task(load(b"%d" % number))
                    await keeper.refresh()
                    for _ in range(30):
                        shown._renewed()  # As if there was one more each time.
                        await client.echo(b"free")
                    done.set()
            shown.close()

    asyncio.run(main())


def test_a_listening_pubsub_misses_nothing_while_tokens_are_renewed(keeper, server):
    received = []
    with client_of(keeper, server) as client, client.pubsub() as pubsub, ThreadPoolExecutor(1) as threads:

        def listen():
            for message in pubsub.listen():
                if message["data"] == b"end":
                    return
                received.append(message["data"])

        pubsub.subscribe("news")
        listening = threads.submit(listen)
        for number in range(50):
            until(lambda: server.publish("news", "x"))
            if number % 10 == 0:
                keeper.refresh()
        server.publish("news", "end")
        listening.result(10)

    assert received[-50:] == [b"x"] * 50


def test_a_listening_pubsub_of_asyncio_misses_nothing_while_tokens_are_renewed(backend, server):
    async def main():
        async with AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK) as keeper:
            shown = KeeperCredentialProvider(keeper, username="app")
            async with redis.asyncio.Redis(
                **server.where,
                credential_provider=shown,
                redis_connect_func=shown.connect_async,
                protocol=3,
            ) as client:
                pubsub = client.pubsub()
                await pubsub.subscribe("news")
                listening = asyncio.create_task(listened(pubsub))
                for number in range(30):
                    await asyncio.to_thread(server.publish, "news", "x")
                    if number % 10 == 0:
                        await keeper.refresh()
                await asyncio.to_thread(server.publish, "news", "end")
                received = await asyncio.wait_for(listening, 10)
                await pubsub.aclose()
            shown.close()
            return received

    async def listened(pubsub):
        received = []
        async for message in pubsub.listen():
            if message["data"] == b"end":
                break
            received.append(message["data"])
        return received

    assert asyncio.run(main())[-30:] == [b"x"] * 30


@both_kinds
def test_a_new_token_that_the_server_does_not_accept_breaks_no_call(calling, keeper, server):
    with calling(keeper, server) as call:
        call()
        server.is_locked = True
        refused = server.refusals()
        keeper.refresh()
        until(lambda: server.refusals() > refused)
        server.is_locked = False

        assert call()


def test_closed_pubsubs_are_forgotten(keeper, server):
    shown = KeeperCredentialProvider(keeper, username="app")
    for _ in range(5):
        with redis.Redis(**server.where, credential_provider=shown, protocol=3) as client:
            client.ping()
        del client

    assert len(shown._receivers) <= 2
    shown.close()


def test_the_default_user_needs_no_name(backend, server):
    server._ask("ACL", "SETUSER", "default", ">token-0")
    try:
        with keeping(backend) as keeper:
            shown = KeeperCredentialProvider(keeper)
            with redis.Redis(
                **server.where, credential_provider=shown, redis_connect_func=shown.connect
            ) as client:
                assert client.ping()
            shown.close()
    finally:
        server._ask("ACL", "SETUSER", "default", "nopass")


def test_without_the_connect_function_tokens_are_used_and_pushed_too(keeper, server):
    shown = KeeperCredentialProvider(keeper, username="app")
    with redis.Redis(**server.where, credential_provider=shown, protocol=3) as client:
        client.ping()
        before = server.count("auth")
        keeper.refresh()
        until(lambda: server.count("auth") > before)
    shown.close()


def test_a_client_that_is_made_outside_of_its_loop_gets_each_new_token_while_the_loop_runs(keeper, server):
    shown = KeeperCredentialProvider(keeper, username="app")
    client = redis.asyncio.Redis(
        **server.where, credential_provider=shown, redis_connect_func=shown.connect_async, protocol=3
    )
    keeper.refresh()  # Its loop is not known yet.

    async def main():
        await client.ping()
        before = await asyncio.to_thread(server.count, "auth")
        await asyncio.to_thread(keeper.refresh)
        await asyncio.to_thread(until, lambda: server.count("auth") > before)
        await client.aclose()

    asyncio.run(main())
    keeper.refresh()  # The loop is closed.
    shown.close()


def test_a_client_of_the_same_pool_is_told_once(keeper, server):
    shown = KeeperCredentialProvider(keeper, username="app")
    with redis.Redis(**server.where, credential_provider=shown, single_connection_client=True) as client:
        client.ping()
        receivers = len(shown._receivers)
        for receiver in list(shown._receivers):
            shown.on_next(receiver._callback())

        assert len(shown._receivers) == receivers
    shown.close()


def test_after_close_the_keeper_tells_it_nothing(keeper, server):
    shown = KeeperCredentialProvider(keeper, username="app")
    with redis.Redis(**server.where, credential_provider=shown) as client:
        client.ping()
        told = len(keeper._listeners._entries)
        shown.close()
        shown.close()

        assert (told, len(keeper._listeners._entries)) == (1, 0)


def test_nothing_shows_the_token(keeper, server, caplog):
    server.revoke_all()
    server.is_locked = True
    token = keeper.token

    with client_of(keeper, server) as client, pytest.raises(redis.ConnectionError) as refused:
        client.ping()

    assert token not in f"{refused.value} {caplog.text} {KeeperCredentialProvider(keeper)!r}"


def test_wrong_arguments_are_named(keeper):
    with pytest.raises(ConfigError, match="keeper"):
        KeeperCredentialProvider("a-token")
    with pytest.raises(ConfigError, match="timeout"):
        KeeperCredentialProvider(keeper, timeout=-1)
    with pytest.raises(ConfigError, match="username"):
        KeeperCredentialProvider(keeper, username=7)
