"""nats-py against a real nats-server: its token in the configuration, or JWTs of users that expire."""

import asyncio
import gc
import time

import nats
import pytest
from guarding import QUICK, keeping
from nats.errors import AuthorizationError, Error
from nats_server import Accounts, dead_port, nats_server, needs_nats, wants

from token_keeper import AsyncTokenKeeper, ConfigError, HttpSource, TokenKeeperError, TokenUnavailable
from token_keeper.adapters.nats import connect, connections
from token_keeper.testing import FakeBackend

pytestmark = needs_nats
SOON = {"reconnect_time_wait": 0.05}
"""nats-py waits 2 s before it tries a server again."""


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what it waits for happens in nats-py, or in the server
            await asyncio.sleep(0.005)


@pytest.fixture
def accounts():
    return Accounts()


@pytest.fixture
def server(tmp_path, accounts):
    with nats_server(tmp_path, accounts.rules) as server:
        yield server


@pytest.fixture
def backend(accounts):
    """A backend that issues JWTs of users; all of them are good until they expire."""
    with FakeBackend(mint=lambda now: accounts.issue(now, backend.lifetime)) as backend:
        yield backend


@pytest.fixture
def numbered():
    """A backend that issues `secret-1`, `secret-2` and so on."""
    serials = iter(range(1, 1000))
    with FakeBackend(mint=lambda _: f"secret-{next(serials)}") as numbered:
        yield numbered


def test_the_token_is_used(server, backend, accounts):
    async def work():
        async with AsyncTokenKeeper(HttpSource(backend.url)) as keeper:
            nc = await connect(keeper, server.url, signature_cb=accounts.sign)
            await nc.flush()
            await nc.close()

    asyncio.run(work())


def test_it_is_renewed_under_load_without_a_failed_call(server, backend, accounts):
    async def work(keeper):
        reader, writer = [
            await connect(keeper, server.url, signature_cb=accounts.sign, **SOON) for _ in range(2)
        ]
        plain = await connect(keeper, server.url, signature_cb=accounts.sign, allow_reconnect=False)
        heard = []

        async def hear(message):
            heard.append(int(message.data))

        await plain.subscribe("numbers", cb=hear)
        await plain.flush()
        sent = 0
        for reconnects in range(1, 5):
            renewal = asyncio.create_task(asyncio.to_thread(keeper.refresh))
            while (
                not renewal.done() or min(reader.stats["reconnects"], writer.stats["reconnects"]) < reconnects
            ):
                await writer.publish("numbers", b"%d" % sent)
                sent += 1
                await asyncio.sleep(0.0005)
            await renewal
        await until(lambda: len(heard) == sent)
        for nc in (reader, writer, plain):
            await nc.close()
        return heard, sent

    with keeping(backend) as keeper:
        heard, sent = asyncio.run(work(keeper))

    assert heard == list(range(sent))


def test_subscriptions_survive_a_renewal(server, backend, accounts):
    async def work(keeper):
        nc = await connect(keeper, server.url, signature_cb=accounts.sign, **SOON)
        subscription = await nc.subscribe("jobs")
        await asyncio.to_thread(keeper.refresh)
        await until(lambda: nc.stats["reconnects"] == 1 and nc.is_connected)
        await nc.publish("jobs", b"go")
        message = await subscription.next_msg(timeout=5)
        await nc.close()
        return message.data

    with keeping(backend) as keeper:
        assert asyncio.run(work(keeper)) == b"go"


def test_a_session_outlives_its_first_token(server, backend, accounts):
    # Whole seconds are what the server's expiry counts in, so this takes four.
    backend.lifetime = 4

    async def work(keeper):
        errors = []

        async def failed(error):
            errors.append(error)

        nc = await connect(keeper, server.url, signature_cb=accounts.sign, error_cb=failed)
        first = keeper.snapshot.expires_at
        await until(lambda: time.time() > first + 0.5)
        await nc.flush()
        await nc.close()
        return errors

    with keeping(backend) as keeper:
        assert asyncio.run(work(keeper)) == []


def test_twenty_concurrent_refusals_cause_one_refresh_and_all_calls_succeed(tmp_path, numbered):
    async def work(keeper, url):
        clients = await asyncio.gather(*(connect(keeper, url) for _ in range(20)))
        connected = [nc.is_connected for nc in clients]
        await asyncio.gather(*(nc.close() for nc in clients))
        return connected

    with nats_server(tmp_path, wants("secret-2")) as server, keeping(numbered) as keeper:
        assert asyncio.run(work(keeper, server.url)) == [True] * 20

    assert list(numbered.issued) == ["secret-1", "secret-2"]


def test_a_client_that_is_thrown_out_is_followed_by_one_with_another_token(tmp_path, numbered):
    async def work(keeper, server):
        heard = []
        async for nc in connections(keeper, server.url):
            subscription = await nc.subscribe("jobs")
            await nc.publish("jobs", keeper.token.encode())
            async for message in subscription.messages:
                heard.append(message.data)
                if len(heard) == 2:
                    break
                await asyncio.to_thread(server.reload, wants("secret-2"))
            if len(heard) == 2:
                break
        return heard

    with nats_server(tmp_path, wants("secret-1")) as server, keeping(numbered) as keeper:
        assert asyncio.run(work(keeper, server)) == [b"secret-1", b"secret-2"]

    assert list(numbered.issued) == ["secret-1", "secret-2"]


