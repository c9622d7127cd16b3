"""Where Twilsock is, by region, and what may be asked instead. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from token_keeper._errors import ConfigError

_REGION: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_REGION_MAX: Final = 32
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL that was checked.

    Args:
        url: All of it; a query may hold a secret.
        shown: Without the query.
        is_loopback: Whether it is on this machine.
    """

    url: str = field(repr=False)
    shown: str
    is_loopback: bool


def endpoint_of(url: str | None = None, *, region: str = "us1") -> Endpoint:
    """Return *url*, checked, or if it is None Twilio's own for *region*.

    Raises:
        ConfigError: If it is not one to send a token to.
    """
    if url is None:
        if not _REGION.fullmatch(region) or len(region) > _REGION_MAX:
            raise ConfigError("region", "must be the name of one of Twilio's regions, such as us1 or ie1")
        url = f"wss://tsock.{region}.twilio.com/v3/wsconnect"
    if not _VISIBLE.fullmatch(url) or "\\" in url:
        raise ConfigError("url", "must be visible ASCII without backslashes, such as wss://example.com/path")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("url", "cannot be parsed: check the host and the port") from None
    if parts.scheme not in {"ws", "wss"} or not host:
        raise ConfigError("url", "must start with wss:// and a host")
    if "@" in parts.netloc or parts.fragment:
        raise ConfigError("url", "must not hold a user, a password or a fragment")
    is_loopback = _is_loopback(host)
    if parts.scheme == "ws" and not is_loopback:
        raise ConfigError("url", f"would send the token to {host} in the clear: use wss")
    where = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    return Endpoint(url=url, shown=f"{parts.scheme}://{where}{parts.path}", is_loopback=is_loopback)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
