"""uvicorn's protocol on our sockets: in our loop, with our signals and our logs.

uvicorn's own server is not used: it wakes ten times a second, and takes signals
and the standard log for itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from token_keeper.sidecar._household import Household
from token_keeper.sidecar.server import _refusals as refusals
from token_keeper.sidecar.server._behind import Behind
from token_keeper.sidecar.server._crowd import SWEEP_S, Crowd
from token_keeper.sidecar.server._guards import Gate
from token_keeper.sidecar.server._hot import HotAnswers
from token_keeper.sidecar.server._peers import PeerRule
from token_keeper.sidecar.server._protocol import Connection
from token_keeper.sidecar.server._sockets import BACKLOG
from token_keeper.sidecar.server._sparing import SparingLog

TEMPLATE = "/v1/tokens/{name}"
"""As the API calls the path that is answered from memory."""

App = Callable[[Any, Any, Any], Awaitable[None]]


class Server:
    """Serves *app* on listening sockets.

    Args:
        app: The ASGI application behind the guards.
        household: Whose tokens are answered from memory.
        peers: Who may connect to a Unix socket.
        max_connections: At once, over all sockets.
        logger: A structlog logger.
        is_verbose: Each request is logged.
    """

    def __init__(  # noqa: PLR0913 - One for each thing that it joins.
        self,
        app: App,
        household: Household,
        *,
        peers: PeerRule,
        max_connections: int,
        logger: Any,
        is_verbose: bool = False,
    ) -> None:
        clock = household.clock
        self._wall = clock.wall
        self._log = logger
        self._state = ServerState()
        self.crowd = Crowd(max_connections, clock.monotonic)
        self._hot = HotAnswers(household)
        self._behind = Behind(
            loop=asyncio.get_running_loop(),
            config=_configured(_Contained(app, self.crowd, logger, is_verbose=is_verbose)),
            state=self._state,
            crowd=self.crowd,
            hot=self._hot,
            peers=peers,
            log=SparingLog(logger, clock.monotonic),
            tell=self._tell if is_verbose else None,
        )
        self._listening: list[asyncio.Server] = []
        self._sweeping: asyncio.TimerHandle | None = None

    async def listen(self, sockets: Sequence[tuple[socket.socket, Gate]]) -> None:
        """Accept connections; each socket has its gate."""
        loop = asyncio.get_running_loop()
        self._sweep(loop)
        for listener, gate in sockets:
            make = partial(Connection, self._behind, gate)
            # uvloop's create_server takes a Unix socket for TCP.
            create = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
            # Without it they would listen anew with room for a hundred.
            self._listening.append(await create(make, sock=listener, backlog=BACKLOG))

    async def drain(self, patience_s: float) -> None:
        """Accept nothing more; end waits and streams now, all else within *patience_s* seconds."""
        self.crowd.is_closing = True
        for listening in self._listening:
            listening.close()
        for connection in list(self.crowd.guests):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=patience_s)
        for task in self._state.tasks:
            task.cancel()
        # What was written just now goes out, if its client reads at all.
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s / 2):
                while self.crowd.guests:  # noqa: ASYNC110 - Once, at the end: an event would cost each connection.
                    await asyncio.sleep(0.01)
        for connection in list(self.crowd.guests):
            connection.drop()
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeping = loop.call_later(SWEEP_S, self._sweep, loop)
        date = formatdate(self._wall(), usegmt=True).encode()
        # In place: a request that waits for long says what time it is when it is answered.
        self._state.default_headers[:] = [(b"date", date)]
        self._hot.date = b"date: %s\r\n" % date
        self.crowd.sweep()

    def _tell(self) -> None:
        self._log.debug("request", method="GET", path=TEMPLATE, status=200)


def _configured(app: App) -> Config:
    # What uvicorn would say of requests, the guards or the application below say already.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        interface="asgi3",
    )
    config.load()
    return config


class _Contained:
    """The application, so that whatever it raises ends as an answer and a log line."""

    def __init__(self, app: App, crowd: Crowd, log: Any, *, is_verbose: bool) -> None:
        self._app = app
        self._crowd = crowd
        self._log = log
        self._is_verbose = is_verbose

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status = 0

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            # Only we cancel requests, when we stop. A stream ends as if it were complete.
            if not status:
                await refusals.STOPPING.app(scope, receive, noting)
            else:
                with suppress(RuntimeError):
                    await send({"type": "http.response.body", "body": b""})
        except Exception:  # noqa: BLE001 - whatever it is, the next request is answered
            self._log.error("requestFailed", method=scope["method"], path=_template(scope), exc_info=True)
            if not status:
                await refusals.BROKEN.app(scope, receive, noting)
        if self._is_verbose:
            self._log.debug("request", method=scope["method"], path=_template(scope), status=status)


def _template(scope: Any) -> str:
    """Return the path as the API knows it, without what the client put in it."""
    return str(getattr(scope.get("route"), "path", "(unknown)"))
