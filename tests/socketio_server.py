"""A real Socket.IO server on loopback that lets in who shows a good token."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any, Self

import socketio
from aiohttp import web

from token_keeper.testing import FakeBackend


class SocketIoServer:
    """`socketio.AsyncServer` in a thread. It answers `echo` with what it was sent.

    Attributes:
        seen: The raw tokens that came, None where none came, in order.
        says: What a refused client is told.
        live: The ids of the connected clients.
    """

    def __init__(self, backend: FakeBackend | None = None) -> None:
        self.seen: deque[str | None] = deque(maxlen=1_000)
        self.says: tuple[Any, ...] = ("the token is not valid",)
        self.live: set[str] = set()
        self.refuses_all = False
        self._backend = backend
        self._revoked: set[str] = set()
        self._sio = socketio.AsyncServer(async_mode="aiohttp")
        self._sio.on("connect", self._connect)
        self._sio.on("disconnect", self._disconnect)
        self._sio.on("echo", self._echo)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._transports: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None
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

    def kick_all(self) -> None:
        """End every session, as a server does that no longer wants it."""
        self._call(self._kick_all())

    def drop_all(self) -> None:
        """Close the connections below the sessions, as a network does."""
        self._call(self._drop_all())

    def _call(self, doing: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._noting])
        self._sio.attach(app)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._sio.shutdown()
        assert self._runner is not None
        await self._runner.cleanup()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _kick_all(self) -> None:
        for sid in set(self.live):
            await self._sio.disconnect(sid)

    async def _drop_all(self) -> None:
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    @web.middleware
    async def _noting(self, request: web.Request, handler: Any) -> Any:
        if request.transport is not None:
            self._transports.add(request.transport)
        return await handler(request)

    async def _connect(self, sid: str, _: Any, auth: Any) -> None:
        token = auth.get("token") if isinstance(auth, dict) else None
        self.seen.append(token)
        issued = self._backend.issued if self._backend is not None else ()
        if self.refuses_all or token not in issued or token in self._revoked:
            raise socketio.exceptions.ConnectionRefusedError(*self.says)
        self.live.add(sid)

    async def _disconnect(self, sid: str, *_: Any) -> None:
        self.live.discard(sid)

    async def _echo(self, _: str, said: Any) -> Any:
        return said
