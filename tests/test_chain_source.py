"""Several sources in one: the first that works counts."""

from __future__ import annotations

import asyncio
import pickle
import time

import pytest
from fetching import failure, fetch, shown

from token_keeper import (
    AsyncTokenKeeper,
    ConfigError,
    Issued,
    RefreshPolicy,
    RefusedError,
    ResponseError,
    Secret,
    TransientFetchError,
)
from token_keeper.sources import CallableSource, ChainSource, CommandSource, FileSource, HttpSource
from token_keeper.sources._asking import OCCASION, Occasion
from token_keeper.testing import FakeBackend, ScriptedSource, VirtualClock, mint, run_virtual

CANARY = "canary-0123456789abcdef"
DOWN = TransientFetchError("the backend is down; a valid token stays. Wait")
NO = ResponseError("no token; a valid token stays. Correct token_path")
PLAIN = RefreshPolicy(splay=False, jitter_ratio=0.0)


def later(retry_after: float | None, within: float | None = None) -> TransientFetchError:
    return TransientFetchError("busy", retry_after=retry_after, retry_within=within)


def chain(*scripts: object, **options: object) -> ChainSource:
    """Return a chain of scripted sources that are called one, two, three."""
    names = ("one", "two", "three")
    sources = [ScriptedSource(script, **options) for script in scripts]
    return ChainSource(dict(zip(names, sources, strict=False)))


def of(source: ChainSource, place: int) -> ScriptedSource:
    return source._links[place].source


def test_the_first_source_that_works_counts_and_the_others_are_not_asked():
    source = chain("opaque-1", "opaque-2")
    issued = fetch(source)

    assert (issued.secret.reveal(), issued.source) == ("opaque-1", "one")
    assert of(source, 1).calls == []


@pytest.mark.parametrize(
    "failing",
    [
        DOWN,
        NO,
        RefusedError("invalid_grant"),
        ValueError(CANARY),
        "two words",
        mint(expires_at=1_000_000_000),
        Issued(secret=Secret("opaque-0"), expires_at=1_000_000_000.0),
        mint(expires_at=4_000_000_000, nbf=3_000_000_000),
    ],
    ids=["down", "no-token", "refused", "raises", "blank", "expired", "expired-beside", "not-yet"],
)
def test_one_that_does_not_work_is_followed_by_the_next(failing):
    def play():
        if isinstance(failing, ValueError):
            raise failing
        return failing

    issued = fetch(chain(play, "opaque-2"))

    assert (issued.secret.reveal(), issued.source) == ("opaque-2", "two")


def test_real_sources_make_a_chain(tmp_path):
    token = mint(expires_at=time.time() + 3600)
    with FakeBackend() as backend:
        source = ChainSource(
            {
                "file": FileSource(tmp_path / "gone"),
                "command": CommandSource(["/bin/false"]),
                "function": CallableSource(lambda: 1 / 0),
                "http": HttpSource(backend.url),
                "last": CallableSource(lambda: token),
            }
        )
        issued = fetch(source)

    assert issued.source == "http"


def test_the_snapshot_says_which_source_the_token_is_from_and_every_fetch_begins_with_the_first():
    clock = VirtualClock()
    answers = [DOWN, lambda: mint(expires_at=clock.wall() + 600, jti="first")]

    async def main() -> list[str | None]:
        source = ChainSource(
            {
                "one": ScriptedSource(*answers),
                "two": ScriptedSource(lambda: mint(expires_at=clock.wall() + 600, jti="second")),
            }
        )
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
            seen = [keeper.snapshot.source]
            await asyncio.sleep(500)
            return [*seen, keeper.snapshot.source]

    assert run_virtual(main, clock) == ["two", "one"]


def test_if_none_works_the_error_says_why_of_each_by_name():
    problem = failure(chain(DOWN, NO, RefusedError("invalid_grant")))

    assert isinstance(problem, TransientFetchError)
    assert str(problem) == (
        "none of the chain's sources brought a token; a valid token stays. "
        "one: the backend is down. Wait. two: no token. Correct token_path. "
        "three: the backend refused to issue a token (invalid_grant); the keeper will probe slowly. "
        "Check the credentials, then call refresh()"
    )


