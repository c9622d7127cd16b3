"""Sessions that misbehave, callers that vanish, and the JavaScript module among enemies."""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from guarding import QUICK
from npm_client import JS
from session_peers import wait_until

from token_keeper import AsyncTokenKeeper, KeeperClosed, TokenKeeper
from token_keeper.testing import ScriptedSource, mint

EXAMPLE = Path(__file__).parents[1] / "examples" / "twilio-js"


def serials():
    """Return a backend that mints another token at each fetch."""
    numbers = iter(range(1_000_000))
    return ScriptedSource(lambda: mint(jti=str(next(numbers))))


class Session:
    """It does as it was told when it is given a token, in a thread.

    Attributes:
        given: The tokens.
    """

    def __init__(self, answer=lambda _: None):
        self.given = []
        self.most = 0
        self._answer = answer
        self._under_way = 0

    def update_token(self, token):
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            self.given.append(token)
            return self._answer(self)
        finally:
            self._under_way -= 1


def test_handles_that_twenty_threads_call_while_tokens_are_renewed_keep_their_session():
    with TokenKeeper(serials(), policy=QUICK) as keeper:
        session = Session(lambda session: session.handle.connected())
        session.handle = keeper.attach(session, token=keeper.token, by="a")
        other = Session(lambda session: session.handle.connected())
        other.handle = keeper.attach(other, token=keeper.token, by="b")
        done = threading.Event()

        def talk(number):
            handle = session.handle
            calls = [
                handle.connected,
                lambda: handle.disconnected(code=1006),
                handle.about_to_expire,
                lambda: handle.state_changed("connecting"),
                lambda: handle.state_changed(object()),
                lambda: handle.denied(code="x" * 10_000, reason="\x1b[2J" * 100),
                lambda: handle.snapshot,
                lambda: repr(handle),
            ]
            while not done.is_set():
                calls[number % len(calls)]()
                number += 1
                done.wait(0.02)

        with ThreadPoolExecutor(20) as threads:
            talks = [threads.submit(talk, number) for number in range(20)]
            for _ in range(5):
                keeper.refresh(timeout=10)
            done.set()
            for one in talks:
                one.result(10)
        session.handle.connected()
        other.handle.connected()
        current = keeper.refresh(timeout=10)

        wait_until(lambda: other.given[-1:] == [current], "the other session has the last token")
        wait_until(lambda: session.given[-1:] == [current], "the session has the last token", timeout=10)
        assert session.most == 1


def ends(ending):
    def answer(_):
        raise ending

    return answer


def closes(session):
    session.keeper.close()


def blocks(session):
    session.event.wait(20)


def re_enters(session):
    handle = session.handle
    for _ in range(50):
        handle.denied(code=401)
        handle.connected()
        handle.state_changed("disconnected")
        handle.about_to_expire()
        handle.connected()


def detaches(session):
    session.handle.detach()


ODD = {
    "exit": ends(SystemExit(3)),
    "interrupt": ends(KeyboardInterrupt()),
    "generator": ends(GeneratorExit()),
    "stop": ends(StopIteration(1)),
    "stop async": ends(StopAsyncIteration()),
    "cancelled": ends(asyncio.CancelledError()),
    "timeout": ends(TimeoutError()),
    "group": ends(BaseExceptionGroup("x", [SystemExit(1)])),
    "recursion": ends(RecursionError()),
    "blocks": blocks,
    "re-enters": re_enters,
    "detaches": detaches,
    "returns a class": lambda _: Session,
    "returns itself": lambda session: session,
    "returns an iterator": lambda _: iter([1]),
    "returns a lost coroutine": lambda _: asyncio.sleep(0),
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD.keys())
def test_an_odd_session_harms_no_other(answer):
    with TokenKeeper(serials(), policy=QUICK) as keeper:
        good = Session(lambda session: session.handle.connected())
        odd = Session(answer)
        odd.event = threading.Event()
        for session, by in ((odd, "odd"), (good, "good")):
            session.handle = keeper.attach(session, token=keeper.token, by=by)
            session.handle.connected()
        current = keeper.refresh(timeout=10)

        wait_until(lambda: good.given[-1:] == [current], "the good session has the token")
        wait_until(lambda: current in odd.given, "the odd session was given it")
        current = keeper.refresh(timeout=10)
        wait_until(lambda: good.given[-1:] == [current], "the good session has the next token")
        assert odd.most == 1
        odd.event.set()


@pytest.mark.parametrize("is_async", [False, True], ids=["in a thread", "in the loop"])
def test_a_session_may_close_its_keeper_while_it_is_given_a_token(is_async):
    class Closing(Session):
        async def update_token(self, token):
            self.given.append(token)
            self.keeper.close()

    keeper = TokenKeeper(serials(), policy=QUICK)
    with keeper:
        session = Closing() if is_async else Session(closes)
        session.keeper = keeper
        session.handle = keeper.attach(session, token=keeper.token)
        session.handle.connected()
        began = time.monotonic()
        with suppress(KeeperClosed):  # It may be closed before this returns.
            keeper.refresh(timeout=10)

        wait_until(lambda: keeper.snapshot.status == "closed", "the keeper is closed")
    assert time.monotonic() - began < 8
    wait_until(
        lambda: not [one for one in threading.enumerate() if one.name.startswith("token_keeper")],
        "no thread is left",
        timeout=10,
    )


