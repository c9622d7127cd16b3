"""How an access token is got anew with the client's own credentials."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from token_keeper._errors import FetchError, StoreError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper._threads import in_thread
from token_keeper.sources.oauth2 import _rotation as rotation
from token_keeper.sources.oauth2._outcomes import Granted, NotGranted, Outcome
from token_keeper.store import Lease, Record

Fields = Mapping[str, Secret | str | Sequence[str]]
"""Of a form."""

PAUSE_S: Final = 0.5
"""Between two tries within one fetch."""


class Exchange(Protocol):
    """A token endpoint, as far as a renewal needs it."""

    async def exchange(self, fields: Fields) -> Outcome:
        """Send *fields* once, and return what came of it. Raises nothing."""
        ...


class FreshGrant:
    """Asks with the client's own credentials: nothing that was sent can be lost.

    Args:
        endpoint: Whom to ask.
        owner: To whom the tokens may be shown.
        fields: Returns the form fields to send.
        log: Where to say that a token could not be kept.
        wall: Unix time.
    """

    is_sending = False

    def __init__(
        self,
        endpoint: Exchange,
        *,
        owner: str,
        fields: Callable[[], Awaitable[Fields]],
        log: Any,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._owner = owner
        self._fields = fields
        self._log = log
        self._wall = wall

    async def renewed(self, lease: Lease, stored: Record | None, tries: int) -> Issued | FetchError:  # noqa: ARG002 - what is stored does not help
        """As `Renewal`. A token that cannot be kept is handed out all the same: it can be had again."""
        outcome = await asked_again(self._endpoint, await self._fields(), tries)
        if isinstance(outcome, NotGranted):
            return outcome.error
        try:
            record = rotation.with_token(Record(owner=self._owner), outcome.issued, self._wall())
            await in_thread(lease.write, record)
        except StoreError as error:
            self._log.warning("tokenNotKept", error=str(error))
        return outcome.issued

    def is_refused(self) -> bool:
        """As `Renewal`: only asking again helps."""
        return False


async def asked_again(endpoint: Exchange, fields: Fields, tries: int) -> Outcome:
    """Send *fields* up to *tries* times: again only after what may pass at once."""
    attempt = 1
    while True:
        outcome = await endpoint.exchange(fields)
        if isinstance(outcome, Granted) or attempt >= tries or not may_pass_at_once(outcome.error):
            return outcome
        await asyncio.sleep(PAUSE_S * attempt)
        attempt += 1


def may_pass_at_once(outcome: object) -> bool:
    """Whether another try within the same fetch is worthwhile."""
    return (
        isinstance(outcome, TransientFetchError)
        and outcome.retry_after is None
        and outcome.retry_within is None
    )
