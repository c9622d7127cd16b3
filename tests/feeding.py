"""A feed over WebSockets that judges tokens: in the handshake, or in messages on a live connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

DENIED = 4401


class Feed:
    """A server. Every method may be called from any thread.

    Attributes:
        url: Where it is.
        shown: The tokens that it was shown, in order; the refused ones too.
        most_live: How many connections were there at once, at most.
    """

    def __init__(self, *, in_band: bool) -> None:
        self.url = ""
        self.shown: list[str] = []
        self.most_live = 0
        self._in_band = in_band
        self._refused: set[str] = set()
        self._denials = 0
        self._live: dict[ServerConnection, str] = {}
        self._lock = threading.Lock()

    @property
    def live(self) -> list[str]:
        """The tokens of the connections that are authenticated now."""
        with self._lock:
            return list(self._live.values())

    def deny_next(self) -> None:
        """Refuse the next token that is shown."""
        with self._lock:
            self._denials += 1

    def revoke(self) -> None:
        """Refuse the tokens of all live connections from now on, and close those with 4401."""
        with self._lock:
            self._refused |= set(self._live.values())
        self.close(DENIED, "revoked")

    def close(self, code: int = 1011, reason: str = "out of order") -> None:
        """Close all live connections."""
        for connection in list(self._live):
            connection.close(code, reason)

    def say(self, text: str) -> None:
        """Send *text* on all live connections."""
        self._send({"type": "text", "text": text} if self._in_band else text)

    def warn(self) -> None:
        """Say on all live connections that their tokens will expire."""
        self._send({"type": "expiring"})

    def _send(self, message: object) -> None:
        for connection in list(self._live):
            connection.send(message if isinstance(message, str) else json.dumps(message))

    def accepts(self, token: str) -> bool:
        """Judge a token that was shown."""
        with self._lock:
            self.shown.append(token)
            if self._denials:
                self._denials -= 1
                self._refused.add(token)
            return token not in self._refused

    def handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer 401 to a handshake whose token is not accepted."""
        if self._in_band or self.accepts(request.headers["Authorization"].removeprefix("Bearer ")):
            return None
        return connection.respond(HTTPStatus.UNAUTHORIZED, "denied\n")

    def serve(self, connection: ServerConnection) -> None:
        """Serve one connection to its end."""
        assert connection.request is not None
        if not self._in_band:
            self._welcome(connection, connection.request.headers["Authorization"].removeprefix("Bearer "))
        with suppress(ConnectionClosed):
            for raw in connection:
                token = json.loads(raw)["auth"]
                if not self.accepts(token):
                    connection.close(DENIED, "denied")
                    break
                self._welcome(connection, token)
                connection.send(json.dumps({"type": "welcome"}))
        with self._lock:
            self._live.pop(connection, None)

    def _welcome(self, connection: ServerConnection, token: str) -> None:
        with self._lock:
            self._live[connection] = token
            self.most_live = max(self.most_live, len(self._live))


@contextmanager
def a_feed(*, in_band: bool) -> Iterator[Feed]:
    """Serve a feed on loopback; *in_band* if it takes tokens in messages, else in the handshake."""
    feed = Feed(in_band=in_band)
    with serve(feed.serve, "127.0.0.1", 0, process_request=feed.handshake) as server:
        feed.url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield feed
        finally:
            feed.close(1001, "going away")
            server.shutdown()
            serving.join()
