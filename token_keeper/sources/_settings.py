"""Checks what a user sets of an HTTP source, before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from token_keeper._errors import ConfigError
from token_keeper._model import Secret

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")
_URL: Final = re.compile(r"[\x21-\x7e]+")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL that was checked. Its query may hold a secret."""

    url: str = field(repr=False)
    origin: str
    path: str


def endpoint_of(
    url: object, *, allow_http: bool, key: str = "url", instead: str = "auth=(user, password)"
) -> Endpoint:
    """Take *url* apart.

    Args:
        url: What the user set.
        allow_http: Whether secrets may be sent in the clear.
        key: The setting that it is, as the user wrote it.
        instead: How a user and a password are given.

    Raises:
        ConfigError: If it is not one to send secrets to.
    """
    if not isinstance(url, str) or not _URL.fullmatch(url) or "\\" in url:
        raise ConfigError(key, "must be visible ASCII without backslashes, such as https://example.com/token")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(key, "cannot be parsed: check the host and the port") from None
    if parts.scheme not in _PORTS or not host:
        raise ConfigError(key, "must start with https:// and a host")
    if "@" in parts.netloc:
        raise ConfigError(key, f"must not hold a user or a password: give them as {instead}")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise ConfigError(
            key, f"would send secrets to {host} in the clear: use https, or set allow_http=True"
        )
    shown = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{shown}:{port or _PORTS[parts.scheme]}"
    return Endpoint(url=url, origin=origin, path=parts.path or "/")


def method_of(method: object, *, has_body: bool) -> str:
    """Return the method in capitals.

    Raises:
        ConfigError: If it is neither GET nor POST.
    """
    if method is None:
        return "POST" if has_body else "GET"
    if not isinstance(method, str) or method.upper() not in {"GET", "POST"}:
        raise ConfigError("method", "must be GET or POST")
    return method.upper()


def check_headers(headers: object) -> None:
    """Check names and values of *headers*, as far as they are no functions.

    Raises:
        ConfigError: If one cannot be sent.
    """
    if not callable(headers) and not isinstance(headers, Mapping | None):
        raise ConfigError("headers", "must be a mapping of names to values")
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigError("headers", "has a name that no header can have")
        if not callable(value) and not isinstance(value, Secret) and not is_header_value(value):
            raise ConfigError(f"headers[{name!r}]", "must be a string of visible ASCII, or a function")


def is_header_value(value: object) -> bool:
    """Whether *value* can be sent in a header."""
    return isinstance(value, str) and _HEADER_VALUE.fullmatch(value) is not None


def check_body(document: object, form: object) -> None:
    """Check the keywords `json` and `data`.

    Raises:
        ConfigError: If both are given, or one cannot be sent.
    """
    if document is not None and form is not None:
        raise ConfigError("data", "cannot be combined with json: a request has one body")
    if form is not None and not callable(form) and not isinstance(form, Mapping):
        raise ConfigError("data", "must be a mapping of form fields")
    try:
        json.dumps(document, allow_nan=False, default=_later)
    except (TypeError, ValueError, RecursionError):
        raise ConfigError("json", "cannot be written as JSON") from None


def check_params(params: object) -> None:
    """Check the keyword `params`.

    Raises:
        ConfigError: If it is no mapping.
    """
    if params is not None and not callable(params) and not isinstance(params, Mapping):
        raise ConfigError("params", "must be a mapping of names to values")


def check_auth(auth: object) -> None:
    """Check the keyword `auth`.

    Raises:
        ConfigError: If it is not what httpx takes for one, or a function.
    """
    is_pair = isinstance(auth, tuple) and len(auth) == 2
    if not (auth is None or is_pair or callable(auth) or hasattr(auth, "async_auth_flow")):
        raise ConfigError("auth", "must be (user, password), an httpx.Auth, or a function that returns one")


def check_proxy(proxy: object) -> None:
    """Check the keyword `proxy`.

    Raises:
        ConfigError: If it is neither a URL that httpx can use nor an `httpx.Proxy`.
    """
    if isinstance(proxy, str):
        is_proxy = proxy.partition("://")[0] in {"http", "https", "socks5", "socks5h"} and "://" in proxy
    else:
        is_proxy = proxy is None or hasattr(proxy, "url")
    if not is_proxy:
        raise ConfigError("proxy", "must be a URL that starts with http://, https:// or socks5://")


def _later(value: object) -> object:
    if callable(value) or isinstance(value, Secret):
        return ""
    raise TypeError


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine, by its name or its address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    import ipaddress  # noqa: PLC0415 - Only for http.

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
