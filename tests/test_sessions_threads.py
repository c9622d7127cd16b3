"""Where sessions are called: in threads, in the loop they belong to, and never after a fork."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from contextlib import contextmanager

import pytest
from session_peers import wait_until

from token_keeper import AsyncTokenKeeper, CallableSource, KeeperClosed, RefreshPolicy, TokenKeeper
from token_keeper.sessions import Link
from token_keeper.supervision import Phase
from token_keeper.testing import mint

QUICK = RefreshPolicy(min_interval_s=0.1, splay=False)


def issuing():
    serials = itertools.count(1)
    return CallableSource(lambda: mint(expires_at=time.time() + 60, jti=str(next(serials))))


@contextmanager
def keeping():
    with TokenKeeper(issuing(), policy=QUICK) as keeper:
        yield keeper


class Blocking:
    """A client of a library without an event loop."""

    def __init__(self, gate=None):
        self.tokens = []
        self.threads = []
        self.gate = gate

    def update_token(self, token):
        self.tokens.append(token)
        self.threads.append(threading.current_thread())
        if self.gate is not None:
            self.gate.wait()


class Asynchronous:
    """A client of a library with one."""

    def __init__(self):
        self.tokens = []
        self.loops = []

    async def update_token(self, token):
        await asyncio.sleep(0)
        self.tokens.append(token)
        self.loops.append(asyncio.get_running_loop())


@contextmanager
def loop_in_thread():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def in_loop(loop, function):
    """Call *function* in *loop*, and return what it returns."""

    async def call():
        return function()

    return asyncio.run_coroutine_threadsafe(call(), loop).result(5)


def test_a_blocking_session_is_called_in_a_daemon_thread_that_is_not_the_keepers():
    with keeping() as keeper:
        session = Blocking()
        keeper.attach(session)
        wait_until(lambda: session.tokens, "the first token")
        newest = keeper.refresh()
        wait_until(lambda: session.tokens[-1] == newest, "the second")

    assert all(thread.daemon and thread.name == "token_keeper session" for thread in session.threads)
    assert threading.current_thread() not in session.threads


def test_a_session_that_blocks_for_ever_holds_up_neither_the_others_nor_the_keeper_nor_the_end():
    gate = threading.Event()
    try:
        with keeping() as keeper:
            stuck, others = Blocking(gate), [Blocking() for _ in range(20)]
            for session in (stuck, *others):
                keeper.attach(session)
            wait_until(lambda: stuck.tokens and all(one.tokens for one in others), "the first token")
            newest = keeper.refresh()
            wait_until(lambda: all(one.tokens[-1] == newest for one in others), "the second")
            began = time.monotonic()
        assert time.monotonic() - began < 3
        assert len(stuck.tokens) == 1
    finally:
        gate.set()


def test_an_async_session_without_a_loop_is_called_in_the_keepers():
    with keeping() as keeper:
        session = Asynchronous()
        keeper.attach(session)
        wait_until(lambda: session.tokens, "the first token")

        assert session.loops == [keeper._circle._loop]


@pytest.mark.parametrize("kind", [Asynchronous, Blocking])
def test_a_session_that_was_attached_in_a_loop_is_called_there(kind):
    with keeping() as keeper, loop_in_thread() as loop:
        session = kind()
        in_loop(loop, lambda: keeper.attach(session))
        wait_until(lambda: session.tokens, "the first token")

        places = session.loops if kind is Asynchronous else session.threads
        assert places == [loop] or [place.ident for place in places] == [in_loop(loop, threading.get_ident)]


def test_a_session_whose_loop_has_ended_gives_up_and_holds_up_nobody():
    with keeping() as keeper:
        gone, other = Asynchronous(), Blocking()
        with loop_in_thread() as loop:
            handle = in_loop(loop, lambda: keeper.attach(gone))
            wait_until(lambda: gone.tokens, "the first token")
        keeper.attach(other)
        newest = keeper.refresh()
        wait_until(lambda: other.tokens[-1:] == [newest], "the second")
        wait_until(lambda: handle.snapshot.phase is Phase.GAVE_UP, "the end", timeout=8)

        assert "event loop in which the session was attached has ended" in handle.snapshot.diagnosis[0]


def test_sessions_are_attached_to_an_async_keeper_from_threads():
    async def main():
        async with AsyncTokenKeeper(issuing(), policy=QUICK) as keeper:
            sessions = [Blocking(), Asynchronous()]
            for session in sessions:
                await asyncio.to_thread(keeper.attach, session)
            await asyncio.to_thread(wait_until, lambda: all(one.tokens for one in sessions), "the token")
            blocking, asynchronous = sessions
            assert blocking.threads[0] is not threading.current_thread()
            assert asynchronous.loops == [asyncio.get_running_loop()]

    asyncio.run(main())


def test_a_blocking_session_of_an_async_keeper_that_hangs_does_not_hold_up_the_loop():
    gate = threading.Event()

    async def main():
        async with AsyncTokenKeeper(issuing(), policy=QUICK) as keeper:
            stuck = Blocking(gate)
            await asyncio.to_thread(keeper.attach, stuck)
            await asyncio.to_thread(wait_until, lambda: stuck.tokens, "the token")
            await keeper.refresh(timeout=5)

    began = time.monotonic()
    try:
        asyncio.run(main())
        assert time.monotonic() - began < 4
    finally:
        gate.set()


def test_what_an_sdk_says_may_come_from_any_thread():
    with keeping() as keeper:
        session = Blocking()
        handle = keeper.attach(session, token=keeper.token)
        seen = []
        handle.on("sessionRecovered")(seen.append)
        handle.connected()

        def says():
            for _ in range(200):
                handle.state_changed("connecting")
                handle.denied(code=401)
                handle.connected()

        threads = [threading.Thread(target=says) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: handle.snapshot.link is Link.CONNECTED, "the last word")
        wait_until(lambda: handle.snapshot.phase is Phase.IDLE, "peace")


@pytest.mark.parametrize("ending", [SystemExit, StopIteration, KeyboardInterrupt])
def test_a_session_that_raises_what_ends_threads_does_not_end_the_keepers(ending):
    class Ending(Blocking):
        def update_token(self, token):
            super().update_token(token)
            raise ending

    with keeping() as keeper:
        session, other = Ending(), Blocking()
        handle = keeper.attach(session)
        keeper.attach(other)
        wait_until(lambda: handle.snapshot.phase is Phase.GAVE_UP, "the end of its patience", timeout=8)
        newest = keeper.refresh()
        wait_until(lambda: other.tokens[-1] == newest, "the next token")

        wait_until(lambda: handle.snapshot.diagnosis, "the second end of its patience")
        assert ending.__name__ in handle.snapshot.diagnosis[0]


def test_a_session_may_close_its_keeper():
    class Closing(Blocking):
        def update_token(self, token):
            super().update_token(token)
            keeper.close()

    class ClosingAsync(Asynchronous):
        async def update_token(self, token):
            await super().update_token(token)
            keeper.close()

    for kind in (Closing, ClosingAsync):
        with keeping() as keeper:
            session = kind()
            keeper.attach(session)
            wait_until(lambda session=session: session.tokens, "the first token")
            wait_until(lambda keeper=keeper: keeper._kept.gone is not None, "the end")
    wait_until(lambda: not _threads("token_keeper token"), "the end of the keepers' threads")


def test_no_thread_is_left_of_a_detached_session():
    def running():
        return _threads("token_keeper session") + _threads("token-keeper listeners")

    wait_until(lambda: not running(), "the end of what other tests left")
    with keeping() as keeper:
        sessions = [Blocking() for _ in range(10)]
        heard = []
        for session in sessions:
            handle = keeper.attach(session)
            handle.on()(heard.append)
            session.handle = handle
        wait_until(lambda: all(session.tokens for session in sessions), "the first token")
        keeper.refresh()
        wait_until(lambda: all(len(session.tokens) == 2 for session in sessions), "the second")
        for session in sessions:
            session.handle.detach()

        wait_until(lambda: not running(), "the end of their threads")


def test_a_listener_of_a_session_may_detach_it():
    with keeping() as keeper:
        session = Blocking()
        handle = keeper.attach(session)
        handle.on()(lambda _: handle.detach())
        wait_until(lambda: session.tokens, "the first token")
        keeper.refresh()
        keeper.refresh()
        wait_until(lambda: handle.snapshot.phase is Phase.DETACHED, "the end")


@pytest.mark.filterwarnings(
    # The child does nothing but raise and exit.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)
def test_nothing_can_be_attached_in_a_forked_child_and_the_parents_session_goes_on():
    with keeping() as keeper:
        session = Blocking()
        handle = keeper.attach(session)
        wait_until(lambda: session.tokens, "the first token")
        child = os.fork()
        if not child:
            try:
                handle.detach()
                keeper.attach(Blocking())
            except KeeperClosed as error:
                os._exit(0 if "fork" in str(error) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        newest = keeper.refresh()
        wait_until(lambda: session.tokens[-1] == newest, "the next token")


def _threads(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]
