import asyncio
import contextlib
import functools
import sys
import threading

import pytest
import structlog
from structlog.testing import LogCapture

from token_keeper._listeners import Listeners
from token_keeper._model import EventKind, TokenEvent
from token_keeper.logs import keeper_logger
from token_keeper.testing import run_virtual

CANARY = "canary-7f3a9c5e1b"
UPDATED = EventKind.TOKEN_UPDATED
EXPIRED = EventKind.TOKEN_EXPIRED


def event(generation=1, kind=UPDATED):
    return TokenEvent(kind=kind, name="chat", at=0.0, generation=generation)


class Host:
    """Listeners, what they were told, and what was logged."""

    def __init__(self, **settings):
        self.capture = LogCapture()
        log = keeper_logger(structlog.wrap_logger(None, processors=[self.capture]), name="chat")
        self.listeners = Listeners(log=log, **settings)
        self.seen = []

    def logged(self):
        return [(entry["event"], entry.get("listener")) for entry in self.capture.entries]

    def hears(self, name, kinds=(UPDATED,)):
        """Add a sync listener that notes what it is told."""
        self.listeners.add(kinds, lambda told: self.seen.append((name, told.generation)))

    def post(self, *generations):
        for generation in generations:
            self.listeners.post(event(generation))

    async def settle(self):
        """Wait until all that was posted is delivered."""
        if self.listeners._task:
            await asyncio.wait({self.listeners._task})


def hanging(host, *, then=lambda: None):
    """Add a listener that hangs; return a coroutine function that lets it go on and awaits its end."""
    release = threading.Event()
    threads = []

    def hangs(told):
        threads.append(threading.current_thread())
        host.seen.append(("hangs", told.generation))
        release.wait(10)
        then()

    async def end():
        release.set()
        await asyncio.to_thread(threads[0].join, 10)

    host.listeners.add([UPDATED], hangs)
    return end


MODES = pytest.mark.parametrize("run", [(False, run_virtual), (True, asyncio.run)], ids=["loop", "thread"])


# Order.


@MODES
def test_listeners_are_called_in_order_of_registration_one_event_after_another(run):
    in_thread, run = run
    host = Host(sync_in_thread=in_thread)

    async def slow(told):
        await asyncio.sleep(0.001)
        host.seen.append(("slow", told.generation))

    async def main():
        host.hears("first")
        host.listeners.add([UPDATED], slow)
        host.hears("last")
        host.post(1, 2)
        await host.listeners.drain(10)

    run(main())

    assert host.seen == [(name, n) for n in (1, 2) for name in ("first", "slow", "last")]


def test_a_listener_hears_only_the_kinds_that_it_asked_for():
    host = Host()

    async def main():
        host.hears("both", (UPDATED, EXPIRED))
        host.hears("expired", (EXPIRED,))
        host.listeners.post(event(1, UPDATED))
        host.listeners.post(event(2, EXPIRED))
        host.listeners.post(event(3, EventKind.RECOVERED))
        await host.settle()

    run_virtual(main)

    assert host.seen == [("both", 1), ("both", 2), ("expired", 2)]


def test_a_listener_hears_nothing_from_before_it_was_added_or_after_it_was_removed():
    host = Host()
    other = functools.partial(host.seen.append)

    async def main():
        host.hears("always")
        host.post(1)
        host.listeners.add([UPDATED], other)
        await host.settle()
        host.listeners.remove(other)
        host.post(2)
        await host.settle()

    run_virtual(main)

    assert host.seen == [("always", 1), ("always", 2)]


def test_posting_never_calls_a_listener_by_itself():
    host = Host()

    async def main():
        host.hears("one")
        host.post(1)
        at_once = list(host.seen)
        await host.settle()
        return at_once

    assert run_virtual(main) == []
    assert host.seen == [("one", 1)]


def test_without_a_listener_an_event_costs_no_task_no_thread_and_no_queue():
    host = Host(sync_in_thread=True)

    async def main():
        host.hears("expired", (EXPIRED,))
        host.post(1)
        return len(asyncio.all_tasks())

    assert run_virtual(main) == 1
    assert host.listeners._queue is None
    assert host.listeners._worker is None


def test_the_task_ends_with_the_last_event_and_comes_back_with_the_next():
    host = Host()

    async def main():
        host.hears("one")
        host.post(1)
        await host.settle()
        between = len(asyncio.all_tasks())
        host.post(2)
        await host.settle()
        return between

    assert run_virtual(main) == 1
    assert host.seen == [("one", 1), ("one", 2)]


def test_a_listener_that_causes_an_event_each_time_leaves_the_loop_to_others():
    host = Host()

    async def main():
        host.hears("one")
        host.listeners.add([UPDATED], lambda told: host.post(told.generation + 1))
        host.post(1)
        for _ in range(10):
            await asyncio.sleep(0)
        await host.listeners.drain(0)

    run_virtual(main)

    assert 2 <= len(host.seen) <= 12


