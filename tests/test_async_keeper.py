"""The keeper for event loops, on the virtual loop: hours in milliseconds."""

import asyncio
import logging
import pickle
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from token_keeper import (
    AsyncTokenKeeper,
    ConfigError,
    InvalidToken,
    Issued,
    KeeperClosed,
    RefreshPolicy,
    RefusedError,
    Secret,
    Status,
    TokenUnavailable,
    TransientFetchError,
    Verdict,
)
from token_keeper.testing import ScriptedSource, VirtualClock, VirtualLoop, mint

HOUR = 3600.0
NO_SPLAY = RefreshPolicy(splay=False, jitter_ratio=0.0)


def fresh(clock: VirtualClock, lifetime: float = HOUR) -> Callable[[], str]:
    """Return a minter of tokens that differ and live for *lifetime* seconds from now."""
    serial = iter(range(1_000_000))
    return lambda: mint(expires_at=clock.wall() + lifetime, jti=str(next(serial)))


def run(main: Callable[[VirtualClock], Coroutine[Any, Any, None]]) -> None:
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(main(clock))


def test_entering_the_context_waits_for_the_first_token() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=2.0)
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            assert keeper.token.count(".") == 2
            assert keeper.snapshot.generation == 1
        assert source.closed

    run(main)


def test_the_token_is_renewed_before_it_expires_for_days() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=0.5)
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            for _ in range(48 * 6):
                await asyncio.sleep(600)
                assert keeper.snapshot.usable_for > 0
                assert keeper.token
            assert 48 <= len(source.calls) <= 2 * 48 + 12
            assert source.most_in_flight == 1

    run(main)


def test_events_come_in_order_and_once_through_an_outage_longer_than_the_token() -> None:
    async def main(clock: VirtualClock) -> None:
        names: list[str] = []
        mend, issue = clock.wall() + 1.5 * HOUR, fresh(clock)

        def backend() -> str | TransientFetchError:
            served = not names or clock.wall() >= mend
            return issue() if served else TransientFetchError("down")

        keeper = AsyncTokenKeeper(ScriptedSource(backend), clock=clock, policy=NO_SPLAY)

        @keeper.on("tokenUpdated", "tokenAboutToExpire", "tokenExpired")
        def note(event: Any) -> None:
            names.append(event.kind)

        async with keeper:
            await asyncio.sleep(2 * HOUR)
        assert names == ["tokenUpdated", "tokenAboutToExpire", "tokenExpired", "tokenUpdated"]

    run(main)


def test_ten_thousand_waiters_on_a_cold_keeper_are_served_by_one_fetch() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=1.0)
        async with AsyncTokenKeeper(source, clock=clock, start_timeout=0) as keeper:
            tokens = await asyncio.gather(*(keeper.get() for _ in range(10_000)))
        assert len(set(tokens)) == 1
        assert len(source.calls) == 1

    run(main)


def test_a_cancelled_waiter_harms_nobody() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=1.0)
        async with AsyncTokenKeeper(source, clock=clock, start_timeout=0) as keeper:
            waiters = [asyncio.create_task(keeper.get()) for _ in range(3)]
            await asyncio.sleep(0.5)
            waiters[0].cancel()
            assert await waiters[1] == await waiters[2] == keeper.token
        assert source.cancelled == 0

    run(main)


def test_a_start_without_a_token_says_why_and_closes_the_keeper() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(TransientFetchError("the backend is down"))
        keeper = AsyncTokenKeeper(source, clock=clock, start_timeout=10)
        with pytest.raises(TokenUnavailable, match="the backend is down") as failure:
            await keeper.start()
        assert isinstance(failure.value.__cause__, TransientFetchError)
        with pytest.raises(KeeperClosed):
            keeper.token  # noqa: B018
        assert source.closed

    run(main)


def test_a_start_that_is_cut_short_says_that_the_fetch_had_not_ended() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=20.0)
        with pytest.raises(TokenUnavailable, match=r"within 5 s.*first fetch had not ended"):
            await AsyncTokenKeeper(source, clock=clock, start_timeout=5).start()

    run(main)


def test_a_start_does_not_wait_for_a_backend_that_refuses() -> None:
    async def main(clock: VirtualClock) -> None:
        began = clock.monotonic()
        with pytest.raises(TokenUnavailable, match="invalid_client"):
            await AsyncTokenKeeper(ScriptedSource(RefusedError("invalid_client")), clock=clock).start()
        assert clock.monotonic() - began < 1

    run(main)


