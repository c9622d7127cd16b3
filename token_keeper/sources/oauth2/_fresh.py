"""How an access token is got anew with the client's own credentials."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from token_keeper._errors import FetchError, StoreError
from token_keeper._model import Issued
from token_keeper._threads import in_thread
from token_keeper.sources._tries import retrying
from token_keeper.sources.oauth2 import _rotation as rotation
from token_keeper.sources.oauth2._outcomes import Granted, Outcome
from token_keeper.sources.oauth2._posting import Fields
from token_keeper.sources.oauth2._rotation import Terms
from token_keeper.store import Lease, Record


class Exchange(Protocol):
    """A token endpoint, as far as a renewal needs it."""

    async def exchange(self, fields: Fields) -> Outcome:
        """Send *fields* once, and return what came of it. Raises nothing."""
        ...


class FreshGrant:
    """Asks with the client's own credentials: nothing that was sent can be lost.

    Args:
        endpoint: Whom to ask.
        terms: To whom the tokens may be shown, and what they are for.
        fields: Returns the form fields to send.
        log: Where to say that a token could not be kept.
        wall: Unix time.
    """

    is_sending = False
    is_behind = False

    def __init__(
        self,
        endpoint: Exchange,
        *,
        terms: Terms,
        fields: Callable[[], Awaitable[Fields]],
        log: Any,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._terms = terms
        self._fields = fields
        self._log = log
        self._wall = wall

    async def renewed(self, lease: Lease, stored: Record | None, tries: int) -> Issued | FetchError:
        """As `Renewal`. A token that cannot be kept is handed out all the same: it can be had again."""
        outcome: Issued | FetchError = await retrying(tries)(self._asked, await self._fields())
        if isinstance(outcome, FetchError):
            return outcome
        try:
            # A refresh token of another grant that was kept under this name may still be needed.
            before = stored or Record(owner=self._terms.owner)
            record = rotation.with_token(before, outcome, self._terms, self._wall())
            await in_thread(lease.write, record)
        except StoreError as error:
            self._log.warning("tokenNotKept", error=str(error))
        return outcome

    async def catch_up(self, lease: Lease, stored: Record | None) -> Record | None:  # noqa: ARG002 - nothing waits
        """As `Renewal`."""
        return stored

    async def is_current(self, stored: Record) -> bool:
        """As `Renewal`."""
        return stored.asked == self._terms.asked

    async def _asked(self, fields: Fields) -> Issued | FetchError:
        outcome = await self._endpoint.exchange(fields)
        return outcome.issued if isinstance(outcome, Granted) else outcome.error
