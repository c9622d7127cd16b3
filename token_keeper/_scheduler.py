"""Drives any number of kept tokens: one task, one heap, a few fetches at once.

It decides nothing about tokens. It ticks each machine when the machine wants
it, carries out the effects, and says when the clocks disagree. It cannot die:
what one token's turn raises is counted and logged, and its next turn is set
all the same.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from token_keeper._clock import Clock
from token_keeper._errors import FetchError, KeeperClosed, TransientFetchError
from token_keeper._inputs import (
    Announce,
    CancelFetch,
    ClockJumped,
    CredentialsChanged,
    Effect,
    Failure,
    Fetched,
    FetchFailed,
    StartFetch,
    Tick,
)
from token_keeper._kept import KeptToken, call_in
from token_keeper._model import Issued, Secret
from token_keeper._recovery import is_denied
from token_keeper._schedule import has_jumped
from token_keeper._slots import Slots
from token_keeper._state import NEVER
from token_keeper.sources import Source, Watched
from token_keeper.sources._asking import Occasion, asking
from token_keeper.sources._source import as_cause, without_traces

TICK_S = 5.0
"""Longest sleep: so late at most a jump of a clock is seen."""
TURNS_AT_ONCE = 100
"""Turns before whatever else runs in the loop, such as fetches, gets one."""
LOOP_ENDED = "the event loop that the keeper was started in has ended: close the keeper before its loop"
CANCELLED = "the fetch was cancelled; a valid token stays. The keeper tries again by itself"
CANCEL_GRACE_S = 1.0
"""How long a fetch that was cancelled may take to notice."""


@dataclass(slots=True, eq=False)
class Charge:
    """One kept token in the scheduler's charge.

    Args:
        kept: The token.
        source: Where it comes from, or None.
        receive: Inspects what the source issued; raises `FetchError`.
        tell: Passes on an event. Must not block.
    """

    kept: KeptToken
    source: Source | None
    receive: Callable[[int, Issued], Fetched]
    tell: Callable[[Announce], None]
    wakes: float = NEVER
    poked: bool = False
    flight: asyncio.Task[None] | None = None
    call: asyncio.Task[Issued] | None = None
    watch: asyncio.Task[None] | None = None


class Scheduler:
    """One task for all tokens of an event loop.

    Args:
        clock: Where the time comes from.
        log: Where to say that a turn raised.
        slots: Which fetches may run at once.
    """

    def __init__(self, clock: Clock, log: Any, slots: Slots | None = None) -> None:
        self.failures = 0
        """Turns that raised."""
        self.jumps = 0
        """Jumps of a clock."""
        self.ticked_at = clock.monotonic()
        """When it last looked at the clocks, in seconds of the monotonic one."""
        self._clock = clock
        self._log = log
        self._slots = slots or Slots()
        self._charges: dict[KeptToken, Charge] = {}
        self._heap: list[tuple[float, int, Charge]] = []
        self._order = count()
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._sleeps_until = -NEVER
        self._seen = (clock.wall(), clock.boot(), clock.monotonic())

    def add(self, charge: Charge) -> None:
        """Take a token in charge. Only in the scheduler's loop."""
        self._charges[charge.kept] = charge
        charge.kept.driven_by(self)
        self.watch(charge)
        self._look(charge)

    def watch(self, charge: Charge) -> None:
        """Fetch whenever the source of *charge* says that it has another token."""
        if charge.watch is not None:
            charge.watch.cancel()
            charge.watch = None
        if isinstance(charge.source, Watched):
            charge.watch = self._loop.create_task(
                self._watch(charge, charge.source), name=f"token_keeper watch {charge.kept.name}"
            )

    async def _watch(self, charge: Charge, source: Watched) -> None:
        while True:
            try:
                async for _ in source.changes():
                    charge.kept.post(CredentialsChanged())
            except KeeperClosed:
                return
            except Exception:  # noqa: BLE001 - whatever it is, the fetches go on, and so does the watch
                self.failures += 1
                self._log.error("watchFailed", name=charge.kept.name, exc_info=True)
            await asyncio.sleep(TICK_S)

    def remove(self, charge: Charge) -> None:
        """Let go of a token. Only in the scheduler's loop."""
        self._look(charge)
        self._charges.pop(charge.kept, None)
        charge.kept.driven_by(None)
        charge.wakes = NEVER
        if charge.watch is not None:
            charge.watch.cancel()

    def poked(self, kept: KeptToken) -> None:
        """Look at *kept* soon. May be called from any thread."""
        charge = self._charges.get(kept)
        if charge is not None and not charge.poked:
            charge.poked = True
            call_in(self._loop, self._look, charge)

    async def run(self) -> None:
        """Drive the tokens until cancelled; then nobody waits for them any more."""
        try:
            while True:
                self._wake.clear()
                self._compare_clocks()
                self._tick_due()
                await self._sleep()
        finally:
            for kept, charge in list(self._charges.items()):
                kept.close(LOOP_ENDED)
                if charge.watch is not None:
                    charge.watch.cancel()

    async def _sleep(self) -> None:
        now = self._clock.boot()
        wakes = self._heap[0][0] if self._heap else NEVER
        self._sleeps_until = min(max(wakes, now), now + TICK_S)
        timer = self._loop.call_later(self._sleeps_until - now, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
            self._sleeps_until = -NEVER

    def _compare_clocks(self) -> None:
        wall, boot, awake = self._clock.wall(), self._clock.boot(), self._clock.monotonic()
        self.ticked_at = awake
        was_wall, was_boot, was_awake = self._seen
        self._seen = (wall, boot, awake)
        moved = (wall - was_wall) - (boot - was_boot)
        asleep = (boot - was_boot) - (awake - was_awake)
        if not has_jumped(moved) and not has_jumped(asleep):
            return
        self.jumps += 1
        for charge in list(self._charges.values()):
            self._turn(charge, ClockJumped(wall_s=moved, asleep_s=asleep if has_jumped(asleep) else 0.0))

    def _tick_due(self) -> None:
        if len(self._heap) > 2 * len(self._charges) + 64:
            self._heap = [entry for entry in self._heap if entry[0] == entry[2].wakes]
            heapq.heapify(self._heap)
        now = self._clock.boot()
        for _ in range(TURNS_AT_ONCE):
            if not self._heap or self._heap[0][0] > now:
                return
            wakes, _, charge = heapq.heappop(self._heap)
            if wakes == charge.wakes:
                charge.wakes = NEVER
                self._turn(charge, Tick())

    def _turn(self, charge: Charge, what: Tick | ClockJumped) -> None:
        charge.poked = True  # We look at it ourselves right away.
        went_well = self._contained(charge, charge.kept.post, what)
        self._look(charge)
        if not went_well:
            # It still wants this turn, and would get it again at once, for ever.
            self._set_wakeup(charge, self._clock.boot() + TICK_S)

    def _look(self, charge: Charge) -> None:
        charge.poked = False
        for effect in charge.kept.take_effects():
            # Each on its own: a listener that raises must not cost the token its fetch.
            self._contained(charge, self._obey, charge, effect)
        if not self._contained(charge, self._grant_wakeup, charge):
            self._set_wakeup(charge, self._clock.boot() + TICK_S)
        if charge.wakes <= self._clock.boot():
            # The loop's timers stood still in suspend: it is late already, and nobody else wakes it.
            self._wake.set()

    def _contained(self, charge: Charge, act: Callable[..., None], *args: Any) -> bool:
        """Call *act* and return whether it went well; if it did not, the others go on all the same."""
        try:
            act(*args)
        except KeeperClosed:
            self._charges.pop(charge.kept, None)
        except Exception:  # noqa: BLE001 - whatever it is, the others go on
            self.failures += 1
            self._log.error("turnFailed", name=charge.kept.name, exc_info=True)
        else:
            return True
        return False

    def _grant_wakeup(self, charge: Charge) -> None:
        self._set_wakeup(charge, charge.kept.wakeup())

    def _set_wakeup(self, charge: Charge, at: float) -> None:
        if at == charge.wakes or charge.kept not in self._charges:
            return
        charge.wakes = at
        if at == NEVER:
            return
        heapq.heappush(self._heap, (at, next(self._order), charge))
        if at < self._sleeps_until:
            self._wake.set()

    def _obey(self, charge: Charge, effect: Effect) -> None:
        match effect:
            case Announce():
                charge.tell(effect)
            case CancelFetch():
                if charge.flight is not None:
                    charge.flight.cancel()
            case StartFetch():
                charge.flight = self._loop.create_task(
                    self._fly(charge, effect), name=f"token_keeper fetch {charge.kept.name}"
                )

    async def _fly(self, charge: Charge, order: StartFetch) -> None:
        kept = charge.kept
        try:
            outcome = await self._fetch(charge, order)
            kept.post(outcome)
        except KeeperClosed:
            return
        except FetchError as error:
            self._fail(charge, order, error)
        except asyncio.CancelledError:
            # If it was not the machine that cancelled, the machine must hear of it all the same.
            self._fail(charge, order, TransientFetchError(CANCELLED))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the machine hears of it
            self.failures += 1
            self._log.error("fetchCrashed", name=kept.name, exc_info=True)
            failed = TransientFetchError(
                f"the source raised {type(error).__name__}; a valid token stays. See the cause"
            )
            failed.__cause__ = as_cause(error)
            self._fail(charge, order, failed)

    def _fail(self, charge: Charge, order: StartFetch, error: FetchError) -> None:
        plain = without_traces(error)
        self._log.debug("fetchFailed", name=charge.kept.name, error=str(plain))
        try:
            charge.kept.post(FetchFailed(order.fetch_id, Failure.of(error)), failure=plain)
        except KeeperClosed:
            return

    async def _fetch(self, charge: Charge, order: StartFetch) -> Fetched:
        source, kept = charge.source, charge.kept
        assert source is not None, "a machine without a source never fetches"  # noqa: S101 - our own invariant
        current = kept.state.current
        async with self._slots.slot(source.origin, current.expires if current else -NEVER):
            try:
                issued = await self._bounded(charge, source, order)
            except FetchError as error:
                self._slots.answered(source.origin, timed_out=error.timed_out)
                raise
            self._slots.answered(source.origin, timed_out=False)
        return charge.receive(order.fetch_id, issued)

    def _occasion(self, charge: Charge, within_s: float) -> Occasion:
        def is_known_denied(secret: Secret) -> bool:
            return is_denied(charge.kept.state.recovery, secret.fingerprint)

        return Occasion(within_s=within_s, wall=self._clock.wall, is_denied=is_known_denied)

    async def _bounded(self, charge: Charge, source: Source, order: StartFetch) -> Issued:
        """Return what the source issues; never wait longer than ordered, whatever the source does."""
        if charge.call is not None and not charge.call.done():
            await asyncio.wait({charge.call}, timeout=CANCEL_GRACE_S)
            if not charge.call.done():
                raise TransientFetchError(
                    "the source's previous call does not end although it was cancelled; "
                    "a valid token stays. Make the source heed cancellation",
                    timed_out=True,
                )
        call = charge.call = asking(source, order.tries, self._occasion(charge, order.timeout_s))
        try:
            await asyncio.wait({call}, timeout=order.timeout_s)
        finally:
            if not call.done():
                call.cancel()
        if not call.done():
            raise TransientFetchError(
                f"the source did not answer within {order.timeout_s:.1f} s; a valid token stays. "
                "If it usually takes longer, raise fetch_timeout_s",
                timed_out=True,
            )
        if call.cancelled():
            raise TransientFetchError(
                "the source cancelled its own fetch; a valid token stays. "
                "Let it raise TransientFetchError instead"
            )
        return call.result()
