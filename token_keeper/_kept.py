"""One kept token: its machine, the lock around it, and who is woken by its changes.

Every input is stepped under one lock, from whatever thread it comes, so that a
denial is judged by the state that it changes. What the machine orders is left
in an outbox for the scheduler. Readers take no lock: they read `held`.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any, Protocol

from token_keeper import _fork as fork
from token_keeper._clock import Clock
from token_keeper._errors import FetchError, InvalidToken, KeeperClosed
from token_keeper._inputs import (
    Announce,
    Closed,
    Effect,
    Fetched,
    FetchFailed,
    Input,
    Moment,
    RefreshRequested,
    TokenDenied,
    TokenSupplied,
)
from token_keeper._machine import next_wakeup, step
from token_keeper._model import (
    DenialClass,
    Finding,
    Secret,
    Severity,
    Snapshot,
    Token,
    Verdict,
)
from token_keeper._policy import RefreshPolicy
from token_keeper._recovery import is_denied, judge
from token_keeper._state import NEVER, State
from token_keeper._view import snapshot_of

NOT_STARTED = "the keeper was not started: enter it (`with` or `async with`) or call start()"
CLOSED = "the keeper is closed: make a new one"
FORKED = (
    "the keeper belongs to the parent process, its thread did not come along: "
    "start it after the fork, for example in gunicorn's post_worker_init or Celery's worker_process_init"
)
MAX_OUTBOX = 1_024
"""Orders that wait for the scheduler; of more, the oldest announcements are dropped."""
MAX_WAIT_S = 3_600.0
"""Longest uninterrupted wait of a thread."""


class Held:
    """What a read needs: the raw token, and until when of the boot clock it may be read."""

    __slots__ = ("raw", "until")

    def __init__(self, raw: str, until: float) -> None:
        self.raw = raw
        self.until = until

    def __repr__(self) -> str:
        return f"<held until {self.until:.3f} on the boot clock>"


class Driver(Protocol):
    """Who ticks kept tokens and carries out what they order."""

    def poked(self, kept: KeptToken) -> None:
        """Look at *kept* soon. Called from any thread, also from the driver's own turn."""
        ...


