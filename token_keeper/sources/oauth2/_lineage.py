"""A grant in a store: its fetches take turns with other processes, and survive them.

It decides in which order things are read, written and sent. What may be sent
again is decided in `_rotation`, how it travels in `_endpoint`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

from token_keeper._errors import FetchError, RefusedError, StoreError, TransientFetchError
from token_keeper._model import Issued
from token_keeper._threads import in_thread
from token_keeper.sources._source import cleanly, without_traces
from token_keeper.sources.oauth2 import _rotation as rotation
from token_keeper.sources.oauth2._outcomes import Granted
from token_keeper.sources.oauth2._rotation import Terms
from token_keeper.store import Lease, Record, Slot

LOCK_WAIT_S: Final = 20.0
"""Longest wait for another process that renews the same grant."""
FLIGHT_S: Final = 30.0
"""Longest renewal, without the wait for others."""
END_S: Final = 1.0
"""How long what was cancelled may take to notice."""
_FIRST_POLL_S: Final = 0.02
_LONGEST_POLL_S: Final = 0.25
_REMEMBERED: Final = 64


class Renewal(Protocol):
    """How an access token is got when the stored one does not serve."""

    is_sending: bool
    """Whether what was sent may be lost if it is cancelled now."""

    @property
    def is_behind(self) -> bool:
        """Whether something could not be written yet."""
        ...

    async def renewed(self, lease: Lease, stored: Record | None, tries: int) -> Issued | FetchError:
        """Return a new access token, when the store has what came with it; or why there is none.

        Raises:
            FetchError: If there is none.
            StoreError: If the store does not let it.
        """
        ...

    async def catch_up(self, lease: Lease, stored: Record | None) -> Record | None:
        """Write what could not be written before, and return what is *stored* then.

        Raises:
            StoreError: If it still cannot be written.
        """
        ...

    async def is_current(self, stored: Record) -> bool:
        """Whether the access token of *stored* is what would be asked for now.

        Raises:
            FetchError: If that cannot be told.
        """
        ...


class Lineage:
    """A grant that is kept in a store, from its login to its end.

    Args:
        slot: Where it is kept.
        terms: To whom its tokens may be shown, and what they are for.
        renewal: How it is renewed.
        wall: Unix time.
    """

    def __init__(
        self, *, slot: Slot, terms: Terms, renewal: Renewal, wall: Callable[[], float] = time.time
    ) -> None:
        self._slot = slot
        self._terms = terms
        self._renewal = renewal
        self._wall = wall
        self._handed: deque[str] = deque(maxlen=_REMEMBERED)
        self._flight: asyncio.Task[Issued | FetchError] | None = None
        self._refused: str | None = None
        """Digest of the stored refresh token that was refused; empty if there was none."""

    async def fetch(self, *, tries: int) -> Issued:
        """Return an access token: another process's, or a new one that the store has by then.

        A caller that is cancelled does not cancel the exchange: its answer could be lost.

        Raises:
            FetchError: If there is none.
        """
        loop = asyncio.get_running_loop()
        flight = self._flight
        if flight is None or flight.done() or flight.get_loop() is not loop:
            flight = self._flight = loop.create_task(self._outcome(tries), name="token_keeper renewal")
        issued = await cleanly(asyncio.shield(flight))
        self._handed.append(rotation.digest(issued.secret))
        return issued

    async def read(self) -> Record | None:
        """Return what the store remembers of this grant.

        Raises:
            StoreError: If it cannot be read, or is another grant's.
        """
        return self._ours(await in_thread(self._slot.read))

    async def check(self) -> None:
        """Make sure that a new grant could be stored. Nothing is changed.

        Raises:
            StoreError: If it could not.
            TransientFetchError: If another process has the store for too long.
        """
        async with self._turn() as lease:
            self._ours(await in_thread(lease.read))
            await in_thread(lease.reserve)

    async def begin(self, granted: Granted) -> None:
        """Store a new grant, in the place of the former one if there is one.

        Raises:
            StoreError: If it cannot be stored; the former one stays.
            TransientFetchError: If another process has the store for too long.
        """
        async with self._turn() as lease:
            former = self._ours(await in_thread(lease.read))
            record = Record(
                owner=self._terms.owner,
                refresh_token=granted.refresh_token,
                seeds=former.seeds if former is not None else (),
            )
            await in_thread(
                lease.write, rotation.with_token(record, granted.issued, self._terms, self._wall())
            )

    async def forget(self) -> None:
        """Remove the grant from the store: it was revoked.

        Raises:
            StoreError: If it cannot be removed.
            TransientFetchError: If another process has the store for too long.
        """
        async with self._turn() as lease:
            if self._ours(await in_thread(lease.read)) is not None:
                await in_thread(lease.remove)

    async def changes(self) -> AsyncIterator[None]:
        """Yield when the store has another refresh token than the one that was refused: a new login."""
        from token_keeper.sources._watch import changes  # noqa: PLC0415 - Only who waits for a login.

        if self._slot.path is None:
            await asyncio.Event().wait()
            return
        async for _ in changes(self._slot.path):
            if self._refused is not None and await self._is_another(self._refused):
                yield

    async def aclose(self) -> None:
        """End a renewal: at once if nothing was sent, else after its answer, or when this is cancelled."""
        flight, self._flight = self._flight, None
        if flight is not None and not flight.done() and flight.get_loop() is asyncio.get_running_loop():
            try:
                if self._renewal.is_sending:
                    await asyncio.wait({flight}, timeout=FLIGHT_S)
            finally:
                flight.cancel()
                await asyncio.wait({flight}, timeout=END_S)
        # The last chance for what is in memory only; if it fails, the fetch has said so.
        if self._renewal.is_behind:
            with suppress(FetchError, StoreError, TimeoutError):
                async with asyncio.timeout(END_S), self._turn() as lease:
                    await self._renewal.catch_up(lease, await in_thread(lease.read))

    async def _outcome(self, tries: int) -> Issued | FetchError:
        try:
            async with self._turn() as lease, asyncio.timeout(FLIGHT_S):
                return await self._renewed(lease, tries)
        except FetchError as error:
            return without_traces(error)
        except StoreError as error:
            return TransientFetchError(f"{error}. A valid token stays")
        except TimeoutError:
            return TransientFetchError(
                f"the renewal was not complete within {FLIGHT_S:g} s; a valid token stays. "
                "Check the backend, and the disk of the store",
                timed_out=True,
            )

    async def _renewed(self, lease: Lease, tries: int) -> Issued | FetchError:
        stored = await self._renewal.catch_up(lease, self._ours(await in_thread(lease.read)))
        is_current = stored is not None and await self._renewal.is_current(stored)
        now = self._wall()
        if stored is not None and is_current and rotation.is_worth_adopting(stored, self._handed, now):
            self._refused = None
            return rotation.adopted(stored, now)
        try:
            outcome = await self._renewal.renewed(lease, stored, tries)
        except FetchError as error:
            outcome = without_traces(error)
        is_refused = isinstance(outcome, RefusedError)
        self._refused = _digest(await in_thread(lease.read)) if is_refused else None
        if isinstance(outcome, Issued):
            return outcome
        now = self._wall()
        if stored is not None and is_current and rotation.is_last_hope(stored, self._handed, now):
            # A start in an outage: what a former run left is better than nothing.
            return rotation.adopted(stored, now)
        return outcome

    async def _is_another(self, refused: str) -> bool:
        try:
            return _digest(await self.read()) not in {"", refused}
        except StoreError:
            # The next fetch will say so.
            return False

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Lease]:
        """Wait for the right to change the record, and have it inside the block."""
        lease = await self._lease()
        try:
            yield lease
        finally:
            await in_thread(lease.release)

    async def _lease(self) -> Lease:
        pause, left = _FIRST_POLL_S, LOCK_WAIT_S
        while (lease := await in_thread(self._slot.try_lease)) is None:
            if left <= 0:
                holder = await in_thread(self._slot.holder) or "another process"
                raise TransientFetchError(
                    f"{self._slot.place} has been in use by {holder} for over {LOCK_WAIT_S:g} s; "
                    "a valid token stays. If that process hangs, end it: its lock goes with it"
                )
            # Drawn, so that many who wait do not come all at once.
            pause = min(pause * 2, _LONGEST_POLL_S) * random.uniform(0.75, 1)  # noqa: S311 - no secret
            await asyncio.sleep(pause)
            left -= pause
        return lease

    def _ours(self, record: Record | None) -> Record | None:
        if record is not None and record.owner != self._terms.owner:
            raise StoreError(
                self._slot.place,
                f"holds a grant of {record.owner}, but this source asks {self._terms.owner}. "
                "Nothing was sent or changed: correct the source, or move the file away",
            )
        return record


def _digest(record: Record | None) -> str:
    """Return what tells the refresh token of *record* from others; nothing if there is none."""
    return "" if record is None or record.refresh_token is None else rotation.digest(record.refresh_token)
