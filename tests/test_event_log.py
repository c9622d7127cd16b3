"""The record of what happened: who comes back misses nothing, gets nothing twice, or is told so."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from helpers import T0
from hypothesis import given
from hypothesis import strategies as st

from token_keeper import EventKind, TokenEvent, Verdict
from token_keeper.sidecar._event_log import KEPT, KEPT_EACH, EventLog

START = "0a1b2c3d"
NAMES = ("chat", "video", "voice")


def event(name: str = "chat", at: float = T0, kind: EventKind = EventKind.TOKEN_UPDATED) -> TokenEvent:
    return TokenEvent(kind=kind, name=name, at=at, generation=1)


def filled(*names: str, **sizes: int) -> EventLog:
    log = EventLog(START, **sizes)
    for index, name in enumerate(names):
        log.append(event(name, T0 + index))
    return log


def numbers(log: EventLog, after: int, name: str | None = None) -> list[int] | None:
    found = log.after(after, name)
    return None if found is None else [number for number, _ in found]


def test_an_event_comes_back_as_it_went_in():
    told = TokenEvent(
        kind=EventKind.RECOVERY_FAILED,
        name="chat",
        at=T0 + 0.25,
        generation=7,
        fingerprint="0badcafe",
        expires_at=T0 + 3600,
        failures=2,
        error="the backend did not answer",
        verdict=Verdict.GAVE_UP,
        diagnosis=("the grant is missing", "check the key"),
    )
    log = EventLog(START)
    log.append(told)
    log.append(event())
    assert list(log.after(0) or ()) == [(1, told), (2, event())]


def test_the_last_1000_events_are_kept():
    log = filled(*["chat"] * (KEPT + 5))
    assert numbers(log, 5) == list(range(6, KEPT + 6))
    assert numbers(log, 4) is None


def test_of_a_quiet_token_64_events_are_kept_for_ever():
    log = filled(*["quiet"] * (KEPT_EACH + 6), *["chat"] * 10 * KEPT)
    assert numbers(log, 6, "quiet") == list(range(7, KEPT_EACH + 7))
    assert numbers(log, 5, "quiet") is None


def test_of_a_removed_token_nothing_is_kept_in_the_end():
    log = filled("gone", kept=4)
    log.forget(["gone"])
    for _ in range(4):
        log.append(event("chat"))
    assert [number for number, _ in log.history(0.0)] == [2, 3, 4, 5]
    log.append(event("gone"))
    assert numbers(log, 0, "gone") is None
    assert numbers(log, 1, "gone") == [6]


@pytest.mark.parametrize(
    "other",
    ["", "-", "1", f"{START}-", f"{START}-x", f"{START}-3", f"{START}--1", f"{START}-²", "ffffffff-1"],
)
def test_ids_of_another_start_or_of_nothing_are_not_known(other: str):
    assert filled("chat", "chat").number_of(other) is None


def test_an_id_is_the_start_and_a_number():
    log = filled("chat", "chat")
    assert log.id_of(2) == f"{START}-2"
    assert log.number_of(log.id_of(2)) == 2


def test_history_goes_back_as_far_as_was_asked_and_is_in_order():
    log = filled("chat", "video", "chat", "voice")
    assert [number for number, _ in log.history(T0 + 1)] == [2, 3, 4]
    assert [number for number, _ in log.history(T0, "chat")] == [1, 3]
    assert list(log.history(T0 + 9)) == []


def test_what_is_dropped_while_a_reader_reads_is_not_lost_to_it():
    log = filled(*["chat"] * 3, *["video"] * 2, kept=2, kept_each=3)
    found = log.after(0)
    for _ in range(9):
        log.append(event("chat"))
    assert [number for number, _ in found or ()] == [1, 2, 3, 4, 5]


def test_who_waits_is_woken_by_an_event_and_by_the_end():
    async def main() -> None:
        log = filled("chat")
        async with asyncio.timeout(5):
            await log.beyond(0)
            waiting = asyncio.ensure_future(log.beyond(1))
            await asyncio.sleep(0)
            log.append(event())
            await waiting
            waiting = asyncio.ensure_future(log.beyond(2))
            await asyncio.sleep(0)
            log.close()
            await waiting
            await log.beyond(2)
        assert not log._waiting

    asyncio.run(main())


steps = st.lists(
    st.one_of(st.sampled_from(NAMES), st.tuples(st.just("removed"), st.sampled_from(NAMES))), max_size=60
)


@given(steps=steps, kept=st.integers(1, 12), each=st.integers(1, 5), left=st.integers(0, 60), data=st.data())
def test_who_resumes_gets_all_that_came_since_once_and_in_order_or_is_told_that_it_cannot(
    steps: list[str | tuple[str, str]], kept: int, each: int, left: int, data: st.DataObject
):
    log, told = EventLog(START, kept=kept, kept_each=each), []
    for step in steps:
        if isinstance(step, tuple):
            log.forget([step[1]])
        else:
            log.append(replace(event(step), at=T0 + len(told)))
            told.append(step)
    name = data.draw(st.sampled_from((None, *NAMES)))
    left = min(left, len(told))
    wanted = [number for number, of in enumerate(told, 1) if number > left and name in {None, of}]
    found = numbers(log, left, name)
    assert found in (wanted, None)
    # What was promised is there: of the last events all, and of each living token some.
    if len(told) - left <= kept:
        assert found == wanted


@given(names=st.lists(st.sampled_from(NAMES), max_size=80), kept=st.integers(1, 10), each=st.integers(1, 5))
def test_no_more_is_kept_than_was_promised(names: list[str], kept: int, each: int):
    log = filled(*names, kept=kept, kept_each=each)
    held = [number for number, _ in log.history(0.0)]
    recent = {number for number in range(len(names) + 1) if number > len(names) - kept} - {0}
    own = {number for name in NAMES for number in [n for n, of in enumerate(names, 1) if of == name][-each:]}
    assert held == sorted(recent | own)
