"""One source of a chain: it is asked within its time, and left alone when it said so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from token_keeper._errors import FetchError, TransientFetchError
from token_keeper._model import Issued
from token_keeper.sources._asking import Occasion, asking
from token_keeper.sources._source import Retiring, Source, Watched, as_cause, without_traces

LONGEST_REST_S: Final = 3_600.0
"""Longest time for which a `Retry-After` is heeded."""
CANCEL_GRACE_S: Final = 0.9
"""How long a call that was cancelled may take to notice, if the chain is cancelled itself."""
WATCH_AGAIN_S: Final = 5.0
"""After a source's `changes()` came to an end."""


class Link:
    """A source, with its name in the chain.

    Args:
        name: Its name.
        source: To ask.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self.source = source
        self.failure: FetchError | None = None
        """Why its last fetch failed, if it did."""
        self._rests_until = 0.0
        self._call: asyncio.Task[Issued] | None = None

    def rest_s(self) -> float:
        """Return for how many seconds it asked not to be asked again."""
        loop = asyncio.get_running_loop()
        return max(self._rests_until - loop.time(), 0.0)

    def wake(self) -> None:
        """Forget that it asked to be left alone."""
        self._rests_until = 0.0

    async def ask(self, tries: int, occasion: Occasion) -> Issued | None:
        """Return a token that is not obviously dead, or None; then `failure` says why."""
        try:
            issued = replace(await self._asked(tries, occasion), source=self.name)
            _check(issued, occasion.wall())
        except FetchError as error:
            self._fail(without_traces(error))
            return None
        except Exception as error:  # noqa: BLE001 - Whatever it is, there are other sources.
            failed = TransientFetchError(f"the source raised {type(error).__name__}; a valid token stays")
            failed.__cause__ = as_cause(error)
            self._fail(failed)
            return None
        self.failure = None
        self.wake()
        return issued

    async def changes(self) -> AsyncIterator[None]:
        """Yield when the source says that it has another token. Ends at once if it never says so."""
        while isinstance(self.source, Watched):
            async for _ in self.source.changes():
                self.wake()
                yield
            await asyncio.sleep(WATCH_AGAIN_S)

    async def retire(self) -> None:
        """Give its tokens back, if that is what it does at the end."""
        if isinstance(self.source, Retiring):
            await self.source.retire()

    def _fail(self, error: FetchError) -> None:
        self.failure = error
        if error.retry_after is not None:
            loop = asyncio.get_running_loop()
            self._rests_until = loop.time() + min(error.retry_after, LONGEST_REST_S)

    async def _asked(self, tries: int, occasion: Occasion) -> Issued:
        loop = asyncio.get_running_loop()
        if self._call is not None and not self._call.done() and self._call.get_loop() is loop:
            raise TransientFetchError(
                "its previous call does not end although it was cancelled; a valid token stays. "
                "Make the source heed cancellation",
                timed_out=True,
            )
        call = self._call = asking(self.source, tries, occasion)
        try:
            await asyncio.wait({call}, timeout=occasion.within_s)
        except asyncio.CancelledError:
            call.cancel()
            await asyncio.wait({call}, timeout=CANCEL_GRACE_S)
            raise
        if not call.done():
            call.cancel()
            raise TransientFetchError(
                f"it did not answer within its share of the time, {occasion.within_s:.1f} s; "
                "a valid token stays",
                timed_out=True,
            )
        if call.cancelled():
            raise TransientFetchError("the source cancelled its own fetch; a valid token stays")
        return call.result()


def _check(issued: Issued, wall: float) -> None:
    """Raise `ResponseError` if the token cannot work, whatever it is for."""
    from token_keeper._receive import receive  # noqa: PLC0415 - The profiles are not needed before.
    from token_keeper.profiles import profile_named  # noqa: PLC0415

    receive(issued, profile=profile_named("auto"), expect=None, wall=wall)
