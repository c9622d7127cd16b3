"""The sidecar's API in this process: behind plain uvicorn on a Unix socket, or the bare application."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from helpers import HOUR, PLAIN
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from token_keeper import RefreshPolicy
from token_keeper._clock import Clock, SystemClock
from token_keeper.profiles import profile_named
from token_keeper.sidecar._access import Caller, Keys
from token_keeper.sidecar._household import Changes, Household
from token_keeper.sidecar._served import TokenParts
from token_keeper.sidecar.api import make_app
from token_keeper.sidecar.config._model import HttpSourceConfig, TokenConfig
from token_keeper.sources import Source
from token_keeper.testing import ScriptedSource, mint

Result = TypeVar("Result")
SYSTEM = SystemClock()
SOCKET = "api.sock"
_serials = itertools.count(1)


def fresh(lifetime_s: float = HOUR, clock: Clock = SYSTEM) -> Callable[[], str]:
    """Return the step of a healthy backend: a new token that lives for *lifetime_s*."""
    return lambda: mint(expires_at=clock.wall() + lifetime_s, jti=str(next(_serials)))


def parts_of(
    name: str = "chat", source: Source | None = None, *, policy: RefreshPolicy = PLAIN, url: str = ""
) -> TokenParts:
    """Return the parts of a token. Those with another *url* have another configuration."""
    profile = profile_named("auto")
    return TokenParts(
        name=name,
        config=TokenConfig(source=HttpSourceConfig(url=url or f"https://backend.example/{name}")),
        source=source or ScriptedSource(fresh()),
        policy=policy,
        profile=profile,
        expect=profile.expectations(None),
    )


async def no_reload() -> Changes:
    """Reload nothing."""
    return Changes()


async def become_true(question: Callable[[], Result]) -> Result:
    """Return the first true answer to *question*, asked again and again."""
    while not (answer := question()):  # noqa: ASYNC110 - not all that is asked for has an event
        await asyncio.sleep(0.001)
    return answer


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Dropping(HttpToolsProtocol):
    """Uvicorn's protocol, which lets the application cut off a client that does not read."""

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        super().__init__(config, server_state, {**app_state, "drop": self._drop}, _loop)

    def _drop(self) -> None:
        self.transport.abort()


