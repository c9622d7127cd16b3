"""A Twilsock client as small as can be, with the habits of the real one: no timer, no look at the token."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from token_keeper.sessions import SessionHandle
from token_keeper.twilsock import Frame, Status, decode, encode, init, reply

CLOSES_AFTER_S = 0.2
"""The real one takes 3 s from `disconnecting` to `disconnected`."""
RETRY_S = 0.05


class Client:
    """Connects with a token, and says what becomes of it in Twilsock's own words."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.handle: SessionHandle
        self.tokens: list[str] = []
        self.states: list[str] = []
        self._socket: ClientConnection | None = None
        self._running: asyncio.Task[None] | None = None
        self._ids = (f"TM{number}" for number in itertools.count())
        self._updates: dict[str, asyncio.Future[Status]] = {}

    async def update_token(self, token: str) -> None:
        self.tokens.append(token)
        if self._socket is None:
            await self.reconnect()
            return
        answer = asyncio.get_running_loop().create_future()
        message_id = next(self._ids)
        self._updates[message_id] = answer
        await self._socket.send(encode({"method": "update", "id": message_id, "token": token}))
        status = await answer
        if not status.is_success:
            await self.close()
            self._say("denied", code=status.error_code)
            raise PermissionError(f"update refused: {status.code}")

    async def reconnect(self) -> None:
        await self.close()
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        self._socket = None

    def _say(self, state: str, **what: object) -> None:
        self.states.append(state)
        self.handle.state_changed(state, **what)  # type: ignore[arg-type]

    async def _run(self) -> None:
        while True:
            self._say("connecting")
            with suppress(OSError, ConnectionClosed):
                async with connect(self.url, proxy=None, ping_interval=None) as self._socket:
                    if not await self._converse(self._socket):
                        return
            self._socket = None
            await asyncio.sleep(RETRY_S)

    async def _converse(self, socket: ClientConnection) -> bool:
        """Return whether another connection is worth it, as the real client sees it."""
        first = next(self._ids)
        await socket.send(init(first, self.tokens[-1], metadata={}))
        async for raw in socket:
            frame = decode(raw if isinstance(raw, bytes) else raw.encode())
            assert frame is not None
            if frame.method == "close":
                await self._closed(frame)
                return False
            if frame.method == "reply" and frame.id == first and not frame.status.is_success:
                self._socket = None
                self._say("denied", code=frame.status.error_code)
                return False
            await self._hear(frame, first)
        return True

    async def _hear(self, frame: Frame, first: str) -> None:
        assert self._socket is not None
        if frame.method == "reply" and frame.id == first:
            self._say("connected")
        elif frame.method == "reply" and frame.id in self._updates:
            self._updates.pop(frame.id).set_result(frame.status)
        elif frame.method == "client_update":
            await self._socket.send(reply(frame.id))
            self.handle.about_to_expire()

    async def _closed(self, frame: Frame) -> None:
        self._socket = None
        self._say("disconnecting")
        if frame.status.code == 410:
            self.handle.expired(code=frame.status.error_code)
        await asyncio.sleep(CLOSES_AFTER_S)
        self._say("disconnected")
