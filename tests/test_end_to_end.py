"""Real tokens from a real helper, over real sockets, through many lifetimes of virtual time."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from twilio.jwt.access_token import AccessToken
from twilio.jwt.access_token.grants import ChatGrant

from token_keeper import AsyncTokenKeeper, HttpSource, Issued, TokenUnavailable, Verdict
from token_keeper.testing import FakeBackend, VirtualClock, VirtualLoop

LIFETIME = 600.0


def twilio_token(now: float) -> str:
    """Mint as a Twilio backend does: no `iat`, `nbf` is now."""
    token = AccessToken(
        "AC" + "1" * 32,
        "SK" + "2" * 32,
        "s" * 32,
        identity="alice",
        nbf=int(now),
        valid_until=int(now + LIFETIME),
    )
    token.add_grant(ChatGrant(service_sid="IS" + "3" * 32))
    return str(token.to_jwt())


class InRealTime:
    """A source whose fetches take no virtual time: nothing overtakes its sockets."""

    splay = True

    def __init__(self, source: HttpSource, loop: VirtualLoop) -> None:
        self.origin = source.origin
        self.fetches = 0
        self._source = source
        self._loop = loop

    async def fetch(self, *, tries: int) -> Issued:  # noqa: ARG002 - see below
        self.fetches += 1
        with self._loop.real_work():
            # The waits between further tries would be virtual, and never end here.
            return await self._source.fetch(tries=1)

    async def aclose(self) -> None:
        with self._loop.real_work():
            await self._source.aclose()


def keep(backend: FakeBackend, clock: VirtualClock, scenario: Callable[..., Any], **options: Any) -> None:
    loop = VirtualLoop(clock, io_grace=0.0005)

    async def main() -> None:
        source = InRealTime(HttpSource(backend.url), loop)
        async with AsyncTokenKeeper(source, clock=clock, **options) as keeper:
            await scenario(keeper, source)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("offset", [0.0, 600.0, -600.0], ids=["in step", "10 min ahead", "10 min behind"])
def test_tokens_of_the_real_helper_are_kept_through_ten_lifetimes(
    offset: float, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock()

    async def scenario(keeper: AsyncTokenKeeper, source: InRealTime) -> None:
        seen = set()
        for _ in range(int(10 * LIFETIME / 10)):
            await asyncio.sleep(10)
            seen.add(keeper.token)
            truly_left = (keeper.snapshot.expires_at or 0) - clock.wall()
            assert keeper.snapshot.usable_for == pytest.approx(truly_left, abs=2.5)
            assert truly_left > 0
            exp = jwt.decode(keeper.token, options={"verify_signature": False})["exp"]
            assert truly_left == pytest.approx(exp - (clock.wall() + offset), abs=2.5)
        assert 10 <= len(seen) <= 20
        assert source.fetches <= 20

    mint = twilio_token
    caplog.set_level(logging.WARNING)
    with FakeBackend(mint=mint, clock=clock.wall, clock_offset=offset) as backend:
        keep(backend, clock, scenario, profile="twilio", expect={"grants": ["chat"], "identity": "alice"})
    skews = [record for record in caplog.records if "clockSkewed" in record.getMessage()]
    assert len(skews) == (1 if offset else 0)


def test_an_outage_costs_nothing_while_the_token_is_valid() -> None:
    clock = VirtualClock()

    async def scenario(keeper: AsyncTokenKeeper, _: InRealTime) -> None:
        await asyncio.sleep(LIFETIME * 0.7)
        served = keeper.token
        backend.down()
        while keeper.snapshot.usable_for > 10:
            assert keeper.token
            await asyncio.sleep(1)
        backend.up()
        await asyncio.sleep(60)
        assert keeper.token != served

    with FakeBackend(mint=twilio_token, clock=clock.wall) as backend:
        keep(backend, clock, scenario, profile="twilio")


def test_a_denied_token_that_the_backend_repeats_is_never_shown_again() -> None:
    clock = VirtualClock()

    async def scenario(keeper: AsyncTokenKeeper, source: InRealTime) -> None:
        denied = keeper.token
        backend.repeat_last(2)
        assert keeper.report_denied(denied, code=51215) is Verdict.DENIED
        with pytest.raises(TokenUnavailable):
            keeper.token  # noqa: B018
        await asyncio.sleep(1)  # The helper's tokens differ only from one second to the next.
        assert await keeper.get() != denied
        assert source.fetches == 4

    with FakeBackend(mint=twilio_token, clock=clock.wall) as backend:
        keep(backend, clock, scenario, profile="twilio")


@pytest.mark.parametrize(
    ("expect", "finding"),
    [
        ({"grants": ["voice"]}, "grant-missing"),
        ({"identity": "bob"}, "identity-mismatch"),
        ({"service_sid": "IS" + "9" * 32}, "service-mismatch"),
    ],
)
def test_a_token_that_would_break_the_session_is_not_published(expect: Any, finding: str) -> None:
    clock = VirtualClock()

    async def scenario(keeper: AsyncTokenKeeper, _: InRealTime) -> None:
        await asyncio.sleep(5)
        assert finding in (keeper.snapshot.last_error or "")
        assert keeper.snapshot.generation == 0

    with FakeBackend(mint=twilio_token, clock=clock.wall) as backend:
        keep(backend, clock, scenario, profile="twilio", expect=expect, start_timeout=0)
