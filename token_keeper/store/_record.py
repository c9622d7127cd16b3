"""What a store remembers of one grant. A value: it knows neither file nor clock."""

from __future__ import annotations

from dataclasses import dataclass

from token_keeper._model import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Written before a refresh token is sent: if it is still there, the answer was not recorded.

    Args:
        sent_at: When the token was first sent, Unix seconds.
        times: How often it was sent since.
        by: Who sent it last, for people: a process and its machine.
    """

    sent_at: float
    times: int
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One grant: what must survive a restart. Times are Unix seconds by our own clock.

    Args:
        owner: To whom the tokens may be shown: the issuer, or its token
            endpoint, and the client. They are never sent anywhere else.
        refresh_token: The one to send next, or None if the grant has none.
        access_token: The last one that was issued, or None.
        asked: Digest of what it was asked for: scope, audience and the like.
        received_at: When that came.
        expires_at: When it expires, as far as that is known.
        skew_s: By how much the issuer's clock was ahead of ours then.
        rotations: How often the refresh token was replaced.
        seeds: Digests of the configured refresh tokens that led here, the latest last.
        mark: The refresh token was sent, and its answer was not recorded yet.
        superseded: The refresh token before a newly configured one, until that has worked.
    """

    owner: str
    refresh_token: Secret | None = None
    access_token: Secret | None = None
    asked: str = ""
    received_at: float | None = None
    expires_at: float | None = None
    skew_s: float = 0.0
    rotations: int = 0
    seeds: tuple[str, ...] = ()
    mark: Mark | None = None
    superseded: Secret | None = None
