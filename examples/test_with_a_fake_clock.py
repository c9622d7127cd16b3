"""Test what your program does in a day of tokens, in a second. Run it with pytest."""

import asyncio
import itertools

from token_keeper import AsyncTokenKeeper, TokenEvent, TransientFetchError
from token_keeper.testing import ScriptedSource, VirtualClock, mint, run_virtual

HOUR = 3600.0


class Chat:
    """A program of yours, with the callbacks that are to be tested."""

    def __init__(self, keeper: AsyncTokenKeeper) -> None:
        self.keeper = keeper
        self.tokens: list[str] = []
        self.pages = 0
        keeper.on("tokenUpdated")(self.use)
        keeper.on("tokenExpired")(self.page)

    def use(self, _: TokenEvent) -> None:
        self.tokens.append(self.keeper.token)

    async def page(self, _: TokenEvent) -> None:
        self.pages += 1


def a_day(outage_from: float = 0.0, outage_to: float = 0.0) -> Chat:
    """Run the program for 24 h; the backend is down between two times."""
    clock, serials = VirtualClock(), itertools.count()
    start = clock.boot()

    def backend() -> str | TransientFetchError:
        if outage_from <= clock.boot() - start < outage_to:
            return TransientFetchError("the backend is down")
        return mint(expires_at=clock.wall() + HOUR, jti=str(next(serials)))

    async def main() -> Chat:
        async with AsyncTokenKeeper(ScriptedSource(backend), clock=clock) as keeper:
            chat = Chat(keeper)
            await asyncio.sleep(24 * HOUR)
        return chat

    return run_virtual(main, clock)


def test_every_token_of_a_day_reaches_the_session() -> None:
    chat = a_day()
    assert len(chat.tokens) == len(set(chat.tokens)) >= 24
    assert chat.pages == 0


def test_a_short_outage_wakes_nobody() -> None:
    assert a_day(outage_from=2 * HOUR, outage_to=2.1 * HOUR).pages == 0


def test_an_outage_longer_than_a_token_lives_wakes_somebody_once() -> None:
    assert a_day(outage_from=2 * HOUR, outage_to=4 * HOUR).pages == 1
