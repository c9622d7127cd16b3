"""Walks the way to a backend on foot: name, connection, TLS. Sends nothing."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from token_keeper.doctor._certificates import SOON_DAYS, Certificate, certificate_of, verdict
from token_keeper.doctor._report import Status, Step, skipped
from token_keeper.doctor._words import length, listed

WAY: Final = ("dns", "tcp", "tls")
_MOST_ADDRESSES: Final = 8
# X509_V_FLAG_NO_CHECK_TIME; the ssl module has no name for it.
_NO_CHECK_TIME: Final = 0x20_0000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to knock.

    Args:
        host: As in the URL.
        port: As in the URL, or the scheme's.
        is_tls: Whether the URL is https.
        is_proxied: Whether requests to it go through a proxy of the environment.
        timeout_s: For each step.
    """

    host: str
    port: int
    is_tls: bool
    is_proxied: bool
    timeout_s: float


async def walk(target: Target, context: ssl.SSLContext | None, *, now: float) -> tuple[Step, ...]:
    """Return how far the way to *target* is open. Stops at the first step that fails."""
    if target.is_proxied:
        return skipped(WAY, "requests go through the proxy that the environment sets")
    dns, addresses = await _resolve(target)
    if not addresses:
        return (dns, *skipped(("tcp", "tls"), "the host has no address"))
    tcp, address = await _connect(target, addresses)
    if not address:
        return (dns, tcp, *skipped(("tls",), "there is no connection"))
    if context is None:
        return (dns, tcp, _in_the_clear(address))
    return (dns, tcp, await _shake_hands(target, address, context, now=now))


async def _resolve(target: Target) -> tuple[Step, tuple[str, ...]]:
    if _is_address(target.host):
        step = Step(
            name="dns",
            status=Status.OK,
            summary=f"{target.host} is an address, there is nothing to resolve",
            details={"host": target.host, "addresses": [target.host], "seconds": 0.0},
        )
        return step, (target.host,)
    begin = time.monotonic()
    try:
        async with asyncio.timeout(target.timeout_s):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        return _unresolved(target, error, time.monotonic() - begin), ()
    took = time.monotonic() - begin
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:_MOST_ADDRESSES]
    step = Step(
        name="dns",
        status=Status.OK,
        summary=f"{target.host} is {listed(list(addresses))} ({length(took)})",
        details={"host": target.host, "addresses": list(addresses), "seconds": round(took, 3)},
    )
    return step, addresses


def _unresolved(target: Target, error: Exception, took: float) -> Step:
    if isinstance(error, TimeoutError):
        found, remedy = f"the resolver did not answer within {length(took)}", _RESOLVER
    elif isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        found, remedy = f"{target.host} cannot be resolved: the resolver knows no answer now", _RESOLVER
    elif isinstance(error, UnicodeError):
        found, remedy = "the host cannot be a name", "Correct the URL."
    else:
        found = f"{target.host} has no address"
        remedy = "Check the spelling of the host in the URL, and whether this network's resolver knows it."
    details = {"host": target.host, "addresses": [], "seconds": round(took, 3), "error": _name(error)}
    return Step(name="dns", status=Status.FAILED, summary=found, details=details, remedy=remedy)


_RESOLVER: Final = "Check the network and the resolver of this machine: /etc/resolv.conf, VPN, firewall."


async def _connect(target: Target, addresses: Collection[str]) -> tuple[Step, str]:
    """Connect to the first address that takes it, as clients do."""
    failures: dict[str, str] = {}
    last: Exception | None = None
    for address in addresses:
        begin = time.monotonic()
        try:
            async with asyncio.timeout(target.timeout_s / len(addresses)):
                _, writer = await asyncio.open_connection(address, target.port)
        except (OSError, TimeoutError) as error:
            failures[address], last = _name(error), error
            continue
        took = time.monotonic() - begin
        await _drop(writer)
        others = f"; not to {listed(list(failures))}" if failures else ""
        step = Step(
            name="tcp",
            status=Status.OK,
            summary=f"connected to {_place(address, target.port)} in {length(took)}{others}",
            details={
                "address": address,
                "port": target.port,
                "seconds": round(took, 3),
                "failures": failures,
            },
        )
        return step, address
    found, remedy = _unreachable(last, target)
    return Step(
        name="tcp",
        status=Status.FAILED,
        summary=found,
        details={"address": None, "port": target.port, "seconds": None, "failures": failures},
        remedy=remedy,
    ), ""


def _unreachable(error: Exception | None, target: Target) -> tuple[str, str]:
    if isinstance(error, ConnectionRefusedError):
        return (
            f"port {target.port} refused the connection: nobody listens there",
            "Start the backend, or correct the port in the URL.",
        )
    if isinstance(error, TimeoutError):
        return (
            f"nobody answered at port {target.port} within {length(target.timeout_s)}",
            "A firewall may drop the packets: check its rules, the VPN and the port.",
        )
    return f"port {target.port} cannot be reached ({_name(error)})", "Check the network and its routes."


