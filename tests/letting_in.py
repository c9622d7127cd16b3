"""The sidecar's server in this process, on real sockets, with a clock in the test's hands."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from serving import parts_of
from sidecar import Answer, a_directory, a_request

from token_keeper.sidecar._access import Keys
from token_keeper.sidecar._household import Changes, Household
from token_keeper.sidecar.api import make_app
from token_keeper.sidecar.server._guards import Gate, Hosts
from token_keeper.sidecar.server._peers import PeerRule
from token_keeper.sidecar.server._server import Server
from token_keeper.sidecar.server._sockets import UnixListener, bind_tcp
from token_keeper.testing import ScriptedSource, VirtualClock, mint

PATIENCE_S = 5.0
HOT = "/v1/tokens/chat"
COLD = "/v1/tokens/chat?by="
"""The same question, which is not answered from memory."""


@dataclass(slots=True)
class Line:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        """Send *data* as it is."""
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read the next answer; interim ones are skipped."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                head = await self.reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                status = int(first.split(" ")[1])
                if status != 100:
                    break
            pairs = (line.partition(":") for line in lines if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            length = 0 if head_only else int(headers.get("content-length", 0))
            body = await self.reader.readexactly(length)
        return Answer(status, headers, body, head + body)

    async def ask(self, method: str = "GET", path: str = HOT, **more: Any) -> Answer:
        """Send a request, and return its answer."""
        self.send(a_request(method, path, **more))
        return await self.answer(head_only=method == "HEAD")

    async def rest(self) -> bytes:
        """Read until the other side closes."""
        data = b""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while more := await self.reader.read(65_536):
                    data += more
            except ConnectionError:
                pass
        return data

    def close(self) -> None:
        """Close it."""
        self.writer.close()


@dataclass(slots=True)
class Site:
    """A server on a Unix socket and on TCP."""

    server: Server
    household: Household
    keys: Keys
    clock: VirtualClock
    path: Path
    port: int
    logged: list[dict[str, Any]]
    key: str
    lines: list[Line] = field(default_factory=list)

    async def unix(self) -> Line:
        """Connect to the Unix socket."""
        return self._kept(Line(*await asyncio.open_unix_connection(os.fspath(self.path), limit=1 << 20)))

    async def tcp(self) -> Line:
        """Connect over TCP."""
        return self._kept(Line(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)))

    async def ask(self, method: str = "GET", path: str = HOT, **more: Any) -> Answer:
        """Send one request over the Unix socket."""
        line = await self.unix()
        return await line.ask(method, path, **more)

    async def ask_tcp(
        self, method: str = "GET", path: str = HOT, *, key: str | None = "", **more: Any
    ) -> Answer:
        """Send one request over TCP with the access key, or *key*; None sends none."""
        line = await self.tcp()
        return await line.ask(method, path, **self.meant(key, **more))

    def meant(self, key: str | None = "", **more: Any) -> dict[str, Any]:
        """Return the parts of a request over TCP that gets in."""
        headers = dict(more.pop("headers", None) or {})
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self.key}"
        return {"host": f"127.0.0.1:{self.port}", **more, "headers": headers}

    def passes(self, seconds: float) -> None:
        """Let *seconds* pass for the server."""
        self.clock.advance(seconds)
        self.server.crowd.sweep()

    async def until(self, look: Callable[[], object]) -> None:
        """Wait until *look* is true."""
        async with asyncio.timeout(PATIENCE_S):
            while not look():  # noqa: ASYNC110 - Others change what it looks at.
                await asyncio.sleep(0.002)

    def _kept(self, line: Line) -> Line:
        self.lines.append(line)
        return line


@asynccontextmanager
async def a_site(  # noqa: PLR0913 - One for each property of a server.
    *,
    limit: int = 256,
    lifetime_s: float = 3600.0,
    peers: PeerRule | None = None,
    hosts: tuple[str, ...] = (),
    wrap: Callable[[Any], Any] = lambda app: app,
    names: tuple[str, ...] = ("chat",),
    is_verbose: bool = False,
) -> AsyncIterator[Site]:
    """Serve tokens that live for *lifetime_s*; *wrap* may put something around the API."""
    clock, logged = VirtualClock(), []

    def note(_logger: Any, method: str, event: dict[str, Any]) -> str:
        logged.append({"level": method, **event})
        raise structlog.DropEvent

    logger = structlog.wrap_logger(None, processors=[note], wrapper_class=structlog.stdlib.BoundLogger)
    parts = tuple(parts_of(name, ScriptedSource(*_minting(clock, name, lifetime_s))) for name in names)
    with a_directory() as directory:
        keys = Keys(directory / "access-key", directory / "metrics-key", monotonic=clock.monotonic)
        keys.read()
        unix = UnixListener.bind(directory / "run" / "api.sock", is_open=False)
        tcp = bind_tcp("127.0.0.1", 0)
        port = tcp.getsockname()[1]
        async with Household(parts, clock=clock, logger=logger) as household:
            app = wrap(make_app(household, keys=keys, reload=_no_reload, page=f"http://127.0.0.1:{port}/"))
            server = Server(
                app,
                household,
                peers=peers or PeerRule(os.geteuid()),
                max_connections=limit,
                logger=logger,
                is_verbose=is_verbose,
            )
            gates = [
                (unix.socket, Gate("unix", keys)),
                (tcp, Gate("tcp", keys, Hosts.of("127.0.0.1", port, hosts))),
            ]
            await server.listen(gates)
            key = (directory / "access-key").read_text().strip()
            site = Site(server, household, keys, clock, unix.path, port, logged, key)
            await site.until(lambda: all(served.kept.held for served in household.tokens.values()))
            try:
                yield site
            finally:
                for line in site.lines:
                    line.close()
                await server.drain(0.2)
                unix.close()


def serving(test: Callable[[Site], Awaitable[None]], **options: Any) -> None:
    """Run *test* with a site that has these *options*."""

    async def main() -> None:
        async with a_site(**options) as site:
            await test(site)

    run(main())


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* in a loop of its own: uvloop's, as `serve` does."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def problem_of(answer: Answer) -> str:
    """Return the last part of a problem's type."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = json.loads(answer.body)
    assert document["status"] == answer.status
    return document["type"].removeprefix("urn:token-keeper:problem:")


def _minting(clock: VirtualClock, name: str, lifetime_s: float) -> list[Callable[[], str]]:
    serial = iter(range(1_000_000))
    return [lambda: mint(expires_at=clock.wall() + lifetime_s, jti=f"{name}-{next(serial)}")]


async def _no_reload() -> Changes:
    return Changes()
