"""Which servers may see the token: those that were named, or the first that is called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from token_keeper._errors import ConfigError

DEFAULT_PORTS = {"http": 80, "https": 443}

_UNAMBIGUOUS = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@\\\x00-\x20\x7f]*@)?[^/?#@\\\x00-\x20\x7f]+(?:[/?#]|$)"
)
"""What all clients read alike. Of ``http://one\\@two`` some call the first host, and some the second."""


class Origins:
    """An allow-list of origins. Without names the first that is asked about is the only one.

    Args:
        names: Such as ``"https://api.example"``, one or several.

    Raises:
        ConfigError: If a name is no origin.
    """

    __slots__ = ("_allowed", "_first")

    def __init__(self, names: str | Iterable[str] | None = None) -> None:
        listed = (
            tuple(names or ())
            if isinstance(names, Iterable | None) and not isinstance(names, str)
            else (names,)
        )
        self._allowed = frozenset(_named(name) for name in listed)
        if names is not None and not self._allowed:
            raise ConfigError("origins", "is empty: name the servers that may see the token, or leave it out")
        self._first: dict[None, str] = {}

    def allows(self, origin: str) -> bool:
        """Whether *origin*, as `origin_of` spells it, may see the token."""
        if self._allowed:
            return origin in self._allowed
        # Two threads may come with their first requests; a dict takes one of them, whole.
        return self._first.setdefault(None, origin) == origin

    def __repr__(self) -> str:
        return f"<origins {', '.join(sorted(self._allowed or self._first.values())) or 'not known yet'}>"


def origin_of(url: str) -> str:
    """Return scheme, host and port of *url*, such as ``https://api.example:443``.

    WebSocket schemes are those of HTTP: a session belongs to the API beside it.

    Raises:
        ValueError: If *url* has no scheme or no host, or if clients may differ about its host.
    """
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname or not _UNAMBIGUOUS.match(url):
        raise ValueError("not an absolute URL")
    return origin_at(parts.scheme, _ascii(parts.hostname), parts.port)


def origin_at(scheme: str, host: str, port: int | None) -> str:
    """Return the origin at *host*, which is in ASCII, an IPv6 address without brackets.

    Raises:
        ValueError: If *scheme* has no origins.
    """
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    port = DEFAULT_PORTS.get(scheme) if port is None else port
    if not host or port is None:
        raise ValueError("not an absolute URL of http, https, ws or wss")
    return f"{scheme}://{f'[{host}]' if ':' in host else host.lower()}:{port}"


def service_url(url: str) -> str:
    """Return *url* of a service as gRPC tells it, also with local credentials: those have no scheme."""
    return f"https{url}" if url.startswith("://") else url


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    # As the clients do. It comes with httpx.
    from idna import encode  # noqa: PLC0415 - large, and rarely needed

    return encode(host, uts46=True).decode()


def _named(name: object) -> str:
    try:
        return origin_of(name)  # type: ignore[arg-type]  # Whatever it is, the error says what it must be.
    except (ValueError, TypeError, AttributeError):
        shown = _without_secrets(name) if isinstance(name, str) else type(name).__name__
        raise ConfigError(
            "origins", f'{shown} is not an origin: write scheme and host, such as "https://api.example"'
        ) from None


def _without_secrets(name: str) -> str:
    """Return what may be shown of what is no origin: URLs have passwords and queries."""
    return repr(name.partition("?")[0].rpartition("@")[2][:64])
