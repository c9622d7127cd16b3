"""What goes over the wire between `FakeBackend` and its clients: small pure functions."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from token_keeper.testing._mint import mint

HEAD_LIMIT: Final = 65_536
"""Bytes of a request before its body."""

_BODY_LIMIT: Final = 1_048_576
_BOMB_SIZE: Final = 33_554_432
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A request as it arrived.

    Args:
        method: `GET`, `POST` ...
        path: The path with its query.
        headers: By lower-case name; of repeated ones the last.
        body: As it arrived.
    """

    method: str
    path: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> object:
        """Return what the body says in JSON."""
        return json.loads(self.body)


async def read_request(reader: asyncio.StreamReader) -> ReceivedRequest | None:
    """Return the next request of a connection, or None at its end or if it is not HTTP/1.1."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= _BODY_LIMIT or "transfer-encoding" in headers:
            return None
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        return None
    return ReceivedRequest(method=method, path=path, headers=headers, body=body)


def head(status: int, headers: Mapping[str, str | None], *, now: float) -> bytes:
    """Return the status line and the headers. A header that is None is left out."""
    everything = {"Date": formatdate(now, usegmt=True), "Cache-Control": "no-store", **headers}
    lines = [f"{name}: {value}" for name, value in everything.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status} {_PHRASES.get(status, '')}", *lines, "", ""]).encode("latin-1")


def usual_token(now: float, lifetime: float, serial: int) -> str:
    """Return a JWT that lives for *lifetime* seconds and differs from all others."""
    issued_at = _tidy(now)
    return mint(
        iss="fake-backend", iat=issued_at, nbf=issued_at, exp=_tidy(now + lifetime), jti=f"token-{serial}"
    )


@functools.cache
def gzip_bomb() -> bytes:
    """Return 32 KiB that inflate to 32 MiB."""
    return gzip.compress(bytes(_BOMB_SIZE), compresslevel=9, mtime=0)


def _tidy(seconds: float) -> float:
    return int(seconds) if seconds == int(seconds) else round(seconds, 3)