def test_the_probes_of_a_backend_that_refuses_are_no_events_but_debug_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), RefusedError("invalid_grant"))
        async with AsyncTokenKeeper(source, clock=clock, policy=NO_SPLAY):
            await asyncio.sleep(2 * HOUR)
        probes = len(source.calls) - 1
        lines = [record.getMessage().split()[0] for record in caplog.records]
        assert probes > 5
        assert (lines.count("refreshRefused"), lines.count("fetchFailed")) == (1, probes)

    caplog.set_level(logging.DEBUG)
    run(main)


def test_a_start_without_timeout_serves_as_soon_as_the_outage_ends() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(*[TransientFetchError("down")] * 3, fresh(clock))
        async with AsyncTokenKeeper(source, clock=clock, start_timeout=0) as keeper:
            with pytest.raises(TokenUnavailable):
                keeper.token  # noqa: B018
            assert await keeper.get(timeout=60)

    run(main)


def test_get_waits_in_vain_no_longer_than_its_timeout() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(TransientFetchError("down"))
        async with AsyncTokenKeeper(source, clock=clock, start_timeout=0) as keeper:
            began = clock.monotonic()
            with pytest.raises(TokenUnavailable, match="within 7 s"):
                await keeper.get(timeout=7)
            assert clock.monotonic() - began == pytest.approx(7, abs=0.1)

    run(main)


def test_an_unmet_validity_starts_one_fetch_for_all_who_want_it() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=0.1)
        async with AsyncTokenKeeper(source, clock=clock, policy=NO_SPLAY) as keeper:
            first = keeper.token
            await asyncio.sleep(HOUR / 2)
            got = await asyncio.gather(*(keeper.get(min_validity=HOUR * 0.9) for _ in range(20)))
            assert len(source.calls) == 2
            assert set(got) == {keeper.token} != {first}

    run(main)


def test_a_validity_that_tokens_never_have_is_refused_at_once() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock))
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            with pytest.raises(TokenUnavailable, match="live for 3600 s"):
                await keeper.get(min_validity=2 * HOUR)
            assert len(source.calls) == 1

    run(main)


def test_refresh_returns_a_newer_token_and_joins_a_fetch_in_flight() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=1.0)
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            before = keeper.token
            one, two = await asyncio.gather(keeper.refresh(), keeper.refresh())
            assert one == two == keeper.token != before
            assert len(source.calls) == 2

    run(main)


def test_a_failed_refresh_raises_its_own_error_to_each_caller_and_the_token_stays() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), TransientFetchError("backend is down"))
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            before = keeper.token
            outcomes = await asyncio.gather(keeper.refresh(), keeper.refresh(), return_exceptions=True)
            assert [str(outcome) for outcome in outcomes] == ["backend is down"] * 2
            assert outcomes[0] is not outcomes[1]
            assert keeper.token == before

    run(main)


def test_a_denied_token_is_withheld_at_once_and_never_shown_again() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=1.0)
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            denied = keeper.token
            assert keeper.report_denied(denied, code=51215) is Verdict.DENIED
            assert keeper.snapshot.status is Status.DENIED
            with pytest.raises(TokenUnavailable, match="denied"):
                keeper.token  # noqa: B018
            assert await keeper.get() != denied
            assert keeper.report_denied(denied) is Verdict.SUPERSEDED

    run(main)


def test_a_denial_takes_the_token_from_its_reporter_alone() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=1.0)
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            denied = keeper.token
            keeper.report_denied(denied, by="chat", code=401)
            assert keeper.token == denied
            with pytest.raises(TokenUnavailable):
                keeper.reader("chat").token  # noqa: B018
            assert await keeper.reader("chat").get() == keeper.token != denied

    run(main)


def test_the_same_token_again_after_a_denial_is_not_progress() -> None:
    async def main(clock: VirtualClock) -> None:
        old, new = mint(expires_at=clock.wall() + HOUR), mint(expires_at=clock.wall() + HOUR, jti="2")
        source = ScriptedSource(old, old, old, new)
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            keeper.report_denied(old)
            assert await keeper.get() == new
            assert len(source.calls) == 4

    run(main)


def test_codes_are_judged_by_their_meaning() -> None:
    async def main(clock: VirtualClock) -> None:
        async with AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock) as keeper:
            assert keeper.report_denied(keeper.token, code=51201) is Verdict.THROTTLED
            assert keeper.report_denied(keeper.token, code=429) is Verdict.THROTTLED
            assert keeper.report_denied(keeper.token, code=403) is Verdict.FORBIDDEN
            assert keeper.report_denied(keeper.token, reason="insufficient_scope") is Verdict.FORBIDDEN
            assert keeper.snapshot.status is Status.FRESH

    run(main)