def test_thousands_of_sessions_come_and_go_without_a_trace():
    with TokenKeeper(serials(), policy=QUICK) as keeper:
        gone = []
        for _ in range(2_000):
            session = Session()
            keeper.attach(session, by="a").detach()
            gone.append(weakref.ref(session))
        del session
        circle = keeper._circle
        wait_until(lambda: not circle._sessions and not circle._poked, "they are detached")
        wait_until(
            lambda: gc.collect() is not None and not [ref for ref in gone if ref() is not None],
            "they are gone",
            timeout=60,  # A collection takes long where many SDKs are loaded.
        )


class Feed:
    """A server's side: connections that are open. Every step of theirs can be cancelled."""

    def __init__(self):
        self.open = 0
        self.made = 0

    def as_context(self, _token):
        return self

    async def __aenter__(self):
        for _ in range(3):
            await asyncio.sleep(0)
        self.open += 1
        self.made += 1
        return self

    async def __aexit__(self, *_):
        self.open -= 1
        await asyncio.sleep(0)

    def as_task(self, token):
        return asyncio.ensure_future(self.as_awaited(token))

    async def as_awaited(self, _token):
        await self.__aenter__()
        return self

    async def aclose(self):
        await self.__aexit__()


async def settled(feed, cut):
    """Wait until nothing is open, and no task is left that holds something."""
    deadline = time.monotonic() + 5
    while feed.open or [one for one in asyncio.all_tasks() if one.get_name() == "token_keeper connection"]:
        assert time.monotonic() < deadline, f"cut at {cut}, {feed.open} are open"
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=0.001)


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("form", ["as_context", "as_awaited", "as_task"])
def test_wherever_connections_are_cancelled_none_is_left_open(form, times):
    async def main():
        feed = Feed()
        numbers = iter(range(1_000))
        async with AsyncTokenKeeper() as keeper:

            async def reads():
                number = 0
                async with keeper.connections(getattr(feed, form), by=str(cut)) as connections:
                    async for _ in connections:
                        number += 1
                        await asyncio.sleep(0)
                        if number == 1:
                            keeper.update(mint(jti=str(next(numbers))))
                            await asyncio.sleep(0)
                        if number == 2:
                            return

            keeper.update(mint(jti="first"))
            before = asyncio.all_tasks()
            for cut in range(80):
                task = asyncio.create_task(reads())
                for _ in range(cut):
                    await asyncio.sleep(0)
                for _ in range(times):
                    task.cancel()
                    await asyncio.sleep(0)
                await asyncio.wait({task}, timeout=5)
                await settled(feed, cut)
            left = asyncio.all_tasks() - before
            assert not left
        return feed.made

    assert asyncio.run(main()) > 10


def needs_node():
    if shutil.which("node") is None:
        pytest.skip("node is not installed")


def test_the_javascript_module_among_enemies():
    """About 8 s: four of its tests watch for a second that nothing is asked in a hurry."""
    needs_node()
    run = subprocess.run(
        ["node", "--test", "--test-reporter=tap", str(JS / "attacks.test.mjs")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    assert "\n# fail 0\n" in run.stdout


def test_a_javascript_program_ends_after_stop_while_the_sidecar_is_away(tmp_path):
    """About 3 s: it has to come to the pauses between its questions."""
    needs_node()
    script = f"""
        import {{ EventEmitter }} from "node:events";
        import {{ keepFresh }} from "{EXAMPLE}/keeper.mjs";
        class Client extends EventEmitter {{
          state = "denied";
          config = {{ token: "a.b.c" }};
          async updateToken() {{}}
          async connect() {{}}
          async disconnect() {{}}
        }}
        const where = {{ socketPath: "{tmp_path}/none.sock", token: "chat" }};
        const handle = keepFresh(new Client(), where);
        setTimeout(() => {{
          handle.stop();
          const stopped = performance.now();
          process.on("exit", () => console.log(performance.now() - stopped));
        }}, 2_500);
    """
    run = subprocess.run(
        ["node", "--input-type=module", "--eval", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert run.stderr == ""
    assert float(run.stdout) < 200


def test_a_session_that_never_stops_talking_does_not_hold_up_the_keeper():
    with TokenKeeper(serials(), policy=QUICK) as keeper:
        session = Session(lambda session: session.handle.connected())
        session.handle = keeper.attach(session, token=keeper.token)
        done = threading.Event()

        def talk():
            while not done.is_set():
                session.handle.connected()
                session.handle.denied(code=401)

        threads = [threading.Thread(target=talk) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            keeper.refresh(timeout=20)
        finally:
            done.set()
            for thread in threads:
                thread.join()
