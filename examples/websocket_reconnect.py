"""A WebSocket whose server looks at the token only when it connects: reconnect with another one in time.

    TOKEN_URL=https://backend.example/token FEED_URL=wss://feed.example python websocket_reconnect.py

When the token is renewed there is a new connection first, and only then is the old one closed. A 401, a
close with 4401 and a lost connection lead to a new connection, with another token if it was refused. For
a server that says it in another way there is `connections.denied()`.
"""

import asyncio
import logging
import os
import signal
from contextlib import suppress

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from token_keeper import AsyncTokenKeeper, HttpSource


def connected(token: str) -> connect:
    """Return what connects with *token*: anything that `async with` or `await` takes."""
    return connect(os.environ["FEED_URL"], additional_headers={"Authorization": f"Bearer {token}"})


async def follow() -> None:
    """Follow the feed until somebody cancels it."""
    async with (
        AsyncTokenKeeper(HttpSource(os.environ["TOKEN_URL"]), start_timeout=0) as keeper,
        keeper.connections(connected) as connections,
    ):
        async for connection in connections:
            print("connected with generation", keeper.snapshot.generation, flush=True)
            try:
                async for message in connection:
                    print("heard:", message, flush=True)
            except ConnectionClosed as closed:
                print("the connection ended:", closed, flush=True)


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
