"""What the connections of a server share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from token_keeper.sidecar.server._crowd import Crowd
from token_keeper.sidecar.server._hot import HotAnswers
from token_keeper.sidecar.server._peers import PeerRule
from token_keeper.sidecar.server._sparing import SparingLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What stands behind every connection.

    Args:
        loop: The event loop.
        config: uvicorn's, loaded.
        state: uvicorn's; its first default header is `Date`.
        crowd: Counts connections.
        hot: The ready-made answers.
        peers: Who may connect to a Unix socket.
        log: Says who was refused, sparingly.
        tell: Called for each request that was answered from memory, if set.
    """

    loop: asyncio.AbstractEventLoop
    config: Config
    state: ServerState
    crowd: Crowd
    hot: HotAnswers
    peers: PeerRule
    log: SparingLog
    tell: Callable[[], None] | None = None


class Cycle(RequestResponseCycle):
    """A request that the API answers."""

    wants_to_wait = False
    task: asyncio.Task[None] | None = None