def test_it_is_refused_only_if_all_refuse_and_as_certain_as_the_least_certain():
    both = failure(chain(RefusedError("invalid_grant"), RefusedError("http_403")))
    certain = failure(chain(RefusedError("invalid_grant"), RefusedError("invalid_client")))

    assert isinstance(both, RefusedError)
    assert (both.reason, both.is_certain) == ("http_403", False)
    assert isinstance(certain, RefusedError)
    assert (certain.reason, certain.is_certain) == ("invalid_grant", True)
    assert "two: the backend refused" in str(pickle.loads(pickle.dumps(certain)))


def test_only_answers_without_a_token_make_an_answer_without_a_token():
    assert isinstance(failure(chain(NO, NO)), ResponseError)


@pytest.mark.parametrize(
    ("first", "second", "after", "within"),
    [
        (later(50), later(20), 20, None),
        (later(50), later(None), None, None),
        (later(None, 9), later(None, 4), None, 4),
        (later(None, 9), later(None), None, 9),
        (RefusedError("invalid_grant", retry_after=7), RefusedError("http_401", retry_after=9), 7, None),
    ],
)
def test_the_chain_is_asked_again_when_the_first_of_its_sources_may_be(first, second, after, within):
    problem = failure(chain(first, second))

    assert problem.retry_within == within
    assert problem.retry_after == (None if after is None else pytest.approx(after, abs=1))


def test_who_asked_to_be_left_alone_is_passed_over_until_then():
    source = chain(later(60), "opaque-2")

    async def main() -> list[int]:
        counts = []
        for pause in (0, 30, 20, 15):
            await asyncio.sleep(pause)
            await source.fetch()
            counts.append(len(of(source, 0).calls))
        return counts

    assert run_virtual(main) == [1, 1, 1, 2]


def test_if_all_asked_to_be_left_alone_whoever_fetches_has_his_reasons():
    source = chain(later(60), later(90))

    async def main() -> list[int]:
        for _ in range(2):
            with pytest.raises(TransientFetchError):
                await source.fetch()
        return [len(of(source, place).calls) for place in range(2)]

    assert run_virtual(main) == [2, 2]


def test_one_that_hangs_leaves_the_others_their_share_of_the_time():
    source = ChainSource(
        {
            "one": ScriptedSource("opaque-1", takes_s=1000),
            "two": ScriptedSource("opaque-2", takes_s=1000),
            "three": ScriptedSource("opaque-3", takes_s=5),
        }
    )

    async def main() -> tuple[str | None, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        issued = await source.fetch()
        return issued.source, loop.time() - began

    name, took = run_virtual(main)
    assert (name, took) == ("three", pytest.approx(2 / 3 * 28.5 + 5))
    assert of(source, 0).cancelled == 1


def test_all_that_hang_are_over_before_the_time_of_the_fetch_is():
    source = chain("opaque-1", "opaque-2", takes_s=1000)

    async def main() -> tuple[TransientFetchError, float]:
        loop = asyncio.get_running_loop()
        OCCASION.set(Occasion(within_s=6.0))
        began = loop.time()
        with pytest.raises(TransientFetchError, match=r"within its share of the time, 2\.9 s") as caught:
            await source.fetch()
        return caught.value, loop.time() - began

    problem, took = run_virtual(main)
    assert took == pytest.approx(5.7)
    assert problem.timed_out


def test_a_keeper_that_has_little_time_left_still_gets_the_backups_token():
    clock = VirtualClock()

    def fresh() -> str:
        return mint(expires_at=clock.wall() + 60, jti=str(clock.wall()))

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    async def main() -> None:
        source = ChainSource({"one": ScriptedSource(fresh, hang), "two": ScriptedSource(fresh)})
        expired = []
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
            keeper.on("tokenExpired")(expired.append)
            await asyncio.sleep(58)
            assert keeper.snapshot.source == "two"
        assert expired == []

    run_virtual(main, clock)


def test_one_that_does_not_heed_cancellation_is_not_asked_again_until_it_is_over():
    released = asyncio.Event()

    async def stubborn() -> str:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return "opaque-1"

    source = chain(stubborn, "opaque-2")

    async def main() -> list[int]:
        counts = []
        for _ in range(2):
            assert (await source.fetch()).source == "two"
            counts.append(len(of(source, 0).calls))
        released.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await source.fetch()).source == "one"
        return counts

    assert run_virtual(main) == [1, 1]