# Isolation.


class Farewell(BaseException):
    pass


@MODES
@pytest.mark.parametrize(
    "error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, Farewell]
)
@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_listener_raises_is_logged_and_counted_and_changes_nothing(run, error, is_async):
    in_thread, run = run
    host = Host(sync_in_thread=in_thread)

    def fails(_):
        raise error(f"Bearer {CANARY}")

    async def fails_later(_):
        await asyncio.sleep(0)
        raise error(f"Bearer {CANARY}")

    async def main():
        host.listeners.add([UPDATED], fails_later if is_async else fails)
        host.hears("other")
        host.post(1, 2)
        await host.listeners.drain(10)

    run(main())

    assert host.seen == [("other", 1), ("other", 2)]
    assert host.listeners.failures == 2
    assert [entry["event"] for entry in host.capture.entries] == ["listenerFailed"] * 2
    assert host.capture.entries[0]["error"] == f"{error.__name__}: Bearer <redacted>"
    assert host.capture.entries[0]["kind"] == "tokenUpdated"
    assert "fails" in host.capture.entries[0]["listener"]
    assert CANARY not in repr(host.capture.entries)


class Told:
    """A listener that is an object with an async call."""

    def __init__(self, seen):
        self.seen = seen

    async def __call__(self, told):
        await asyncio.sleep(0)
        self.seen.append(("object", told.generation, threading.current_thread().name))


@MODES
def test_async_listeners_run_in_the_loop_whatever_they_look_like(run):
    in_thread, run = run
    host = Host(sync_in_thread=in_thread)
    listener = Told(host.seen)

    async def main():
        host.listeners.add([UPDATED], listener)
        host.listeners.add([UPDATED], functools.partial(listener))
        host.listeners.add([UPDATED], lambda told: listener(told))  # noqa: PLW0108 - Not a coroutine function.
        host.post(1)
        await host.listeners.drain(10)

    run(main())

    assert host.seen == [("object", 1, "MainThread")] * 3


# Time, in the loop.


def test_an_async_listener_has_ten_seconds_and_the_others_go_on():
    host = Host()

    async def hangs(told):
        host.seen.append(("hangs", told.generation))
        await asyncio.Event().wait()

    async def main():
        host.listeners.add([UPDATED], hangs)
        host.hears("other")
        host.post(1, 2)
        await host.settle()
        return asyncio.get_running_loop().time() - 1000

    assert run_virtual(main) == pytest.approx(20)
    assert host.seen == [("hangs", 1), ("other", 1), ("hangs", 2), ("other", 2)]
    assert host.listeners.failures == 2
    assert "took longer than 10 s" in host.capture.entries[0]["error"]


