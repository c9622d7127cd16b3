"""Sources that notice by themselves when they have another token, or have something to do at the end."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from scripting import until
from test_household import minting, parts

from token_keeper import (
    AsyncTokenKeeper,
    Issued,
    RefreshPolicy,
    RefusedError,
    TokenKeeper,
    TransientFetchError,
)
from token_keeper._clock import SystemClock
from token_keeper.sidecar._household import Household
from token_keeper.sources import ChainSource
from token_keeper.sources._mounts import answers_at_once
from token_keeper.sources._watch import changes, look
from token_keeper.testing import ScriptedSource, VirtualClock, VirtualLoop, mint

PLAIN = RefreshPolicy(splay=False, jitter_ratio=0.0)
DOWN = TransientFetchError("the backend is down")


class WatchedSource(ScriptedSource):
    """A scripted source that says when a test says so, and remembers who listens."""

    def __init__(self, *script: Any, **options: Any) -> None:
        super().__init__(*script, **options)
        self.listened = 0
        self.left = 0
        self.retired = 0
        self.events: list[str] = []
        self._news: asyncio.Queue[Exception | None] = asyncio.Queue()

    def say(self, error: Exception | None = None) -> None:
        self._news.put_nowait(error)

    async def changes(self) -> AsyncIterator[None]:
        self.listened += 1
        try:
            while True:
                error = await self._news.get()
                if error is not None:
                    raise error
                yield
        finally:
            self.left += 1

    async def retire(self) -> None:
        self.retired += 1
        self.events.append("retire")

    async def aclose(self) -> None:
        self.events.append("aclose")
        await super().aclose()


def run(main: Callable[[VirtualClock], Coroutine[Any, Any, None]]) -> None:
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(main(clock))


def test_news_of_a_source_make_the_keeper_fetch_at_once() -> None:
    async def main(clock: VirtualClock) -> None:
        source = WatchedSource(minting(clock))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
            await asyncio.sleep(100)
            source.say()
            await asyncio.sleep(0.01)
            assert keeper.snapshot.generation == 2
            assert [call.at for call in source.calls] == [1000.0, pytest.approx(1100.0)]

    run(main)


def test_many_news_at_once_are_no_storm_of_fetches() -> None:
    async def main(clock: VirtualClock) -> None:
        source = WatchedSource(minting(clock))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN):
            for _ in range(1000):
                source.say()
                await asyncio.sleep(0.01)
            assert len(source.calls) <= 12

    run(main)


@pytest.mark.parametrize(
    ("failing", "phase"), [(DOWN, "backing_off"), (RefusedError("invalid_grant"), "refused")], ids=str
)
def test_news_end_the_wait_after_a_failure(failing: Exception, phase: str) -> None:
    async def main(clock: VirtualClock) -> None:
        down = [failing]
        source = WatchedSource(lambda: down[0] if down else mint(expires_at=clock.wall() + 3600))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN, start_timeout=0) as keeper:
            await asyncio.sleep(900)
            assert keeper.snapshot.phase == phase
            down.clear()
            said = clock.monotonic()
            source.say()
            await keeper.get()
            assert clock.monotonic() - said <= 1.0
            assert keeper.snapshot.last_error is None

    run(main)


def test_news_during_a_fetch_begin_it_anew() -> None:
    async def main(clock: VirtualClock) -> None:
        source = WatchedSource(minting(clock), takes_s=10)
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN, start_timeout=0) as keeper:
            await asyncio.sleep(5)
            source.say()
            await keeper.get()
            assert source.cancelled == 1
            assert source.most_in_flight == 1
            assert [call.at for call in source.calls] == [1000.0, pytest.approx(1006.0)]

    run(main)


def test_a_refresh_whose_fetch_is_begun_anew_ends_as_the_new_one_does() -> None:
    async def main(clock: VirtualClock) -> None:
        source = WatchedSource(minting(clock), minting(clock), DOWN, takes_s=10)
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
            refreshing = asyncio.create_task(keeper.refresh())
            await asyncio.sleep(5)
            source.say()
            with pytest.raises(TransientFetchError, match="the backend is down"):
                await refreshing
            assert source.cancelled == 1

    run(main)


def test_a_watch_that_raises_is_logged_and_begun_again_after_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(clock: VirtualClock) -> None:
        source = WatchedSource(minting(clock))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
            source.say(OSError("no watch"))
            await asyncio.sleep(4.9)
            assert (source.listened, source.left) == (1, 1)
            assert "watchFailed" in caplog.text
            await asyncio.sleep(0.2)
            assert source.listened == 2
            source.say()
            await asyncio.sleep(1.1)
            assert keeper.snapshot.generation == 2

    run(main)


def test_a_watch_that_ends_is_begun_again_after_a_while() -> None:
    class Short(ScriptedSource):
        listened = 0

        async def changes(self) -> AsyncIterator[None]:
            self.listened += 1
            return
            yield

    async def main(clock: VirtualClock) -> None:
        source = Short(minting(clock))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN):
            await asyncio.sleep(12)
        assert source.listened == 3
        assert len(source.calls) == 1

    run(main)


def test_a_watch_need_not_be_a_generator() -> None:
    class Ticks:
        def __init__(self, source: ScriptedSource) -> None:
            self.source = source

        def __aiter__(self) -> Ticks:
            return self

        async def __anext__(self) -> None:
            await asyncio.sleep(60)

    class Ticking(ScriptedSource):
        def changes(self) -> AsyncIterator[None]:
            return Ticks(self)

    async def main(clock: VirtualClock) -> None:
        source = Ticking(minting(clock))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN):
            await asyncio.sleep(200)
        assert len(source.calls) == 4

    run(main)


def test_close_ends_the_watch_then_retires_then_closes_the_source() -> None:
    async def main(clock: VirtualClock) -> None:
        source = WatchedSource(minting(clock))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN):
            await asyncio.sleep(1)
            source.say()
            await asyncio.sleep(0.01)
        assert (source.listened, source.left) == (1, 1)
        assert source.events == ["retire", "aclose"]
        assert [task.get_name() for task in asyncio.all_tasks()] == [asyncio.current_task().get_name()]

    run(main)
    gc.collect()


def test_closing_in_the_midst_of_news_leaves_nothing_behind() -> None:
    async def main(clock: VirtualClock) -> None:
        source = WatchedSource(minting(clock))
        keeper = AsyncTokenKeeper(source, clock=clock, policy=PLAIN)
        await keeper.start()
        source.say()
        source.say()
        await keeper.close()
        assert source.listened == source.left

    run(main)
    gc.collect()


def test_a_source_that_hangs_while_it_retires_is_closed_all_the_same() -> None:
    class Slow(WatchedSource):
        async def retire(self) -> None:
            await asyncio.Event().wait()

    async def main(clock: VirtualClock) -> None:
        source = Slow(minting(clock))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN):
            began = clock.monotonic()
        assert source.closed
        assert clock.monotonic() - began < 5

    run(main)


def test_the_keeper_of_threads_hears_the_news_too() -> None:
    class Switched(ScriptedSource):
        """Says so when a thread has set *news*."""

        news = threading.Event()
        retired = 0

        async def changes(self) -> AsyncIterator[None]:
            while True:
                await asyncio.sleep(0.01)
                if self.news.is_set():
                    self.news.clear()
                    yield

        async def retire(self) -> None:
            self.retired += 1

    source = Switched(minting(SystemClock()))
    with TokenKeeper(source, policy=RefreshPolicy(min_interval_s=0.1)) as keeper:
        source.news.set()
        until(lambda: keeper.snapshot.generation == 2)
    assert source.retired == 1
    assert source.closed


def test_a_reload_listens_to_the_new_source_and_no_more_to_the_old_one() -> None:
    async def main(clock: VirtualClock) -> None:
        old, new = WatchedSource(minting(clock)), WatchedSource(minting(clock, aud="new"))
        async with Household((parts("chat", old),), clock=clock) as household:
            await asyncio.sleep(10)
            await household.apply((parts("chat", new, url="https://other.example"),))
            await asyncio.sleep(10)
            assert (old.left, new.listened) == (1, 1)
            assert old.events == ["aclose"]
            old.say()
            await asyncio.sleep(5)
            assert len(new.calls) == 1
            new.say()
            await asyncio.sleep(5)
            assert len(new.calls) == 2
            assert len(old.calls) == 1
        assert new.events == ["retire", "aclose"]
        assert old.retired == 0

    run(main)


def test_a_reload_to_a_source_without_news_ends_the_watch() -> None:
    async def main(clock: VirtualClock) -> None:
        old, new = WatchedSource(minting(clock)), ScriptedSource(minting(clock))
        async with Household((parts("chat", old),), clock=clock) as household:
            await asyncio.sleep(10)
            await household.apply((parts("chat", new, url="https://other.example"),))
            await asyncio.sleep(10)
            assert (old.left, len(new.calls)) == (1, 1)

    run(main)


def test_a_token_that_leaves_the_configuration_is_retired() -> None:
    async def main(clock: VirtualClock) -> None:
        source = WatchedSource(minting(clock))
        async with Household((parts("chat", source),), clock=clock) as household:
            await asyncio.sleep(10)
            await household.apply(())
            assert (source.left, source.events) == (1, ["retire", "aclose"])

    run(main)


def test_a_reload_to_a_source_that_spreads_nothing_spreads_nothing() -> None:
    async def main(clock: VirtualClock) -> None:
        spread = RefreshPolicy(jitter_ratio=0.0)
        old = ScriptedSource(minting(clock), splay=True)
        new = ScriptedSource(minting(clock), splay=False)
        async with Household((parts("chat", old, policy=spread),), clock=clock) as household:
            await asyncio.sleep(10)
            await household.apply((parts("chat", new, policy=spread, url="https://other.example"),))
            await asyncio.sleep(10)
            shown = household.tokens["chat"].snapshot
            assert shown.refresh_at == pytest.approx(shown.stale_at)

    run(main)


def chained(*links: ScriptedSource) -> ChainSource:
    return ChainSource({f"link-{place}": link for place, link in enumerate(links)})


@pytest.mark.parametrize(
    ("serving", "heard"),
    [
        (0, [True, False, False]),
        (1, [True, True, False]),
        (2, [True, True, True]),
        (None, [True, True, True]),
    ],
    ids=["first", "second", "third", "none"],
)
def test_of_a_chain_those_count_that_come_before_the_one_in_use(
    serving: int | None, heard: list[bool]
) -> None:
    async def main(_: VirtualClock) -> None:
        links = [WatchedSource("opaque" if place == serving else DOWN) for place in range(3)]
        chain = chained(*links)
        await asyncio.gather(chain.fetch(), return_exceptions=True)
        found = []
        async with aclosing(chain.changes()) as news:
            for link in links:
                said = asyncio.ensure_future(anext(news))
                await asyncio.sleep(0)
                link.say()
                await asyncio.wait({said}, timeout=1)
                found.append(said.done())
                if not said.done():
                    # To cancel it would end the generator: a source that counts ends the wait.
                    links[0].say()
                    await said
        assert found == heard
        assert all(link.left == 1 for link in links)

    run(main)


def test_news_of_the_first_of_a_chain_bring_the_keeper_back_to_it() -> None:
    async def main(clock: VirtualClock) -> None:
        down: list[Exception] = [TransientFetchError("down", retry_after=3000)]
        first = WatchedSource(lambda: down[0] if down else mint(expires_at=clock.wall() + 3600))
        chain = chained(first, ScriptedSource(minting(clock)))
        async with AsyncTokenKeeper(chain, clock=clock, policy=PLAIN) as keeper:
            assert keeper.snapshot.source == "link-1"
            await asyncio.sleep(10)
            down.clear()
            first.say()
            await asyncio.sleep(1)
            assert keeper.snapshot.source == "link-0"
        assert first.events == ["retire", "aclose"]

    run(main)


def test_a_watch_of_a_chain_that_raises_is_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main(clock: VirtualClock) -> None:
        first = WatchedSource(minting(clock))
        chain = chained(first, WatchedSource(minting(clock)))
        async with AsyncTokenKeeper(chain, clock=clock, policy=PLAIN):
            first.say(OSError("no watch"))
            await asyncio.sleep(6)
            assert first.listened == 2
            assert "watchFailed" in caplog.text

    run(main)


def test_a_chain_of_sources_without_news_has_none() -> None:
    async def main(clock: VirtualClock) -> None:
        source = ScriptedSource(minting(clock))
        async with AsyncTokenKeeper(chained(source), clock=clock, policy=PLAIN):
            await asyncio.sleep(60)
        assert len(source.calls) == 1

    run(main)


def replaced(path: Path, text: str) -> None:
    following = path.with_name("following")
    following.write_text(text)
    following.rename(path)


def rewritten(path: Path, text: str) -> None:
    path.write_text(text + "more")


def removed(path: Path, _: str) -> None:
    path.unlink()


def linked(path: Path, text: str) -> None:
    following = path.with_name("following")
    following.write_text(text)
    link = path.with_name("link")
    link.symlink_to(following)
    link.rename(path)


@pytest.mark.parametrize("change", [replaced, rewritten, removed, linked])
def test_whatever_happens_to_a_file_is_noticed_once_within_a_second(
    tmp_path: Path, change: Callable[[Path, str], None]
) -> None:
    async def main(clock: VirtualClock) -> None:
        path = tmp_path / "token"
        path.write_text("same size")
        heard: list[float] = []
        task = asyncio.create_task(noted(path, heard, clock))
        await asyncio.sleep(9.5)
        change(path, "same size")
        await asyncio.sleep(10)
        task.cancel()
        assert heard == [pytest.approx(1010.0)]

    run(main)


async def noted(path: Path, heard: list[float], clock: VirtualClock, **options: Any) -> None:
    async for _ in changes(path, **options):
        heard.append(clock.monotonic())  # noqa: PERF401 - It is read while this goes on.


def test_a_file_that_comes_is_noticed(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        heard: list[float] = []
        task = asyncio.create_task(noted(tmp_path / "token", heard, clock, every_s=0.25))
        await asyncio.sleep(10.1)
        (tmp_path / "token").touch()
        await asyncio.sleep(10)
        task.cancel()
        assert heard == [pytest.approx(1010.25)]

    run(main)


def test_a_change_between_the_reading_and_the_first_look_is_not_missed(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        path = tmp_path / "token"
        path.write_text("one")
        met = look(path)
        replaced(path, "two")
        heard: list[float] = []
        task = asyncio.create_task(noted(path, heard, clock, met=lambda: met))
        await asyncio.sleep(10)
        task.cancel()
        assert heard == [1000.0]

    run(main)


def test_the_source_of_an_issued_token_is_shown_only_for_chains() -> None:
    async def main(clock: VirtualClock) -> None:
        async with AsyncTokenKeeper(ScriptedSource(minting(clock)), clock=clock) as keeper:
            assert keeper.snapshot.source is None

    run(main)
    assert Issued.__dataclass_fields__["source"].default is None


def test_a_look_at_a_local_file_needs_no_thread_and_one_at_anything_else_does(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch()
    link = tmp_path / "link"
    link.symlink_to("/proc/self/status")

    assert answers_at_once("/proc/self/status") is False
    assert answers_at_once(link) is False
    assert answers_at_once("/dev/shm/gone") is answers_at_once("/dev/shm")
