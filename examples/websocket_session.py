"""A session over a WebSocket that can be given another token while it lives.

    TOKEN_URL=https://backend.example/token FEED_URL=wss://feed.example python websocket_session.py

The server takes `{"auth": TOKEN}` at any time, answers `{"type": "welcome"}`, and closes with 4401 if it
refuses the token. `Feed` stands for your SDK. What its connection does is told to the handle; the handle
sees to it that it has a token that works: at first, at each renewal, and when one is refused.
"""

import asyncio
import json
import logging
import os
import signal
from contextlib import suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from token_keeper import AsyncTokenKeeper, HttpSource
from token_keeper.sessions import SessionEvent, SessionHandle

DENIED = 4401


class Feed:
    """A live session. The keeper calls `update_token` and `reconnect`, one at a time."""

    handle: SessionHandle

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def update_token(self, token: str) -> None:
        """Use *token* from now on; connect first, if there is no connection."""
        if self._socket is None:
            await self.reconnect(token)
        else:
            await self._socket.send(json.dumps({"auth": token}))

    async def reconnect(self, token: str) -> None:
        """Begin anew with *token*."""
        await self.close()
        self._socket = await connect(self._url)
        self._reader = asyncio.create_task(self._read(self._socket))
        await self._socket.send(json.dumps({"auth": token}))

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
        if self._socket is not None:
            await self._socket.close()
        self._socket = self._reader = None

    async def _read(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            async for raw in socket:
                self._hear(json.loads(raw))
        self._socket = None
        if socket.close_code == DENIED:
            self.handle.denied(code=DENIED, reason=socket.close_reason)
        else:
            self.handle.disconnected(code=socket.close_code, reason=socket.close_reason)

    def _hear(self, message: dict[str, str]) -> None:
        match message["type"]:
            case "welcome":
                self.handle.connected()
            case "expiring":
                self.handle.about_to_expire()
            case _:
                print("heard:", message["text"], flush=True)


async def follow() -> None:
    """Follow the feed until somebody cancels it."""
    async with AsyncTokenKeeper(HttpSource(os.environ["TOKEN_URL"]), start_timeout=0) as keeper:
        feed = Feed(os.environ["FEED_URL"])
        with keeper.attach(feed, name="feed") as feed.handle:

            @feed.handle.on()
            def note(event: SessionEvent) -> None:
                print(f"{event.kind}, generation {event.generation}", *event.diagnosis, flush=True)

            try:
                await asyncio.Event().wait()
            finally:
                await feed.close()


async def main() -> None:
    following = asyncio.create_task(follow())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, following.cancel)
    with suppress(asyncio.CancelledError):
        await following
    print("stopped")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main())
