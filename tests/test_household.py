"""All tokens of the sidecar, and the reload that touches only what changed; on the virtual clock."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from token_keeper import KeeperClosed, RefreshPolicy, TransientFetchError
from token_keeper.inspection import Expectations
from token_keeper.profiles import profile_named
from token_keeper.sidecar._household import LIVE_S, Household
from token_keeper.sidecar._served import ServedToken, TokenParts
from token_keeper.sidecar.config._model import HttpSourceConfig, TokenConfig
from token_keeper.testing import ScriptedSource, VirtualClock, VirtualLoop, mint

HOUR = 3600.0
NO_SPLAY = RefreshPolicy(splay=False, jitter_ratio=0.0)


def minting(clock: VirtualClock, lifetime_s: float = HOUR, **claims: Any) -> Callable[[], str]:
    serial = iter(range(1_000_000))
    return lambda: mint(expires_at=clock.wall() + lifetime_s, jti=str(next(serial)), **claims)


def parts(
    name: str, source: ScriptedSource, *, url: str = "https://backend.example", **changes: Any
) -> TokenParts:
    usual = TokenParts(
        name=name,
        config=TokenConfig(source=HttpSourceConfig(url=url)),
        source=source,
        policy=NO_SPLAY,
        profile=profile_named("auto"),
        expect=Expectations(),
    )
    return replace(usual, **changes)


def run(main: Callable[[VirtualClock], Coroutine[Any, Any, None]]) -> None:
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(main(clock))


def kinds(household: Household) -> list[str]:
    return [f"{event.name} {event.kind}" for _, event in household.events.history(10 * HOUR)]


def test_all_tokens_are_kept_fresh_by_one_scheduler() -> None:
    async def main(clock: VirtualClock) -> None:
        names = [f"t{number}" for number in range(50)]
        made = tuple(parts(name, ScriptedSource(minting(clock))) for name in names)
        async with Household(made, clock=clock) as household:
            for _ in range(10):
                await asyncio.sleep(HOUR / 3)
                assert {served.snapshot.status for served in household.tokens.values()} <= {"fresh", "stale"}
            assert household.is_live

    run(main)


def test_a_reload_touches_only_what_changed() -> None:
    async def main(clock: VirtualClock) -> None:
        kept, changed, gone, new = (ScriptedSource(minting(clock)) for _ in range(4))
        before = (parts("kept", kept), parts("changed", changed), parts("gone", gone))
        async with Household(before, clock=clock) as household:
            await asyncio.sleep(10)
            tokens = dict(household.tokens)
            other = ScriptedSource(minting(clock))
            changes = await household.apply(
                (
                    parts("kept", ScriptedSource(minting(clock))),
                    parts("changed", other, url="https://other.example"),
                    parts("new", new),
                )
            )
            await asyncio.sleep(10)

            assert (changes.added, changes.changed) == (("new",), ("changed",))
            assert (changes.removed, changes.unchanged) == (("gone",), ("kept",))
            assert list(household.tokens) == ["kept", "changed", "new"]
            assert household.tokens["kept"] is tokens["kept"]
            assert [len(source.calls) for source in (kept, changed, gone, new, other)] == [1, 1, 1, 1, 1]
            assert household.tokens["changed"].snapshot.generation == 2
            assert changed.closed
            assert gone.closed
            with pytest.raises(KeeperClosed):
                _ = tokens["gone"].token

    run(main)


def test_a_changed_token_serves_until_its_successor_comes() -> None:
    async def main(clock: VirtualClock) -> None:
        async with Household((parts("chat", ScriptedSource(minting(clock))),), clock=clock) as household:
            await asyncio.sleep(10)
            chat, before = household.tokens["chat"], household.tokens["chat"].token
            down = ScriptedSource(TransientFetchError("down"), TransientFetchError("down"), minting(clock))
            await household.apply((parts("chat", down, url="https://other.example"),))
            await asyncio.sleep(0.5)
            assert chat.token == before
            await asyncio.sleep(60)
            assert chat.token != before
            assert chat.snapshot.generation == 2

    run(main)


def test_a_token_that_does_not_fit_what_is_now_expected_is_withdrawn_at_once() -> None:
    async def main(clock: VirtualClock) -> None:
        twilio = profile_named("twilio")
        alice = ScriptedSource(minting(clock, sub="alice"))
        async with Household((parts("chat", alice),), clock=clock) as household:
            await asyncio.sleep(10)
            chat = household.tokens["chat"]
            expect = twilio.expectations({"identity": "bob"})
            never = ScriptedSource(TransientFetchError("down"))
            changed = parts("chat", never, url="https://other.example", profile=twilio, expect=expect)
            await household.apply((changed,))

            assert chat.snapshot.status == "absent"
            assert chat.snapshot.usable_for == 0

    run(main)


def test_two_files_that_say_the_same_touch_nothing() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(minting(clock))
        async with Household((parts("chat", source),), clock=clock) as household:
            await asyncio.sleep(10)
            await household.apply((parts("chat", ScriptedSource(minting(clock))),))
            await asyncio.sleep(10)
            assert len(source.calls) == 1
            assert kinds(household) == ["chat tokenUpdated"]

    run(main)


def test_a_reload_in_the_middle_of_a_fetch_drops_that_fetch() -> None:
    async def main(clock: VirtualClock) -> None:
        slow = ScriptedSource(minting(clock), takes_s=8)
        async with Household((parts("chat", slow),), clock=clock) as household:
            await asyncio.sleep(2)
            await household.apply(
                (parts("chat", ScriptedSource(minting(clock)), url="https://other.example"),)
            )
            await asyncio.sleep(3)
            assert household.tokens["chat"].snapshot.generation == 1
            assert slow.closed

    run(main)


def test_a_household_whose_scheduler_does_not_tick_is_not_live() -> None:
    async def main(clock: VirtualClock) -> None:
        household = Household((), clock=clock)
        assert not household.is_live
        async with household:
            await asyncio.sleep(1)
            assert household.is_live
            clock.advance(LIVE_S + 1)
            assert not household.is_live
        assert not household.is_live

    run(main)


def test_fetches_and_denials_are_counted() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(TransientFetchError("down"), "no token", minting(clock))
        async with Household((parts("chat", source),), clock=clock) as household:
            await asyncio.sleep(30)
            chat: ServedToken = household.tokens["chat"]
            chat.report_denied(chat.token)
            chat.report_denied("another")
            await asyncio.sleep(30)
            assert chat.tally.fetches["transient"] == 1
            assert chat.tally.fetches["issued"] == 2
            assert chat.tally.fetches["invalid"] == 1
            assert chat.tally.denials["denied"] == 1
            assert chat.tally.denials["superseded"] == 1
            assert chat.last_success_at is not None

    run(main)


def test_whoever_looks_at_a_served_token_sees_no_token() -> None:
    async def main(clock: VirtualClock) -> None:
        async with Household((parts("chat", ScriptedSource(minting(clock))),), clock=clock) as household:
            await asyncio.sleep(10)
            chat = household.tokens["chat"]
            assert chat.token not in repr(chat)
            assert chat.token not in repr(household)

    run(main)
