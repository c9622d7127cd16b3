"""A WebSocket server on loopback behind the gate of `guarding.py`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Self

from guarding import Gate
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from token_keeper.testing import FakeBackend


class GuardedFeed(Gate):
    """Sends each client its path, and then waits until it closes.

    On paths that begin with `/closes` it waits for a message, and then closes:
    with code 4401 if the token is refused by then.
    """

    def __init__(self, backend: FakeBackend | None = None) -> None:
        super().__init__(backend)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: Server

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(self._serve())
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._run(self._server.wait_closed())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _serve(self) -> Server:
        return await serve(self._feed, "127.0.0.1", 0, process_request=self._answer, close_timeout=1)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def uri(self) -> str:
        return self.url.replace("http", "ws", 1)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        status, headers, _ = self.judge(request.path, ", ".join(request.headers.get_all("Authorization")))
        if status == HTTPStatus.OK:
            return None
        answer = connection.respond(HTTPStatus(status), "no\n")
        for name, value in headers.items():
            answer.headers[name] = value.replace("http", "ws", 1) if name == "Location" else value
        return answer

    async def _feed(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        try:
            await connection.send(request.path)
            if request.path.startswith("/closes"):
                sent = request.headers["Authorization"].removeprefix("Bearer ")
                await connection.recv()
                await connection.close(1000 if self.accepts(sent) else 4401)
            await connection.wait_closed()
        except ConnectionClosed:
            return
