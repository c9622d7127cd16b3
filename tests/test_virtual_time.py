import asyncio
import gc
import socket
import threading
import time
import timeit

import jwt
import pytest

from token_keeper._clock import Clock, SystemClock
from token_keeper._errors import RefusedError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper.testing import ScriptedSource, VirtualClock, VirtualLoop, mint, run_virtual

T0 = 1_700_000_000.0
HOUR = 3600.0
YEAR = 365 * 24 * HOUR


def readings(clock: Clock) -> tuple[float, float, float]:
    return clock.wall(), clock.boot(), clock.monotonic()


def moved(before: tuple[float, ...], after: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(new - old, 6) for old, new in zip(before, after, strict=True))


# The clocks.


def test_the_system_clock_shows_the_time_of_this_machine():
    clock = SystemClock()

    assert clock.wall() == pytest.approx(time.time(), abs=5)
    assert clock.monotonic() == pytest.approx(time.monotonic(), abs=5)
    assert clock.boot() >= clock.monotonic() - 5


def test_reading_the_boot_clock_runs_no_python_code():
    assert not hasattr(SystemClock().boot, "__code__")
    assert min(timeit.repeat(SystemClock().boot, number=10_000, repeat=5)) / 10_000 < 2e-6


def test_a_virtual_clock_stands_still_until_it_is_told_to_move():
    clock = VirtualClock()
    before = readings(clock)

    assert before[0] == T0
    assert readings(clock) == before


def test_advancing_moves_all_three_clocks():
    clock = VirtualClock()
    before = readings(clock)

    clock.advance(2.5)

    assert moved(before, readings(clock)) == (2.5, 2.5, 2.5)


def test_a_suspend_moves_the_wall_and_boot_clocks_only():
    clock = VirtualClock()
    before = readings(clock)

    clock.suspend(HOUR)

    assert moved(before, readings(clock)) == (HOUR, HOUR, 0)


def test_setting_the_clock_moves_the_wall_clock_only_and_in_either_direction():
    clock = VirtualClock()
    before = readings(clock)

    clock.step_wall(90)
    clock.step_wall(-30)

    assert moved(before, readings(clock)) == (60, 0, 0)


def test_many_small_steps_add_up_exactly():
    clock = VirtualClock()
    for _ in range(100_000):
        clock.advance(0.1)

    assert clock.wall() == T0 + 10_000


@pytest.mark.parametrize("move", ["advance", "suspend"])
def test_time_cannot_pass_backwards(move):
    with pytest.raises(ValueError, match="step_wall"):
        getattr(VirtualClock(), move)(-1)


def test_advancing_to_a_moment_never_stops_short_of_it():
    clock = VirtualClock(boot=123_456_789.0)
    for target in (123_456_789.1, 123_456_789.1000001, 223_456_789.7):
        clock.advance_to(target)
        assert clock.monotonic() >= target
    clock.advance_to(5.0)

    assert clock.monotonic() == pytest.approx(223_456_789.7)


# The loop.


def test_a_year_of_sleep_ends_at_once():
    async def main():
        await asyncio.sleep(YEAR)
        return asyncio.get_running_loop().time()

    clock = VirtualClock()
    started = time.monotonic()

    assert run_virtual(main, clock) == pytest.approx(YEAR + 1000)
    assert clock.wall() == pytest.approx(T0 + YEAR)
    assert time.monotonic() - started < 5


def test_a_coroutine_runs_as_well_as_a_function_that_makes_one():
    async def main():
        return 7

    assert run_virtual(main()) == run_virtual(main) == 7


def test_timers_fire_in_order_and_exactly_on_time():
    async def main():
        loop = asyncio.get_running_loop()
        start = loop.time()
        seen = []

        async def sleeper(seconds):
            await asyncio.sleep(seconds)
            seen.append((seconds, loop.time() - start))

        await asyncio.gather(*(sleeper(s) for s in (3, 0.1, 20, 1)))
        return seen

    assert run_virtual(main) == [(s, pytest.approx(s)) for s in (0.1, 1, 3, 20)]


@pytest.mark.parametrize("boot", [0.0, 1.0, 1e5, 1e8, 3e9])
def test_a_timer_never_fires_early_so_that_code_that_waits_for_a_rest_does_not_spin(boot):
    async def main():
        loop = asyncio.get_running_loop()
        turns = 0
        for target in (loop.time() + s for s in (0.1, 0.2000000001, 1 / 3, 86_400.7)):
            while (rest := target - loop.time()) > 0:
                turns += 1
                await asyncio.sleep(rest)
        return turns

    assert run_virtual(main, VirtualClock(boot=boot)) <= 8


def test_a_timeout_is_one_of_virtual_time():
    async def main():
        async with asyncio.timeout(HOUR):
            await asyncio.Event().wait()

    clock = VirtualClock()
    with pytest.raises(TimeoutError):
        run_virtual(main, clock)

    assert clock.wall() == pytest.approx(T0 + HOUR)


def test_a_suspend_delays_timers_as_it_does_outside():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(1, loop.clock.suspend, HOUR)
        await asyncio.sleep(10)

    clock = VirtualClock()
    run_virtual(main, clock)

    assert clock.wall() == pytest.approx(T0 + HOUR + 10)


def test_another_thread_can_wake_the_loop_while_nothing_is_scheduled():
    async def main():
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(woken.set,))
        loop.call_soon(thread.start)
        await woken.wait()
        thread.join()
        return loop.time()

    assert run_virtual(main) == 1000


