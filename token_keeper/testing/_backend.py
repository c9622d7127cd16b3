"""A backend that issues tokens over real loopback HTTP, and misbehaves on command.

It decides what the next answer is. How it is sent, whole or broken, is in `_backend_faults`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from token_keeper.testing._backend_faults import BackendFault, misbehave, send_whole
from token_keeper.testing._backend_wire import HEAD_LIMIT, ReceivedRequest, read_request, usual_token
from token_keeper.testing._loopback import ServerThread, bound_socket

_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """One scripted answer. Without a body a token is issued, or the last one repeated."""

    status: int = 200
    body: bytes | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    fault: BackendFault | None = None
    is_repeat: bool = False


_PLAIN_REPLY: Final = _Reply()


def _as_member(token: str) -> object:
    return {"token": token}


class FakeBackend:
    """A real HTTP server on loopback that issues tokens.

        with FakeBackend(lifetime=60) as backend, TokenKeeper(HttpSource(backend.url)) as keeper:
            backend.answer(status=503, headers={"Retry-After": "5"}, times=2)
            keeper.refresh()

    It runs in a daemon thread; every method may be called from any thread and
    takes effect at once. Any path is the token endpoint.

    Args:
        lifetime: Of the tokens that it mints, in seconds. May be set later.
        mint: Makes a token, given the backend's time, instead of the default:
            a JWT (HS256) unlike all before.
        clock: Unix time. `clock_offset`, in seconds, is added to it.
        wrap: What is answered, given a token: JSON, or a raw text if it is a string.
        ssl_context: Serves https with this certificate.

    Attributes:
        requests: The last 10 000 requests, as they arrived.
        issued: The last 10 000 tokens, as they were minted.
        delay: Seconds before each answer.
    """

    def __init__(  # noqa: PLR0913 - Each is a property of a backend, and all have a default.
        self,
        lifetime: float = 3600.0,
        *,
        mint: Callable[[float], str] | None = None,
        clock: Callable[[], float] = time.time,
        clock_offset: float = 0.0,
        wrap: Callable[[str], object] = _as_member,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.lifetime = lifetime
        self.clock_offset = clock_offset
        self.delay = 0.0
        self.requests: deque[ReceivedRequest] = deque(maxlen=_KEPT)
        self.issued: deque[str] = deque(maxlen=_KEPT)
        self._mint = mint if mint is not None else self._usual_token
        self._clock = clock
        self._wrap = wrap
        self._tls = ssl_context
        self._serial = 0
        self._script: deque[_Reply] = deque()
        self._for_good: _Reply | None = None
        self._news = threading.Condition()
        self._received = 0
        self._port = 0
        self._thread = ServerThread("fake-backend")
        self._listener: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FakeBackend {self.url}>"

    @property
    def url(self) -> str:
        """Where it issues tokens. The port is the same for the whole life."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}/token"

    @property
    def now(self) -> float:
        """Its own time, Unix seconds: its clock may be off."""
        return self._clock() + self.clock_offset

    def start(self) -> None:
        """Start serving. `with` does it."""
        self._listener = bound_socket(0)
        self._port = self._listener.getsockname()[1]
        self._thread.start()
        self.up()

    def close(self) -> None:
        """Stop serving and drop every connection. Called again, it does nothing."""
        if self._thread.is_running:
            self.down()
            self._thread.stop()
        if self._listener is not None:
            self._listener.close()

    def down(self) -> None:
        """Refuse connections, and drop the open ones. The port stays its own."""
        self._thread.call(self._refuse())

    def up(self) -> None:
        """Serve again after `down`."""
        self._thread.call(self._listen())

    def answer(
        self,
        *,
        status: int = 200,
        body: object = None,
        headers: Mapping[str, str | None] | None = None,
        times: int | None = 1,
    ) -> None:
        """Answer so, after what was ordered before.

        Args:
            status: Of HTTP.
            body: Text or bytes as they are, anything else as JSON. None: a
                token, or nothing if *status* is not 200.
            headers: In addition; None leaves out one that is usually sent.
            times: How often; None until `recover`.
        """
        self._order(_Reply(status=status, body=_encoded(body, status), headers=headers or {}), times)

    def redirect(self, to: str, *, status: int = 302, times: int | None = 1) -> None:
        """Redirect to the URL *to*."""
        self.answer(status=status, headers={"Location": to}, times=times)

    def fail(self, fault: BackendFault | str, *, times: int | None = 1) -> None:
        """Misbehave, after what was ordered before."""
        self._order(_Reply(fault=BackendFault(fault)), times)

    def repeat_last(self, times: int | None = 1) -> None:
        """Answer with the token that was issued last, as a backend does that caches."""
        self._order(_Reply(is_repeat=True), times)

    def recover(self) -> None:
        """Forget what was ordered: behave well from now on."""
        with self._news:
            self._script.clear()
            self._for_good = None

    def wait_for_requests(self, count: int, *, timeout: float = 5.0) -> None:
        """Wait until *count* requests have arrived since the start.

        Raises:
            TimeoutError: If they have not, after *timeout* seconds.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._received >= count, timeout):
                raise TimeoutError(f"{self._received} of {count} requests arrived in {timeout:g} s")

    def _order(self, reply: _Reply, times: int | None) -> None:
        with self._news:
            if times is None:
                self._for_good = reply
            else:
                self._script.extend([reply] * times)

    def _next_reply(self) -> _Reply:
        with self._news:
            if self._script:
                return self._script.popleft()
            return self._for_good or _PLAIN_REPLY

    def _record(self, request: ReceivedRequest) -> None:
        with self._news:
            self.requests.append(request)
            self._received += 1
            self._news.notify_all()

    def _usual_token(self, now: float) -> str:
        self._serial += 1
        return usual_token(now, self.lifetime, self._serial)

    def _token(self, *, is_repeat: bool) -> bytes:
        if not (is_repeat and self.issued):
            self.issued.append(self._mint(self.now))
        shape = self._wrap(self.issued[-1])
        return shape.encode() if isinstance(shape, str) else json.dumps(shape).encode()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._welcome, sock=self._listener, ssl=self._tls, limit=HEAD_LIMIT, backlog=128
            )

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            # Bound but not listening: connections are refused, and nobody else gets the port.
            self._listener = bound_socket(self._port)
        talks = tuple(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                while (request := await read_request(reader)) is not None:
                    self._record(request)
                    await asyncio.sleep(self.delay)
                    if not await self._send(self._next_reply(), writer):
                        break
        finally:
            writer.transport.abort()
            # The transport is closed one turn of the loop later.
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _send(self, reply: _Reply, writer: asyncio.StreamWriter) -> bool:
        """Send *reply*. Returns whether the connection can be used again."""
        if reply.fault is not None:
            await misbehave(reply.fault, writer, now=self.now, issue=lambda: self._token(is_repeat=False))
            return False
        body = reply.body if reply.body is not None else self._token(is_repeat=reply.is_repeat)
        await send_whole(writer, body, now=self.now, status=reply.status, headers=reply.headers)
        return True


def _encoded(body: object, status: int) -> bytes | None:
    if body is None:
        return None if status == 200 else b""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
