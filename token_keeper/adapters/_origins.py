"""Which servers may see the token: those that were named, or the first that is called."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from token_keeper._errors import ConfigError

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Origins:
    """An allow-list of origins. Without names the first that is asked about is the only one.

    Args:
        names: Such as ``"https://api.example"``, one or several.

    Raises:
        ConfigError: If a name is no origin.
    """

    __slots__ = ("_allowed",)

    def __init__(self, names: str | Iterable[str] | None = None) -> None:
        listed = (names,) if isinstance(names, str) else tuple(names or ())
        self._allowed = frozenset(_named(name) for name in listed)
        if names is not None and not self._allowed:
            raise ConfigError("origins", "is empty: name the servers that may see the token, or leave it out")

    def allows(self, origin: str) -> bool:
        """Whether *origin*, as `origin_of` spells it, may see the token."""
        if not self._allowed:
            # Two threads with their first requests: the later one looks again.
            self._allowed = self._allowed or frozenset({origin})
        return origin in self._allowed

    def __repr__(self) -> str:
        return f"<origins {', '.join(sorted(self._allowed)) or 'not known yet'}>"


def origin_of(url: str) -> str:
    """Return scheme, host and port of *url*, such as ``https://api.example:443``.

    WebSocket schemes are those of HTTP: a session belongs to the API beside it.

    Raises:
        ValueError: If *url* has no scheme or no host.
    """
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    port = parts.port or DEFAULT_PORTS.get(scheme)
    if not scheme or not parts.hostname or port is None:
        raise ValueError("not an absolute URL of http, https, ws or wss")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{scheme}://{host}:{port}"


def _named(name: object) -> str:
    try:
        return origin_of(name)  # type: ignore[arg-type]  # Whatever it is, the error says what it must be.
    except (ValueError, TypeError, AttributeError):
        shown = repr(name.partition("?")[0][:64]) if isinstance(name, str) else type(name).__name__
        raise ConfigError(
            "origins", f'{shown} is not an origin: write scheme and host, such as "https://api.example"'
        ) from None
