"""The keeper that blocks, in real threads and processes. Real time only where a thread must wait."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from token_keeper import (
    InvalidToken,
    KeeperClosed,
    Status,
    TokenKeeper,
    TokenUnavailable,
    TransientFetchError,
    Verdict,
)
from token_keeper.testing import ScriptedSource, mint


def fresh(lifetime: float = 3600.0) -> Callable[[], str]:
    serial = iter(range(1_000_000))
    return lambda: mint(expires_at=time.time() + lifetime, jti=str(next(serial)))


def run_program(program: str, *, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_a_token_can_be_read_inside_the_context_and_not_after_it() -> None:
    source = ScriptedSource(fresh())
    with TokenKeeper(source) as keeper:
        assert keeper.token == keeper.get()
    with pytest.raises(KeeperClosed):
        keeper.token  # noqa: B018
    assert source.closed


def test_fifty_threads_on_a_cold_keeper_are_served_by_one_fetch() -> None:
    source = ScriptedSource(fresh())
    source.hold()
    with TokenKeeper(source, start_timeout=0) as keeper, ThreadPoolExecutor(50) as pool:
        waiters = [pool.submit(keeper.get) for _ in range(50)]
        source.wait_called(1)
        source.release()
        assert len({waiter.result(10) for waiter in waiters}) == 1
    assert len(source.calls) == 1


def test_a_denial_from_many_threads_at_once_is_one_denial() -> None:
    source = ScriptedSource(fresh())
    with TokenKeeper(source) as keeper, ThreadPoolExecutor(20) as pool:
        denied = keeper.token
        source.hold()
        verdicts = list(pool.map(lambda _: keeper.report_denied(denied, code=401), range(20)))
        source.wait_called(2)
        source.release()
        assert set(verdicts) == {Verdict.DENIED}
        assert keeper.get() != denied
    assert len(source.calls) == 2


def test_refresh_returns_another_token() -> None:
    with TokenKeeper(ScriptedSource(fresh())) as keeper:
        before = keeper.token
        assert keeper.refresh() != before


def test_waiting_without_end_is_possible() -> None:
    source = ScriptedSource(fresh())
    source.hold()
    with TokenKeeper(source, start_timeout=0) as keeper, ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(keeper.get, timeout=float("inf"))
        source.wait_called(1)
        source.release()
        assert waiter.result(10) == keeper.token


def test_a_failed_start_leaves_no_thread_behind() -> None:
    keeper = TokenKeeper(ScriptedSource(TransientFetchError("down")), name="lone", start_timeout=0.05)
    with pytest.raises(TokenUnavailable, match="within"):
        keeper.start()
    assert not [thread for thread in threading.enumerate() if "lone" in thread.name]


def test_a_listener_is_called_in_a_thread_and_may_not_block_on_its_keeper() -> None:
    advice: list[BaseException] = []
    done = threading.Event()
    keeper = TokenKeeper(ScriptedSource(fresh()))

    @keeper.on("tokenUpdated")
    def misuse(_event: object) -> None:
        try:
            keeper.refresh()
        except RuntimeError as error:
            advice.append(error)
        done.set()

    with keeper:
        assert done.wait(10)
    assert "keeper.token" in str(advice[0])


def test_blocking_inside_an_event_loop_raises_with_advice() -> None:
    async def main(keeper: TokenKeeper) -> None:
        assert keeper.token
        with pytest.raises(RuntimeError, match="AsyncTokenKeeper"):
            keeper.get()
        with pytest.raises(RuntimeError, match="AsyncTokenKeeper"):
            keeper.refresh()
        with pytest.raises(RuntimeError, match="AsyncTokenKeeper"):
            TokenKeeper(ScriptedSource("x")).start()
        assert await asyncio.to_thread(keeper.get) == keeper.token

    with TokenKeeper(ScriptedSource(fresh())) as keeper:
        asyncio.run(main(keeper))


def test_a_keeper_without_a_source_serves_what_it_is_handed() -> None:
    with TokenKeeper() as keeper, ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(keeper.get, timeout=10)
        token = mint(expires_at=time.time() + 60)
        keeper.update(token)
        assert waiter.result(10) == token
        with pytest.raises(InvalidToken):
            keeper.update("Bearer " + token)


def test_starting_and_closing_twice_is_harmless() -> None:
    source = ScriptedSource(fresh())
    keeper = TokenKeeper(source)
    keeper.start()
    keeper.start()
    assert len(source.calls) == keeper.snapshot.generation == 1
    keeper.close()
    keeper.close()
    assert keeper.snapshot.status is Status.CLOSED


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_a_clear_error_and_can_keep_its_own_token() -> None:
    program = """
        import os, sys, time, warnings
        warnings.simplefilter("ignore")  # 3.12 warns of forking with threads: that is the point.
        from token_keeper import KeeperClosed, TokenKeeper
        from token_keeper.testing import ScriptedSource, mint
        source = lambda: ScriptedSource(mint(expires_at=time.time() + 60))
        with TokenKeeper(source()) as keeper:
            keeper._kept._lock.acquire()  # Some thread may hold it at the fork.
            pid = os.fork()
            if pid == 0:
                for call in (lambda: keeper.token, keeper.get, keeper.refresh, lambda: keeper.update("x"),
                             lambda: keeper.report_denied("x"), keeper.start):
                    try:
                        call()
                    except KeeperClosed as error:
                        assert "after the fork" in str(error)
                    else:
                        os._exit(3)
                keeper.close()
                with TokenKeeper(source()) as own:
                    os._exit(0 if own.get() else 4)
            keeper._kept._lock.release()
            _, status = os.waitpid(pid, 0)
            assert keeper.token
        sys.exit(os.waitstatus_to_exitcode(status))
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_keeper_that_is_made_before_a_fork_can_be_started_after_it() -> None:
    program = """
        import os, sys, time, warnings
        warnings.simplefilter("ignore")
        from token_keeper import TokenKeeper
        from token_keeper.testing import ScriptedSource, mint
        keeper = TokenKeeper(ScriptedSource(mint(expires_at=time.time() + 60)))
        pid = os.fork()
        with keeper:
            ok = bool(keeper.get())
        if pid == 0:
            os._exit(0 if ok else 3)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_interpreter_ends_promptly_although_nobody_closed_the_keeper() -> None:
    program = """
        import sys, threading, time
        from token_keeper import CallableSource, TokenKeeper
        hang = threading.Event()
        keeper = TokenKeeper(CallableSource(hang.wait), start_timeout=0)
        keeper.start()
        keeper.on("tokenUpdated")(print)
        time.sleep(0.2)  # Real time: the fetch must hang in its thread when the program ends.
        print("done", flush=True)
    """
    began = time.monotonic()
    ended = run_program(program)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
    assert time.monotonic() - began < 10


def test_each_of_many_keepers_ends_its_thread() -> None:
    before = threading.active_count()
    keepers = [TokenKeeper(ScriptedSource(fresh()), name=f"many-{number}") for number in range(20)]
    for keeper in keepers:
        keeper.start()
    for keeper in keepers:
        keeper.close()
    assert threading.active_count() <= before + 1


def test_an_async_listener_may_close_its_keeper() -> None:
    done = threading.Event()
    source = ScriptedSource(fresh())
    keeper = TokenKeeper(source, name="selfless", start_timeout=0)

    @keeper.on("tokenUpdated")
    async def leave(_event: object) -> None:
        keeper.close()
        done.set()

    began = time.monotonic()
    keeper.start()
    assert done.wait(10)
    for thread in [thread for thread in threading.enumerate() if "selfless" in thread.name]:
        thread.join(5)
    assert time.monotonic() - began < 5
    assert source.closed


def test_a_source_that_cannot_be_closed_leaves_no_thread_behind() -> None:
    class Broken(ScriptedSource):
        async def aclose(self) -> None:
            raise LookupError

    with TokenKeeper(Broken(fresh()), name="broken"):
        pass
    assert not [thread for thread in threading.enumerate() if "broken" in thread.name]


def test_closing_in_a_finalizer_at_the_end_of_the_interpreter_is_prompt() -> None:
    program = """
        import sys, time, types
        from token_keeper import TokenKeeper
        from token_keeper.testing import ScriptedSource, mint
        class Program:
            def __init__(self):
                self.keeper = TokenKeeper(ScriptedSource(mint(expires_at=time.time() + 60)))
                self.keeper.start()
                self.me = self
            def __del__(self):
                self.keeper.close()
        sys.modules["program"] = types.ModuleType("program")
        sys.modules["program"].it = Program()
    """
    began = time.monotonic()
    ended = run_program(program)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert time.monotonic() - began < 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_locks_that_are_held_at_a_fork_stop_no_child() -> None:
    program = """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from token_keeper import HttpSource, TokenKeeper
        from token_keeper.sources import _clients
        from token_keeper.testing import FakeBackend
        with FakeBackend() as backend:
            cold = TokenKeeper(HttpSource(backend.url), start_timeout=10)
            with cold._turn, _clients._shared._lock:
                pid = os.fork()
            if pid == 0:
                cold.start()
                os._exit(0 if cold.token else 4)
            _, status = os.waitpid(pid, 0)
        sys.exit(os.waitstatus_to_exitcode(status))
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_an_async_keeper_of_the_parent_can_be_closed_in_the_child() -> None:
    program = """
        import asyncio, os, sys, time, warnings
        warnings.simplefilter("ignore")
        from token_keeper import AsyncTokenKeeper
        from token_keeper.testing import ScriptedSource, mint
        def fork(keeper):
            pid = os.fork()
            if pid == 0:
                asyncio.run(keeper.close())
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        async def main():
            async with AsyncTokenKeeper(ScriptedSource(mint(expires_at=time.time() + 60))) as keeper:
                return await asyncio.to_thread(fork, keeper)
        sys.exit(asyncio.run(main()))
    """
    ended = run_program(program)
    assert (ended.returncode, ended.stderr) == (0, "")
