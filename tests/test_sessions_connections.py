"""`keeper.connections()`: a real WebSocket server and client, on the clock of a virtual loop."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager, suppress

import pytest
from session_feed import Feed, until
from session_peers import PLAIN, fresh
from session_peers import run_io as run
from websockets.exceptions import ConnectionClosed

from token_keeper import AsyncTokenKeeper, ConfigError, KeeperClosed, TransientFetchError, Verdict
from token_keeper.testing import ScriptedSource

MINUTE = 60.0


@asynccontextmanager
async def serving(clock, source=None):
    """Run a server, and a keeper of what it takes."""
    source = source or ScriptedSource(fresh(clock))
    async with Feed() as feed, AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
        yield feed, keeper


@asynccontextmanager
async def following(feed, keeper, connections=None, **options):
    """Follow *feed* in a task, as a program would; yield the connections and the task."""
    connections = connections or keeper.connections(feed.connect, **options)

    async def follow():
        async for connection in connections:
            with suppress(ConnectionClosed):
                async for _ in connection:
                    pass

    task = asyncio.create_task(follow())
    try:
        await until(lambda: feed.live, "the first connection")
        yield connections, task
    finally:
        task.cancel()
        await asyncio.wait({task})


def test_each_connection_is_made_with_a_token_that_is_valid_then():
    async def main(clock):
        async with (
            serving(clock, ScriptedSource(fresh(clock, MINUTE))) as (feed, keeper),
            following(feed, keeper),
        ):
            assert feed.tokens() == [keeper.token]
            await asyncio.sleep(MINUTE)
            await feed.live[keeper.token].close()
            await until(lambda: len(feed.tokens()) == 4, "another connection")
            assert feed.tokens()[2:] == [keeper.token] * 2

    run(main)


def test_a_handshake_that_is_refused_with_401_is_followed_by_one_with_another_token():
    async def main(clock):
        async with serving(clock) as (feed, keeper):
            first = keeper.token
            feed.refused.add(first)
            async with following(feed, keeper):
                assert feed.news == [("refuse", first), ("open", keeper.token)]
                assert keeper.snapshot.generation == 2

    run(main)


def test_a_close_code_that_says_denied_is_followed_by_a_connection_with_another_token():
    async def main(clock):
        async with serving(clock) as (feed, keeper), following(feed, keeper):
            first = keeper.token
            await feed.live[first].close(4401)
            await until(lambda: len(feed.tokens()) == 2, "another connection")
            assert feed.tokens()[-1] == keeper.token != first

    run(main)


def test_a_denial_that_only_the_program_understands_is_said_by_it():
    async def main(clock):
        async with serving(clock) as (feed, keeper), following(feed, keeper) as (connections, _):
            first = keeper.token
            assert connections.denied(code=20104) is Verdict.DENIED
            await until(lambda: ("close", first) in feed.news, "the end of the old connection")
            assert [kind for kind, _ in feed.news] == ["open", "open", "close"]
            assert feed.tokens()[-1] == keeper.token != first

    run(main)


def test_a_server_that_restarts_is_found_again():
    async def main(clock):
        async with serving(clock) as (feed, keeper), following(feed, keeper):
            await asyncio.sleep(60)
            await feed.down()
            feed.live.clear()
            await asyncio.sleep(30)
            await feed.up()
            await until(lambda: feed.live, "the connection after the restart")
            assert feed.tokens() == [keeper.token] * 2

    run(main)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_tried_again_with_the_same_token_and_not_too_often(status):
    async def main(clock):
        async with serving(clock) as (feed, keeper):
            feed.status = status
            tasks = asyncio.create_task(_first(keeper.connections(feed.connect)))
            await asyncio.sleep(30)
            assert 3 <= len(feed.tokens("refuse")) <= 8
            feed.status = None
            await tasks
            assert set(feed.tokens("refuse") + feed.tokens()) == {keeper.token}

    run(main)


async def _first(connections):
    async for connection in connections:
        return connection
    return None


def test_the_new_connection_is_made_before_the_old_one_is_closed():
    async def main(clock):
        async with serving(clock) as (feed, keeper), following(feed, keeper):
            first = keeper.token
            second = await keeper.refresh()
            await until(lambda: ("close", first) in feed.news, "the end of the old connection")
            assert feed.news == [("open", first), ("open", second), ("close", first)]

    run(main)


def test_over_many_tokens_there_is_always_a_connection_whose_token_lives():
    async def main(clock):
        ends = []
        issue = fresh(clock, MINUTE)

        def noting():
            ends.append(clock.wall() + MINUTE)
            return issue()

        async with serving(clock, ScriptedSource(noting)) as (feed, keeper), following(feed, keeper):
            for _ in range(100):
                await asyncio.sleep(4)
                assert len(feed.tokens()) - len(feed.tokens("close")) >= 1
                assert clock.wall() < ends[len(feed.tokens()) - 1]
            assert len(feed.tokens()) == len(set(feed.tokens())) == keeper.snapshot.generation

    run(main)


def test_without_swap_a_connection_that_lives_is_left_alone():
    async def main(clock):
        async with serving(clock) as (feed, keeper), following(feed, keeper, swap=False):
            first = keeper.token
            await keeper.refresh()
            await asyncio.sleep(60)
            assert feed.news == [("open", first)]
            await feed.live[first].close()
            await until(lambda: len(feed.tokens()) == 2, "another connection")
            assert feed.tokens()[-1] == keeper.token

    run(main)


def test_a_swap_that_fails_leaves_the_old_connection_and_is_tried_again(caplog):
    async def main(clock):
        async with serving(clock) as (feed, keeper), following(feed, keeper):
            first = keeper.token
            feed.status = 503
            await keeper.refresh()
            await asyncio.sleep(10)
            assert feed.tokens("close") == []
            feed.status = None
            await until(lambda: ("close", first) in feed.news, "the swap")
            assert feed.tokens()[-1] == keeper.token
            feed.status = 403
            await keeper.refresh()
            await asyncio.sleep(10)
            assert len(feed.tokens("close")) == 1

    run(main)
    assert caplog.text.count("connectionNotReplaced") == 1


def test_leaving_the_loop_closes_the_connection():
    async def main(clock):
        async with serving(clock) as (feed, keeper):
            async for connection in keeper.connections(feed.connect):
                assert await connection.recv() == "welcome"
                break
            await until(lambda: feed.tokens("close"), "the end of the connection")
            assert len(_tasks_of_ours()) == 0

    run(main)


def test_an_exception_in_the_body_goes_through_and_the_connection_is_closed():
    async def fails(connections):
        async for _ in connections:
            raise LookupError("a bug of the program")

    async def main(clock):
        async with serving(clock) as (feed, keeper):
            with pytest.raises(LookupError, match="of the program"):
                await fails(keeper.connections(feed.connect))
            gc.collect()
            await until(lambda: feed.tokens("close"), "the end of the connection")

    run(main)


def test_async_with_closes_the_connection_before_it_ends():
    async def main(clock):
        async with serving(clock) as (feed, keeper):
            async with keeper.connections(feed.connect) as connections:
                async for connection in connections:
                    await connection.recv()
                    break
            assert connection.close_code == 1000

    run(main)


def test_aclose_in_another_task_ends_the_loop():
    async def main(clock):
        async with serving(clock) as (feed, keeper), following(feed, keeper) as (connections, task):
            await connections.aclose()
            await asyncio.wait_for(task, 5)
            assert len(feed.tokens("close")) == 1
            await connections.aclose()

    run(main)


@pytest.mark.parametrize("trouble", ["server", "backend"])
def test_aclose_ends_a_loop_that_is_just_connecting(trouble):
    async def main(clock):
        source = ScriptedSource(fresh(clock), TransientFetchError("down"))
        async with serving(clock, source) as (feed, keeper):
            connections = keeper.connections(feed.connect)
            if trouble == "server":
                await feed.down()
            else:
                keeper.report_denied(keeper.token, by="connections")
            task = asyncio.create_task(_first(connections))
            await asyncio.sleep(20)
            await connections.aclose()
            assert await asyncio.wait_for(task, 5) is None
            assert len(_tasks_of_ours()) == 0

    run(main)


def test_a_loop_that_is_cancelled_while_it_connects_leaves_nothing_behind():
    async def main(clock):
        held = []

        @asynccontextmanager
        async def slow(_token):
            await asyncio.sleep(5)
            held.append("open")
            try:
                yield held
            finally:
                held.append("close")

        async with serving(clock) as (_, keeper):
            for after in (1, 4.999, 5, 5.001, 6):
                task = asyncio.create_task(_stay(keeper.connections(slow)))
                await asyncio.sleep(after)
                task.cancel()
                await asyncio.wait({task})
                gc.collect()
                await asyncio.sleep(20)
                assert held.count("open") == held.count("close")
                assert len(_tasks_of_ours()) == 0

    run(main)


async def _stay(connections):
    async for _ in connections:
        await asyncio.Event().wait()


def test_a_function_that_cannot_connect_at_all_ends_the_loop():
    async def main(clock):
        def broken(_token):
            raise TypeError("connect() got an unexpected keyword")

        async with serving(clock) as (_, keeper):
            with pytest.raises(TypeError, match="unexpected keyword"):
                await _first(keeper.connections(broken))
            with pytest.raises(TypeError):
                await _first(keeper.connections(broken, retry_on=(ValueError,)))

    run(main)


def test_a_server_that_forbids_ends_the_loop_and_no_token_is_fetched():
    async def main(clock):
        async with serving(clock) as (feed, keeper):
            feed.status = 403
            with pytest.raises(Exception, match="HTTP 403"):
                await _first(keeper.connections(feed.connect))
            await asyncio.sleep(60)
            assert keeper.snapshot.generation == 1

    run(main)


def test_an_attempt_that_hangs_is_given_up_after_the_timeout():
    async def main(clock):
        at = []

        async def connect(token):
            at.append(clock.monotonic())
            if len(at) < 3:
                await asyncio.Event().wait()
            return token

        async with serving(clock) as (_, keeper):
            assert await _first(keeper.connections(connect, timeout=10)) == keeper.token
        assert 20 < at[-1] - at[0] < 25

    run(main)


@pytest.mark.parametrize("closer", ["aclose", "close", "disconnect"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_connections_of_any_kind_are_closed_by_the_method_that_they_have(closer, is_async):
    closed = []

    def close(_):
        closed.append(1)

    async def aclose(_):
        closed.append(1)

    kind = type("Client", (), {closer: aclose if is_async else close})

    async def main(clock):
        async with serving(clock) as (_, keeper), keeper.connections(lambda _: kind()) as connections:
            assert isinstance(await _first(connections), kind)

    run(main)
    assert closed == [1]


def test_a_context_with_a_task_group_is_left_in_the_task_that_entered_it():
    left = []

    @asynccontextmanager
    async def connect(token):
        entered = asyncio.current_task()
        async with asyncio.TaskGroup() as group, asyncio.timeout(10_000):
            beating = group.create_task(asyncio.Event().wait())
            yield token
            beating.cancel()
        left.append(entered is asyncio.current_task())

    async def main(clock):
        async with serving(clock) as (_, keeper):
            seen = []
            async with keeper.connections(connect) as connections:
                async for token in connections:
                    seen.append(token)
                    if len(seen) == 3:
                        break
                    await keeper.refresh()
                    await asyncio.sleep(1)
            assert len(set(seen)) == 3

    run(main)
    assert left == [True] * 3


def test_a_connection_that_cannot_be_closed_holds_up_its_successor_for_five_seconds():
    @asynccontextmanager
    async def connect(token):
        try:
            yield token
        finally:
            await asyncio.sleep(10_000)

    async def main(clock):
        async with serving(clock) as (_, keeper):
            began = clock.monotonic()
            count = 0
            async with keeper.connections(connect, swap=False) as connections:
                async for _ in connections:
                    count += 1
                    if count == 3:
                        break
            assert clock.monotonic() - began < 3 * 5 + 5

    run(main)


def test_connections_that_end_at_once_are_not_made_too_often():
    async def main(clock):
        async with serving(clock) as (feed, keeper):
            count = 0

            async def storm():
                nonlocal count
                async for _ in keeper.connections(feed.connect):
                    count += 1

            with suppress(TimeoutError):
                await asyncio.wait_for(storm(), 120)
            assert 5 < count < 15

    run(main)


def test_the_end_of_the_keeper_ends_the_loop_with_the_connection():
    async def main(clock):
        async with serving(clock) as (feed, keeper), following(feed, keeper) as (_, task):
            token = keeper.token
            await keeper.close()
            await asyncio.sleep(10)
            assert not task.done()
            await feed.live[token].close()
            with pytest.raises(KeeperClosed):
                await task

    run(main)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"connect": "ws://"}, "connect: must be a function"),
        ({"timeout": -1}, "timeout"),
        ({"by": 7}, "by: "),
        ({"retry_on": 3}, "retry_on: must be a tuple of exception classes"),
        ({"retry_on": OSError}, "retry_on: must be a tuple of exception classes"),
        ({"retry_on": (OSError, "no")}, "retry_on: must be a tuple of exception classes"),
    ],
    ids=["connect", "timeout", "by", "retry_on number", "retry_on class", "retry_on member"],
)
def test_an_argument_that_cannot_work_is_named(options, said):
    with pytest.raises(ConfigError, match=said):
        AsyncTokenKeeper().connections(**{"connect": len, **options})


def test_a_denial_without_a_connection_is_an_error_of_the_program():
    connections = AsyncTokenKeeper(name="chat").connections(len, by="feed")
    assert repr(connections) == "<connections 'feed' of 'chat'>"
    with pytest.raises(RuntimeError, match="there is no connection yet"):
        connections.denied()


def _tasks_of_ours():
    return [task for task in asyncio.all_tasks() if task.get_name() == "token_keeper connection"]
