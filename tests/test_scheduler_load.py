"""What a fleet, or a machine that raises, may cost: bounds that do not depend on the clock."""

import asyncio
from typing import Any

from token_keeper import Issued, RefreshPolicy
from token_keeper._inputs import Announce, Fetched, Started
from token_keeper._kept import KeptToken
from token_keeper._scheduler import TICK_S, Charge, Scheduler
from token_keeper._slots import Slots
from token_keeper._state import Token
from token_keeper.logs import keeper_logger
from token_keeper.testing import ScriptedSource, VirtualClock, VirtualLoop, mint, run_virtual

HOUR = 3600.0


class CountedUrgency(float):
    """A number that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: Any) -> bool:
        CountedUrgency.compared += 1
        return float.__lt__(self, other)


def test_a_turn_that_raises_is_repeated_at_the_next_tick_and_not_at_once() -> None:
    clock, broken = VirtualClock(), []

    def draw() -> float:
        if broken:
            raise ZeroDivisionError
        return 0.5

    def receive(fetch_id: int, issued: Issued) -> Fetched:
        return Fetched(fetch_id, Token(secret=issued.secret, expires_at=clock.wall() + HOUR))

    def tell(_: Announce) -> None: ...

    async def main() -> int:
        scheduler = Scheduler(clock, keeper_logger(name="test"))
        kept = KeptToken("token", policy=RefreshPolicy(), clock=clock, sourced=True, draw=draw)
        task = asyncio.create_task(scheduler.run())
        scheduler.add(Charge(kept, ScriptedSource(mint(jti="1")), receive, tell))
        kept.post(Started())
        await asyncio.sleep(1)
        broken.append(True)
        await asyncio.sleep(HOUR + 20 * TICK_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return scheduler.failures

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        assert 20 <= runner.run(main()) <= HOUR / TICK_S + 21


def test_a_long_queue_for_one_backend_costs_each_fetch_little() -> None:
    async def main() -> None:
        slots, fetches = Slots(), 2_000

        async def fetch(urgency: float) -> None:
            async with slots.slot("busy", CountedUrgency(urgency)):
                await asyncio.sleep(0)

        CountedUrgency.compared = 0
        await asyncio.gather(*(fetch(number) for number in range(fetches)))
        assert CountedUrgency.compared < 100 * fetches

    run_virtual(main)


def test_fetches_that_left_the_queue_do_not_hold_up_those_behind_them() -> None:
    served: list[float] = []

    async def main() -> None:
        slots, done = Slots(total=4, per_origin=2), asyncio.Event()

        async def fetch(urgency: float) -> None:
            async with slots.slot("busy", urgency):
                served.append(urgency)
                await done.wait()

        tasks = [asyncio.create_task(fetch(float(number))) for number in range(10)]
        await asyncio.sleep(0)
        for task in tasks[2:8]:
            task.cancel()
        done.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtual(main)
    assert served == [0.0, 1.0, 8.0, 9.0]
