"""What `FakeBackend` sends, whole or broken. It is told what and when, and decides nothing."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from token_keeper.testing._backend_wire import gzip_bomb, head

_STALL_S: Final = 60.0
_DRIP_INTERVAL_S: Final = 0.05
_HUGE_SIZE: Final = 5_000_000
_ENDLESS_SIZE: Final = 67_108_864
_CHUNK: Final = b"10000\r\n" + bytes(65_536) + b"\r\n"
_PAGE: Final = b"<!doctype html><title>Log in</title><p>Please log in first.</p>"


class BackendFault(StrEnum):
    """How `FakeBackend.fail` can misbehave."""

    STALL_HEADERS = "stall_headers"
    """Take the request and say nothing."""
    STALL_BODY = "stall_body"
    """Say nothing more in the middle of the body."""
    DRIP = "drip"
    """A body of a byte now and then, without end."""
    ENDLESS = "endless"
    """A body without end, as fast as it is read."""
    RESET = "reset"
    """Reset the connection in the middle of the body."""
    HTML = "html"
    """A login page, with status 200."""
    EMPTY = "empty"
    """Nothing, with status 200."""
    NOT_JSON = "not_json"
    """JSON that was cut."""
    HUGE = "huge"
    """A token in 5 MB of JSON."""
    GZIP_BOMB = "gzip_bomb"
    """32 KiB that inflate to 32 MiB."""


_WHOLE: Final[Mapping[BackendFault, tuple[bytes, Mapping[str, str]]]] = {
    BackendFault.HTML: (_PAGE, {"Content-Type": "text/html"}),
    BackendFault.EMPTY: (b"", {}),
    BackendFault.NOT_JSON: (b'{"token": "', {"Content-Type": "application/json"}),
}


async def send_whole(
    writer: asyncio.StreamWriter,
    body: bytes,
    *,
    now: float,
    status: int = 200,
    headers: Mapping[str, str | None],
) -> None:
    """Send an answer with all of its *body*. Its date is *now*, Unix seconds."""
    kind = "application/json" if body[:1] in (b"{", b"[", b'"') else "text/plain"
    usual = {"Content-Type": kind, "Content-Length": str(len(body))}
    writer.write(head(status, {**usual, **headers}, now=now) + body)
    await writer.drain()


async def misbehave(
    fault: BackendFault, writer: asyncio.StreamWriter, *, now: float, issue: Callable[[], bytes]
) -> None:
    """Send what *fault* says, with the date *now*; *issue* returns a good body."""
    if fault in _WHOLE:
        body, headers = _WHOLE[fault]
        await send_whole(writer, body, now=now, headers=headers)
    elif fault is BackendFault.HUGE:
        await send_whole(writer, issue() + b" " * _HUGE_SIZE, now=now, headers={})
    elif fault is BackendFault.GZIP_BOMB:
        await send_whole(writer, gzip_bomb(), now=now, headers={"Content-Encoding": "gzip"})
    elif fault in {BackendFault.DRIP, BackendFault.ENDLESS}:
        await _pour(fault, writer, now=now)
    else:
        await _break_off(fault, writer, now=now)


async def _pour(fault: BackendFault, writer: asyncio.StreamWriter, *, now: float) -> None:
    writer.write(head(200, {"Transfer-Encoding": "chunked"}, now=now))
    if fault is BackendFault.DRIP:
        for _ in range(int(_STALL_S / _DRIP_INTERVAL_S)):
            writer.write(b"1\r\n \r\n")
            await writer.drain()
            await asyncio.sleep(_DRIP_INTERVAL_S)
    else:
        for _ in range(_ENDLESS_SIZE // len(_CHUNK)):
            writer.write(_CHUNK)
            await writer.drain()


async def _break_off(fault: BackendFault, writer: asyncio.StreamWriter, *, now: float) -> None:
    if fault is not BackendFault.STALL_HEADERS:
        writer.write(head(200, {"Content-Length": "1000"}, now=now) + b'{"token": "ey')
        await writer.drain()
    if fault is BackendFault.RESET:
        endpoint = writer.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return
    await asyncio.sleep(_STALL_S)
