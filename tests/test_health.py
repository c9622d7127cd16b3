"""Readiness cannot lie: it is about the tokens and the sinks, not about the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import HOUR, PLAIN, T0
from serving import Asking, fresh, opened, parts_of, serving

from token_keeper._errors import RefusedError, TransientFetchError
from token_keeper.sidecar._access import Access, Caller
from token_keeper.sidecar._health import is_ready, reasons
from token_keeper.sidecar._household import LIVE_S, Household
from token_keeper.sidecar._served import TokenParts
from token_keeper.sidecar.config._model import FileSinkConfig
from token_keeper.testing import ScriptedSource, VirtualClock, run_virtual

DOWN = TransientFetchError("the backend is down")
Story = Callable[[Household, Asking, VirtualClock], Awaitable[None]]


def play(story: Story, *parts: Callable[[VirtualClock], TokenParts]) -> None:
    """Run *story* on virtual time, 5 s after the household was opened."""
    clock = VirtualClock(T0)

    async def main() -> None:
        async with opened(*(make(clock) for make in parts), clock=clock) as (household, asking):
            await asyncio.sleep(5)
            await story(household, asking, clock)

    run_virtual(main, clock)


def fetched(name: str = "chat", *then: Any, lifetime_s: float = HOUR) -> Callable[[VirtualClock], TokenParts]:
    """Return a maker of the parts of a token whose first fetch goes well; the next ones do as *then*."""
    return lambda clock: parts_of(name, ScriptedSource(fresh(lifetime_s, clock), *then), policy=PLAIN)


def lacking(name: str = "video") -> Callable[[VirtualClock], TokenParts]:
    """Return a maker of the parts of a token that never comes."""
    return lambda _: parts_of(name, ScriptedSource(DOWN), policy=PLAIN)


def sunk(path: Path) -> Callable[[VirtualClock], TokenParts]:
    """Return a maker of the parts of a token that is written to *path*."""

    def make(clock: VirtualClock) -> TokenParts:
        parts = fetched()(clock)
        config = parts.config
        sinks = (FileSinkConfig(path=str(path)),)
        return replace(parts, config=type(config)(source=config.source, sinks=sinks))

    return make


def test_every_token_usable_is_ready():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        assert is_ready(household)
        answer = await asking.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
        assert (await asking.get("/v1/tokens")).json()["ready"] is True

    play(story, fetched(), fetched("video"))


def test_one_token_that_is_missing_is_not_ready_and_is_named():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        answer = await asking.get("/readyz")
        assert answer.status_code == 503
        document = answer.json()
        assert document["type"] == "urn:token-keeper:problem:not-ready"
        assert document["reasons"] == [{"token": "video", "problem": "no usable token"}]
        assert (await asking.get("/healthz")).json() == {"live": True}
        assert not is_ready(household)

    play(story, fetched(), lacking())


def test_nothing_configured_is_not_ready():
    async def story(_: Household, asking: Asking, __: VirtualClock) -> None:
        answer = await asking.get("/readyz")
        assert answer.status_code == 503
        assert "no token is configured" in answer.json()["reasons"][0]["problem"]

    play(story)


@pytest.mark.parametrize(("lifetime_s", "margin_s"), [(HOUR, 10.0), (40.0, 4.0)])
def test_a_token_is_not_ready_shortly_before_it_expires(lifetime_s: float, margin_s: float):
    async def story(household: Household, _: Asking, clock: VirtualClock) -> None:
        expires = household.tokens["chat"].snapshot.expires_at or 0.0
        await asyncio.sleep(expires - margin_s - 0.1 - clock.wall())
        assert is_ready(household)
        await asyncio.sleep(0.2)
        found = next(reasons(household))
        assert (found.token, found.problem.startswith("the token expires in")) == ("chat", True)

    play(story, fetched("chat", DOWN, lifetime_s=lifetime_s))


def test_a_refused_token_that_is_valid_is_ready():
    async def story(household: Household, _: Asking, __: VirtualClock) -> None:
        await asyncio.sleep(0.9 * HOUR)
        assert household.tokens["chat"].snapshot.phase == "refused"
        assert is_ready(household)

    play(story, fetched("chat", RefusedError("invalid_grant")))


def test_a_denial_by_one_reporter_leaves_it_ready_and_one_by_the_readers_of_all_does_not():
    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        await asking.post("/v1/tokens/chat/denied", {"generation": 1, "by": "video"})
        assert is_ready(household)
        await asking.post("/v1/tokens/chat/denied", {"generation": 1})
        assert not is_ready(household)

    play(story, fetched("chat", DOWN))


def test_a_sink_that_failed_is_not_ready_and_is_named(tmp_path: Path):
    path = tmp_path / "chat.token"

    async def story(household: Household, _: Asking, __: VirtualClock) -> None:
        (sink,) = household.deliveries("chat").sinks
        sink.error, sink.behind_since = None, None
        assert is_ready(household)
        sink.error = "no space left"
        (reason,) = reasons(household)
        assert (reason.token, reason.sink, reason.problem) == ("chat", str(path), "no space left")

    play(story, sunk(path))


def test_a_sink_is_not_ready_once_it_is_5_seconds_behind(tmp_path: Path):
    async def story(household: Household, _: Asking, clock: VirtualClock) -> None:
        (sink,) = household.deliveries("chat").sinks
        sink.error, sink.behind_since = None, clock.monotonic()
        await asyncio.sleep(4.9)
        assert is_ready(household)
        await asyncio.sleep(0.2)
        assert not is_ready(household)

    play(story, sunk(tmp_path / "chat.token"))


def test_a_suspend_past_the_expiry_is_seen_at_once():
    async def story(household: Household, _: Asking, clock: VirtualClock) -> None:
        clock.suspend(2 * HOUR)
        assert not is_ready(household)

    play(story, fetched())


def test_a_scheduler_that_stands_still_is_not_live():
    async def story(household: Household, asking: Asking, clock: VirtualClock) -> None:
        # As if the loop had been busy all that time.
        clock.advance(LIVE_S + 6)
        assert not household.is_live
        answer = await asking.get("/healthz")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:token-keeper:problem:not-live")

    play(story, fetched())


def test_of_many_reasons_the_first_hundred_are_listed():
    async def story(_: Household, asking: Asking, __: VirtualClock) -> None:
        document = (await asking.get("/readyz")).json()
        assert (len(document["reasons"]), document["more"]) == (100, 50)

    play(story, *(lacking(f"t{index}") for index in range(150)))


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("is_ill", [False, True])
def test_a_caller_without_access_sees_the_status_code_and_nothing_more(path: str, *, is_ill: bool):
    async def story(household: Household, asking: Asking, clock: VirtualClock) -> None:
        if is_ill:
            clock.advance(2 * HOUR)
        for access, sees in ((Access.NOTHING, False), (Access.STATUS, True)):
            caller = Caller(access=access, uid=None, over="tcp")
            answer = await asking.called_by(caller).get(path)
            assert answer.status_code == (503 if is_ill else 200)
            assert bool(answer.content) is sees
        del household

    play(story, fetched())


def test_probes_ask_with_any_method_that_reads(tmp_path: Path):
    with serving(tmp_path, parts_of()) as sidecar:
        assert sidecar.client.head("/readyz").status_code == 200
        answer = sidecar.post("/readyz")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