def test_recovery_failed_carries_a_diagnosis_without_the_token() -> None:
    async def main(clock: VirtualClock) -> None:
        told: list[Any] = []
        keeper = AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock)
        keeper.on("recoveryFailed")(told.append)
        async with keeper:
            for _ in range(30):
                token = await keeper.get(timeout=1000)
                keeper.report_denied(token, code=51215)
            await asyncio.sleep(1)
        assert len(told) == 1
        assert told[0].diagnosis
        assert token not in repr(told)

    run(main)


def test_a_keeper_without_a_source_announces_the_expiry_of_what_it_was_handed() -> None:
    async def main(clock: VirtualClock) -> None:
        told: list[tuple[str, float]] = []
        keeper = AsyncTokenKeeper(clock=clock)
        began = clock.wall()
        keeper.on()(lambda event: told.append((event.kind, round(event.at - began))))
        async with keeper:
            waiter = asyncio.create_task(keeper.get())
            await asyncio.sleep(1)
            token = mint(expires_at=began + HOUR)
            keeper.update(token)
            assert await waiter == token
            keeper.update(token)
            with pytest.raises(ConfigError, match="update"):
                await keeper.refresh()
            await asyncio.sleep(2 * HOUR)
        assert told == [("tokenUpdated", 1), ("tokenAboutToExpire", 3420), ("tokenExpired", 3600)]

    run(main)


def test_a_lifetime_of_three_minutes_is_no_endless_loop_without_a_source() -> None:
    async def main(clock: VirtualClock) -> None:
        told: list[float] = []
        keeper = AsyncTokenKeeper(clock=clock)
        began = clock.wall()

        @keeper.on("tokenAboutToExpire")
        async def renew(event: Any) -> None:
            told.append(event.at - began)
            keeper.update(mint(expires_at=clock.wall() + 180, jti=str(len(told))))

        async with keeper:
            keeper.update(mint(expires_at=clock.wall() + 180))
            await asyncio.sleep(HOUR)
        assert 30 <= len(told) <= 40

    run(main)


def test_a_token_can_be_handed_in_before_the_start() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock))
        keeper = AsyncTokenKeeper(source, clock=clock)
        token = mint(expires_at=clock.wall() + HOUR)
        keeper.update(token)
        async with keeper:
            assert keeper.token == token
            assert not source.calls

    run(main)


def test_an_update_with_a_denied_or_a_wrapped_token_changes_nothing() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock))
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            denied = keeper.token
            keeper.report_denied(denied)
            current = await keeper.get()
            with pytest.raises(InvalidToken, match="refused"):
                keeper.update(denied)
            with pytest.raises(InvalidToken) as failure:
                keeper.update('{"token": "' + current + '"}')
            assert [finding.code for finding in failure.value.findings] == ["wrapped-json"]
            assert keeper.token == current

    run(main)


def test_an_update_during_a_fetch_wins_and_satisfies_the_waiters() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=5.0)
        async with AsyncTokenKeeper(source, clock=clock, start_timeout=0) as keeper:
            waiter = asyncio.create_task(keeper.get())
            await asyncio.sleep(1)
            token = mint(expires_at=clock.wall() + HOUR, jti="mine")
            keeper.update(token)
            assert await waiter == token
            await asyncio.sleep(10)
            assert keeper.token == token
        assert source.cancelled == 1

    run(main)


def test_a_reader_that_finds_no_token_after_a_suspend_wakes_the_scheduler() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=0.01)
        async with AsyncTokenKeeper(source, policy=NO_SPLAY, clock=clock) as keeper:
            await asyncio.sleep(1)
            clock.suspend(8 * HOUR)
            with pytest.raises(TokenUnavailable):
                _ = keeper.token
            await asyncio.sleep(0.1)
            assert keeper.token
            assert len(source.calls) == 2

    run(main)


def test_a_suspend_is_seen_and_the_token_replaced() -> None:
    async def main(clock: VirtualClock) -> None:
        told: list[str] = []
        source = ScriptedSource(fresh(clock))
        keeper = AsyncTokenKeeper(source, clock=clock)
        keeper.on("clockJumped", "tokenExpired", "tokenUpdated")(lambda event: told.append(event.kind))
        async with keeper:
            asleep = keeper.token
            clock.suspend(8 * HOUR)
            with pytest.raises(TokenUnavailable, match="expired"):
                keeper.token  # noqa: B018
            assert await keeper.get() != asleep
            await asyncio.sleep(0)
        assert told == ["tokenUpdated", "clockJumped", "tokenExpired", "tokenUpdated"]

    run(main)


