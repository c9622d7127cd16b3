"""Shakes hands with a server, and looks at its certificate. Sends nothing else."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from token_keeper.doctor._certificates import SOON_DAYS, Certificate, certificate_of, verdict
from token_keeper.doctor._report import Status, Step
from token_keeper.doctor._words import length, listed

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


async def shake_hands(target: Target, address: str, context: ssl.SSLContext, *, now: float) -> Step:
    """Say whether TLS works at *address*, and until when."""
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
            "error": error_name(error),
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
    await drop(writer)
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
        await drop(writer)
        # The ssl module takes only certificates apart that it trusts: so this one, whenever it was valid.
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname = False
        trusting.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
        trusting.load_verify_locations(cadata=shown)
        peer, _ = await _handshake(target, address, trusting)
        return certificate_of(peer)
    return None


async def drop(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def _days(days: float) -> str:
    return f"{days:.0f} days" if days >= 2 else length(days * 86_400)


def error_name(error: Exception | None) -> str:
    """Return the name of what went wrong: by its code, never by its text."""
    if error is None:
        return "none"
    if isinstance(error, ssl.SSLError):
        return error.reason or type(error).__name__
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror):
        return next((name for name in _GAI if getattr(socket, name, None) == number), "gaierror")
    return errno.errorcode.get(number or 0, type(error).__name__)


_GAI: Final = ("EAI_AGAIN", "EAI_FAIL", "EAI_FAMILY", "EAI_NODATA", "EAI_NONAME", "EAI_SERVICE")