class Served:
    """A sidecar that runs in a thread.

    Attributes:
        household: Its tokens. Touch it in its loop only, by `call`.
        client: An HTTP client on its Unix socket.
        path: The socket.
    """

    def __init__(self, household: Household, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        self.household = household
        self.path = path
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=20
        )
        self._loop = loop

    def call(self, function: Callable[..., Awaitable[Result] | Result], *args: Any) -> Result:
        """Call *function* in the sidecar's loop and return its result."""

        async def calls() -> Result:
            result = function(*args)
            return await result if isinstance(result, Awaitable) else result

        return asyncio.run_coroutine_threadsafe(calls(), self._loop).result(20)

    def until(self, question: Callable[[], Result]) -> Result:
        """Return the first true answer to *question*, asked in the sidecar's loop for at most 10 s."""

        async def asks() -> Result:
            async with asyncio.timeout(10):
                return await become_true(question)

        return self.call(asks)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, document: object = None, **options: Any) -> httpx.Response:
        return (
            self.client.post(path, **options) if document is None else self.client.post(path, json=document)
        )

    def connect(self) -> socket.socket:
        """Return a bare connection to it."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(self.path))
        return connection


@contextmanager
def serving(
    directory: Path,
    *parts: TokenParts,
    clock: Clock | None = None,
    reload: Callable[[], Awaitable[Any]] = no_reload,
    port: int | None = None,
    **options: Any,
) -> Iterator[Served]:
    """Serve *parts* on a Unix socket in *directory*. Returns once each has had its first fetch.

    Tools that know no Unix sockets find it at *port* of loopback, if that is given.
    """
    ready = threading.Event()
    box: list[Any] = []

    async def main() -> None:
        household = Household(parts, clock=clock)
        app = make_app(household, keys=options.pop("keys", None) or Keys(), reload=reload, **options)
        stop = asyncio.Event()
        box.extend((asyncio.get_running_loop(), stop, household))
        async with household, _listening(app, directory / SOCKET, port):
            await become_true(lambda: all(served.kept.ended for served in household.tokens.values()))
            ready.set()
            await stop.wait()
            await household.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(10), "the sidecar did not start"
        loop, _, household = box
        served = Served(household, loop, directory / SOCKET)
        try:
            yield served
        finally:
            served.client.close()
    finally:
        box[0].call_soon_threadsafe(box[1].set)
        thread.join(10)


@asynccontextmanager
async def _listening(app: Any, path: Path, port: int | None) -> AsyncIterator[None]:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket() as tcp:
        listener.bind(str(path))
        sockets = [listener]
        if port is not None:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(("127.0.0.1", port))
            sockets.append(tcp)
        config = uvicorn.Config(
            app, http=Dropping, ws="none", lifespan="off", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        running = asyncio.ensure_future(server.serve(sockets=sockets))
        await become_true(lambda: server.started or running.done())
        try:
            yield
        finally:
            server.should_exit = True
            await running


@asynccontextmanager
async def opened(*parts: TokenParts, clock: Clock, **options: Any) -> AsyncIterator[tuple[Household, Asking]]:
    """Open a household and its bare application in this very loop, such as a virtual one."""
    async with Household(parts, clock=clock) as household:
        app = make_app(household, keys=Keys(), reload=options.pop("reload", no_reload), **options)
        yield household, Asking(app)


class Asking:
    """Calls the application without a network, so that virtual time is exact."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def called_by(self, caller: Caller) -> Asking:
        """Return the same for requests that the server says are from *caller*."""

        async def called(scope: Any, receive: Any, send: Any) -> None:
            await self._app({**scope, "state": {"caller": caller}}, receive, send)

        return Asking(called)

    async def get(self, target: str, **headers: str) -> httpx.Response:
        return await self.ask("GET", target, headers=headers)

    async def post(self, target: str, document: object = None) -> httpx.Response:
        return await self.ask("POST", target, b"" if document is None else json.dumps(document).encode())

    async def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Return the whole answer."""
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
            return await client.request(method, target, content=body, headers=named)

    @asynccontextmanager
    async def stream(self, target: str, **headers: str) -> AsyncIterator[Reading]:
        """Open an event stream; leaving the block is the client that goes away."""
        reading = Reading()
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()],
            "state": {"drop": reading.dropped.set},
        }
        running = asyncio.ensure_future(self._app(scope, reading.receive, reading.send))
        try:
            yield reading
        finally:
            reading.gone.set()
            reading.is_reading.set()
            await running


class Reading:
    """The client's side of an event stream.

    Attributes:
        is_reading: Cleared, the client takes nothing more.
        gone: Set, the client has gone.
        dropped: Whether the server cut it off.
        ended: Whether the stream came to its end.
    """

    def __init__(self) -> None:
        self.is_reading = asyncio.Event()
        self.is_reading.set()
        self.gone = asyncio.Event()
        self.dropped = asyncio.Event()
        self.ended = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self._text = ""
        self._frames: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await self.is_reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self._text += message.get("body", b"").decode()
        *frames, self._text = self._text.split("\n\n")
        for frame in frames:
            self._frames.put_nowait(frame_of(frame))
        if not message.get("more_body"):
            self.ended.set()

    async def frame(self) -> dict[str, str]:
        """Return the next event or comment."""
        return await self._frames.get()

    async def event(self) -> dict[str, str]:
        """Return the next event."""
        while "event" not in (frame := await self.frame()):
            pass
        return frame

    def frames_now(self) -> list[dict[str, str]]:
        """Return what came and was not read yet."""
        return [self._frames.get_nowait() for _ in range(self._frames.qsize())]


def frame_of(text: str) -> dict[str, str]:
    """Return the fields of one event; the name of a comment is empty."""
    fields = [line.partition(":")[::2] for line in text.split("\n")]
    return {name: value.removeprefix(" ") for name, value in fields}