@pytest.mark.parametrize("seconds", [-86_400.0, 86_400.0])
def test_a_step_of_the_wall_clock_takes_no_token_away(seconds: float) -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock))
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            await asyncio.sleep(60)
            clock.step_wall(seconds)
            assert keeper.token
            await asyncio.sleep(10)
            assert keeper.snapshot.generation == 2
            assert keeper.snapshot.usable_for == pytest.approx(HOUR, abs=15)

    run(main)


def test_a_source_that_raises_anything_is_asked_again() -> None:
    async def main(clock: VirtualClock) -> None:
        def broken() -> str:
            raise ZeroDivisionError

        source = ScriptedSource(broken, broken, fresh(clock))
        async with AsyncTokenKeeper(source, clock=clock) as keeper:
            assert keeper.token
            assert len(source.calls) == 3

    run(main)


def test_a_source_that_ignores_its_cancellation_does_not_stop_the_keeper() -> None:
    class Deaf(ScriptedSource):
        async def fetch(self, *, tries: int = 1) -> Any:
            issued = await super().fetch(tries=tries)
            while clock_of[0].monotonic() < until[0]:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    continue
            return issued

    clock_of: list[VirtualClock] = []
    until = [0.0]

    async def main(clock: VirtualClock) -> None:
        clock_of.append(clock)
        until[0] = clock.monotonic() + 300
        source = Deaf(fresh(clock))
        async with AsyncTokenKeeper(source, clock=clock, start_timeout=0) as keeper:
            await asyncio.sleep(60)
            assert keeper.snapshot.failures >= 1
            assert source.most_in_flight == 1
            assert await keeper.get(timeout=900)

    run(main)


def test_waiters_in_another_event_loop_are_served_too() -> None:
    got: list[str] = []

    async def main() -> None:
        clock = VirtualClock()
        source = ScriptedSource(fresh(clock))
        source.hold()
        keeper = AsyncTokenKeeper(source, start_timeout=0, clock=clock)
        async with keeper:
            thread = threading.Thread(target=lambda: got.append(asyncio.run(keeper.get(timeout=10))))
            thread.start()
            await asyncio.to_thread(source.wait_called, 1)
            source.release()
            await asyncio.to_thread(thread.join, 10)
            assert got == [keeper.token]

    asyncio.run(main())


def test_a_loop_that_ends_leaves_nobody_waiting() -> None:
    clock = VirtualClock()
    keeper = AsyncTokenKeeper(ScriptedSource(TransientFetchError("down")), clock=clock, start_timeout=0)
    asyncio.run(keeper.start())
    with pytest.raises(KeeperClosed, match="event loop"):
        asyncio.run(keeper.get(timeout=5))
    asyncio.run(keeper.close())


def test_closing_ends_the_waits_and_reads_and_may_be_repeated() -> None:
    async def main(clock: VirtualClock) -> None:
        keeper = AsyncTokenKeeper(ScriptedSource(TransientFetchError("down")), clock=clock, start_timeout=0)
        async with keeper:
            waiter = asyncio.create_task(keeper.get())
            await asyncio.sleep(1)
        with pytest.raises(KeeperClosed):
            await waiter
        await keeper.close()
        with pytest.raises(KeeperClosed):
            keeper.report_denied("x")
        with pytest.raises(KeeperClosed):
            await keeper.start()

    run(main)


def test_reading_before_the_start_says_how_to_start() -> None:
    keeper = AsyncTokenKeeper(ScriptedSource("x.y.z"))
    with pytest.raises(KeeperClosed, match="async with"):
        keeper.token  # noqa: B018


