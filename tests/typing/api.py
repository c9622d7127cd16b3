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
from token_keeper.sessions import SessionEvent, SessionEventKind, SessionHandle, SessionSnapshot
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


class Client:
    def __init__(self, token: str = "") -> None: ...

    async def update_token(self, token: str) -> None: ...


class BlockingClient:
    def update_token(self, token: str) -> None: ...

    def reconnect(self) -> None: ...


def sessions(keeper: TokenKeeper) -> None:
    handle = keeper.attach(Client(), token="raw", by="chat", name="chat-1", deadline=10)
    assert_type(handle, SessionHandle)
    handle.state_changed("connected")
    handle.denied(code=51207, reason="expired")
    assert_type(handle.snapshot, SessionSnapshot)
    assert_type(handle.snapshot.diagnosis, tuple[str, ...])

    @handle.on("sessionGaveUp")
    def note(event: SessionEvent) -> None:
        assert_type(event.kind, SessionEventKind)

    with keeper.attach(BlockingClient()) as attached:
        assert_type(attached, SessionHandle)


async def connections(keeper: AsyncTokenKeeper) -> None:
    async def connect(token: str) -> Client:
        return Client(token)

    async with keeper.connections(connect, swap=False, retry_on=(LookupError,)) as made:
        assert_type(made.denied(code=4401), Verdict)
        async for client in made:
            await client.update_token("raw")


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
