"""The values that flow through the package: tokens, events, snapshots.

Everything here is immutable and knows no clock. A raw token lives in a
`Secret`; whatever else is shown of it is its fingerprint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from token_keeper._finding import DenialClass, Finding, Severity
from token_keeper._secret import Secret, fingerprint_of

__all__ = [
    "NAME",
    "DenialClass",
    "EventKind",
    "Finding",
    "Issued",
    "Phase",
    "Secret",
    "Severity",
    "Snapshot",
    "Status",
    "Token",
    "TokenEvent",
    "Verdict",
    "fingerprint_of",
]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a token, a source of a chain, a grant in a store or a reporter may be called."""


class EventKind(StrEnum):
    """The names of the events, as listeners, logs and streams show them."""

    TOKEN_UPDATED = "tokenUpdated"
    TOKEN_ABOUT_TO_EXPIRE = "tokenAboutToExpire"
    TOKEN_EXPIRED = "tokenExpired"
    TOKEN_DENIED = "tokenDenied"
    RECOVERED = "recovered"
    REFRESH_FAILED = "refreshFailed"
    REFRESH_REFUSED = "refreshRefused"
    RECOVERY_FAILED = "recoveryFailed"
    CLOCK_JUMPED = "clockJumped"


class Verdict(StrEnum):
    """What `report_denied` made of a denial."""

    DENIED = "denied"
    """Withheld from the reporter; another token is being fetched."""
    SUPERSEDED = "superseded"
    """There is a newer token already: use that one."""
    THROTTLED = "throttled"
    """The token is fine: slow down and keep it."""
    FORBIDDEN = "forbidden"
    """Another token would be refused too: the right is missing."""
    GAVE_UP = "gave_up"
    """Too many tokens were denied: the next fetch has to wait."""
    DISPUTED = "disputed"
    """As `gave_up`, but this reporter had accepted this token before: keep it."""


class Phase(StrEnum):
    """What the keeper is doing."""

    WAITING = "waiting"
    FETCHING = "fetching"
    BACKING_OFF = "backing_off"
    REFUSED = "refused"
    CLOSED = "closed"


class Status(StrEnum):
    """What the token is good for, as users see it."""

    ABSENT = "absent"
    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"
    DENIED = "denied"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A raw token that passed inspection, with what is known of it.

    Times are Unix seconds by the issuer's clock; None is not known. *source* is
    the name of the source in its chain that it came from, None without a chain.
    """

    secret: Secret
    expires_at: float | None = None
    issued_at: float | None = None
    not_before: float | None = None
    source: str | None = None

    @property
    def fingerprint(self) -> str:
        """First 8 hex digits of the SHA-256 of the raw token."""
        return self.secret.fingerprint

    @property
    def nominal_lifetime_s(self) -> float | None:
        """Lifetime by the token's own claims, or None if they do not say."""
        start = self.issued_at if self.issued_at is not None else self.not_before
        if start is None or self.expires_at is None:
            return None
        return self.expires_at - start


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What a source hands over: a raw token, and what its issuer said beside it.

    Args:
        secret: The raw token, not yet inspected.
        expires_at: Unix seconds by the issuer's clock, if it was said.
        expires_in: Seconds from receipt, if that was said instead.
        default_lifetime_s: Assumed if nothing else says when it expires.
        server_time: The issuer's clock at receipt, if it is known to be current.
        source: Which source of a chain it came from, by its name.
    """

    secret: Secret
    expires_at: float | None = None
    expires_in: float | None = None
    default_lifetime_s: float | None = None
    server_time: float | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEvent:
    """Something that happened to a token. Holds no secret.

    Args:
        kind: What happened.
        name: The keeper's name.
        at: Unix seconds.
        generation: The token that it is about; 0 if there is none.
        fingerprint: Of that token, or None.
        expires_at: Of that token, Unix seconds, or None.
        failures: Failed fetches in a row.
        error: What went wrong, for the failures.
        verdict: What was made of a denial.
        diagnosis: For `recoveryFailed`: what the token shows, then what is left to check.
    """

    kind: EventKind
    name: str
    at: float
    generation: int
    fingerprint: str | None = None
    expires_at: float | None = None
    failures: int = 0
    error: str | None = None
    verdict: Verdict | None = None
    diagnosis: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How a token stood at one moment. Holds no secret. Times are Unix seconds.

    Args:
        status: What the token is good for.
        phase: What the keeper is doing.
        generation: 1, 2, 3 ...; 0 before the first token.
        fingerprint: Of the current token, or None.
        expires_at: When it expires, or None if that is not known.
        issued_at: When it was issued, or None.
        stale_at: When `tokenAboutToExpire` is due, or None.
        refresh_at: When its refresh is due, or None.
        next_attempt_at: When the next fetch starts; None while fetching or if none is planned.
        failures: Failed fetches in a row.
        unchanged: How often in a row the source returned the current token.
        last_error: Why the last fetch failed, until one succeeds.
        usable_for: Seconds for which the keeper's own reader can use the
            token; 0 if it cannot, infinite without a known expiry.
        attempts_left: Fetches that still fit before the token expires, counted up
            to 100; None without an expiry.
        denied_by: The reporters from which the token is withheld, sorted.
        source: Which source of a chain the token came from; None without a chain.
    """

    status: Status
    phase: Phase
    generation: int
    fingerprint: str | None
    expires_at: float | None
    issued_at: float | None
    stale_at: float | None
    refresh_at: float | None
    next_attempt_at: float | None
    failures: int
    unchanged: int
    last_error: str | None
    usable_for: float
    attempts_left: int | None
    denied_by: tuple[str, ...]
    source: str | None = None
