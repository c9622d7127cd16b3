"""The event stream: what comes first, how it resumes, and what happens to clients that do not read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import PLAIN, T0
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Asking, Reading, fresh, opened, parts_of, serving

from token_keeper import EventKind, TokenEvent
from token_keeper._errors import TransientFetchError
from token_keeper.sidecar._event_log import KEPT
from token_keeper.sidecar._household import Household
from token_keeper.testing import ScriptedSource, VirtualClock, run_virtual

EVENTS = "/v1/events"
Story = Callable[[Household, Asking, VirtualClock], Awaitable[None]]


def play(story: Story, *names: str) -> None:
    """Run *story* on virtual time, once each of the tokens *names* (or one, chat) is there."""
    clock = VirtualClock(T0)

    async def main() -> None:
        parts = [
            parts_of(name, ScriptedSource(fresh(clock=clock)), policy=PLAIN) for name in names or ("chat",)
        ]
        async with opened(*parts, clock=clock) as (household, asking):
            for part in parts:
                await asking.get(f"/v1/tokens/{part.name}?wait=60")
            await story(household, asking, clock)

    run_virtual(main, clock)


def happen(household: Household, name: str = "chat", times: int = 1) -> None:
    """Let something happen to the token *name*."""
    for _ in range(times):
        household.events.append(
            TokenEvent(kind=EventKind.REFRESH_FAILED, name=name, at=household.clock.wall(), generation=1)
        )


async def names_of(reading: Reading, count: int) -> list[str]:
    return [(await reading.event())["event"] for _ in range(count)]


async def ids_of(reading: Reading, count: int) -> list[int]:
    return [int((await reading.event())["id"].rpartition("-")[2]) for _ in range(count)]


def test_a_stream_begins_with_the_status_and_goes_on_with_what_is_new():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        async with asking.stream(EVENTS) as reading:
            first = await reading.event()
            assert (first["event"], first["id"]) == ("snapshot", f"{household.start}-1")
            status, told = (await asking.get("/v1/tokens")).json(), json.loads(first["data"])
            assert told == status | {"tokens": told["tokens"]}
            assert [row["name"] for row in told["tokens"]] == ["chat"]
            await asking.post("/v1/tokens/chat/denied", {"generation": 1})
            denied, updated = await reading.event(), await reading.event()
        assert (denied["event"], denied["id"]) == ("tokenDenied", f"{household.start}-2")
        assert (updated["event"], updated["id"]) == ("tokenUpdated", f"{household.start}-3")
        assert set(json.loads(updated["data"])) == set(TokenEvent.__dataclass_fields__)
        assert reading.status == 200
        assert reading.headers["content-type"] == "text/event-stream"
        assert reading.headers["cache-control"] == "no-store"
        assert reading.headers["x-accel-buffering"] == "no"

    play(story)


def test_who_comes_back_gets_what_came_since_and_no_snapshot():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        happen(household, times=5)
        async with asking.stream(EVENTS, last_event_id=f"{household.start}-3") as reading:
            assert await ids_of(reading, 3) == [4, 5, 6]
            happen(household)
            assert await ids_of(reading, 1) == [7]

    play(story)


@pytest.mark.parametrize("last", ["ffffffff-1", "START-9999", "nonsense", "START-0"])
def test_who_comes_back_too_late_or_from_another_start_gets_a_snapshot(last: str):
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        happen(household, times=KEPT + 70)
        known = last.replace("START", household.start)
        async with asking.stream(EVENTS, last_event_id=known) as reading:
            assert await names_of(reading, 1) == ["snapshot"]

    play(story)


def test_a_stream_of_one_token_tells_nothing_of_others():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        async with asking.stream(f"{EVENTS}?token=chat") as reading:
            first = await reading.event()
            assert [row["name"] for row in json.loads(first["data"])["tokens"]] == ["chat"]
            happen(household, "video", 3)
            happen(household, "chat")
            assert json.loads((await reading.event())["data"])["name"] == "chat"
        answer = await asking.get(f"{EVENTS}?token=nobody")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:token-keeper:problem:unknown-token")

    play(story, "chat", "video")


def test_a_quiet_token_resumes_although_others_were_loud():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        happen(household, "video")
        last = household.events.last
        happen(household, "video")
        happen(household, "chat", 3 * KEPT)
        known = household.events.id_of(last)
        async with asking.stream(f"{EVENTS}?token=video", last_event_id=known) as reading:
            assert await ids_of(reading, 1) == [last + 1]

    play(story, "chat", "video")


def test_history_follows_the_snapshot_and_precedes_what_is_new():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        await asyncio.sleep(100)
        happen(household, times=2)
        await asyncio.sleep(100)
        happen(household)
        async with asking.stream(f"{EVENTS}?history=150") as reading:
            assert await ids_of(reading, 4) == [1, 2, 3, 4]
            happen(household)
            assert await ids_of(reading, 1) == [5]
        async with asking.stream(f"{EVENTS}?history=0.5") as reading:
            assert await ids_of(reading, 2) == [3, 4]
        async with asking.stream(f"{EVENTS}?history=60", last_event_id=f"{household.start}-4") as reading:
            assert await ids_of(reading, 1) == [5]

    play(story)


def test_who_is_cut_off_right_after_the_snapshot_resumes_with_the_history():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        happen(household, times=4)
        async with asking.stream(f"{EVENTS}?history=10") as reading:
            known = (await reading.event())["id"]
        async with asking.stream(f"{EVENTS}?history=10", last_event_id=known) as reading:
            assert await ids_of(reading, 5) == [1, 2, 3, 4, 5]

    play(story)


def test_a_comment_comes_every_15_seconds_of_silence():
    async def story(household: Household, asking: Asking, clock: VirtualClock) -> None:
        async with asking.stream(EVENTS) as reading:
            await reading.event()
            at = clock.monotonic()
            for count in (1, 2, 3):
                assert "event" not in await reading.frame()
                assert clock.monotonic() - at == pytest.approx(15 * count)
            await asyncio.sleep(10)
            happen(household)
            await reading.event()
            await reading.frame()
            assert clock.monotonic() - at == pytest.approx(45 + 10 + 15)

    play(story)


def test_the_news_of_others_do_not_keep_a_comment_away():
    async def story(household: Household, asking: Asking, clock: VirtualClock) -> None:
        async with asking.stream(f"{EVENTS}?token=video") as reading:
            await reading.event()
            at = clock.monotonic()
            for _ in range(14):
                await asyncio.sleep(1)
                happen(household, "chat")
            await reading.frame()
            assert clock.monotonic() - at == pytest.approx(15)

    play(story, "chat", "video")


def test_a_client_that_does_not_read_is_cut_off_after_10_seconds():
    async def story(household: Household, asking: Asking, clock: VirtualClock) -> None:
        async with asking.stream(EVENTS) as reading:
            await reading.event()
            reading.is_reading.clear()
            happen(household)
            at = clock.monotonic()
            await reading.dropped.wait()
            assert clock.monotonic() - at == pytest.approx(10)
            assert not reading.ended.is_set()

    play(story)


def test_a_client_that_falls_behind_what_is_kept_is_cut_off():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        async with asking.stream(EVENTS) as reading:
            await reading.event()
            reading.is_reading.clear()
            happen(household)
            await asyncio.sleep(1)
            happen(household, times=2 * KEPT)
            reading.is_reading.set()
            await reading.dropped.wait()
            assert await ids_of(reading, 1) == [2]

    play(story)


def test_a_client_that_goes_away_leaves_nothing_behind():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        tasks = len(asyncio.all_tasks())
        async with asking.stream(EVENTS) as reading:
            await reading.event()
        assert len(asyncio.all_tasks()) <= tasks
        assert not household.events._waiting
        assert not reading.dropped.is_set()

    play(story)


def test_the_end_of_the_sidecar_ends_streams():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        async with asking.stream(EVENTS) as reading:
            await reading.event()
            await household.close()
            await reading.ended.wait()
        assert not reading.dropped.is_set()

    play(story)


def test_a_reload_sends_a_new_snapshot_and_ends_streams_of_removed_tokens():
    async def story(household: Household, asking: Asking, clock: VirtualClock) -> None:
        async with asking.stream(EVENTS) as everything, asking.stream(f"{EVENTS}?token=chat") as chat:
            await everything.event()
            await chat.event()
            at = clock.monotonic()
            await household.apply((parts_of("video", ScriptedSource(TransientFetchError("down"))),))
            told = await everything.event()
            while told["event"] != "snapshot":
                told = await everything.event()
            assert [row["name"] for row in json.loads(told["data"])["tokens"]] == ["video"]
            await chat.ended.wait()
            assert clock.monotonic() - at < 2

    play(story)


@pytest.mark.parametrize("query", ["history=-1", "history=86401", "token=chat&token=chat", "since=1"])
def test_a_query_that_cannot_be_read_is_400(query: str):
    async def story(_: Household, asking: Asking, __: VirtualClock) -> None:
        assert (await asking.get(f"{EVENTS}?{query}")).status_code == 400

    play(story)


def test_line_ends_in_an_error_do_not_end_a_line_of_the_stream():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        wicked = "one\n\nevent: tokenUpdated\rid: 7\u2028\u0085two"
        async with asking.stream(EVENTS) as reading:
            await reading.event()
            household.events.append(
                TokenEvent(kind=EventKind.REFRESH_FAILED, name="chat", at=T0, generation=1, error=wicked)
            )
            told = await reading.event()
        assert told["event"] == "refreshFailed"
        assert json.loads(told["data"])["error"] == wicked

    play(story)


# Each example cuts a client off at some moment and lets it come back, again and again.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bursts=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=8))
def test_whoever_comes_back_with_the_last_id_misses_nothing_and_gets_nothing_twice(
    bursts: list[tuple[int, int]],
):
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        known, seen = "", []
        for happened, read in [*bursts, (1, 0)]:
            headers = {"last_event_id": known} if known else {}
            async with asking.stream(EVENTS, **headers) as reading:
                happen(household, times=happened)
                for _ in range(read):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            told = await reading.event()
                            known = told["id"]
                            seen.append(told)
        async with asking.stream(EVENTS, last_event_id=known or household.events.id_of(1)) as reading:
            await asyncio.sleep(1)
            seen += reading.frames_now()
        numbers = [int(told["id"].rpartition("-")[2]) for told in seen if told.get("event") != "snapshot"]
        first = numbers[0] if numbers else household.events.last + 1
        assert numbers == list(range(first, household.events.last + 1))
        assert [told["event"] for told in seen].count("snapshot") <= 1

    play(story)


def test_a_socket_that_nobody_reads_from_is_closed(tmp_path: Path):
    with serving(tmp_path, parts_of()) as sidecar, sidecar.connect() as connection:
        connection.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        events = sidecar.household.events
        sidecar.until(lambda: events._waiting)

        def shower() -> bool:
            happen(sidecar.household, times=200)
            return not events._waiting

        # Until both ends' buffers are full and the stream waits for the client.
        sidecar.until(shower)
        sidecar.call(lambda: happen(sidecar.household, times=2 * KEPT))
        while connection.recv(65_536):
            pass
