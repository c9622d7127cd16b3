"""The device login on the virtual clock: pace, patience, and what is stored (RFC 8628)."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

import pytest
from rotating import OWNER, FaultySlot, World

from token_keeper._errors import RefusedError, ResponseError, StoreError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper.sources.oauth2._login import log_in
from token_keeper.sources.oauth2._outcomes import (
    Delivery,
    DeviceAuthorization,
    DeviceCode,
    Granted,
    NotGranted,
)
from token_keeper.testing import mint, run_virtual

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
CODE = DeviceCode(
    user_code="WDJB-MJHT", verification_uri="https://as.example/device", expires_in=600.0, interval=5.0
)


def said(code, delivery=Delivery.ANSWERED):
    kind = RefusedError if code == "access_denied" else TransientFetchError
    return NotGranted(error=kind(code), delivery=delivery, code=code)


PENDING = said("authorization_pending")
SLOWER = said("slow_down")
DENIED = said("access_denied")
EXPIRED = said("expired_token")
UNREACHED = NotGranted(error=TransientFetchError("no connection"), delivery=Delivery.NEVER_SENT)


class DeviceServer:
    """Answers from a script; the last answer is given for ever."""

    def __init__(self, world, *script, code=CODE):
        self.world = world
        self.script = deque(script)
        self.code = code
        self.asked = []

    def granted(self, **changes):
        now = self.world.wall()
        token = mint(expires_at=now + 3_600.0, issued_at=now)
        return Granted(issued=Issued(secret=Secret(token)), refresh_token=Secret("of-the-login"), **changes)

    async def authorize_device(self, fields):
        self.fields = fields
        return DeviceAuthorization(code=self.code, device_code=Secret("the-device-code"))

    async def exchange(self, fields):
        assert fields == {"grant_type": DEVICE_GRANT, "device_code": Secret("the-device-code")}
        self.asked.append(asyncio.get_running_loop().time())
        return self.script.popleft() if len(self.script) > 1 else self.script[0]

    def pauses(self):
        return [round(after - before, 3) for before, after in zip(self.asked, self.asked[1:], strict=False)]


@pytest.fixture
def world():
    world = World()
    world.seed = None
    return world


def logged_in(world, server, *, slot=None, show=id):
    lineage = world.process(slot)
    return run_virtual(log_in(server, lineage, {"scope": "offline_access"}, show))


def test_a_login_shows_the_code_and_stores_the_grant(world):
    shown = []
    server = DeviceServer(world, PENDING, None)
    server.script[-1] = server.granted()
    granted = logged_in(world, server, show=shown.append)
    assert shown == [CODE]
    assert server.fields == {"scope": "offline_access"}
    record = world.record()
    assert (record.owner, record.refresh_token) == (OWNER, Secret("of-the-login"))
    assert record.access_token == granted.issued.secret


def test_the_code_may_be_shown_by_a_coroutine(world):
    shown = []

    async def show(code):
        await asyncio.sleep(0)
        shown.append(code)

    server = DeviceServer(world, None)
    server.script[-1] = server.granted()
    logged_in(world, server, show=show)
    assert shown == [CODE]


def test_it_asks_at_the_interval_of_the_server(world):
    server = DeviceServer(world, PENDING, PENDING, PENDING, None)
    server.script[-1] = server.granted()
    logged_in(world, server)
    assert server.pauses() == [5.0, 5.0, 5.0]


def test_slow_down_adds_five_seconds_for_good(world):
    server = DeviceServer(world, PENDING, SLOWER, PENDING, SLOWER, None)
    server.script[-1] = server.granted()
    logged_in(world, server)
    assert server.pauses() == [5.0, 10.0, 10.0, 15.0]


def test_an_interval_of_nothing_is_not_obeyed(world):
    server = DeviceServer(world, PENDING, PENDING, None, code=replace(CODE, interval=0.0))
    server.script[-1] = server.granted()
    logged_in(world, server)
    assert server.pauses() == [1.0, 1.0]


def test_after_a_failure_of_the_network_it_asks_more_slowly(world):
    server = DeviceServer(world, UNREACHED, UNREACHED, None)
    server.script[-1] = server.granted()
    logged_in(world, server)
    assert server.pauses() == [10.0, 20.0]


def test_an_unknown_error_ends_it(world):
    server = DeviceServer(world, PENDING, said("account_suspended"))
    with pytest.raises(TransientFetchError, match="account_suspended"):
        logged_in(world, server)
    assert len(server.asked) == 2


def test_a_server_that_cannot_answer_now_is_asked_again(world):
    server = DeviceServer(world, said("temporarily_unavailable"), None)
    server.script[-1] = server.granted()
    logged_in(world, server)


def test_it_ends_when_the_person_says_no(world):
    with pytest.raises(RefusedError) as caught:
        logged_in(world, DeviceServer(world, PENDING, DENIED))
    assert caught.value.reason == "access_denied"
    assert world.slot.read() is None


@pytest.mark.parametrize("last", [EXPIRED, PENDING])
def test_it_ends_when_the_code_expires(world, last):
    server = DeviceServer(world, PENDING, last)
    with pytest.raises(TransientFetchError, match="nobody approved within 600 s; nothing was changed"):
        logged_in(world, server)
    assert server.asked[-1] - server.asked[0] <= 600.0


def test_a_login_without_a_refresh_token_is_none(world):
    server = DeviceServer(world, None)
    server.script[-1] = replace(server.granted(), refresh_token=None)
    with pytest.raises(ResponseError, match="offline_access"):
        logged_in(world, server)
    assert world.slot.read() is None


def test_nobody_logs_in_for_a_store_that_cannot_keep_it(world):
    class Full(FaultySlot):
        def read(self):
            raise StoreError("/store/chat.grant", "is damaged")

        def try_lease(self):
            raise StoreError("/store/chat.lock", "cannot be made")

    shown = []
    with pytest.raises(StoreError, match="cannot be made"):
        logged_in(world, DeviceServer(world, PENDING), slot=Full(world.slot), show=shown.append)
    assert shown == []


def test_another_login_replaces_the_grant_and_a_running_process_goes_on_with_it(world):
    server = DeviceServer(world, None)
    server.script[-1] = server.granted()
    logged_in(world, server)
    process = world.process()
    first = run_virtual(process.fetch(tries=1)).secret
    world.now += 100.0
    server.script[-1] = replace(server.granted(), refresh_token=Secret("of-the-second-login"))
    second = logged_in(world, server).issued.secret
    assert run_virtual(process.fetch(tries=1)).secret == second != first


def test_a_grant_of_another_server_is_not_replaced(world):
    server = DeviceServer(world, None)
    server.script[-1] = server.granted()
    logged_in(world, server)
    with world.slot.try_lease() as lease:
        lease.write(replace(world.record(), owner="https://other.example client"))
    with pytest.raises(StoreError, match=r"other\.example"):
        logged_in(world, server)
