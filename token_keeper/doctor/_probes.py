"""Walks the way to a backend on foot: name, connection, then TLS. Sends nothing."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Collection
from typing import Final

from token_keeper.doctor._report import Status, Step, skipped
from token_keeper.doctor._tls import Target, drop, error_name, shake_hands
from token_keeper.doctor._words import length, listed

WAY: Final = ("dns", "tcp", "tls")
_MOST_ADDRESSES: Final = 8


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
    return (dns, tcp, await shake_hands(target, address, context, now=now))


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
    details = {"host": target.host, "addresses": [], "seconds": round(took, 3), "error": error_name(error)}
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
            failures[address], last = error_name(error), error
            continue
        took = time.monotonic() - begin
        await drop(writer)
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
    return f"port {target.port} cannot be reached ({error_name(error)})", "Check the network and its routes."


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


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
