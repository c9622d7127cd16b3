"""One task drives many tokens, and nothing that one of them does stops the others."""

import asyncio
from collections.abc import Callable
from typing import Any

from token_keeper import Issued, RefreshPolicy, Secret
from token_keeper._inputs import Announce, Fetched, Started
from token_keeper._kept import KeptToken
from token_keeper._model import EventKind, Token
from token_keeper._scheduler import TICK_S, Charge, Scheduler
from token_keeper.logs import keeper_logger
from token_keeper.testing import ScriptedSource, VirtualClock, VirtualLoop, mint

HOUR = 3600.0


class Rig:
    """A scheduler on a virtual clock, with as many tokens as wanted."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.scheduler = Scheduler(clock, keeper_logger(name="test"))
        self.told: dict[str, list[EventKind]] = {}
        self._task = asyncio.create_task(self.scheduler.run())

    def keep(
        self, name: str, source: ScriptedSource, *, tell: Callable[[Announce], None] | None = None
    ) -> KeptToken:
        kept = KeptToken(name, policy=RefreshPolicy(), clock=self.clock, sourced=True)
        told = self.told.setdefault(name, [])
        charge = Charge(kept, source, self._receive, tell or (lambda event: told.append(event.kind)))
        self.scheduler.add(charge)
        kept.post(Started())
        return kept

    def source(self, lifetime: float = HOUR, **options: Any) -> ScriptedSource:
        serial = iter(range(1_000_000))
        return ScriptedSource(
            lambda: mint(expires_at=self.clock.wall() + lifetime, jti=f"{id(serial)}-{next(serial)}"),
            **options,
        )

    def _receive(self, fetch_id: int, issued: Issued) -> Fetched:
        expires_at = self.clock.wall() + HOUR
        return Fetched(fetch_id, Token(secret=Secret(issued.secret.reveal()), expires_at=expires_at))

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def run(main: Callable[[Rig], Any]) -> None:
    clock = VirtualClock()

    async def rigged() -> None:
        rig = Rig(clock)
        await main(rig)
        await rig.end()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(rigged())


def test_a_thousand_tokens_stay_fresh_with_few_fetches_at_once() -> None:
    async def main(rig: Rig) -> None:
        sources = [rig.source(takes_s=0.05, origin=f"origin {number % 7}") for number in range(1000)]
        kept = [rig.keep(f"token {number}", source) for number, source in enumerate(sources)]
        most = 0
        for _ in range(200):
            await asyncio.sleep(20)
            most = max(most, sum(source.in_flight for source in sources))
        assert all(one.held is not None and rig.clock.boot() < one.held.until for one in kept)
        assert most <= 8

    run(main)


def test_a_listener_that_raises_stops_neither_its_token_nor_the_others() -> None:
    async def main(rig: Rig) -> None:
        def broken(_: Announce) -> None:
            raise ZeroDivisionError

        bad = rig.keep("bad", rig.source(), tell=broken)
        good = rig.keep("good", rig.source())
        await asyncio.sleep(3 * HOUR)
        assert good.held is not None
        assert rig.clock.boot() < good.held.until
        assert bad.held is not None
        assert rig.clock.boot() < bad.held.until
        assert rig.scheduler.failures >= 3

    run(main)


def test_a_machine_that_raises_is_tried_again_at_the_next_tick() -> None:
    async def main(rig: Rig) -> None:
        kept = rig.keep("token", rig.source())
        await asyncio.sleep(1)
        policy, kept.policy = kept.policy, None  # type: ignore[assignment]
        await asyncio.sleep(2 * HOUR)
        kept.policy = policy
        await asyncio.sleep(2 * TICK_S)
        assert rig.scheduler.failures > 100
        assert kept.held is not None
        assert rig.clock.boot() < kept.held.until

    run(main)


def test_one_jump_of_the_clock_is_told_to_every_token() -> None:
    async def main(rig: Rig) -> None:
        for name in ("one", "two"):
            rig.keep(name, rig.source())
        await asyncio.sleep(60)
        rig.clock.step_wall(-HOUR)
        await asyncio.sleep(60)
        assert rig.scheduler.jumps == 1
        jumps = [kinds.count(EventKind.CLOCK_JUMPED) for kinds in rig.told.values()]
        assert jumps == [1, 1]

    run(main)


def test_a_backend_that_hangs_does_not_hold_up_the_others() -> None:
    async def main(rig: Rig) -> None:
        hanging = [rig.source(origin="hangs") for _ in range(50)]
        for number, source in enumerate(hanging):
            source.hold()
            rig.keep(f"hanging {number}", source)
        quick = [rig.keep(f"quick {number}", rig.source(origin="quick")) for number in range(50)]
        await asyncio.sleep(1)
        assert all(one.held is not None for one in quick)

    run(main)
