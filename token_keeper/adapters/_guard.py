"""The rules that every HTTP adapter shares: who gets the token, and what an answer says about it."""

from __future__ import annotations

from collections.abc import Iterable

from token_keeper._face import Face
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._challenge import bearer_error
from token_keeper.adapters._origins import Origins, origin_at, origin_of

UNAUTHORIZED = 401
BEARER = "Bearer "
MAX_REFUSAL = 65_536
"""Bytes of a refusal that are read where nobody asked for all of it."""
NO_DENIALS = {"insufficient_scope", "invalid_request"}
"""Errors of RFC 6750 section 3.1 that another token would meet as well."""


class Guard:
    """Decides for one client which requests get the token, and when another one is worth a retry.

    Each origin is a reporter of its own: one that refuses a token does not take it from the others.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`, for blocking and async clients alike.
        origins: The servers that may see the token; by default the first that is called.
        by: Names the reporter; by default the origin.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """

    __slots__ = ("_at", "_by", "_keeper", "_origins", "_shares", "timeout")

    def __init__(
        self,
        keeper: Face,
        *,
        origins: str | Iterable[str] | None = None,
        by: str | None = None,
        timeout: float = WAIT_S,
    ) -> None:
        check_wait("timeout", timeout)
        Share(keeper, by or "")  # Complains now, not at the first request.
        self.timeout = timeout
        self._keeper = keeper
        self._origins = Origins(origins)
        self._by = by
        self._shares: dict[str, Share] = {}
        self._at: dict[tuple[str, str, int | None], Share] = {}

    def at(self, scheme: str, host: str, port: int | None) -> Share | None:
        """As `of`, for the parts of a URL: quick, because each request asks. The host is ASCII."""
        place = (scheme, host, port)
        known = self._at.get(place)
        if known is not None:
            return known
        try:
            share = self.share(origin_at(scheme, host, port))
        except ValueError:
            return None
        if share is not None:
            # Only what is allowed is kept, so this cannot grow.
            self._at[place] = share
        return share

    def of(self, url: str) -> Share | None:
        """As `share`, for a URL. None also if *url* has no origin: whoever sends there finds out."""
        try:
            return self.share(origin_of(url))
        except ValueError:
            return None

    def share(self, origin: str) -> Share | None:
        """Return the reads and reports for *origin*, as `origin_of` spells it.

        None if that origin must not see the token.
        """
        known = self._shares.get(origin)
        if known is not None:
            return known
        if not self._origins.allows(origin):
            return None
        return self._shares.setdefault(origin, Share(self._keeper, origin if self._by is None else self._by))

    def __repr__(self) -> str:
        return f"<guard of {self._keeper!r} for {self._origins!r}>"


def refused(share: Share, sent: str, status: int, challenge: str | None) -> bool:
    """Report what *status* and `WWW-Authenticate` say of the token that was *sent*.

    Returns:
        Whether another token is worth one retry: `share.another(sent)` waits for it.
    """
    if status != UNAUTHORIZED:
        # A redirect may lead to a page for people who are to log in.
        if status < 300:
            share.accepted(sent)
        return False
    error, description = bearer_error(challenge)
    if error in NO_DENIALS:
        return False
    return share.denied(sent, code=error or status, reason=description) in WORTH_ANOTHER


def bearer(token: str) -> str:
    """Return the `Authorization` header for *token*."""
    return BEARER + token


def borne(header: str | bytes | None) -> str | None:
    """Return the token in the `Authorization` header of a request, None if it bears none."""
    if isinstance(header, bytes):
        header = header.decode("latin-1")
    return header[len(BEARER) :] if header is not None and header.startswith(BEARER) else None