class KeptToken:
    """The state of one token, safe to use from any thread.

    Args:
        name: Names it in events and logs.
        policy: Timing of renewal.
        clock: Where the time comes from.
        sourced: Whether there is a source to fetch from.
        draw: Draws numbers from 0 to 1.
    """

    __slots__ = (
        "__weakref__",
        "_asked_generation",
        "_changed",
        "_clock",
        "_draw",
        "_driver",
        "_futures",
        "_lock",
        "_outbox",
        "changes",
        "ended",
        "gone",
        "held",
        "last_failure",
        "name",
        "policy",
        "state",
        "supplied_generation",
    )

    def __init__(
        self,
        name: str,
        *,
        policy: RefreshPolicy,
        clock: Clock,
        sourced: bool,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.policy = policy
        self.state = State(sourced=sourced)
        self.held: Held | None = None
        self.last_failure: FetchError | None = None
        self.changes = 0
        """Counts the changes of the state, so that a waiter misses none."""
        self.ended = 0
        """Id of the last fetch that ended, well or badly, and was not called off."""
        self.supplied_generation = 0
        """The last generation that was handed in, not fetched."""
        self.gone: str | None = None
        """Why this keeper will never serve again, or None."""
        self._clock = clock
        self._draw = draw
        self._driver: Driver | None = None
        self._outbox: list[Effect] = []
        self._asked_generation = 0
        self._renew_locks()
        fork.watch(self)

    def _renew_locks(self) -> None:
        # Reentrant: a signal handler or a finalizer may call in the middle of another call of its thread.
        self._lock = threading.RLock()
        # Made by the first thread that waits: it is larger than all the rest.
        self._changed: threading.Condition | None = None
        self._futures: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    # Inputs.

    def post(self, what: Input, *, failure: FetchError | None = None) -> None:
        """Let *what* happen now. *failure* is the error behind a failed fetch."""
        self.check_alive()
        with self._lock:
            self._apply(what, failure)
        self.poke()

    def deny(
        self, given: Secret, by: str, meaning: Callable[[Token | None], DenialClass]
    ) -> tuple[Verdict, Snapshot]:
        """Judge a denial and act on it. Never blocks on anything but the lock."""
        self.check_alive()
        with self._lock:
            now = self.moment()
            current = self.state.current
            token = current.token if current is not None and current.token.secret == given else None
            generation = self.state.generation if token is not None else 0
            denial = TokenDenied(generation, by, meaning(token))
            verdict = judge(self.state, denial, now, self.policy)
            self._apply(denial, None, now)
            snapshot = snapshot_of(self.state, now, self.policy)
        self.poke()
        return verdict, snapshot

    def generation_of(self, given: Secret) -> int:
        """Return the generation of *given* if it is the current token, else 0."""
        current = self.state.current
        return current.generation if current is not None and current.token.secret == given else 0

    def supply(self, token: Token, skew_s: float = 0.0) -> None:
        """Publish a token from elsewhere. Raises `InvalidToken` if a server had refused it."""
        self.check_alive()
        with self._lock:
            if is_denied(self.state.recovery, token.fingerprint):
                raise InvalidToken(
                    f"a server had refused this token ({token.fingerprint}); the keeper stays as it was. "
                    "Supply another one",
                    (_denied_before(token),),
                )
            self._apply(TokenSupplied(token, skew_s), None)
            self.supplied_generation = self.state.generation
        self.poke()

    def close(self, why: str = CLOSED) -> None:
        """Let nobody read or wait any more. Does nothing the second time."""
        if self.gone is not None:
            return
        with self._lock:
            self.gone = why
            self._apply(Closed(), None)
        self.poke()

    def _after_fork(self) -> None:
        """Give up in a child process if it was started: the threads behind it are not there."""
        self._renew_locks()
        if self.state.started:
            self.gone = FORKED
            self.held = None
            self._driver = None

    def _apply(self, what: Input, failure: FetchError | None, now: Moment | None = None) -> None:
        while True:
            before = self.state
            after, effects = step(before, what, now or self.moment(), self.policy)
            if self.state is before:
                self.state = after
                break
            # A signal handler was faster, in this very thread: step from what it left.
        flying = before.flight.fetch_id if before.flight is not None else None
        # A fetch that was called off is no end for who waits: another one begins, or a token was handed in.
        if isinstance(what, Fetched | FetchFailed) and what.fetch_id == flying:
            self.ended = what.fetch_id
            self.last_failure = failure
        if not self.state.failures:
            self.last_failure = None
        self._order(effects)
        if self.state is before:
            return
        self._hold()
        self.changes += 1
        if self._changed is not None:
            self._changed.notify_all()
        self._wake_futures()

    def _order(self, effects: tuple[Effect, ...]) -> None:
        self._outbox.extend(effects)
        if len(self._outbox) > MAX_OUTBOX:
            # Nobody drives this token, or only slowly: old news are dropped, orders are not.
            old, new = self._outbox[: -MAX_OUTBOX // 2], self._outbox[-MAX_OUTBOX // 2 :]
            self._outbox = [*(order for order in old if not isinstance(order, Announce)), *new]

    def _hold(self) -> None:
        current = self.state.usable_by("", -NEVER)
        if current is None:
            self.held = None
            return
        held = self.held
        raw = current.token.secret.reveal()
        if held is None or held.raw != raw or held.until != current.expires:
            self.held = Held(raw, current.expires)

    # What the scheduler needs.

    def boot(self) -> float:
        """Return the boot clock's seconds."""
        return self._clock.boot()

    def moment(self) -> Moment:
        """Return what time it is, with fresh draws."""
        return Moment(self._clock.wall(), self._clock.boot(), self._draw(), self._draw())

    def driven_by(self, driver: Driver | None) -> None:
        """Poke *driver*, from any thread, whenever there may be new effects or an earlier wake-up."""
        self._driver = driver

    def poke(self) -> None:
        """Make the scheduler look at this token soon."""
        if (driver := self._driver) is not None:
            driver.poked(self)

    def take_effects(self) -> list[Effect]:
        """Return the orders since the last call."""
        with self._lock:
            effects, self._outbox = self._outbox, []
        return effects

    def wakeup(self) -> float:
        """Return the boot time at which the machine wants a tick."""
        return next_wakeup(self.state, self.policy)

    # Waiting.

    def snapshot(self) -> Snapshot:
        """Return how the token stands now."""
        return snapshot_of(self.state, self.moment(), self.policy)

    def check_alive(self) -> None:
        """Raise `KeeperClosed` after the end."""
        if self.gone is not None:
            raise KeeperClosed(self.gone)

    def check_started(self) -> None:
        """Raise `KeeperClosed` before the start and after the end."""
        self.check_alive()
        if not self.state.started:
            raise KeeperClosed(NOT_STARTED)

    def ask_once(self, generation: int) -> None:
        """Ask for a newer token than that of *generation*, once for all who want one."""
        with self._lock:
            if self._asked_generation >= generation or self.state.generation != generation:
                return
            self._asked_generation = generation
            self._apply(RefreshRequested(), None)
        self.poke()

    def ask(self) -> tuple[int, int]:
        """Ask for a newer token. Returns the generation before, and the id of the fetch to wait for."""
        self.check_started()
        with self._lock:
            before = self.state.generation
            self._apply(RefreshRequested(), None)
            flight = self.state.flight
            # Joins the fetch in flight, else the next one to start.
            fetch_id = flight.fetch_id if flight else self.state.fetches + 1
        self.poke()
        return before, fetch_id

    def outcome(self) -> tuple[State, int, FetchError | None]:
        """Return the state, the id of the last fetch that ended, and how it failed: of one moment."""
        with self._lock:
            return self.state, self.ended, self.last_failure

    def wait_beyond(self, changes: int, timeout: float) -> None:
        """Block the calling thread until there were more than *changes*, *timeout* seconds at most."""
        with self._lock:
            changed = self._changed = self._changed or threading.Condition(self._lock)
            # A lock takes no infinite timeout; whoever waits that long asks again.
            changed.wait_for(lambda: self.changes != changes, min(timeout, MAX_WAIT_S))

    def change(self) -> asyncio.Future[None]:
        """Return a future of the running loop that is done at the next change. Cancel it freely."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            self._futures[future] = loop
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: asyncio.Future[None]) -> None:
        self._futures.pop(future, None)

    def _wake_futures(self) -> None:
        if not self._futures:
            return
        futures, self._futures = self._futures, {}
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        # A copy: a waiter that goes away in its own loop may still take itself out of this very dict.
        for future, loop in list(futures.items()):
            by_loop.setdefault(loop, []).append(future)
        for loop, waiting in by_loop.items():
            call_in(loop, _set_all, waiting)


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    """Call *function* in *loop* soon, from any thread; not at all if the loop has ended."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        # The loop was closed meanwhile: nobody waits in it any more.
        return


def _set_all(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _denied_before(token: Token) -> Finding:
    return Finding(
        code="denied-before",
        severity=Severity.ERROR,
        message=f"a server had refused token {token.fingerprint}",
        hint="supply another token",
    )
