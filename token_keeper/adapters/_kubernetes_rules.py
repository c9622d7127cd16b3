"""What the adapters of kubernetes and kubernetes.aio share: everything that does not wait."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urljoin

from token_keeper._errors import ConfigError
from token_keeper._face import Face
from token_keeper._share import Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._guard import bearer, refused
from token_keeper.adapters._origins import origin_of

HEADER = "authorization"


class Bearer(str):
    """A header's value with a token that the keeper gave: unlike one that a caller brought along."""

    __slots__ = ()

    @property
    def token(self) -> str:
        """The raw token."""
        return self.partition(" ")[2]

    def __repr__(self) -> str:
        return "<bearer token>"


class Rules:
    """Which requests of a configuration carry the token, and what their answers mean.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        configuration: Of `kubernetes` or `kubernetes.aio`.
        by: Names the reporter; by default the API server's origin.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def __init__(self, keeper: Face, configuration: Any, *, by: str | None, timeout: float) -> None:
        if not hasattr(configuration, "refresh_api_key_hook"):
            kind = type(configuration).__name__
            raise ConfigError(
                "configuration", f"must be a Configuration of kubernetes, but is of type {kind}"
            )
        check_wait("timeout", timeout)
        self._origin = _origin_of_host(configuration.host)
        self.share = Share(keeper, self._origin if by is None else by)
        self.timeout = timeout

    def prepare(self, configuration: Any) -> None:
        """Make the SDK ask for a key, and take out those that would win over it."""
        configuration.api_key.pop("BearerToken", None)
        configuration.api_key_prefix.pop("BearerToken", None)
        configuration.api_key_prefix.pop(HEADER, None)
        # The SDK asks only for keys that it has.
        configuration.api_key[HEADER] = Bearer("")

    def put(self, configuration: Any, raw: str) -> None:
        """Give the SDK its key. It reads it right after."""
        configuration.api_key[HEADER] = Bearer(bearer(raw))

    def sent(self, url: str, headers: MutableMapping[str, str]) -> Bearer | None:
        """Return what is about to be sent; None if it is none of ours.

        What must not be seen by the server of *url* is taken out.
        """
        value = headers.get(HEADER)
        if not isinstance(value, Bearer):
            return None
        if not self._is_here(url):
            del headers[HEADER]
            return None
        return value

    def renew(self, headers: MutableMapping[str, str], other: str | None) -> Bearer | None:
        """Put another token into *headers* and return it; None if there is none."""
        if other is None:
            return None
        headers[HEADER] = renewed = Bearer(bearer(other))
        return renewed

    def is_refusal(self, sent: Bearer, status: int, challenge: str | None, *, url: str) -> bool:
        """Report what the answer from *url* says of the token; whether another one is worth a retry."""
        return self._is_here(url) and refused(self.share, sent.token, status, challenge)

    def _is_here(self, url: str) -> bool:
        try:
            return origin_of(url) == self._origin
        except ValueError:
            return False


def final_url(url: str, response: Any) -> str:
    """Return where urllib3 ended up when it followed redirects from *url*."""
    for step in getattr(response.retries, "history", ()):
        if step.redirect_location:
            url = urljoin(url, step.redirect_location)
    return url


def _origin_of_host(host: str) -> str:
    try:
        return origin_of(host)
    except ValueError:
        raise ConfigError(
            "configuration", 'its host must be a URL, such as "https://10.0.0.1:6443"'
        ) from None