def test_a_cancelled_fetch_cancels_the_source_that_is_asked():
    source = chain("opaque-1", "opaque-2", takes_s=10)

    async def main() -> None:
        task = asyncio.create_task(source.fetch())
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (of(source, 0).cancelled, of(source, 1).calls) == (1, [])

    run_virtual(main)


def test_after_a_denial_a_source_that_gives_the_denied_token_again_is_passed_over():
    clock = VirtualClock()
    same = mint(expires_at=clock.wall() + 3600)

    async def main() -> None:
        source = ChainSource(
            {
                "one": ScriptedSource(same),
                "two": ScriptedSource(lambda: mint(expires_at=clock.wall() + 3600, jti="other")),
            }
        )
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
            assert keeper.snapshot.source == "one"
            keeper.report_denied(keeper.token)
            await keeper.get()
            assert keeper.snapshot.source == "two"

    run_virtual(main, clock)


def test_if_all_tokens_were_denied_the_first_is_returned_and_the_keeper_decides():
    source = chain("opaque-1", "opaque-2")

    async def main() -> str | None:
        OCCASION.set(Occasion(is_denied=lambda _: True))
        return (await source.fetch()).source

    assert run_virtual(main) == "one"


def test_no_frame_of_a_source_that_failed_is_kept():
    def function() -> str:
        secret = CANARY
        raise ValueError(secret)

    class Careless:
        origin, splay = "careless", True

        async def fetch(self, *, tries: int) -> Issued:
            held = f"{CANARY}{tries}"
            raise RuntimeError(held[:0])

        async def aclose(self) -> None: ...

    problem = failure(ChainSource({"one": CallableSource(function), "two": Careless()}))

    assert CANARY not in shown(problem)
    assert "two: the source raised RuntimeError" in str(problem)


def test_name_and_spreading_are_those_of_the_first():
    source = ChainSource({"file": FileSource("/run/token"), "http": HttpSource("https://a.example/token")})

    assert source.origin == "file:/run/token"
    assert source.splay is False
    assert repr(source) == "<ChainSource file, http>"
    assert ChainSource({"http": HttpSource("https://a.example/token")}).splay is True


def test_all_sources_are_closed_also_if_one_raises():
    class Broken(ScriptedSource):
        async def aclose(self) -> None:
            raise OSError("broken")

    last = ScriptedSource("opaque-1")
    with pytest.raises(OSError, match="broken"):
        asyncio.run(ChainSource({"one": Broken("opaque-1"), "two": last}).aclose())

    assert last.closed


def test_all_sources_that_retire_are_retired():
    class Leaving(ScriptedSource):
        retired = 0

        async def retire(self) -> None:
            self.retired += 1

    one, two = Leaving("opaque-1"), Leaving("opaque-2")
    asyncio.run(ChainSource({"one": one, "plain": ScriptedSource("x"), "two": two}).retire())

    assert (one.retired, two.retired) == (1, 1)


@pytest.mark.parametrize(
    ("key", "sources"),
    [
        ("sources", {}),
        ("sources", [ScriptedSource("x")]),
        ("sources", {"two words": ScriptedSource("x")}),
        ("sources", {3: ScriptedSource("x")}),
        ("sources['a']", {"a": "https://backend.example"}),
        ("sources['a']", {"a": ScriptedSource}),
        ("sources['a']", {"a": ChainSource({"b": ScriptedSource("x")})}),
    ],
    ids=["empty", "list", "name", "number", "string", "class", "chain"],
)
def test_what_cannot_be_a_chain_is_an_error_that_names_it(key, sources):
    with pytest.raises(ConfigError) as caught:
        ChainSource(sources)

    assert caught.value.key == key
