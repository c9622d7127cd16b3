"""A small Ably on loopback: its REST API and its realtime protocol, as far as they concern a token.

It is a fake of the server; the clients in front of it are the real ones of the package ably.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections import deque
from typing import Any, Self

from aiohttp import WSMsgType, web

from token_keeper.testing import FakeBackend

HEARTBEAT, CONNECTED, DISCONNECTED, CLOSE, CLOSED, ERROR, AUTH = 0, 4, 6, 7, 8, 9, 17
TOKEN_EXPIRED, NOT_PERMITTED = 40142, 40160


class AblyServer:
    """Accepts the tokens that *backend* issued and nobody revoked. Every REST path answers an empty list.

    Attributes:
        seen: The raw tokens that came with requests, None where none came, in order.
        dialled: Those that came with new realtime connections.
        shown: Those that came on open ones.
        refusal: Ably's code for a bad token.
        refuses_all: Whether every token is a bad one.
    """

    def __init__(self, backend: FakeBackend) -> None:
        self.seen: deque[str | None] = deque(maxlen=10_000)
        self.dialled: deque[str | None] = deque(maxlen=1_000)
        self.shown: deque[str] = deque(maxlen=1_000)
        self.refusal = TOKEN_EXPIRED
        self.refuses_all = False
        self.port = 0
        self._backend = backend
        self._revoked: set[str] = set()
        self._live: set[web.WebSocketResponse] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._runner is not None
        self._call(self._close_all())
        self._call(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def rest(self) -> dict[str, Any]:
        """Options with which a REST client finds it."""
        return {"endpoint": "127.0.0.1", "port": self.port, "tls": False, "use_binary_protocol": False}

    @property
    def realtime(self) -> dict[str, Any]:
        """Options with which a realtime client finds it."""
        return {"endpoint": f"127.0.0.1:{self.port}", "tls": False, "use_binary_protocol": False}

    def revoke_all(self) -> None:
        """Refuse every token that was issued until now, when it is shown again."""
        self._revoked |= set(self._backend.issued)

    def tell_all(self, action: int, code: int = 0) -> None:
        """Send a message to every open connection, with an error if it has a *code*."""
        self._call(self._tell_all(_message(action, code)))

    def _call(self, doing: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _tell_all(self, message: dict[str, Any]) -> None:
        for socket in set(self._live):
            await socket.send_json(message)

    async def _close_all(self) -> None:
        for socket in set(self._live):
            await socket.close()

    def _accepts(self, token: str | None) -> bool:
        return not self.refuses_all and token in self._backend.issued and token not in self._revoked

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve(request)
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        token = base64.b64decode(encoded).decode() if scheme == "Bearer" else None
        self.seen.append(token)
        if self._accepts(token):
            return web.json_response([])
        return web.json_response(_message(ERROR, self.refusal), status=401)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        token = request.query.get("accessToken")
        self.dialled.append(token)
        if await self._judge(socket, token):
            self._live.add(socket)
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    await self._hear(socket, json.loads(frame.data))
        self._live.discard(socket)
        return socket

    async def _hear(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["action"] == AUTH:
            self.shown.append(message["auth"]["accessToken"])
            await self._judge(socket, self.shown[-1])
        elif message["action"] == CLOSE:
            await socket.send_json({"action": CLOSED})
        elif message["action"] == HEARTBEAT:
            await socket.send_json(message)

    async def _judge(self, socket: web.WebSocketResponse, token: str | None) -> bool:
        if not self._accepts(token):
            await socket.send_json(_message(ERROR, self.refusal))
            return False
        details = {"connectionKey": "k", "connectionStateTtl": 120_000, "maxIdleInterval": 15_000}
        await socket.send_json(
            {"action": CONNECTED, "connectionId": "c", "connectionDetails": details},
        )
        return True


def _message(action: int, code: int) -> dict[str, Any]:
    error = {"message": "refused", "statusCode": code // 100, "code": code}
    return {"action": action, "error": error} if code else {"action": action}
