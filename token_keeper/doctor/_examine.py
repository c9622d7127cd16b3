"""One examination: walks to the backend, fetches once, and judges what came."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

import httpx

from token_keeper._errors import ConfigError
from token_keeper._model import Issued, Secret
from token_keeper._policy import RefreshPolicy
from token_keeper.doctor import _connect as twilsock
from token_keeper.doctor import _findings as findings
from token_keeper.doctor import _kind as kinds
from token_keeper.doctor._fetch import Observed, Request, fetch_once
from token_keeper.doctor._forecast import Forecast, forecast, schedule_step
from token_keeper.doctor._probes import walk
from token_keeper.doctor._report import Report, Status, Step, skipped
from token_keeper.doctor._timeline import Mark
from token_keeper.doctor._tls import Target
from token_keeper.inspection import Expectations
from token_keeper.sources._clients import TlsFiles

_TOKEN_STEPS: Final = ("token", "kind", "findings")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to examine.

    Args:
        request: What to ask the backend with.
        profile: By whose rules to judge the token; ``auto`` goes by its look.
        expect: What it must be good for.
        key: What to check its signature with.
        policy: When a keeper would refresh it.
        connect: Whom else to show it to; None is nobody.
    """

    request: Request
    profile: str = "auto"
    expect: Expectations = field(default_factory=Expectations)
    key: Secret | None = None
    policy: RefreshPolicy = field(default_factory=RefreshPolicy)
    connect: twilsock.Connect | None = None


async def examine(order: Order, *, clock: Callable[[], float] = time.time) -> Report:
    """Examine a backend and its token. What goes wrong is in the report.

    Args:
        order: What to examine.
        clock: Unix time.

    Raises:
        ConfigError: If a setting cannot work.
    """
    request = order.request
    request.source()
    if order.connect is not None:
        order.connect.check()
    context = trusted(request)
    way = await walk(_target(request), context, now=clock())
    url = shown_url(request.url)
    if any(step.status is Status.FAILED for step in way):
        rest = ("http", *_TOKEN_STEPS, "clock", "schedule")
        unasked = twilsock.not_connected(order.connect, "there is no token")
        return Report(url=url, steps=(*way, *skipped(rest, "the backend was not reached"), *unasked))
    observed = await fetch_once(request, clock=clock)
    if observed.issued is not None:
        return await _with_token(order, observed, observed.issued, Report(url=url, steps=way))
    unasked = twilsock.not_connected(order.connect, "there is no token")
    return Report(url=url, steps=(*way, *_without_token(observed), *unasked))


def shown_url(url: str) -> str:
    """Return *url* without its query, which may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path or '/'}"


def trusted(request: Request) -> ssl.SSLContext | None:
    """Return whom the source trusts, or None if the URL is http.

    Raises:
        ConfigError: If a file for TLS cannot be used.
    """
    default = httpx.create_ssl_context()
    _context(TlsFiles(ca_file=request.ca_file), default, "ca_file")
    files = TlsFiles(ca_file=request.ca_file, client_cert=request.client_cert, client_key=request.client_key)
    context = _context(files, default, "client_cert")
    return context if urlsplit(request.url).scheme == "https" else None


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


def _target(request: Request) -> Target:
    parts = urlsplit(request.url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    is_proxied = bool(proxies.get(parts.scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(
        host
    )
    return Target(
        host=host,
        port=parts.port or _PORTS[parts.scheme],
        is_tls=parts.scheme == "https",
        is_proxied=request.proxy is not None or is_proxied,
        timeout_s=request.timeout,
    )


def _without_token(observed: Observed) -> tuple[Step, ...]:
    http = findings.http_step(observed)
    if observed.status is None:
        clock = skipped(("clock",), "there was no answer")[0]
    else:
        clock = findings.clock_step(observed.ahead_s)
    if http.status is Status.FAILED:
        middle = skipped(_TOKEN_STEPS, "the backend gave no token")
    else:
        middle = (findings.token_step(observed), *skipped(_TOKEN_STEPS[1:], "no token was found"))
    return (http, *middle, clock, *skipped(("schedule",), "there is no token"))


async def _with_token(order: Order, observed: Observed, issued: Issued, report: Report) -> Report:
    kind = kinds.kind_of(
        issued.secret,
        asked=order.profile,
        expects=bool(order.expect.names),
        now=observed.received_at,
    )
    examined = findings.examine_token(
        issued, profile=kind.profile, expect=order.expect, key=order.key, wall=observed.received_at
    )
    seen = _forecast(order, observed, examined)
    verdicts = kinds.product_verdicts(examined, expect=order.expect, key=order.key)
    steps = (
        *report.steps,
        findings.http_step(observed),
        findings.token_step(observed),
        kinds.kind_step(kind, examined),
        findings.findings_step(examined),
        findings.clock_step(observed.ahead_s),
        schedule_step(seen) if seen else skipped(("schedule",), "a keeper would not use this token")[0],
        *((kinds.products_step(verdicts, order.expect.grants),) if verdicts is not None else ()),
        *(await twilsock.connected(order.connect, examined, expect=order.expect, key=order.key)),
    )
    return replace(
        report,
        steps=steps,
        findings=examined.findings,
        forecast=seen,
        products=verdicts,
        marks=_marks(examined, seen),
    )


def _forecast(order: Order, observed: Observed, examined: findings.Examined) -> Forecast | None:
    if examined.token is None:
        return None
    return forecast(examined.token, now=observed.received_at, skew_s=examined.skew_s, policy=order.policy)


def _marks(examined: findings.Examined, seen: Forecast | None) -> tuple[Mark, ...]:
    """Return the token's times, relative to the issuer's present."""
    inspection, token = examined.inspection, examined.token
    expires_at = token.expires_at if token is not None else inspection.expires_at
    times = {"iat": inspection.issued_at, "nbf": inspection.not_before, "exp": expires_at}
    marks = [Mark(name=name, at=at - examined.now) for name, at in times.items() if at is not None]
    if seen is not None:
        marks.append(Mark(name="refresh", at=seen.earliest - seen.now, until=seen.latest - seen.now))
    return (*marks, Mark(name="now", at=0.0))
