"""paho-mqtt against a real mosquitto, in both versions of the protocol."""

import asyncio
import threading
import time
from contextlib import closing, contextmanager

import pytest
from guarding import QUICK, keeping
from mqtt_broker import USER, ThrowingBroker, broker, needs_mosquitto, numbered_backend
from paho.mqtt.client import CallbackAPIVersion, MQTTv5, MQTTv311

from token_keeper import (
    AsyncTokenKeeper,
    ConfigError,
    HttpSource,
    TokenKeeper,
    TokenKeeperError,
    TokenUnavailable,
)
from token_keeper.adapters.paho_mqtt import KeeperClient

VERSIONS = pytest.mark.parametrize("protocol", [MQTTv5, MQTTv311], ids=["5", "3.1.1"])


@pytest.fixture
def backend():
    with numbered_backend() as backend:
        yield backend


def until(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.005)


@contextmanager
def made(keeper, transport="unix", **options):
    client = KeeperClient(keeper, CallbackAPIVersion.VERSION2, username=USER, transport=transport, **options)
    # paho waits for a second before it tries again.
    client.reconnect_delay_set(0.05, 0.2)
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def connected(keeper, server, **options):
    """Yield a client with a network loop, once it is connected."""
    with made(keeper, **options) as client:
        client.connect(server.path)
        client.loop_start()
        until(client.is_connected)
        yield client


@needs_mosquitto
@VERSIONS
def test_the_token_is_used(backend, protocol):
    with (
        broker("secret-1") as server,
        keeping(backend) as keeper,
        connected(keeper, server, protocol=protocol) as client,
    ):
        assert client.is_connected()


@needs_mosquitto
@VERSIONS
def test_it_is_renewed_under_load_without_a_lost_message(backend, protocol):
    with (
        broker("secret-1") as server,
        keeping(backend) as keeper,
        connected(keeper, server, protocol=protocol) as client,
    ):
        acknowledged = []
        done = threading.Event()
        sent = []
        client.on_publish = lambda *told: acknowledged.append(told[2])

        def load():
            while not done.is_set():
                sent.append(client.publish("numbers", b"1", qos=1).mid)
                time.sleep(0.001)

        loading = threading.Thread(target=load)
        loading.start()
        for _ in range(3):
            server.wants(keeper.refresh())
            until(lambda: not client.is_connected())
            until(client.is_connected)
        done.set()
        loading.join()
        until(lambda: len(acknowledged) >= len(sent))

        assert sorted(set(acknowledged)) == sorted(sent)


@needs_mosquitto
def test_twenty_concurrent_refusals_cause_one_refresh_and_all_connect(backend):
    with broker("secret-2") as server, keeping(backend) as keeper:
        clients = [made(keeper) for _ in range(20)]
        entered = [client.__enter__() for client in clients]
        try:
            for client in entered:
                client.connect_async(server.path)
                client.loop_start()
            until(lambda: all(client.is_connected() for client in entered))
        finally:
            for client in clients:
                client.__exit__(None, None, None)

    assert list(backend.issued) == ["secret-1", "secret-2"]


@needs_mosquitto
@VERSIONS
def test_a_client_that_is_thrown_out_comes_back_with_another_token(backend, protocol):
    with (
        broker("secret-1") as server,
        keeping(backend) as keeper,
        connected(keeper, server, protocol=protocol) as client,
    ):
        server.wants("secret-2")
        until(lambda: list(backend.issued) == ["secret-1", "secret-2"])
        until(client.is_connected)


def test_a_disconnect_that_says_not_authorized_is_a_denial(backend):
    with (
        closing(ThrowingBroker()) as server,
        keeping(backend) as keeper,
        made(keeper, transport="tcp", protocol=MQTTv5) as client,
    ):
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        until(client.is_connected)
        client.publish("jobs", b"go")
        until(lambda: len(server.logins) == 2)

    assert b"secret-1" in server.logins[0]
    assert b"secret-2" in server.logins[1]


@needs_mosquitto
def test_while_the_backend_is_down_it_reconnects_with_the_valid_token(backend):
    with broker("secret-1") as server, keeping(backend) as keeper, connected(keeper, server) as client:
        backend.down()
        with pytest.raises(TokenKeeperError):
            keeper.refresh(timeout=0.3)
        returns = threading.Event()
        client.on_connect = lambda *_: returns.set()
        client.reconnect()

        assert returns.wait(5)
        assert keeper.token == "secret-1"