def test_a_client_that_is_thrown_out_says_so_and_reports_the_denial(tmp_path, numbered):
    async def work(keeper, server):
        closed = asyncio.Event()

        async def told():
            closed.set()

        nc = await connect(keeper, server.url, closed_cb=told)
        await asyncio.to_thread(server.reload, wants("secret-2"))
        await asyncio.wait_for(closed.wait(), 5)
        return nc.last_error, await connect(keeper, server.url)

    with nats_server(tmp_path, wants("secret-1")) as server, keeping(numbered) as keeper:
        error, again = asyncio.run(_and_close(work(keeper, server)))

    assert isinstance(error, AuthorizationError)
    assert again.is_closed
    assert list(numbered.issued) == ["secret-1", "secret-2"]


async def _and_close(work):
    error, nc = await work
    await nc.close()
    return error, nc


# nats-py 2.16 leaves the socket of an attempt that was refused to the garbage collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. .*StreamWriter:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_reconnect_that_is_refused_is_tried_again_with_another_token(tmp_path, numbered):
    async def work(keeper, server):
        nc = await connect(keeper, server.url, error_cb=_ignored, **SOON)
        await asyncio.to_thread(server.restart, wants("secret-2"))
        await until(lambda: nc.stats["reconnects"] == 1 and nc.is_connected)
        await nc.flush()
        await nc.close()

    with nats_server(tmp_path, wants("secret-1")) as server, keeping(numbered) as keeper:
        asyncio.run(work(keeper, server))
    gc.collect()

    assert list(numbered.issued) == ["secret-1", "secret-2"]


async def _ignored(_):
    return


def test_while_the_backend_is_down_clients_connect_with_the_valid_token(server, backend, accounts):
    async def work(keeper):
        nc = await connect(keeper, server.url, signature_cb=accounts.sign, **SOON)
        await nc.force_reconnect()
        await until(lambda: nc.stats["reconnects"] == 1 and nc.is_connected)
        await nc.flush()
        await nc.close()

    with keeping(backend) as keeper:
        backend.down()
        with pytest.raises(TokenKeeperError):
            keeper.refresh(timeout=0.3)
        asyncio.run(work(keeper))


def test_a_server_that_refuses_everything_is_asked_twice(tmp_path, numbered):
    with nats_server(tmp_path, wants("another")) as server, keeping(numbered) as keeper:
        with pytest.raises(Error, match="Authorization Violation"):
            asyncio.run(connect(keeper, server.url))

        assert list(numbered.issued)[:2] == ["secret-1", "secret-2"]
        assert (tmp_path / "nats.log").read_text().count("authentication error") == 2


def test_without_another_token_the_caller_gets_the_servers_own_refusal(tmp_path, numbered):
    with nats_server(tmp_path, wants("another")) as server, keeping(numbered) as keeper:
        numbered.down()
        with pytest.raises(Error, match="Authorization Violation") as refusal:
            asyncio.run(connect(keeper, server.url, timeout=0.2))

    frames = [entry.frame.f_locals for entry in refusal.traceback if "/nats/" in str(entry.path)]
    assert frames == []


def test_without_any_token_nothing_is_dialled(numbered):
    numbered.down()

    async def work(port):
        async with AsyncTokenKeeper(HttpSource(numbered.url), policy=QUICK, start_timeout=0) as keeper:
            await connect(keeper, f"nats://127.0.0.1:{port}", timeout=0.1)

    with dead_port() as port, pytest.raises(TokenUnavailable):
        asyncio.run(work(port))


def test_a_server_that_is_down_is_no_denial(numbered):
    async def work(keeper, port):
        await connect(
            keeper,
            f"nats://127.0.0.1:{port}",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            error_cb=_ignored,
            **SOON,
        )

    with dead_port() as port, keeping(numbered) as keeper:
        with pytest.raises((OSError, Error)):
            asyncio.run(work(keeper, port))

        assert keeper.snapshot.denied_by == ()


def test_renewals_after_the_client_and_its_loop_are_gone_harm_nobody(server, backend, accounts):
    async def work(keeper):
        return await connect(keeper, server.url, signature_cb=accounts.sign)

    async def close(nc):
        await nc.close()

    with keeping(backend) as keeper, asyncio.Runner() as runner:
        nc = runner.run(work(keeper))
        runner.run(close(nc))
        keeper.refresh()

        assert nc.stats["reconnects"] == 0


@pytest.mark.parametrize(
    ("options", "key"),
    [({"token": "x"}, "token"), ({"timeout": -1}, "timeout"), ({"by": 1}, "by")],
    ids=["token", "timeout", "by"],
)
def test_an_argument_that_cannot_work_is_named(numbered, options, key):
    with keeping(numbered) as keeper, pytest.raises(ConfigError) as error:
        asyncio.run(connect(keeper, "nats://127.0.0.1:1", **options))

    assert error.value.key == key


def test_the_client_is_the_packages_own(server, backend, accounts):
    async def work(keeper):
        async with await connect(keeper, server.url, signature_cb=accounts.sign) as nc:
            return nc

    with keeping(backend) as keeper:
        assert isinstance(asyncio.run(work(keeper)), nats.NATS)
