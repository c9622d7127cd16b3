"""A WebSocket server on loopback, in the event loop of its test, that notes who comes and goes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self

from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response


class Feed:
    """Sends each client a message when it is told to.

    Attributes:
        news: What happened, in order: ("open", token), ("close", token), ("refuse", token).
        refused: Tokens that get 401 at the handshake.
        status: With which every handshake is refused, if it is set.
    """

    def __init__(self) -> None:
        self.news: list[tuple[str, str]] = []
        self.refused: set[str] = set()
        self.status: int | None = None
        self.live: dict[str, ServerConnection] = {}
        self._port = 0
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Listen, on the same port each time."""
        self._server = await serve(
            self._welcome, "127.0.0.1", self._port, process_request=self._judge, ping_interval=None
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Close every connection, and refuse others."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()

    def connect(self, token: str) -> connect:
        """Return what connects with *token*, as a program would write it."""
        headers = {"Authorization": f"Bearer {token}"}
        return connect(
            f"ws://127.0.0.1:{self._port}", additional_headers=headers, ping_interval=None, proxy=None
        )

    def tokens(self, what: str = "open") -> list[str]:
        return [token for kind, token in self.news if kind == what]

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        token = _token(request)
        status = self.status or (401 if token in self.refused else None)
        if status is None:
            return None
        self.news.append(("refuse", token))
        return connection.respond(HTTPStatus(status), "no\n")

    async def _welcome(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        token = _token(connection.request)
        self.news.append(("open", token))
        self.live[token] = connection
        with suppress(ConnectionClosed):
            await connection.send("welcome")
            await connection.wait_closed()
        self.news.append(("close", token))


def _token(request: Request) -> str:
    return request.headers["Authorization"].removeprefix("Bearer ")


async def until(is_so: Any, what: str, within_s: float = 60.0) -> None:
    """Wait until *is_so*, by the loop's clock."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not is_so():
        assert loop.time() < deadline, f"{what}: not within {within_s:g} s"
        await asyncio.sleep(0.05)
