import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from minting import CHAT, SECRET, SYNC, granting, minted
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from token_keeper.testing import FakeTwilsock
from token_keeper.twilsock import Status, decode, encode, init

NOW = 1_800_000_000.0


@pytest.fixture
def server():
    # Its clock stands still: a lifetime starts when the token arrives, however slow the machine.
    with FakeTwilsock(clock=lambda: NOW) as server:
        yield server


class Client:
    """The least of a client: sends what it is told, returns what comes."""

    def __init__(self, socket):
        self._socket = socket

    async def init(self, token, **options):
        await self._socket.send(init("TM1", token, metadata={}, **options))
        return await self.next()

    async def update(self, token):
        return await self.ask(method="update", token=token)

    async def ask(self, **header):
        await self._socket.send(encode({"id": "TM2", **header}))
        return await self.next()

    async def send(self, raw):
        await self._socket.send(raw)

    async def next(self):
        frame = decode(await self._socket.recv())
        assert frame is not None
        return frame


@asynccontextmanager
async def connecting(server):
    async with connect(server.url, compression=None, proxy=None) as socket:
        yield Client(socket)


def talk(server, conversation):
    """Run *conversation* with a client of *server*, and return what it returns."""

    async def run():
        async with connecting(server) as client, asyncio.timeout(10):
            return await conversation(client)

    return asyncio.run(run())


def init_status(server, token):
    async def conversation(client):
        return (await client.init(token)).status

    return talk(server, conversation)


def test_it_accepts_what_it_minted(server):
    assert init_status(server, server.mint()) == Status(code=200, status="OK")


def test_it_accepts_what_twilios_helper_minted():
    now = int(time.time())
    with FakeTwilsock(key=SECRET, products=["chat", "sync"]) as server:
        token = minted(CHAT, SYNC, nbf=now, valid_until=now + 600)

        assert init_status(server, token).is_success


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", 20101),
        ("not-a-token", 20101),
        ('{"token": "x"}', 20101),
        (f"Bearer {minted()}", 20101),
        ("0123456789abcdef" * 2, 20101),
        (minted().rpartition(".")[0] + "." + "A" * 43, 20107),
        (minted(secret="another-secret-of-32-characters-"), 20107),
        (minted(nbf=1, valid_until=2), 20104),
        (minted(nbf=4_000_000_000, valid_until=4_000_000_100), 20105),
        (granting(identity="alice"), 20106),
        (granting(identity="alice", data_sync={"service_sid": "IS" + "0" * 32}), 20106),
        (granting(chat={"service_sid": "IS" + "0" * 32}), 20106),
        (minted(signing_key_sid="AC" + "0" * 32), 20103),
    ],
)
def test_it_refuses_a_token_with_the_code_of_what_is_wrong(token, code):
    with FakeTwilsock(key=SECRET, products=["chat"], clock=lambda: NOW + 100) as server:
        status = init_status(server, token)

    assert (status.code, status.error_code) == (401, code)


def test_it_confirms_the_capabilities_that_it_has(server):
    async def conversation(client):
        return await client.init(server.mint(), capabilities=["client_update", "offline_storage"])

    frame = talk(server, conversation)

    assert frame.header["capabilities"] == ["client_update"]
    assert frame.text("continuation_token")


def test_an_update_for_the_same_user_and_service_is_accepted(server):
    async def conversation(client):
        await client.init(server.mint())
        return await client.update(server.mint())

    assert talk(server, conversation).status.is_success


@pytest.mark.parametrize(
    "other",
    [{"identity": "bob"}, {"grants": {"chat": {"service_sid": "IS" + "9" * 32}}}, {"grants": {"video": {}}}],
)
def test_an_update_for_another_user_service_or_product_is_unauthorized(server, other):
    async def conversation(client):
        await client.init(server.mint())
        return await client.update(server.mint(**other))

    assert talk(server, conversation).status.error_code == 51215


def test_an_update_before_init_is_unauthorized(server):
    async def conversation(client):
        return await client.update(server.mint())

    assert talk(server, conversation).status.error_code == 51215


def test_it_warns_at_once_if_little_time_is_left(server):
    async def conversation(client):
        await client.init(server.mint(lifetime=239))
        return await client.next()

    assert talk(server, conversation).text("client_update_type") == "token_about_to_expire"


def test_it_does_not_warn_who_did_not_ask_for_it(server):
    async def conversation(client):
        await client.init(server.mint(lifetime=0.3), capabilities=[])
        return await client.next()

    assert talk(server, conversation).method == "close"


def test_it_warns_again_after_an_update(server):
    async def conversation(client):
        await client.init(server.mint(lifetime=100))
        first = await client.next()
        await client.update(server.mint(lifetime=100))
        return first, await client.next()

    assert [frame.method for frame in talk(server, conversation)] == ["client_update", "client_update"]


