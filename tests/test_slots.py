"""Which fetches may run at once."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from token_keeper._slots import SLOTS, SLOTS_PER_ORIGIN, TIMEOUTS_UNTIL_NARROW, Slots
from token_keeper.testing import run_virtual


class Crowd:
    """Fetches that hold their slot until told to let go."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.running: list[str] = []
        self.done = asyncio.Event()

    async def fetch(self, origin: str, urgency: float = 0.0, name: str = "") -> None:
        async with self.slots.slot(origin, urgency):
            self.running.append(name or origin)
            await self.done.wait()

    async def begin(self, *fetches: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(fetch) for fetch in fetches]
        for _ in range(3):
            await asyncio.sleep(0)
        return tasks

    async def end(self, tasks: list[asyncio.Task[None]]) -> None:
        self.done.set()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_at_most_eight_fetches_run_at_once() -> None:
    async def main() -> None:
        crowd = Crowd(Slots())
        tasks = await crowd.begin(*(crowd.fetch(f"origin {number}") for number in range(20)))
        assert len(crowd.running) == SLOTS
        await crowd.end(tasks)
        assert len(crowd.running) == 20

    run_virtual(main)


def test_one_backend_takes_at_most_half_of_the_slots() -> None:
    async def main() -> None:
        crowd = Crowd(Slots())
        tasks = await crowd.begin(*(crowd.fetch("busy") for _ in range(10)), crowd.fetch("other"))
        assert sorted(crowd.running) == ["busy"] * SLOTS_PER_ORIGIN + ["other"]
        await crowd.end(tasks)

    run_virtual(main)


def test_who_expires_first_is_served_first() -> None:
    async def main() -> None:
        crowd = Crowd(Slots(total=1))
        tasks = await crowd.begin(crowd.fetch("a", name="first"))
        tasks += await crowd.begin(crowd.fetch("a", 300.0, "late"), crowd.fetch("a", 10.0, "soon"))
        await crowd.end(tasks)
        assert crowd.running == ["first", "soon", "late"]

    run_virtual(main)


def test_a_backend_that_is_silent_three_times_has_one_slot_until_it_answers() -> None:
    async def main() -> None:
        crowd = Crowd(Slots())
        for _ in range(TIMEOUTS_UNTIL_NARROW):
            crowd.slots.answered("slow", timed_out=True)
        tasks = await crowd.begin(*(crowd.fetch("slow") for _ in range(3)))
        assert crowd.running == ["slow"]
        crowd.slots.answered("slow", timed_out=False)
        tasks += await crowd.begin(crowd.fetch("slow"))
        assert crowd.running == ["slow"] * 4
        await crowd.end(tasks)

    run_virtual(main)


def test_a_fetch_that_is_cancelled_gives_its_slot_or_its_place_back() -> None:
    async def main() -> None:
        crowd = Crowd(Slots(total=1))
        running, waiting, last = await crowd.begin(*(crowd.fetch("a", name=name) for name in "abc"))
        waiting.cancel()
        running.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        await crowd.end([last])
        assert crowd.running == ["a", "c"]

    run_virtual(main)