@needs_mosquitto
def test_callbacks_of_the_application_are_called_as_ever(backend):
    told = []
    with broker("secret-1") as server, keeping(backend) as keeper, made(keeper) as client:
        client.on_pre_connect = lambda *_: told.append("pre_connect")
        client.on_disconnect = lambda *_: told.append("disconnect")

        @client.connect_callback()
        def connect(_client, _userdata, _flags, reason_code, _properties):
            told.append(str(reason_code))

        client.connect(server.path)
        client.loop_start()
        until(client.is_connected)

    assert told == ["pre_connect", "Success", "disconnect"]


@needs_mosquitto
@pytest.mark.filterwarnings("ignore:Callback API version 1 is deprecated:DeprecationWarning")
@VERSIONS
def test_the_older_callbacks_of_paho_work_too(backend, protocol):
    told = []
    with broker("secret-2") as server, keeping(backend) as keeper:
        client = KeeperClient(
            keeper, CallbackAPIVersion.VERSION1, username=USER, transport="unix", protocol=protocol
        )
        client.reconnect_delay_set(0.05, 0.2)
        client.on_connect = lambda _client, _userdata, _flags, code, *_: told.append(code)
        client.connect(server.path)
        client.loop_start()
        until(client.is_connected)
        client.disconnect()
        client.loop_stop()

    assert told == [135 if protocol == MQTTv5 else 5, 0]


@needs_mosquitto
def test_a_broker_that_refuses_everything_is_not_flooded(backend):
    with broker("another") as server, keeping(backend) as keeper, made(keeper, timeout=0.2) as client:
        client.connect_async(server.path)
        client.loop_start()
        until(lambda: len(backend.issued) == 3)

        # One attempt for each token: without another one nothing is dialled.
        assert server.log.count("not authorised") <= len(backend.issued)


def test_without_a_token_the_connect_says_so(backend):
    backend.down()
    with (
        TokenKeeper(HttpSource(backend.url), policy=QUICK, start_timeout=0) as keeper,
        made(keeper, timeout=0.1, transport="tcp") as client,
        pytest.raises(TokenUnavailable),
    ):
        client.connect("127.0.0.1", 1)


def test_without_a_token_the_network_loop_tries_again(backend):
    backend.down()
    with (
        TokenKeeper(HttpSource(backend.url), policy=QUICK, start_timeout=0) as keeper,
        closing(ThrowingBroker()) as server,
        made(keeper, timeout=0.05, transport="tcp") as client,
    ):
        failed = threading.Event()
        client.on_connect_fail = lambda *_: failed.set()
        client.connect_async("127.0.0.1", server.port)
        client.loop_start()
        assert failed.wait(5)
        assert server.logins == []

        backend.up()

        until(lambda: server.logins)


@needs_mosquitto
def test_an_async_keeper_serves_it_too(backend):
    async def work(server):
        async with AsyncTokenKeeper(HttpSource(backend.url)) as keeper:
            with made(keeper) as client:
                # In the loop's own thread, where it could not wait for a token; there is one.
                client.connect(server.path)
                client.loop_start()
                await asyncio.to_thread(until, client.is_connected)

    with broker("secret-1") as server:
        asyncio.run(work(server))


@pytest.mark.parametrize(
    ("options", "key"),
    [({"timeout": -1}, "timeout"), ({"by": 1}, "by"), ({"username": 1}, "username")],
    ids=["timeout", "by", "username"],
)
def test_an_argument_that_cannot_work_is_named(backend, options, key):
    with keeping(backend) as keeper, pytest.raises(ConfigError) as error:
        KeeperClient(keeper, CallbackAPIVersion.VERSION2, **options)

    assert error.value.key == key


def test_its_repr_shows_no_token(backend):
    with (
        closing(ThrowingBroker()) as server,
        keeping(backend) as keeper,
        made(keeper, transport="tcp") as client,
    ):
        client.connect("127.0.0.1", server.port)

        assert "secret-1" not in f"{client!r} {client._login!r} {vars(client._login)!r}"