def test_a_keeper_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="each process"):
        pickle.dumps(AsyncTokenKeeper())


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"name": "no blanks"}, "name"),
        ({"profile": "nope"}, "profile"),
        ({"start_timeout": -1}, "start_timeout"),
        ({"start_timeout": float("nan")}, "start_timeout"),
        ({"start_timeout": "3"}, "start_timeout"),
        ({"start_timeout": None}, "start_timeout"),
        ({"source": ScriptedSource}, "source"),
        ({"source": "https://backend.example/token"}, "source"),
        ({"source": lambda: "x.y.z"}, "source"),
        ({"policy": {"lead_ratio": 0.3}}, "policy"),
        ({"profile": None}, "profile"),
        ({"expect": 3}, "expect"),
        ({"clock": VirtualClock}, "clock"),
        ({"expect": {"nope": 1}}, "expect.nope"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as failure:
        AsyncTokenKeeper(**arguments)
    assert failure.value.key == key


def test_an_unknown_event_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="tokenAboutToExpire"):
        AsyncTokenKeeper().on("tokenWillExpire")


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda keeper: keeper.report_denied(None), "token"),
        (lambda keeper: keeper.report_denied("x", by=None), "by"),
        (lambda keeper: keeper.report_denied("x", by="b" * 257), "by"),
        (lambda keeper: keeper.report_denied("x", code=[401]), "code"),
        (lambda keeper: keeper.report_denied("x", reason=401), "reason"),
        (lambda keeper: keeper.report_accepted(b"x"), "token"),
        (lambda keeper: keeper.report_accepted("x", by=3), "by"),
        (lambda keeper: keeper.reader(None), "by"),
        (lambda keeper: keeper.on(print), "on"),
        (lambda keeper: keeper.on("tokenUpdated")(None), "on"),
    ],
)
def test_a_wrong_argument_of_a_call_is_named(call: Callable[[Any], Any], key: str) -> None:
    with pytest.raises(ConfigError) as failure:
        call(AsyncTokenKeeper())
    assert failure.value.key == key


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"min_validity": -60.0}, "min_validity"),
        ({"min_validity": float("nan")}, "min_validity"),
        ({"min_validity": "60"}, "min_validity"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"timeout": None}, "timeout"),
    ],
)
def test_a_wrong_time_to_wait_is_named(arguments: dict[str, Any], key: str) -> None:
    async def main(clock: VirtualClock) -> None:
        async with AsyncTokenKeeper(clock=clock) as keeper:
            keeper.update("opaque-1", expires_at=clock.wall() + 10)
            await asyncio.sleep(20)
            with pytest.raises(ConfigError) as failure:
                await keeper.get(**arguments)
            assert failure.value.key == key

    run(main)


def test_what_is_left_of_a_deadline_may_be_negative() -> None:
    async def main(clock: VirtualClock) -> None:
        async with AsyncTokenKeeper(clock=clock) as keeper:
            with pytest.raises(TokenUnavailable):
                await keeper.get(timeout=-0.1)

    run(main)


@pytest.mark.parametrize("raw", [None, b"opaque-1", 3])
def test_what_is_no_string_is_no_token(raw: Any) -> None:
    with pytest.raises(InvalidToken, match=type(raw).__name__):
        AsyncTokenKeeper().update(raw)


def test_an_update_leaves_no_trace_of_the_fetch_that_it_cancelled() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock), takes_s=5.0)
        async with AsyncTokenKeeper(source, clock=clock, start_timeout=0) as keeper:
            await asyncio.sleep(1)
            keeper.update(mint(expires_at=clock.wall() + HOUR, jti="mine"))
            await asyncio.sleep(1)
            keeper.report_denied(keeper.token)
            with pytest.raises(TokenUnavailable) as failure:
                keeper.token  # noqa: B018
            assert failure.value.__cause__ is None

    run(main)


def test_a_token_that_was_handed_in_says_nothing_of_how_long_the_sources_live() -> None:
    async def main(clock: VirtualClock) -> None:
        keeper = AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock)
        keeper.update("opaque-1", expires_at=clock.wall() + 30)
        async with keeper:
            assert (await keeper.get(min_validity=60)).count(".") == 2

    run(main)


@pytest.mark.parametrize("ahead_s", [-700.0, 600.0])
def test_a_token_that_is_handed_in_is_judged_by_the_clock_of_the_backend(ahead_s: float) -> None:
    async def main(clock: VirtualClock) -> None:
        def issue(name: str) -> str:
            return mint(expires_at=clock.wall() + ahead_s + 600, jti=name)

        first = Issued(secret=Secret(issue("1")), server_time=clock.wall() + ahead_s)
        async with AsyncTokenKeeper(ScriptedSource(first), clock=clock) as keeper:
            keeper.update(issue("2"))
            assert keeper.snapshot.generation == 2
            assert keeper.snapshot.usable_for == pytest.approx(600, abs=1)

    run(main)


