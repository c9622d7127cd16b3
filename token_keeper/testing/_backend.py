"""A backend that issues tokens over real loopback HTTP, and misbehaves on command."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from token_keeper.testing._backend_wire import (
    HEAD_LIMIT,
    ReceivedRequest,
    gzip_bomb,
    head,
    read_request,
    usual_token,
)

T = TypeVar("T")

_KEPT: Final = 10_000
_COMMAND_TIMEOUT_S: Final = 5.0
_STALL_S: Final = 60.0
_DRIP_INTERVAL_S: Final = 0.05
_HUGE_SIZE: Final = 5_000_000
_ENDLESS_SIZE: Final = 67_108_864
_CHUNK: Final = b"10000\r\n" + bytes(65_536) + b"\r\n"
_PAGE: Final = b"<!doctype html><title>Log in</title><p>Please log in first.</p>"


class BackendFault(StrEnum):
    """How `FakeBackend.fail` can misbehave."""

    STALL_HEADERS = "stall_headers"
    """Take the request and say nothing."""
    STALL_BODY = "stall_body"
    """Say nothing more in the middle of the body."""
    DRIP = "drip"
    """A body of a byte now and then, without end."""
    ENDLESS = "endless"
    """A body without end, as fast as it is read."""
    RESET = "reset"
    """Reset the connection in the middle of the body."""
    HTML = "html"
    """A login page, with status 200."""
    EMPTY = "empty"
    """Nothing, with status 200."""
    NOT_JSON = "not_json"
    """JSON that was cut."""
    HUGE = "huge"
    """A token in 5 MB of JSON."""
    GZIP_BOMB = "gzip_bomb"
    """32 KiB that inflate to 32 MiB."""


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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
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
        self._listener = _bound(0)
        self._port = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop,), name="fake-backend", daemon=True
        )
        self._thread.start()
        self._command(self._listen())

    def close(self) -> None:
        """Stop serving and drop every connection. Called again, it does nothing."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._command(self._refuse())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_COMMAND_TIMEOUT_S)
        self._loop = self._thread = None
        if self._listener is not None:
            self._listener.close()

    def down(self) -> None:
        """Refuse connections, and drop the open ones. The port stays its own."""
        self._command(self._refuse())

    def up(self) -> None:
        """Serve again after `down`."""
        self._command(self._listen())

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

    def _command(self, order: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            order.close()
            raise RuntimeError("the fake backend is not running: use it in a `with` statement")
        return asyncio.run_coroutine_threadsafe(order, self._loop).result(_COMMAND_TIMEOUT_S)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

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
            self._listener = _bound(self._port)
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
            await self._misbehave(reply.fault, writer)
            return False
        body = reply.body if reply.body is not None else self._token(is_repeat=reply.is_repeat)
        await self._whole(writer, body, status=reply.status, headers=reply.headers)
        return True

    async def _whole(
        self,
        writer: asyncio.StreamWriter,
        body: bytes,
        *,
        status: int = 200,
        headers: Mapping[str, str | None],
    ) -> None:
        kind = "application/json" if body[:1] in (b"{", b"[", b'"') else "text/plain"
        usual = {"Content-Type": kind, "Content-Length": str(len(body))}
        writer.write(head(status, {**usual, **headers}, now=self.now) + body)
        await writer.drain()

    async def _misbehave(self, fault: BackendFault, writer: asyncio.StreamWriter) -> None:
        whole = {
            BackendFault.HTML: (_PAGE, {"Content-Type": "text/html"}),
            BackendFault.EMPTY: (b"", {}),
            BackendFault.NOT_JSON: (b'{"token": "', {"Content-Type": "application/json"}),
        }
        if fault in whole:
            body, headers = whole[fault]
            await self._whole(writer, body, headers=headers)
        elif fault is BackendFault.HUGE:
            await self._whole(writer, self._token(is_repeat=False) + b" " * _HUGE_SIZE, headers={})
        elif fault is BackendFault.GZIP_BOMB:
            await self._whole(writer, gzip_bomb(), headers={"Content-Encoding": "gzip"})
        elif fault in {BackendFault.DRIP, BackendFault.ENDLESS}:
            await self._pour(fault, writer)
        else:
            await self._break_off(fault, writer)

    async def _pour(self, fault: BackendFault, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"Transfer-Encoding": "chunked"}, now=self.now))
        if fault is BackendFault.DRIP:
            for _ in range(int(_STALL_S / _DRIP_INTERVAL_S)):
                writer.write(b"1\r\n \r\n")
                await writer.drain()
                await asyncio.sleep(_DRIP_INTERVAL_S)
        else:
            for _ in range(_ENDLESS_SIZE // len(_CHUNK)):
                writer.write(_CHUNK)
                await writer.drain()

    async def _break_off(self, fault: BackendFault, writer: asyncio.StreamWriter) -> None:
        if fault is not BackendFault.STALL_HEADERS:
            writer.write(head(200, {"Content-Length": "1000"}, now=self.now) + b'{"token": "ey')
            await writer.drain()
        if fault is BackendFault.RESET:
            endpoint = writer.get_extra_info("socket")
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        await asyncio.sleep(_STALL_S)


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _encoded(body: object, status: int) -> bytes | None:
    if body is None:
        return None if status == 200 else b""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
