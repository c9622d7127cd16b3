"""aiokafka against a broker that checks its tokens."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from guarding import QUICK, keeping
from kafka_broker import TOPIC, KafkaBroker

from token_keeper import (
    AsyncTokenKeeper,
    ConfigError,
    HttpSource,
    TokenKeeper,
    TokenKeeperError,
    TokenUnavailable,
)
from token_keeper.adapters.aiokafka import KeeperTokenProvider
from token_keeper.testing import FakeBackend

SASL = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def broker(backend):
    with KafkaBroker(backend) as broker:
        yield broker


@asynccontextmanager
async def producing(provider, broker):
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.server, sasl_oauth_token_provider=provider, retry_backoff_ms=20, **SASL
    )
    try:
        await provider.start(producer)
        yield producer
    finally:
        await producer.stop()


async def send_one(keeper, broker, **options):
    async with producing(KeeperTokenProvider(keeper, **options), broker) as producer:
        await producer.send_and_wait(TOPIC, b"1")


def test_the_token_is_used(backend, broker):
    async def work():
        async with AsyncTokenKeeper(HttpSource(backend.url)) as keeper:
            await send_one(keeper, broker)
            return keeper.token

    token = asyncio.run(work())

    assert broker.tokens == [token]
    assert broker.received == 1


def test_it_is_renewed_under_load_without_a_failed_call(backend):
    async def work(keeper, broker):
        sent = 0
        async with producing(KeeperTokenProvider(keeper), broker) as producer:
            for tokens in (2, 3):
                await asyncio.to_thread(keeper.refresh)
                while len(broker.tokens) < tokens:
                    await producer.send_and_wait(TOPIC, b"1")
                    sent += 1
                    await asyncio.sleep(0.001)
        return sent

    # The broker cuts off whoever sends after its session: aiokafka shows no new token on a live connection.
    with KafkaBroker(backend, session_s=0.2) as broker, keeping(backend) as keeper:
        assert asyncio.run(work(keeper, broker)) == broker.received

        assert broker.cut_off >= 1


def test_twenty_concurrent_refusals_cause_one_refresh_and_all_calls_succeed(backend, broker):
    async def work(keeper):
        await asyncio.gather(*(send_one(keeper, broker) for _ in range(20)))

    with keeping(backend) as keeper:
        broker.revoke_all()
        asyncio.run(work(keeper))

    assert broker.received == 20
    assert len(backend.issued) == 2


def test_while_the_backend_is_down_calls_go_on_with_the_valid_token(backend, broker):
    with keeping(backend) as keeper:
        backend.down()
        with pytest.raises(TokenKeeperError):
            keeper.refresh(timeout=0.3)

        asyncio.run(send_one(keeper, broker))

        assert broker.tokens == [keeper.token]


def test_a_denial_that_the_application_reports_brings_another_token(backend, broker):
    async def work(keeper):
        provider = KeeperTokenProvider(keeper)
        async with producing(provider, broker) as producer:
            await producer.send_and_wait(TOPIC, b"1")
            broker.revoke_all()
            provider.report()
            await producer.send_and_wait(TOPIC, b"1")

    with keeping(backend) as keeper:
        asyncio.run(work(keeper))

    assert broker.received == 2
    assert len(backend.issued) == 2


def test_a_cluster_that_refuses_everything_is_asked_twice(backend, broker):
    broker.refuse_all()
    with keeping(backend) as keeper, pytest.raises(KafkaConnectionError):
        asyncio.run(send_one(keeper, broker))

    assert len(broker.shown) == 2
    assert len(broker.tokens) == 2


def test_a_cluster_that_is_down_is_no_denial(backend):
    with KafkaBroker(backend) as gone:
        pass
    with keeping(backend) as keeper:
        with pytest.raises(KafkaConnectionError):
            asyncio.run(send_one(keeper, gone))

        assert keeper.snapshot.denied_by == ()
        assert len(backend.issued) == 1


def test_without_another_token_the_caller_gets_aiokafkas_own_error(backend, broker):
    with keeping(backend) as keeper:
        backend.down()
        broker.revoke_all()

        with pytest.raises(KafkaConnectionError):
            asyncio.run(send_one(keeper, broker, timeout=0.2))


def test_without_any_token_the_start_says_so(backend, broker):
    backend.down()
    late = TokenKeeper(HttpSource(backend.url), policy=QUICK, start_timeout=0)
    with late as keeper, pytest.raises(TokenUnavailable):
        asyncio.run(send_one(keeper, broker, timeout=0.1))

    assert broker.tokens == []


def test_a_producer_survives_a_time_without_a_token(backend, broker):
    async def work(keeper):
        provider = KeeperTokenProvider(keeper, timeout=0.05)
        async with producing(provider, broker) as producer:
            await producer.send_and_wait(TOPIC, b"1")
            backend.down()
            broker.revoke_all()
            provider.report()
            sending = asyncio.create_task(producer.send_and_wait(TOPIC, b"1"))
            with pytest.raises(TokenUnavailable):
                await provider.token()
            backend.up()
            await sending

    with keeping(backend) as keeper:
        asyncio.run(work(keeper))

    assert broker.received == 2


def test_extensions_are_passed_on_and_no_repr_shows_the_token(backend):
    async def work(keeper):
        provider = KeeperTokenProvider(keeper, extensions={"logicalCluster": "lkc-1"})
        return provider, await provider.token()

    with keeping(backend) as keeper:
        provider, token = asyncio.run(work(keeper))

    assert provider.extensions() == {"logicalCluster": "lkc-1"}
    assert token not in f"{provider!r} {vars(provider)!r}"


@pytest.mark.parametrize(
    ("options", "key"), [({"timeout": -1}, "timeout"), ({"by": 1}, "by")], ids=["timeout", "by"]
)
def test_an_argument_that_cannot_work_is_named(backend, options, key):
    with keeping(backend) as keeper, pytest.raises(ConfigError) as error:
        KeeperTokenProvider(keeper, **options)

    assert error.value.key == key
