"""A small Centrifugo on loopback: as much of its JSON protocol as concerns a token.

It is a fake of the server; the client in front of it is the real centrifuge-python.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from typing import Any, Self

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from token_keeper.testing import FakeBackend

TOKEN_EXPIRED, PERMISSION_DENIED, INVALID_TOKEN = 109, 103, 3500


class Centrifugo:
    """Lets in who shows a token that *backend* issued and nobody revoked. `rpc` echoes.

    Args:
        backend: Who issues the good tokens; without one nobody is let in.
        ttl: Seconds after which a client is to refresh its connection; 0 for never.

    Attributes:
        shown: The raw tokens that came with connects, in order.
        refreshed: Those that came on live connections.
        refusal: How a bad token is answered: an error below 3000, a disconnect from there on.
        refuses_all: Whether every token is a bad one.
        leads_to: Another server to which it redirects, as a URL of ws.
    """

    def __init__(self, backend: FakeBackend | None = None, *, ttl: float = 0.0) -> None:
        self.shown: deque[str | None] = deque(maxlen=1_000)
        self.refreshed: deque[str] = deque(maxlen=1_000)
        self.refusal = TOKEN_EXPIRED
        self.refuses_all = False
        self.leads_to = ""
        self.live: set[ServerConnection] = set()
        self._backend = backend
        self._ttl = ttl
        self._revoked: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: Any = None
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def revoke_all(self) -> None:
        assert self._backend is not None
        self._revoked |= set(self._backend.issued)

    def close_all(self, code: int, reason: str) -> None:
        """End the live connections with a disconnect code."""
        self._call(self._close_all(code, reason))

    def _call(self, doing: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(10)

    async def _start(self) -> None:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._redirect, close_timeout=0.2
        )
        self.url = f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/connection/websocket"

    async def _stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _close_all(self, code: int, reason: str) -> None:
        for connection in set(self.live):
            await connection.close(code, reason)

    def _redirect(self, connection: ServerConnection, request: Request) -> Response | None:
        if not self.leads_to or self.leads_to.endswith(request.path):
            return None
        answer = connection.respond(302, "")
        answer.headers["Location"] = self.leads_to
        return answer

    def _accepts(self, token: str | None) -> bool:
        issued = self._backend.issued if self._backend is not None else ()
        return not self.refuses_all and token in issued and token not in self._revoked

    async def _serve(self, connection: ServerConnection) -> None:
        try:
            async for frame in connection:
                for line in str(frame).split("\n"):
                    command = json.loads(line)
                    if command:
                        await self._answer(connection, command)
        except ConnectionClosed:
            return
        finally:
            self.live.discard(connection)

    async def _answer(self, connection: ServerConnection, command: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": command["id"]}
        expiry = {"expires": True, "ttl": self._ttl} if self._ttl else {}
        if "connect" in command:
            token = command["connect"].get("token")
            self.shown.append(token)
            if not self._accepts(token):
                await self._refuse(connection, reply)
                return
            self.live.add(connection)
            reply["connect"] = {"client": "c", "version": "6", "ping": 25, "pong": True, **expiry}
        elif "refresh" in command:
            self.refreshed.append(command["refresh"]["token"])
            if not self._accepts(command["refresh"]["token"]):
                await self._refuse(connection, reply)
                return
            reply["refresh"] = {"client": "c", "version": "6", **expiry}
        else:
            reply["rpc"] = {"data": command["rpc"]["data"]}
        await connection.send(json.dumps(reply))

    async def _refuse(self, connection: ServerConnection, reply: dict[str, Any]) -> None:
        if self.refusal >= 3000:
            await connection.close(self.refusal, "invalid token")
            return
        error = {"code": self.refusal, "message": "refused", "temporary": False}
        await connection.send(json.dumps({**reply, "error": error}))