def test_a_close_that_is_cancelled_closes_the_source_all_the_same() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(fresh(clock))
        keeper = AsyncTokenKeeper(source, clock=clock)

        @keeper.on("tokenUpdated")
        async def linger(_event: Any) -> None:
            await asyncio.sleep(9)

        await keeper.start()
        closing = asyncio.create_task(keeper.close())
        await asyncio.sleep(1)
        closing.cancel()
        await asyncio.wait({closing})
        await asyncio.sleep(0.1)
        assert source.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_a_source_that_cannot_be_closed_holds_nobody_up() -> None:
    class Clinging(ScriptedSource):
        async def aclose(self) -> None:
            await asyncio.sleep(HOUR)

    class Broken(ScriptedSource):
        async def aclose(self) -> None:
            raise LookupError

    async def main(clock: VirtualClock) -> None:
        for source in (Clinging(fresh(clock)), Broken(fresh(clock))):
            began = clock.monotonic()
            async with AsyncTokenKeeper(source, clock=clock):
                pass
            assert clock.monotonic() - began < 10

    run(main)


def test_news_before_the_start_are_bounded() -> None:
    async def main(clock: VirtualClock) -> None:
        told: list[int] = []
        keeper = AsyncTokenKeeper(clock=clock)
        keeper.on("tokenUpdated")(lambda event: told.append(event.generation))
        for number in range(3_000):
            keeper.update(f"opaque-{number}", expires_at=clock.wall() + HOUR)
        assert len(keeper._kept._outbox) <= 1_024
        async with keeper:
            await asyncio.sleep(1)
        assert told[-1] == 3_000

    run(main)


@pytest.mark.parametrize("answer", ["opaque-1", Issued(secret="opaque-1"), None])  # type: ignore[arg-type]
def test_a_source_that_returns_something_else_is_told_what_to_return(answer: Any) -> None:
    class Odd(ScriptedSource):
        async def fetch(self, *, tries: int = 1) -> Any:
            await super().fetch(tries=tries)
            return answer

    class Sync(ScriptedSource):
        def fetch(self, *, tries: int = 1) -> Any:
            self._record(tries)
            return answer

    async def main(clock: VirtualClock) -> None:
        for source in (Odd("x"), Sync("x")):
            with pytest.raises(TokenUnavailable, match=r"Issued\(secret=") as failure:
                await AsyncTokenKeeper(source, clock=clock, start_timeout=1).start()
            assert "opaque-1" not in str(failure.value)
            assert source.calls

    run(main)


def test_a_source_that_exits_does_not_end_the_loop() -> None:
    def leave() -> str:
        raise SystemExit(9)

    async def main(clock: VirtualClock) -> None:
        async with AsyncTokenKeeper(ScriptedSource(leave, fresh(clock)), clock=clock) as keeper:
            assert keeper.token

    run(main)


def test_a_failed_start_promises_no_next_attempt() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(TransientFetchError("down"))
        with pytest.raises(TokenUnavailable, match="the keeper is closed") as failure:
            await AsyncTokenKeeper(source, clock=clock, start_timeout=5).start()
        assert "next attempt" not in str(failure.value)

    run(main)


def test_a_call_in_the_middle_of_another_one_by_the_same_thread_is_not_lost() -> None:
    class Interrupting(VirtualClock):
        """Calls a function in the middle of a step, as a signal handler does."""

        handler: Callable[[], object] | None = None

        def wall(self) -> float:
            handler, self.handler = self.handler, None
            if handler is not None:
                handler()
            return super().wall()

    clock = Interrupting()
    keeper = AsyncTokenKeeper(clock=clock)
    keeper.update("opaque-1", expires_at=clock.wall() + HOUR)
    kept = keeper._kept
    with kept._lock:
        clock.handler = lambda: keeper.update("opaque-2", expires_at=clock.wall() + HOUR)
        keeper.report_denied("opaque-1", by="chat")
    assert keeper.token == "opaque-2"
    assert keeper.snapshot.generation == 2


def test_a_close_in_the_middle_of_another_call_stands() -> None:
    class Closing(VirtualClock):
        keeper: AsyncTokenKeeper | None = None

        def wall(self) -> float:
            keeper, self.keeper = self.keeper, None
            if keeper is not None:
                keeper._kept.close()
            return super().wall()

    clock = Closing()
    keeper = AsyncTokenKeeper(clock=clock)
    keeper.update("opaque-1", expires_at=clock.wall() + HOUR)
    clock.keeper = keeper
    keeper.report_accepted("opaque-1")
    assert keeper.snapshot.status is Status.CLOSED
    with pytest.raises(KeeperClosed):
        keeper.token  # noqa: B018
