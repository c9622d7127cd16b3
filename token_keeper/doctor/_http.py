"""The steps of a source that asks an HTTP backend: the way to it, and its answer."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import httpx

from token_keeper._errors import ConfigError
from token_keeper.doctor import _findings as findings
from token_keeper.doctor._fetch import Observed, Request, fetch_once
from token_keeper.doctor._probes import walk
from token_keeper.doctor._report import Status, Step, skipped
from token_keeper.doctor._seen import Seen, unseen
from token_keeper.doctor._tls import Target
from token_keeper.sources._clients import TlsFiles

_PORTS: Final = {"http": 80, "https": 443}
UNREACHED: Final = "the backend was not reached"


async def see_http(request: Request, *, clock: Callable[[], float], takes_options: bool = True) -> Seen:
    """Walk to the backend, ask it once, and return what came of it.

    Args:
        request: What to ask with.
        clock: Unix time.
        takes_options: Whether the user gave options, not the words of a source.

    Raises:
        ConfigError: If a setting cannot work.
    """
    context = trusted(
        TlsFiles(ca_file=request.ca_file, client_cert=request.client_cert, client_key=request.client_key)
    )
    target = target_of(request.url, timeout=request.timeout, has_proxy=request.proxy is not None)
    way = await walk(target, context if target.is_tls else None, now=clock())
    place = shown_url(request.url)
    if any(step.status is Status.FAILED for step in way):
        return unseen(place, (*way, *skipped(("http",), UNREACHED)), UNREACHED, at=clock())
    observed = await fetch_once(request, clock=clock)
    http = findings.http_step(observed, takes_options=takes_options)
    if http.status is Status.FAILED:
        token, missing = skipped(("token",), "the backend gave no token")[0], "the backend gave no token"
    else:
        token, missing = findings.token_step(observed, takes_options=takes_options), "no token was found"
    return Seen(
        place=place,
        steps=(*way, http),
        received_at=observed.received_at,
        issued=observed.issued,
        token=token,
        missing=missing,
        clock=clock_of(observed),
    )


def clock_of(observed: Observed) -> Step:
    """Return what an answer says of the backend's clock, if there was one."""
    if observed.status is None:
        return skipped(("clock",), "there was no answer")[0]
    return findings.clock_step(observed.ahead_s)


def shown_url(url: str) -> str:
    """Return *url* without its query, which may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path or '/'}"


def trusted(files: TlsFiles) -> ssl.SSLContext:
    """Return whom a source with these *files* trusts.

    Raises:
        ConfigError: If one of them cannot be used.
    """
    default = httpx.create_ssl_context()
    _context(TlsFiles(ca_file=files.ca_file), default, "ca_file")
    return _context(files, default, "client_cert")


def _context(files: TlsFiles, default: ssl.SSLContext, key: str) -> ssl.SSLContext:
    try:
        return files.context(default)
    except ssl.SSLError:
        what = (
            "certificates in PEM" if key == "ca_file" else "certificate and key in PEM that belong together"
        )
        raise ConfigError(key, f"holds no {what}") from None
    except OSError as error:
        raise ConfigError(key, f"cannot be read ({error.strerror})") from None


def target_of(url: str, *, timeout: float, has_proxy: bool) -> Target:
    """Return where to knock for *url*.

    Args:
        url: http or https.
        timeout: For each step, in seconds.
        has_proxy: Whether the source was given a proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    is_proxied = bool(proxies.get(parts.scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(
        host
    )
    return Target(
        host=host,
        port=parts.port or _PORTS[parts.scheme],
        is_tls=parts.scheme == "https",
        is_proxied=has_proxy or is_proxied,
        timeout_s=timeout,
    )
