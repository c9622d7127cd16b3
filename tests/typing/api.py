"""How programs use the public types. Type checkers read this file; nobody runs it."""

from __future__ import annotations

from typing import assert_type

from token_keeper import (
    AsyncTokenKeeper,
    CallableSource,
    EventKind,
    HttpSource,
    RefreshPolicy,
    Snapshot,
    TokenEvent,
    TokenKeeper,
    TokenUnavailable,
    Verdict,
)
from token_keeper.logs import RedactingFilter, redact
from token_keeper.testing import ScriptedSource, VirtualClock, VirtualLoop, mint, run_virtual


def blocking() -> None:
    source = HttpSource("https://backend.example/token", json={"identity": "alice"}, token_path="data.token")
    with TokenKeeper(source, policy=RefreshPolicy(lead_ratio=0.3), name="chat") as keeper:
        assert_type(keeper.token, str)
        assert_type(keeper.snapshot, Snapshot)
        assert_type(keeper.get(min_validity=120, timeout=5), str)
        assert_type(keeper.refresh(timeout=5), str)
        assert_type(keeper.report_denied("raw", by="chat", code=51215, reason="expired"), Verdict)
        keeper.report_accepted("raw", by="chat")

        @keeper.on("tokenAboutToExpire")
        def warn(event: TokenEvent) -> None:
            assert_type(event.kind, EventKind)


async def awaited() -> None:
    async def fetch() -> str:
        return mint(expires_at=1_700_003_600)

    async with AsyncTokenKeeper(CallableSource(fetch), clock=VirtualClock()) as keeper:
        assert_type(keeper.token, str)
        assert_type(await keeper.get(), str)
        assert_type(await keeper.refresh(), str)

        @keeper.on(EventKind.TOKEN_UPDATED)
        async def note(event: TokenEvent) -> None:
            assert_type(event.generation, int)


def without_a_source() -> None:
    keeper = TokenKeeper()
    keeper.update("raw", expires_at=1_700_003_600.0)
    try:
        keeper.start()
    except TokenUnavailable:
        keeper.close()


def the_testing_kit() -> None:
    async def main() -> int:
        await ScriptedSource("raw", lambda: "later").fetch(tries=1)
        return 7

    assert_type(run_virtual(main), int)
    assert_type(run_virtual(main(), VirtualClock()), int)
    assert_type(VirtualLoop().clock, VirtualClock)


def logs() -> None:
    RedactingFilter()
    redact(None, "info", {"event": "x"})