def test_no_virtual_time_passes_while_an_executor_works():
    async def main():
        loop = asyncio.get_running_loop()
        done = threading.Event()
        timer = loop.call_later(60, done.set)
        finished_first = await asyncio.to_thread(done.wait, 0.05)
        timer.cancel()
        return finished_first, loop.time()

    assert run_virtual(main) == (False, 1000)


def test_no_virtual_time_passes_inside_real_work():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(60, lambda: None)
        woken = asyncio.Event()
        with loop.real_work():
            thread = threading.Timer(0.05, loop.call_soon_threadsafe, (woken.set,))
            thread.start()
            await woken.wait()
        thread.join()
        return loop.time()

    assert run_virtual(main) == 1000


def test_real_sockets_work():
    async def main():
        async def echo(reader, writer):
            writer.write((await reader.readline()).upper())
            writer.close()

        loop = asyncio.get_running_loop()
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server, asyncio.timeout(10):
            with loop.real_work():
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"hello\n")
                answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
        return answer, loop.time()

    assert run_virtual(main) == (b"HELLO\n", 1000)


def test_a_registered_socket_that_is_silent_does_not_stop_the_time():
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            loop.add_reader(ours, lambda: None)
            await asyncio.sleep(HOUR)
            loop.remove_reader(ours)

    clock = VirtualClock()
    run_virtual(main, clock)

    assert clock.wall() == pytest.approx(T0 + HOUR)


def test_a_deadlock_is_an_error_that_names_who_waits():
    async def main():
        waiting = asyncio.create_task(asyncio.Event().wait(), name="the one that waits")
        await waiting

    runner = asyncio.Runner(loop_factory=lambda: VirtualLoop(patience=0.1))
    with runner, pytest.raises(RuntimeError, match=r"deadlock .*the one that waits"):
        runner.run(main())


def test_real_work_that_never_ends_is_an_error_too():
    async def main():
        with asyncio.get_running_loop().real_work():
            await asyncio.sleep(1)

    runner = asyncio.Runner(loop_factory=lambda: VirtualLoop(patience=0.1))
    with runner, pytest.raises(RuntimeError, match="real work"):
        runner.run(main())


def test_a_loop_leaves_no_open_socket_behind():
    run_virtual(asyncio.sleep(1))
    gc.collect()  # Warnings are errors: an open socket would be one.


# Tokens and sources.


def test_a_minted_token_is_a_jwt_with_the_claims_that_were_asked_for():
    raw = mint(expires_at=T0 + 60.9, sub="alice", headers={"cty": "twilio-fpa;v=1"})

    assert jwt.get_unverified_header(raw) == {"typ": "JWT", "alg": "HS256", "cty": "twilio-fpa;v=1"}
    assert jwt.decode(raw, options={"verify_signature": False, "verify_exp": False}) == {
        "exp": T0 + 60,
        "sub": "alice",
    }


def test_minting_is_deterministic_and_the_signature_verifies():
    raw = mint(jti="1", key="k" * 32)

    assert raw == mint(jti="1", key="k" * 32) != mint(jti="2", key="k" * 32)
    assert jwt.decode(raw, "k" * 32, algorithms=["HS256"]) == {"jti": "1"}


def test_a_source_plays_its_script_and_then_its_last_step_for_ever():
    async def one():
        return "three"

    source = ScriptedSource("one", Issued(secret=Secret("two")), one)

    async def main():
        return [(await source.fetch(tries=3)).secret.reveal() for _ in range(4)]

    assert run_virtual(main) == ["one", "two", "three", "three"]


def test_a_source_raises_the_errors_of_its_script_every_time():
    def broken():
        raise OSError("unplugged")

    source = ScriptedSource(RefusedError("invalid_grant"), broken, TransientFetchError("down"))

    async def main():
        for kind in (RefusedError, OSError, TransientFetchError, TransientFetchError):
            with pytest.raises(kind):
                await source.fetch(tries=1)

    run_virtual(main)


def test_a_source_remembers_when_it_was_called_and_how():
    source = ScriptedSource("one", takes_s=2)

    async def main():
        await source.fetch(tries=3)
        await source.fetch(tries=1)
        await source.aclose()

    run_virtual(main)

    assert [(call.at, call.tries) for call in source.calls] == [(1000, 3), (1002, 1)]
    assert (source.in_flight, source.most_in_flight, source.closed) == (0, 1, True)


def test_a_held_fetch_ends_when_the_test_says_so():
    source = ScriptedSource("one")
    source.hold()

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(30, source.release)
        await source.fetch()
        return loop.time()

    assert run_virtual(main) == 1030


def test_a_held_fetch_can_be_cancelled_and_counts_as_that():
    source = ScriptedSource("one")
    source.hold()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(source.fetch(), 5)
        source.release()

    run_virtual(main)

    assert (source.cancelled, source.in_flight) == (1, 0)


def test_a_fetch_in_another_thread_can_be_awaited_and_released():
    source = ScriptedSource("one")
    source.hold()
    thread = threading.Thread(target=asyncio.run, args=(source.fetch(),))
    thread.start()

    source.wait_called(1)
    source.release()
    thread.join(10)

    assert not thread.is_alive()


def test_waiting_for_a_call_that_never_comes_ends_with_an_error():
    with pytest.raises(TimeoutError, match="0 of 1"):
        ScriptedSource("one").wait_called(timeout=0.01)
