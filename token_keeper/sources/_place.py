"""Where a token stands in what a backend or a function answered: settings that sources share."""

from __future__ import annotations

from dataclasses import dataclass

from token_keeper._extract import check_path, extract
from token_keeper._model import Issued
from token_keeper.sources._source import check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlace:
    """Where to look for the token, and how long it lives if nothing says so.

    Args:
        token_path: JMESPath of the token. Without it the usual names are tried.
        expires_path: JMESPath of the lifetime in seconds, or of the time of expiry.
        default_lifetime: Seconds, for opaque tokens that do not say theirs.

    Raises:
        ConfigError: If a setting cannot work.
    """

    token_path: str | None = None
    expires_path: str | None = None
    default_lifetime: float | None = None

    def __post_init__(self) -> None:
        check_path("token_path", self.token_path)
        check_path("expires_path", self.expires_path)
        if self.default_lifetime is not None:
            check_seconds("default_lifetime", self.default_lifetime)

    def issued(self, body: object, *, server_time: float | None = None) -> Issued:
        """Return the token in *body*, with what stands beside it.

        Args:
            body: A text as it was received, or JSON that is parsed already.
            server_time: The issuer's clock at receipt, Unix seconds, if it is known.

        Raises:
            ResponseError: If there is no token in it, or more than one.
        """
        found = extract(body, token_path=self.token_path, expires_path=self.expires_path)
        return Issued(
            secret=found.secret,
            expires_at=found.expires_at,
            expires_in=found.expires_in,
            default_lifetime_s=self.default_lifetime,
            server_time=server_time,
        )
