"""A backend that is faster than any client: it answers every request with the same token.

Runs until its standard input ends; the first line of its output is its URL.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from email.utils import formatdate

from token_keeper.testing import mint


class Answering(asyncio.Protocol):
    """One connection. A request of ours is a head without a body."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._unread = (self._unread + data).split(b"\r\n\r\n")
        self._transport.write(self._answer * len(requests))


def answer() -> bytes:
    token = mint(expires_at=time.time() + 3600, iat=int(time.time()), sub="benchmark")
    body = json.dumps({"token": token, "expires_in": 3600}).encode()
    head = [
        "HTTP/1.1 200 OK",
        f"Date: {formatdate(usegmt=True)}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


async def main() -> None:
    loop, whole = asyncio.get_running_loop(), answer()
    server = await loop.create_server(lambda: Answering(whole), "127.0.0.1", 0)
    async with server:
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