def _in_the_clear(address: str) -> Step:
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return skipped(("tls",), "the URL is http, and the traffic stays on this machine")[0]
    return Step(
        name="tls",
        status=Status.WARNING,
        summary="none: the URL is http, so whoever is on the way reads credentials and token",
        details={"version": None},
        remedy="Use https.",
    )


async def _shake_hands(target: Target, address: str, context: ssl.SSLContext, *, now: float) -> Step:
    begin = time.monotonic()
    try:
        peer, version = await _handshake(target, address, context)
    except ssl.SSLCertVerificationError as error:
        found, remedy = verdict(error)
        certificate = await _unverified(target, address)
        return _tls_failure(f"the certificate {found}", remedy, error, certificate, now=now)
    except (OSError, TimeoutError, EOFError) as error:
        return _tls_failure(*_no_tls(error, target), error, None, now=now)
    took = time.monotonic() - begin
    certificate = certificate_of(peer)
    if certificate is None:
        return _tls_failure(
            "the server showed no certificate", "Check the server's TLS.", None, None, now=now
        )
    days = certificate.days_left(now)
    is_soon = days < SOON_DAYS
    return Step(
        name="tls",
        status=Status.WARNING if is_soon else Status.OK,
        summary=f"{version} in {length(took)}; the certificate by {certificate.issuer} "
        f"expires in {_days(days)}",
        details={"version": version, "seconds": round(took, 3), **certificate.as_dict(now)},
        remedy="Renew the backend's certificate; find out why nothing has done it yet." if is_soon else "",
    )


def _tls_failure(
    found: str, remedy: str, error: Exception | None, certificate: Certificate | None, *, now: float
) -> Step:
    notes: tuple[str, ...] = ()
    if certificate is not None:
        days = certificate.days_left(now)
        end = f"expires in {_days(days)}" if days >= 0 else f"expired {_days(-days)} ago"
        notes = (f"it is for {listed(list(certificate.names))}, by {certificate.issuer}, and {end}",)
    return Step(
        name="tls",
        status=Status.FAILED,
        summary=found,
        details={
            "version": None,
            "error": _name(error),
            **(certificate.as_dict(now) if certificate else {}),
        },
        remedy=remedy,
        notes=notes,
    )


def _no_tls(error: Exception, target: Target) -> tuple[str, str]:
    if isinstance(error, TimeoutError):
        return (
            f"no TLS handshake within {length(target.timeout_s)}",
            "Check the port, and what listens there.",
        )
    if isinstance(error, ssl.SSLError):
        found = f"TLS failed ({error.reason or type(error).__name__})"
        return found, "Check that port and scheme belong together: does the port speak TLS at all?"
    return "the server broke the TLS handshake off", "Check the port, and what listens there."


async def _handshake(
    target: Target, address: str, context: ssl.SSLContext
) -> tuple[dict[str, Any] | None, str]:
    """Return the server's certificate and the version of TLS.

    Raises:
        OSError: If there is no handshake; its subclasses in `ssl` say why.
    """
    async with asyncio.timeout(target.timeout_s):
        _, writer = await asyncio.open_connection(
            address, target.port, ssl=context, server_hostname=target.host
        )
    tls = writer.get_extra_info("ssl_object")
    peer, version = tls.getpeercert(), tls.version()
    await _drop(writer)
    return peer, str(version).replace("TLSv", "TLS ")


async def _unverified(target: Target, address: str) -> Certificate | None:
    """Return a certificate that did not pass, for what it says of itself. Nothing is sent to its server."""
    with suppress(OSError, TimeoutError, EOFError, ValueError):
        lenient = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        lenient.check_hostname = False
        lenient.verify_mode = ssl.CERT_NONE
        async with asyncio.timeout(target.timeout_s):
            _, writer = await asyncio.open_connection(
                address, target.port, ssl=lenient, server_hostname=target.host
            )
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        await _drop(writer)
        # The ssl module takes only certificates apart that it trusts: so this one, whenever it was valid.
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
        trusting.load_verify_locations(cadata=shown)
        peer, _ = await _handshake(target, address, trusting)
        return certificate_of(peer)
    return None


async def _drop(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _days(days: float) -> str:
    return f"{days:.0f} days" if days >= 2 else length(days * 86_400)


def _name(error: Exception | None) -> str:
    if error is None:
        return "none"
    if isinstance(error, ssl.SSLError):
        return error.reason or type(error).__name__
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror):
        return next((name for name in _GAI if getattr(socket, name, None) == number), "gaierror")
    return errno.errorcode.get(number or 0, type(error).__name__)


_GAI: Final = ("EAI_AGAIN", "EAI_FAIL", "EAI_FAMILY", "EAI_NODATA", "EAI_NONAME", "EAI_SERVICE")
