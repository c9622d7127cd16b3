"""Many tokens on one scheduler, on the virtual clock; `bench/fleet.py --simulate` does it with 100 000."""

import asyncio
import random

from helpers import HOUR
from serving import fresh, parts_of

from token_keeper import RefreshPolicy
from token_keeper.sidecar._household import Household
from token_keeper.testing import ScriptedSource, VirtualClock, VirtualLoop

TOKENS = 800
FETCH_S = 0.05


def test_a_fleet_of_tokens_stays_fresh_and_spreads_its_fetches() -> None:
    """Takes some seconds: 800 tokens for three lives."""
    clock = VirtualClock()
    random.seed(1)

    async def main() -> None:
        sources = [ScriptedSource(fresh(HOUR, clock), takes_s=FETCH_S, splay=True) for _ in range(TOKENS)]
        made = tuple(
            parts_of(f"t{number}", source, policy=RefreshPolicy()) for number, source in enumerate(sources)
        )
        began = clock.boot()
        async with Household(made, clock=clock) as household:
            # Four at a time for one backend; each takes 50 ms.
            await asyncio.sleep(TOKENS * FETCH_S / 4 + 1)
            for _ in range(3 * 12):
                assert {served.snapshot.status for served in household.tokens.values()} <= {"fresh", "stale"}
                await asyncio.sleep(HOUR / 12)
            fetched = [call.at - began for source in sources for call in source.calls]
            assert not any(event.kind == "tokenExpired" for _, event in household.events.history(0))

        later = [at for at in fetched if at > HOUR]
        bins = [sum(HOUR + 300 * n <= at < HOUR + 300 * (n + 1) for at in later) for n in range(20)]
        assert max(bins) < 2 * sum(bins) / len(bins)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(main())
