"""confluent-kafka, and the librdkafka below it, against a broker that checks its tokens.

Its constructor takes a second, in which it waits for the first answer of `oauth_cb`.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer
from guarding import QUICK, keeping
from kafka_broker import TOPIC, KafkaBroker

from token_keeper import ConfigError, HttpSource, TokenKeeper, TokenKeeperError
from token_keeper.adapters.confluent_kafka import oauthbearer
from token_keeper.testing import FakeBackend

OFTEN = {"check_every": 0.5}


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def broker(backend):
    with KafkaBroker(backend) as broker:
        yield broker


@contextmanager
def producing(keeper, broker, **options):
    """Yield a producer that does not write to the standard error."""
    settings = {
        "bootstrap.servers": broker.server,
        "security.protocol": "SASL_PLAINTEXT",
        "log_level": 0,
        "reconnect.backoff.max.ms": 200,
        **oauthbearer(keeper, **{**OFTEN, **options}),
    }
    producer = Producer(settings)
    try:
        yield producer
    finally:
        producer.purge()
        producer.flush(1)


def send(producer, timeout=10.0):
    """Send one record, and return what the broker says: None if it has it."""
    said = []
    producer.produce(TOPIC, b"1", on_delivery=lambda error, _: said.append(error))
    deadline = time.monotonic() + timeout
    while not said:
        assert time.monotonic() < deadline, "it was not delivered in time"
        producer.poll(0.01)
    return said[0]


def test_the_token_is_used(backend, broker):
    with keeping(backend) as keeper, producing(keeper, broker) as producer:
        assert send(producer) is None

        assert broker.tokens == [keeper.token]


def test_it_is_renewed_under_load_on_the_live_connection_without_a_failed_call(backend):
    # librdkafka shows the token again when a session of the broker has run for nine tenths.
    with (
        KafkaBroker(backend, session_s=1.0) as broker,
        keeping(backend) as keeper,
        producing(keeper, broker) as producer,
    ):
        answers = [send(producer)]
        keeper.refresh()
        while len(broker.tokens) < 2:
            answers.append(send(producer))

        assert set(answers) == {None}
        assert broker.received == len(answers)
        assert broker.cut_off == 0
        connection, _ = broker.shown[-1]
        assert (connection, broker.tokens[0]) in broker.shown


def test_twenty_concurrent_refusals_cause_one_refresh_and_all_calls_succeed(backend, broker):
    def call(keeper):
        with producing(keeper, broker) as producer:
            return send(producer)

    with keeping(backend) as keeper, ThreadPoolExecutor(20) as threads:
        broker.revoke_all()
        answers = list(threads.map(call, [keeper] * 20))

    assert answers == [None] * 20
    assert len(backend.issued) == 2


def test_a_client_that_is_thrown_out_comes_back_with_another_token(backend, broker):
    with keeping(backend) as keeper, producing(keeper, broker) as producer:
        send(producer)
        broker.revoke_all()

        assert send(producer) is None

    assert len(backend.issued) == 2


def test_while_the_backend_is_down_calls_go_on_with_the_valid_token(backend, broker):
    with keeping(backend) as keeper, producing(keeper, broker) as producer:
        backend.down()
        with pytest.raises(TokenKeeperError):
            keeper.refresh(timeout=0.3)

        assert [send(producer) for _ in range(5)] == [None] * 5


def test_a_broker_that_is_down_is_no_denial(backend):
    with KafkaBroker(backend) as gone:
        pass
    errors = []
    with keeping(backend) as keeper, producing(keeper, gone, error_cb=errors.append) as producer:
        while not errors:
            producer.poll(0.1)

        assert keeper.snapshot.denied_by == ()


def test_a_client_that_is_made_in_an_outage_gets_its_token_later(backend, broker):
    backend.down()
    with (
        TokenKeeper(HttpSource(backend.url), policy=QUICK, start_timeout=0) as keeper,
        producing(keeper, broker, timeout=0.1) as producer,
    ):
        backend.up()

        assert send(producer) is None
        assert keeper.snapshot.generation == 1


def test_a_broker_that_refuses_everything_does_not_use_up_the_tokens_at_once(backend, broker):
    broker.refuse_all()
    with keeping(backend) as keeper, producing(keeper, broker) as producer:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            producer.poll(0.05)

        assert 2 <= len(backend.issued) <= 4


def test_errors_reach_the_application(backend, broker):
    broker.refuse_all()
    heard = threading.Event()
    with (
        keeping(backend) as keeper,
        producing(keeper, broker, error_cb=lambda _: heard.set()) as producer,
    ):
        while not heard.is_set():
            producer.poll(0.1)


def test_extensions_and_principal_are_passed_on(backend):
    with keeping(backend) as keeper:
        settings = oauthbearer(keeper, principal="app", extensions={"logicalCluster": "lkc-1"})

        token, until, principal, extensions = settings["oauth_cb"]("")

        assert (token, principal, extensions) == (keeper.token, "app", {"logicalCluster": "lkc-1"})
        assert 0 < until - time.time() <= 60
        assert keeper.token not in repr(settings)


@pytest.mark.parametrize(
    ("options", "key"),
    [({"timeout": -1}, "timeout"), ({"by": 1}, "by"), ({"check_every": 0}, "check_every")],
    ids=["timeout", "by", "check_every"],
)
def test_an_argument_that_cannot_work_is_named(backend, options, key):
    with keeping(backend) as keeper, pytest.raises(ConfigError) as error:
        oauthbearer(keeper, **options)

    assert error.value.key == key
