"""All sessions of one keeper: one task gives each of them its turn, none waits for another."""

from __future__ import annotations

import asyncio
from itertools import count

from token_keeper._face import Face
from token_keeper._kept import call_in
from token_keeper._listeners import Listeners
from token_keeper._model import Secret
from token_keeper._scheduler import TICK_S
from token_keeper._threads import DaemonThreads
from token_keeper.sessions._account import Account
from token_keeper.sessions._calling import Caller
from token_keeper.sessions._supervisor import SessionSupervisor
from token_keeper.supervision import Detached, Tick

END_S = 1.0
"""How long calls that were cancelled may take to notice."""


class Circle:
    """The sessions of one keeper.

    Args:
        keeper: The keeper.
        loop: Its event loop.
        in_thread: Whether blocking listeners get threads.
    """

    def __init__(self, keeper: Face, loop: asyncio.AbstractEventLoop, *, in_thread: bool) -> None:
        self._keeper = keeper
        self._kept = keeper._kept  # noqa: SLF001 - sessions are of one piece with their keeper
        self._loop = loop
        self._in_thread = in_thread
        self._threads = DaemonThreads("token_keeper session")
        self._accounts: dict[str, Account] = {}
        self._sessions: dict[SessionSupervisor, None] = {}
        self._poked: set[SessionSupervisor] = set()
        self._serial = count(1)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._change: asyncio.Future[None] | None = None
        self._farewells: set[asyncio.Task[None]] = set()
        self._is_ended = False

    def add(  # noqa: PLR0913 - all but the first are keywords
        self,
        session: object,
        *,
        by: str,
        name: str | None,
        made_with: Secret | None,
        deadline_s: float,
        loop: asyncio.AbstractEventLoop | None,
    ) -> SessionSupervisor:
        """Supervise *session* from now on. From any thread."""
        account = self._accounts.get(by) or self._accounts.setdefault(by, Account(self._keeper, by))
        supervisor = SessionSupervisor(
            name or f"{type(session).__name__}-{next(self._serial)}",
            session,
            account=account,
            caller=Caller(loop, self._threads),
            listeners=Listeners(log=account.log, sync_in_thread=self._in_thread),
            deadline_s=deadline_s,
            made_with=made_with,
            poke=self._poke,
        )
        call_in(self._loop, self._welcome, supervisor)
        return supervisor

    async def end(self) -> None:
        """Leave all sessions alone. Only in the keeper's loop."""
        self._is_ended = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        sessions, self._sessions = self._sessions, {}
        for one in sessions:
            self._turn(one, Detached())
        calls = [call for one in sessions for call in one.end()]
        if calls:
            await asyncio.wait(calls, timeout=END_S)
        await asyncio.gather(*(one.listeners.drain(END_S) for one in sessions), *self._farewells)

    def _welcome(self, one: SessionSupervisor) -> None:
        if self._is_ended:
            self._turn(one, Detached())
            return
        self._sessions[one] = None
        self._poked.add(one)
        self._wake.set()
        if self._task is None:
            self._task = self._loop.create_task(self._run(), name=f"token_keeper sessions {self._kept.name}")

    def _poke(self, one: SessionSupervisor) -> None:
        call_in(self._loop, self._wake_for, one)

    def _wake_for(self, one: SessionSupervisor) -> None:
        if one in self._sessions:
            self._poked.add(one)
            self._wake.set()

    async def _run(self) -> None:
        seen = -1
        while True:
            self._wake.clear()
            self._watch()
            changes = self._kept.changes
            self._turns(everyone=changes != seen)
            seen = changes
            # Waiting for what has happened already does not yield, and others want the loop, too.
            await asyncio.sleep(0)
            await self._sleep()

    def _turns(self, *, everyone: bool) -> None:
        now = self._kept.boot()
        poked, self._poked = self._poked, set()
        for one in list(self._sessions):
            if everyone or one in poked or one.wakeup() <= now:
                self._turn(one, Tick())

    def _turn(self, one: SessionSupervisor, what: Tick | Detached) -> None:
        try:
            one.turn(what)
        except Exception:  # noqa: BLE001 - whatever it is, the other sessions go on
            self._keeper._log.error("sessionFailed", session=one.name, exc_info=True)  # noqa: SLF001 - as above
        if one.is_done and one in self._sessions:
            del self._sessions[one]
            self._part_with(one)

    def _part_with(self, one: SessionSupervisor) -> None:
        one.end()
        farewell = self._loop.create_task(one.listeners.drain(END_S), name=f"token_keeper {one.name} ends")
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    def _watch(self) -> None:
        """Wake up at the keeper's next change."""
        if self._change is None or self._change.done():
            self._change = self._kept.change()
            self._change.add_done_callback(lambda _: self._wake.set())

    async def _sleep(self) -> None:
        now = self._kept.boot()
        wakes = min((one.wakeup() for one in self._sessions), default=now + TICK_S)
        timer = self._loop.call_later(min(max(wakes - now, 0.0), TICK_S), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
