"""aiomqtt against a real mosquitto, in both versions of the protocol."""

import asyncio
from contextlib import closing, suppress

import aiomqtt
import pytest
from guarding import QUICK, keeping
from mqtt_broker import USER, ThrowingBroker, broker, needs_mosquitto, numbered_backend

from token_keeper import (
    AsyncTokenKeeper,
    ConfigError,
    HttpSource,
    TokenKeeper,
    TokenKeeperError,
    TokenUnavailable,
)
from token_keeper.adapters.aiomqtt import connect

VERSIONS = pytest.mark.parametrize(
    "protocol", [aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311], ids=["5", "3.1.1"]
)


@pytest.fixture
def backend():
    with numbered_backend() as backend:
        yield backend


def login(keeper, server, **options):
    return connect(keeper, server.path, username=USER, transport="unix", **options)


@needs_mosquitto
@VERSIONS
def test_the_token_is_used(backend, protocol):
    async def work(server):
        async with (
            AsyncTokenKeeper(HttpSource(backend.url)) as keeper,
            login(keeper, server, protocol=protocol) as client,
        ):
            await client.publish("jobs", b"go", qos=1)

    with broker("secret-1") as server:
        asyncio.run(work(server))


async def pass_on(keeper, server, protocol, numbers):
    """Publish *numbers* until all are acknowledged, as the docstring of the adapter says."""
    while numbers:
        with suppress(aiomqtt.MqttError):
            async with login(keeper, server, protocol=protocol, timeout=0.5) as client:
                while numbers:
                    await client.publish("numbers", numbers[0], qos=1)
                    numbers.pop(0)


@needs_mosquitto
@VERSIONS
def test_it_is_renewed_under_load_without_a_refused_login(backend, protocol):
    async def work(keeper, server):
        numbers = list(range(3000))
        passing = asyncio.create_task(pass_on(keeper, server, protocol, numbers))
        for left in (2000, 1000):
            await _until(lambda left=left: len(numbers) < left)
            await asyncio.to_thread(keeper.refresh)
            await asyncio.to_thread(server.wants, keeper.token)
        await passing

    with broker("secret-1") as server, keeping(backend) as keeper:
        asyncio.run(work(keeper, server))

        assert "not authorised" not in server.log
        assert list(backend.issued) == ["secret-1", "secret-2", "secret-3"]


@needs_mosquitto
@VERSIONS
def test_twenty_concurrent_refusals_cause_one_refresh_and_all_connect(backend, protocol):
    async def one(keeper, server):
        async with login(keeper, server, protocol=protocol) as client:
            await client.publish("jobs", b"go", qos=1)

    async def work(keeper, server):
        await asyncio.gather(*(one(keeper, server) for _ in range(20)))

    with broker("secret-2") as server, keeping(backend) as keeper:
        asyncio.run(work(keeper, server))

    assert list(backend.issued) == ["secret-1", "secret-2"]


@needs_mosquitto
@VERSIONS
def test_a_client_that_is_thrown_out_is_followed_by_one_with_another_token(backend, protocol):
    async def listen(keeper, server):
        async with login(keeper, server, protocol=protocol) as client:
            await client.subscribe("jobs")
            await client.publish("jobs", keeper.token)
            async for message in client.messages:
                yield message.payload

    async def work(keeper, server):
        with suppress(aiomqtt.MqttError):
            async for payload in listen(keeper, server):
                assert payload == b"secret-1"
                server.wants("secret-2")
        async with login(keeper, server, protocol=protocol):
            return keeper.token

    with broker("secret-1") as server, keeping(backend) as keeper:
        assert asyncio.run(work(keeper, server)) == "secret-2"

    assert list(backend.issued) == ["secret-1", "secret-2"]


def test_a_disconnect_that_says_not_authorized_is_a_denial(backend):
    async def listen(keeper, server):
        options = {"username": USER, "protocol": aiomqtt.ProtocolVersion.V5}
        async with connect(keeper, "127.0.0.1", server.port, **options) as client:
            await client.publish("jobs", b"go")
            await anext(client.messages)

    async def work(keeper, server):
        with pytest.raises(aiomqtt.MqttError):
            await listen(keeper, server)
        await _until(lambda: len(backend.issued) == 2)

    with closing(ThrowingBroker()) as server, keeping(backend) as keeper:
        asyncio.run(work(keeper, server))


async def _until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what it waits for happens elsewhere
            await asyncio.sleep(0.005)


@needs_mosquitto
def test_while_the_backend_is_down_it_connects_with_the_valid_token(backend):
    async def work(keeper, server):
        async with login(keeper, server) as client:
            await client.publish("jobs", b"go", qos=1)

    with broker("secret-1") as server, keeping(backend) as keeper:
        backend.down()
        with pytest.raises(TokenKeeperError):
            keeper.refresh(timeout=0.3)
        asyncio.run(work(keeper, server))


@needs_mosquitto
@VERSIONS
def test_a_broker_that_refuses_everything_is_asked_twice(backend, protocol):
    async def work(keeper, server):
        async with login(keeper, server, protocol=protocol):
            pass

    with broker("another") as server, keeping(backend) as keeper:
        with pytest.raises(aiomqtt.MqttCodeError):
            asyncio.run(work(keeper, server))

        assert server.log.count("not authorised") == 2


@needs_mosquitto
def test_without_another_token_the_caller_gets_the_brokers_own_refusal(backend):
    async def work(keeper, server):
        async with login(keeper, server, token_timeout=0.2):
            pass

    with broker("another") as server, keeping(backend) as keeper:
        backend.down()
        with pytest.raises(aiomqtt.MqttCodeError) as refusal:
            asyncio.run(work(keeper, server))

    frames = [entry.frame.f_locals for entry in refusal.traceback if "token_keeper" in str(entry.path)]
    assert "secret-1" not in repr(frames)


def test_without_any_token_nothing_is_dialled(backend):
    backend.down()

    async def work(keeper, server):
        async with connect(keeper, "127.0.0.1", server.port, token_timeout=0.1):
            pass

    with (
        TokenKeeper(HttpSource(backend.url), policy=QUICK, start_timeout=0) as keeper,
        closing(ThrowingBroker()) as server,
        pytest.raises(TokenUnavailable),
    ):
        asyncio.run(work(keeper, server))

    assert server.logins == []


@pytest.mark.parametrize(
    ("options", "key"),
    [({"password": "x"}, "password"), ({"token_timeout": -1}, "token_timeout"), ({"by": 1}, "by")],
    ids=["password", "token_timeout", "by"],
)
def test_an_argument_that_cannot_work_is_named(backend, options, key):
    async def work(keeper):
        async with connect(keeper, "127.0.0.1", 1, **options):
            pass

    with keeping(backend) as keeper, pytest.raises(ConfigError) as error:
        asyncio.run(work(keeper))

    assert error.value.key == key