def test_an_async_listener_that_swallows_its_cancellation_is_skipped_until_it_ends():
    host = Host()

    async def stubborn(told):
        host.seen.append(("stubborn", told.generation))
        ends_at = asyncio.get_running_loop().time() + 60
        while (rest := ends_at - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(rest)
            except asyncio.CancelledError:
                host.seen.append(("swallowed", told.generation))

    async def main():
        host.listeners.add([UPDATED], stubborn)
        host.hears("other")
        host.post(1, 2)
        await host.settle()
        await asyncio.sleep(100)
        host.post(3)
        await host.settle()
        await asyncio.sleep(100)

    run_virtual(main)

    assert [told for told in host.seen if told[0] != "other"] == [
        *(("stubborn", 1), ("swallowed", 1), ("stubborn", 3), ("swallowed", 3)),
    ]
    assert [told for told in host.seen if told[0] == "other"] == [("other", n) for n in (1, 2, 3)]
    assert host.listeners.dropped == 1


def test_what_a_listener_raises_after_its_time_is_logged_too():
    host = Host()

    async def late(_):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("too late") from None

    async def main():
        host.listeners.add([UPDATED], late)
        host.post(1)
        await host.settle()
        await asyncio.sleep(1)

    run_virtual(main)

    assert [entry["error"] for entry in host.capture.entries] == [
        "took longer than 10 s; skipped until it returns",
        "ValueError: too late",
    ]


def test_a_sync_listener_that_was_slow_in_the_loop_is_named_in_the_log():
    host = Host()

    async def main():
        clock = asyncio.get_running_loop().clock
        host.listeners.add([UPDATED], lambda _: clock.advance(11))
        host.post(1)
        await host.settle()

    run_virtual(main)

    assert [entry["event"] for entry in host.capture.entries] == ["listenerSlow"]
    assert host.capture.entries[0]["took_s"] == 11
    assert host.listeners.failures == 0


# Time, in a thread.


def test_sync_listeners_of_a_blocking_keeper_share_one_daemon_thread_apart_from_the_loop():
    host = Host(sync_in_thread=True)
    threads = []

    async def main():
        for _ in range(2):
            host.listeners.add([UPDATED], lambda _: threads.append(threading.current_thread()))
        host.post(1, 2)
        await host.listeners.drain(10)

    asyncio.run(main())
    threads[0].join(10)

    assert len(threads) == 4
    assert len(set(threads)) == 1
    assert threads[0].daemon
    assert threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_a_sync_listener_that_hangs_is_left_alone_and_skipped_until_it_returns():
    host = Host(sync_in_thread=True, time_limit_s=0.3)

    async def main():
        end = hanging(host)
        host.hears("other")
        host.post(1, 2)
        await host.settle()
        before = list(host.seen)
        await end()
        host.post(3)
        await host.listeners.drain(10)
        return before

    assert asyncio.run(main()) == [("hangs", 1), ("other", 1), ("other", 2)]
    assert host.seen[3:] == [("hangs", 3), ("other", 3)]
    assert (host.listeners.failures, host.listeners.dropped) == (1, 1)


def test_a_hanging_listener_can_exit_late_without_harm():
    host = Host(sync_in_thread=True, time_limit_s=0.3)

    async def main():
        end = hanging(host, then=functools.partial(sys.exit, 3))
        host.post(1)
        await host.settle()
        await end()

    asyncio.run(main())

    assert [entry["error"] for entry in host.capture.entries] == [
        "took longer than 0.3 s; skipped until it returns",
        "SystemExit: 3",
    ]


def test_a_listener_that_returns_after_its_loop_was_closed_harms_nobody():
    host = Host(sync_in_thread=True, time_limit_s=0.01)
    release = threading.Event()
    threads = []

    def hangs(_):
        threads.append(threading.current_thread())
        release.wait(10)

    async def main():
        host.listeners.add([UPDATED], hangs)
        host.post(1)
        await host.settle()

    asyncio.run(main())
    release.set()
    threads[0].join(10)

    assert not threads[0].is_alive()


# Bounds.


def test_a_full_queue_drops_the_oldest_events_counts_them_and_says_so_once():
    host = Host(queue_max=3)

    async def main():
        host.hears("one")
        host.post(1, 2, 3, 4, 5)
        await host.settle()
        host.post(6, 7, 8, 9)
        await host.settle()

    run_virtual(main)

    assert [generation for _, generation in host.seen] == [3, 4, 5, 7, 8, 9]
    assert host.listeners.dropped == 3
    assert host.logged() == [("eventsDropped", None)] * 2


# The end.


def test_draining_delivers_what_waits():
    host = Host()

    async def main():
        host.hears("one")
        host.post(1, 2, 3)
        await host.listeners.drain(10)

    run_virtual(main)

    assert len(host.seen) == 3


def test_draining_ends_in_time_whatever_the_listeners_do():
    host = Host()

    async def stubborn(_):
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(5)

    async def main():
        host.listeners.add([UPDATED], stubborn)
        host.post(1, 2, 3)
        await host.listeners.drain(2)
        return asyncio.get_running_loop().time() - 1000

    assert run_virtual(main) == pytest.approx(2)
    assert host.listeners.dropped == 2


@MODES
def test_draining_without_events_returns_at_once(run):
    in_thread, run = run
    host = Host(sync_in_thread=in_thread)

    async def main():
        host.hears("one")
        began = asyncio.get_running_loop().time()
        await host.listeners.drain(10)
        return asyncio.get_running_loop().time() - began

    assert run(main()) < 5
    assert host.seen == []


def test_a_listener_may_drain():
    host = Host()

    async def closes(_):
        await host.listeners.drain(10)

    async def main():
        host.listeners.add([UPDATED], closes)
        host.hears("other")
        host.post(1)
        await host.settle()
        return asyncio.get_running_loop().time() - 1000

    assert run_virtual(main) == 0
    assert host.seen == [("other", 1)]


# Who is calling.


@MODES
@pytest.mark.parametrize("is_async", [False, True])
def test_a_listener_knows_that_it_is_one_and_nobody_else_thinks_so(run, is_async):
    in_thread, run = run
    host, stranger = Host(sync_in_thread=in_thread), Host()
    kept = []

    def notes(_):
        host.seen.append((host.listeners.in_listener(), stranger.listeners.in_listener()))

    async def notes_later(told):
        await asyncio.sleep(0)
        notes(told)
        kept.append(asyncio.create_task(outlives()))

    async def outlives():
        await asyncio.sleep(0.01)
        host.seen.append(("afterwards", host.listeners.in_listener()))

    async def main():
        host.listeners.add([UPDATED], notes_later if is_async else notes)
        host.post(1)
        await host.settle()
        host.seen.append(("outside", host.listeners.in_listener()))
        await asyncio.gather(*kept)
        await host.listeners.drain(1)

    run(main())

    assert host.seen[:2] == [(True, False), ("outside", False)]
    assert host.seen[2:] == ([("afterwards", False)] if is_async else [])
