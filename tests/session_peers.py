"""Clients of an imaginary SDK that obey, lie, hang and raise, and what keeps them."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

from token_keeper import AsyncTokenKeeper, RefreshPolicy
from token_keeper.sessions import SessionEvent, SessionHandle
from token_keeper.testing import ScriptedSource, VirtualClock, VirtualLoop, mint, run_virtual

HOUR = 3_600.0
DAY = 86_400.0
PLAIN = RefreshPolicy(splay=False, jitter_ratio=0.0)
"""A token of an hour is refreshed after 48 min."""

Answer = Callable[["Peer"], Any]


def fresh(clock: VirtualClock, lifetime: float = HOUR, **claims: object) -> Callable[[], str]:
    """Return a backend that mints another token at each fetch."""
    serials = itertools.count(1)
    return lambda: mint(expires_at=clock.wall() + lifetime, jti=str(next(serials)), **claims)


def run(main: Callable[[VirtualClock], Any]) -> Any:
    """Run *main* on the virtual loop, with its clock."""
    clock = VirtualClock()
    return run_virtual(lambda: main(clock), clock)


def run_io(main: Callable[[VirtualClock], Any]) -> Any:
    """Run *main* as `run` does; between two timers it listens to its own sockets for a few milliseconds."""
    clock = VirtualClock()
    # Both ends are in this one loop: what one sends is there for the other at once.
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock, io_grace=0.004)) as runner:
        return runner.run(main(clock))


class Peer:
    """A client that can only be updated. Each call does what the next answer says, the last for ever.

    Attributes:
        calls: What was called, with the token if there was one.
        told: What the session's listeners were told.
    """

    handle: SessionHandle

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers) or [connects]
        self.calls: list[tuple[str, str | None]] = []
        self.told: list[SessionEvent] = []
        self.updating = 0
        self.most_updating = 0

    async def update_token(self, token: str) -> None:
        self.updating += 1
        self.most_updating = max(self.most_updating, self.updating)
        try:
            await self.answer("update", token)
        finally:
            self.updating -= 1

    async def answer(self, method: str, token: str | None) -> None:
        self.calls.append((method, token))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await answer(self)

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]

    @property
    def tokens(self) -> list[str | None]:
        return [token for _, token in self.calls]

    @property
    def kinds(self) -> list[str]:
        return [str(event.kind) for event in self.told]

    def diagnosis(self) -> str:
        return "; ".join(self.told[-1].diagnosis)


class Reconnecting(Peer):
    async def reconnect(self) -> None:
        await self.answer("reconnect", None)


class Recreating(Reconnecting):
    """It makes a new client of its own kind, with the token that it is given."""

    successor: Recreating | None = None

    async def recreate(self, token: str) -> Recreating:
        await self.answer("recreate", token)
        self.successor = Recreating()
        self.successor.handle = self.handle
        return self.successor


async def connects(peer: Peer) -> None:
    peer.handle.connected()


async def returns(_: Peer) -> None:
    """Say nothing, as most SDKs do after an update."""


async def raises(_: Peer) -> None:
    raise RuntimeError("InvalidState")


async def hangs(_: Peer) -> None:
    await asyncio.Event().wait()


async def lies(peer: Peer) -> None:
    """Return as if all were well, and be denied a moment later."""
    asyncio.get_running_loop().call_later(2, peer.handle.denied)


@asynccontextmanager
async def attached(
    clock: VirtualClock,
    peer: Peer,
    source: ScriptedSource | None = None,
    *,
    by: str = "sessions",
    **options: Any,
) -> Any:
    """Keep *peer*, which was made with the current token and is connected."""
    source = source or ScriptedSource(fresh(clock))
    async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN, **options) as keeper:
        peer.handle = keeper.attach(peer, token=keeper.token, by=by, name="peer")
        peer.handle.on()(peer.told.append)
        peer.handle.connected()
        await asyncio.sleep(1)
        yield keeper


def wait_until(is_so: Callable[[], object], what: str, *, timeout: float = 5.0) -> None:
    """Block until *is_so*, for real threads and processes."""
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        threading.Event().wait(0.005)
