"""How an access token is got with a refresh token that the server may replace each time.

The refresh token is never lost by us: what is sent is marked on the disk before, what
comes back is on the disk before its access token is used.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from token_keeper._errors import LOGIN_REQUIRED, FetchError, RefusedError, StoreError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper._threads import in_thread
from token_keeper.sources._asking import OCCASION
from token_keeper.sources._tries import retrying
from token_keeper.sources.oauth2 import _rotation as rotation
from token_keeper.sources.oauth2._fresh import Exchange
from token_keeper.sources.oauth2._outcomes import Delivery, Granted, NotGranted, Outcome
from token_keeper.sources.oauth2._posting import Fields
from token_keeper.sources.oauth2._rotation import Hold, ReplayRule, Sending, Terms
from token_keeper.store import Lease, Record


class RotatingGrant:
    """Asks with a refresh token that may be replaced each time.

    Args:
        endpoint: Whom to ask.
        terms: To whom the tokens may be shown, and what they are for.
        seed: Returns the configured refresh token, if there is one.
        extra: Returns what to send beside the refresh token.
        rule: What the server forgives.
        needs: What to do if there is no refresh token.
        log: Where to say that a token is sent again.
        wall: Unix time.
    """

    def __init__(  # noqa: PLR0913 - What it needs, each once.
        self,
        endpoint: Exchange,
        *,
        terms: Terms,
        seed: Callable[[], Awaitable[Secret | None]],
        extra: Callable[[], Awaitable[Fields]],
        rule: ReplayRule,
        needs: str,
        log: Any,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.is_sending = False
        self._endpoint = endpoint
        self._terms = terms
        self._seed = seed
        self._extra = extra
        self._rule = rule
        self._needs = needs
        self._log = log
        self._wall = wall
        self._unwritten: tuple[Record, Record] | None = None

    async def renewed(self, lease: Lease, stored: Record | None, tries: int) -> Issued | FetchError:
        """As `Renewal`."""
        record = rotation.working_record(stored, await self._seed(), self._terms.owner)
        if record is None or record.refresh_token is None:
            return RefusedError(LOGIN_REQUIRED, message=f"there is no refresh token; {self._needs}")
        return await self._tried(lease, record, tries)

    async def is_current(self, stored: Record) -> bool:
        """As `Renewal`."""
        return stored.asked == self._terms.asked and not rotation.is_new_login(stored, await self._seed())

    @property
    def is_behind(self) -> bool:
        """As `Renewal`."""
        return self._unwritten is not None

    async def _tried(self, lease: Lease, record: Record, tries: int) -> Issued | FetchError:
        extra = await self._extra()

        async def one_try() -> Issued | FetchError:
            nonlocal record
            outcome, record = await self._one_try(lease, record, extra)
            if isinstance(outcome, RefusedError) and outcome.reason == "invalid_grant":
                other = await self._another(lease, record)
                if other is not None:
                    outcome, record = await self._one_try(lease, other, extra)
            return outcome

        outcome: Issued | FetchError = await retrying(tries)(one_try)
        return outcome

    async def _one_try(
        self, lease: Lease, record: Record, extra: Fields
    ) -> tuple[Issued | FetchError, Record]:
        """Send the refresh token of *record*, if it may be. Returns what came, and how the record is then."""
        refresh_token, now = record.refresh_token, self._wall()
        assert refresh_token is not None, "whoever sends has looked"  # noqa: S101 - our own invariant
        why = rotation.permission(record, self._rule, now, is_denied=_is_denied(record))
        if isinstance(why, Hold):
            return _held(record, why, now), record
        if why is not Sending.FIRST and record.mark is not None:
            self._log.warning(
                "refreshTokenSentAgain", why=why.value, lost_s=round(now - record.mark.sent_at, 1)
            )
        sent = rotation.marked(record, now=now, by=_ourselves())
        # The mark is on the disk, and room for the answer, before the first byte leaves.
        await in_thread(_prepare, lease, sent)
        self.is_sending = True
        try:
            fields = {**extra, "grant_type": "refresh_token", "refresh_token": refresh_token}
            outcome = await self._endpoint.exchange(fields)
            return await self._answered(lease, record, sent, outcome)
        finally:
            self.is_sending = False

    async def _answered(
        self, lease: Lease, record: Record, sent: Record, outcome: Outcome
    ) -> tuple[Issued | FetchError, Record]:
        """Store what follows from the *outcome* for the *record* that was *sent*, then return it."""
        if isinstance(outcome, Granted):
            after = rotation.renewed(sent, outcome.refresh_token)
            after = rotation.with_token(after, outcome.issued, self._terms, self._wall())
            return await self._stored(lease, sent, after) or outcome.issued, after
        if outcome.refresh_token is not None:
            # Its access token cannot be read, but the grant goes on with this one.
            after = rotation.renewed(sent, outcome.refresh_token)
            return await self._stored(lease, sent, after) or outcome.error, after
        if outcome.delivery is Delivery.LOST:
            return _lost(outcome), sent
        await in_thread(lease.write, record)
        return _refused(outcome, self._needs, had_lost=record.mark is not None), record

    async def _stored(self, lease: Lease, sent: Record, after: Record) -> FetchError | None:
        """Have the store go on from *sent* to *after*; return why it did not."""
        self._unwritten = (sent, after)
        try:
            await in_thread(lease.write, after)
        except StoreError as error:
            return TransientFetchError(
                f"{error}. The server has replaced the refresh token: the new one is in memory only, and "
                "is written at the next try; until then the new access token is not used. "
                "Do not end this process"
            )
        self._unwritten = None
        return None

    async def catch_up(self, lease: Lease, stored: Record | None) -> Record | None:
        """As `Renewal`."""
        if self._unwritten is None:
            return stored
        sent, after = self._unwritten
        if stored is None or stored == sent or _is_doubtful(stored, sent, after):
            await in_thread(lease.write, after)
            stored = after
        self._unwritten = None
        return stored

    async def _another(self, lease: Lease, refused: Record) -> Record | None:
        """Return a record with another refresh token than that of *refused*, if there is one by now."""
        stored = await in_thread(lease.read)
        if stored is not None and stored.owner != self._terms.owner:
            stored = None
        other = rotation.working_record(stored, await self._seed(), self._terms.owner)
        if other is not None and other.refresh_token not in {None, refused.refresh_token}:
            return other
        if (former := rotation.without_seed(refused)) is not None:
            self._log.warning(
                "refreshTokenRefused", advice="the configured one is not used; the stored one is"
            )
        return former


def _prepare(lease: Lease, record: Record) -> None:
    # Room for the mark and for the answer: a full disk must not leave the mark of what was never sent.
    lease.reserve()
    lease.reserve()
    lease.write(record)


def _is_doubtful(stored: Record, sent: Record, after: Record) -> bool:
    """Whether who came after us only sent the token again that was replaced by ours, and heard nothing."""
    is_ours = stored.refresh_token == sent.refresh_token != after.refresh_token
    return is_ours and stored.mark is not None


def _is_denied(record: Record) -> bool:
    return record.access_token is not None and OCCASION.get().is_denied(record.access_token)


def _ourselves() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _held(record: Record, why: Hold, now: float) -> TransientFetchError:
    lost = max(now - record.mark.sent_at, 0.0) if record.mark is not None else 0.0
    return TransientFetchError(
        f"the answer to the refresh {lost:.0f} s ago was lost, and the server may take the refresh token for "
        "stolen if it sees it again; the valid token stays. It is sent once more shortly before that "
        "expires. To be sure of the next one, log in again now",
        retry_within=why.until - now,
    )


def _lost(outcome: NotGranted) -> FetchError:
    error = outcome.error
    if isinstance(error, TransientFetchError):
        return error
    # Whatever it was, it was no refusal: the server may have replaced the refresh token.
    return TransientFetchError(
        f"{error}. Whether the server has replaced the refresh token is not known",
        retry_after=error.retry_after,
    )


def _refused(outcome: NotGranted, needs: str, *, had_lost: bool) -> FetchError:
    error = outcome.error
    if not isinstance(error, RefusedError) or error.reason != "invalid_grant":
        return error
    cause = " The answer to an earlier refresh had been lost." if had_lost else ""
    return RefusedError(
        error.reason,
        retry_after=error.retry_after,
        message="the server refused the refresh token (invalid_grant): it expired, was revoked, or was used "
        f"elsewhere.{cause} A valid token stays until it expires. To log in again, {needs}",
    )