def test_it_closes_a_connection_whose_token_ran_out(server):
    async def conversation(client):
        await client.init(server.mint(lifetime=0.3))
        warning, end = await client.next(), await client.next()
        with pytest.raises(ConnectionClosed):
            await client.next()
        return warning.method, end.method, end.status.code, end.status.error_code

    assert talk(server, conversation) == ("client_update", "close", 410, 51207)
    server.wait_for_live(0)


def test_an_update_moves_the_end(server):
    async def conversation(client):
        await client.init(server.mint(lifetime=0.3), capabilities=[])
        started_at = time.monotonic()
        await client.update(server.mint(lifetime=0.6))
        await client.next()
        return time.monotonic() - started_at

    assert talk(server, conversation) > 0.59


def test_what_was_ordered_comes_before_its_own_judgement(server):
    server.deny(20103)
    server.throttle(3)
    server.answer(503)

    async def conversation(client):
        answers = [await client.init(server.mint()) for _ in range(4)]
        return [(frame.status.code, frame.status.error_code, frame.document()) for frame in answers]

    wait = {"backoff_policy": {"reconnect_min_ms": 3000}}
    assert talk(server, conversation) == [
        (401, 20103, {}),
        (429, 51202, wait),
        (503, None, {}),
        (200, None, {}),
    ]


def test_an_order_for_updates_leaves_inits_alone(server):
    server.deny(51232, on="update", times=None)

    async def conversation(client):
        codes = [(await client.init(server.mint())).status.code]
        codes += [(await client.update(server.mint())).status.code for _ in range(2)]
        server.recover()
        return [*codes, (await client.update(server.mint())).status.code]

    assert talk(server, conversation) == [200, 401, 401, 200]


@pytest.mark.parametrize(("status", "code"), [(410, 51207), (401, None), (406, None), (417, None)])
def test_it_closes_live_connections_on_command(server, status, code):
    async def conversation(client):
        await client.init(server.mint())
        await asyncio.to_thread(server.close_live, status)
        return (await client.next()).status

    said = talk(server, conversation)

    assert (said.code, said.error_code) == (status, code)
    assert server.live == 0


def test_it_drops_live_connections_on_command(server):
    async def conversation(client):
        await client.init(server.mint())
        await asyncio.to_thread(server.drop_live)
        with pytest.raises(ConnectionClosed) as caught:
            await client.next()
        return caught.value

    assert talk(server, conversation).rcvd is None


def test_it_warns_live_connections_on_command(server):
    async def conversation(client):
        await client.init(server.mint())
        await asyncio.to_thread(server.warn)
        return await client.next()

    assert talk(server, conversation).method == "client_update"


def test_down_refuses_connections_and_up_takes_them_on_the_same_port(server):
    url = server.url
    server.down()
    with pytest.raises(ConnectionRefusedError):
        init_status(server, server.mint())

    server.up()

    assert init_status(server, server.mint()).is_success
    assert server.url == url


def test_a_message_that_is_no_frame_is_answered_with_406(server):
    async def conversation(client):
        await client.send("TWILSOCK")
        return (await client.next()).status.code

    assert talk(server, conversation) == 406


@pytest.mark.parametrize("method", ["put_notification_ctx", "delete_notification_ctx", "message"])
def test_other_requests_get_a_reply(server, method):
    async def conversation(client):
        await client.init(server.mint())
        return await client.ask(method=method)

    assert talk(server, conversation).method == "reply"


def test_it_records_what_came_with_fingerprints_only(server):
    token = server.mint()
    init_status(server, token)

    shown = repr(server.received)

    assert server.received[0].token.reveal() == token
    assert token not in shown
    assert server.received[0].token.fingerprint in shown
    assert SECRET not in repr(vars(server))


def test_a_wait_that_is_not_met_says_what_came(server):
    with pytest.raises(TimeoutError, match="0 of 1 messages 'update' arrived"):
        server.wait_for("update", timeout=0.01)
    with pytest.raises(TimeoutError, match="0 connections are live"):
        server.wait_for_live(1, timeout=0.01)


def test_its_tokens_differ_even_within_a_second(server):
    assert server.mint(1000) != server.mint(1000)


def test_its_clock_may_be_off(server):
    token = server.mint(lifetime=100)
    server.clock_offset = 200

    assert init_status(server, token).error_code == 20104


def test_a_server_that_does_not_run_says_so():
    with pytest.raises(RuntimeError, match="with"):
        FakeTwilsock().warn()


def test_a_closed_server_may_be_closed_again(server):
    server.close()
    server.close()

    with pytest.raises(RuntimeError):
        server.up()
