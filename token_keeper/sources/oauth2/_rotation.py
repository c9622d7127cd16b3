"""Decides about a stored grant: what to send, what may be sent again, whose token to use. Pure.

A refresh token that rotates can be spent once. Whoever spends it and does not
hear the answer holds a token that the server may take for stolen when it sees
it again (RFC 9700 section 4.14.2): then it revokes all that came of the login.
Many servers forgive that for a while. These rules use that time, and else risk
nothing while there still is something to lose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from token_keeper._errors import ResponseError
from token_keeper._model import Issued, Secret
from token_keeper._receive import receive
from token_keeper.profiles import profile_named
from token_keeper.store import Mark, Record

SPENT_RATIO: Final = 0.2
"""An access token of another process is taken over if more than this share of its life is left."""
LIFE_IF_UNKNOWN_S: Final = 3_600.0
"""How long an access token is taken for usable whose life nobody stated."""
LAST_MINUTE_S: Final = 60.0
"""How long before the access token expires a doubtful refresh token is sent all the same."""
LAST_SHARE: Final = 0.1
"""At most this share of the access token's life."""
CLOCK_LEEWAY_S: Final = 2.0
"""By how much a mark may lie in the future: clocks of machines that share a store."""
MOST_SEEDS: Final = 16


class Sending(Enum):
    """Why the refresh token may be sent."""

    FIRST = "first"
    """It was never sent, as far as is known."""
    REPLAY = "replay"
    """Its answer was lost, and the server forgives that now."""
    LAST_RESORT = "last resort"
    """Its answer was lost, and nothing is left to lose."""


@dataclass(frozen=True, slots=True)
class Hold:
    """It may not be sent yet: its answer was lost, and the access token would go with the grant.

    *until*: Unix seconds.
    """

    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRule:
    """What the server forgives.

    Args:
        window_s: For how long after its use a refresh token is taken again.
        limit: How often.
    """

    window_s: float
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """To whom tokens may be shown, and what they are for.

    Args:
        owner: As in `Record`.
        asked: As in `Record`.
    """

    owner: str
    asked: str


def permission(record: Record, rule: ReplayRule, now: float, *, is_denied: bool = False) -> Sending | Hold:
    """Say whether the refresh token of *record* may be sent.

    Args:
        record: What the store remembers.
        rule: What the server forgives.
        now: Unix seconds.
        is_denied: Whether a server refused the access token: then that is lost already.
    """
    mark = record.mark
    if mark is None:
        return Sending.FIRST
    age = now - mark.sent_at
    if -CLOCK_LEEWAY_S <= age <= rule.window_s and mark.times <= rule.limit:
        return Sending.REPLAY
    if record.received_at is not None and now < record.received_at - CLOCK_LEEWAY_S:
        # The clock was set back. To hold it until that has caught up may take years.
        return Sending.LAST_RESORT
    until = _last_minute(record)
    return Sending.LAST_RESORT if is_denied or until is None or now >= until else Hold(until)


def marked(record: Record, *, now: float, by: str) -> Record:
    """Return *record* with the mark that its refresh token is being sent by *by*."""
    before = record.mark or Mark(sent_at=now, times=0, by=by)
    return replace(record, mark=replace(before, times=before.times + 1, by=by))


def is_new_login(stored: Record, seed: Secret | None) -> bool:
    """Whether the configured refresh token *seed* is none that led to what is *stored*."""
    return seed is not None and digest(seed) not in stored.seeds


def working_record(stored: Record | None, seed: Secret | None, owner: str) -> Record | None:
    """Return what to renew: what is stored, or the configured refresh token if that is new.

    Args:
        stored: What the store remembers.
        seed: The refresh token of the configuration.
        owner: To whom it may be shown.
    """
    seeds = stored.seeds if stored is not None else ()
    if seed is None or digest(seed) in seeds:
        return stored
    # A seed that led here was replaced by its successors; another one is a new login.
    return Record(
        owner=owner,
        refresh_token=seed,
        seeds=(*seeds, digest(seed))[-MOST_SEEDS:],
        superseded=stored.refresh_token if stored is not None else None,
    )


def without_seed(record: Record) -> Record | None:
    """Return what is left of *record* when its newly configured refresh token was refused; None if nothing.

    That one is not tried again: it stays among the seeds.
    """
    if record.superseded is None:
        return None
    return replace(record, refresh_token=record.superseded, superseded=None, mark=None)


def renewed(sent: Record, refresh_token: Secret | None) -> Record:
    """Return what *sent* is once it was answered, perhaps with another *refresh_token*."""
    after = replace(sent, mark=None, superseded=None)
    if refresh_token is None or refresh_token == sent.refresh_token:
        return after
    return replace(after, refresh_token=refresh_token, rotations=sent.rotations + 1)


def with_token(record: Record, issued: Issued, terms: Terms, now: float) -> Record:
    """Return *record* with the access token that was *issued* just now; without one if it cannot work."""
    try:
        received = receive(issued, profile=profile_named("auto"), expect=None, wall=now)
    except ResponseError:
        # The keeper will say so. What came beside it is kept all the same.
        return replace(record, access_token=None, received_at=None, expires_at=None, skew_s=0.0)
    left = received.remaining_s
    return replace(
        record,
        access_token=issued.secret,
        asked=terms.asked,
        received_at=now,
        expires_at=None if left is None else now + left,
        skew_s=received.skew_s,
    )


def digest(secret: Secret) -> str:
    """Return what tells *secret* from others without revealing it: 16 hex digits of its SHA-256."""
    return hashlib.sha256(secret.reveal().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_worth_adopting(record: Record, handed: Container[str], now: float) -> bool:
    """Whether the access token of *record* saves a request.

    Args:
        record: What the store remembers.
        handed: Digests of the access tokens that this process had already.
        now: Unix seconds.
    """
    life, left = _life(record), _left(record, now)
    return _is_new(record, handed) and left > life * SPENT_RATIO


def is_last_hope(record: Record, handed: Container[str], now: float) -> bool:
    """Whether the access token of *record* is better than none."""
    return _is_new(record, handed) and _left(record, now) > 0


def adopted(record: Record, now: float) -> Issued:
    """Return the access token of *record* as if it had just been issued."""
    assert record.access_token is not None, "whoever adopts has looked"  # noqa: S101 - our own invariant
    return Issued(
        secret=record.access_token,
        expires_in=None if record.expires_at is None else _left(record, now),
        server_time=now + record.skew_s if record.skew_s else None,
    )


def _is_new(record: Record, handed: Container[str]) -> bool:
    return record.access_token is not None and digest(record.access_token) not in handed


def _life(record: Record) -> float:
    if record.expires_at is None or record.received_at is None:
        return LIFE_IF_UNKNOWN_S
    return record.expires_at - record.received_at


def _left(record: Record, now: float) -> float:
    """Return for how many seconds the access token is still usable."""
    if record.received_at is None:
        return 0.0
    # Not longer than it ever lived, if the clock was set back.
    return min(record.received_at + _life(record) - now, _life(record))


def _last_minute(record: Record) -> float | None:
    """Return when the access token has only its last minute left; None if there is none to protect."""
    if record.access_token is None or record.expires_at is None:
        return None
    return record.expires_at - min(LAST_MINUTE_S, _life(record) * LAST_SHARE)
