"""What attackers bring along: backends that lie, and texts that pose as something else."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from sidecar import Answer, Sidecar, Talk, a_request

T = TypeVar("T")

EVIL = (
    "\x1b[2J\x1b[31mred\x1b]0;title\x07\x9b31m\r\nInjected: yes\r\n"
    '{"event":"forged"}\n17:00:00.000 info    forged\u2028\u202e\u0000<script>alert(1)</script>'
)
"""Escapes of terminals, lines that pose as log lines or headers, a right-to-left override, markup."""
DANGEROUS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
"""What a terminal or a reader of lines could obey, but for the line feed that ends a line."""


@contextmanager
def a_hostile_backend(
    replies: dict[str, Callable[[BaseHTTPRequestHandler], None]],
) -> Iterator[HostileBackend]:
    """Serve *replies*, by path, on loopback. A reply writes whatever it likes."""
    backend = HostileBackend(replies)
    thread = threading.Thread(target=backend.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield backend
    finally:
        backend.is_over = True
        backend.shutdown()
        backend.server_close()
        thread.join()


class HostileBackend(ThreadingHTTPServer):
    """Answers as it was told; notes who asked for what.

    Attributes:
        asked: The paths that were asked for.
        is_over: Whatever streams without end stops.
    """

    daemon_threads = True

    def __init__(self, replies: dict[str, Callable[[BaseHTTPRequestHandler], None]]) -> None:
        asked: list[str] = []

        class Reply(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                replies.get(self.path.partition("?")[0], nothing)(self)

            do_POST = do_GET  # noqa: N815 - The library's name.

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Reply)
        self.asked = asked
        self.is_over = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever is lied to may hang up."""

    def url(self, path: str) -> str:
        """Return the address of *path* here."""
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


def nothing(reply: BaseHTTPRequestHandler) -> None:
    """Answer 404."""
    reply.send_error(404)


def says(body: object, *, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a reply with *body*, JSON if it is no text. In names of *headers* underscores are hyphens."""
    data = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else json.dumps(body).encode()

    def reply(one: BaseHTTPRequestHandler) -> None:
        one.send_response(status)
        for name, value in headers.items():
            one.send_header(name.replace("_", "-"), value)
        one.send_header("Content-Length", str(len(data)))
        one.end_headers()
        one.wfile.write(data)

    return reply


def raw(data: bytes, *, then_endless: bytes = b"") -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a reply of these bytes, and then of others for as long as somebody reads."""

    def reply(one: BaseHTTPRequestHandler) -> None:
        one.wfile.write(data)
        while then_endless and not getattr(one.server, "is_over", True):
            one.wfile.write(then_endless)
        one.close_connection = True

    return reply


def quotes(one: BaseHTTPRequestHandler) -> None:
    """Refuse, and quote all that was sent, wherever it may be shown."""
    sent = " ".join([one.path, *(f"{name}: {value}" for name, value in one.headers.items())])
    body = {"error": sent, "error_description": sent, "message": sent, "token": f"{sent} no"}
    says(body, status=400, X_Quoted=one.headers.get("Authorization", ""))(one)


def tables(backend: HostileBackend, paths: dict[str, str], extra: str = "") -> str:
    """Return a token for each of *paths*, by name; *extra* is TOML of its source."""
    return "\n".join(
        f'[tokens.{name}.source]\ntype = "http"\nurl = "{backend.url(path)}"\n{extra}'
        for name, path in paths.items()
    )


def heard(talk: Talk, data: bytes, *, quiet_s: float = 0.3, within_s: float = 10.0) -> bytes:
    """Send *data*, and return all that comes back until the other side closes or says nothing for a while."""
    deadline = time.monotonic() + within_s
    talk.sock.settimeout(quiet_s)
    with suppress(ConnectionError):
        talk.send(data)
    received = b""
    try:
        while time.monotonic() < deadline and (more := talk.sock.recv(65_536)):
            received += more
    except (TimeoutError, ConnectionError):
        pass
    return received


def statuses(received: bytes) -> list[int]:
    """Return the statuses of all answers in *received*."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", received)]


def at_once(count: int, act: Callable[[int], T]) -> list[T]:
    """Return what *act* returns for 0 to *count*, all of them at the same moment."""
    gate = threading.Barrier(count)

    def one(number: int) -> T:
        gate.wait(10)
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def timed(act: Callable[[], T]) -> tuple[float, T]:
    """Return how many seconds *act* took, and what it returned."""
    began = time.monotonic()
    result = act()
    return time.monotonic() - began, result


def memory_of(sidecar: Sidecar) -> float:
    """Return the resident memory in MiB."""
    text = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) / 1024


def generation(sidecar: Sidecar, name: str = "chat") -> int:
    """Return the generation of a token."""
    document: dict[str, int] = sidecar.ask("GET", f"/v1/tokens/{name}").json
    return document["generation"]


def harmless(text: str) -> bool:
    """Whether nothing in *text* could be obeyed."""
    return DANGEROUS.search(text) is None


def events_of(sidecar: Sidecar) -> bytes:
    """Return what a new event stream tells of the last day."""
    with sidecar.connect() as talk:
        return heard(talk, a_request("GET", "/v1/events?history=86400"), within_s=1)


def viewer(sidecar: Sidecar) -> str:
    """Return a dashboard's key."""
    code = sidecar.ask("POST", "/v1/dashboard/codes", json_body={}).json["code"]
    key: str = sidecar.ask_tcp("POST", "/v1/dashboard/keys", json_body={"code": code}).json["key"]
    return key


def silent_connections(sidecar: Sidecar, count: int, beginning: bytes) -> list[socket.socket]:
    """Open *count* connections over TCP that send *beginning* and no more."""
    opened = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", sidecar.port), 5)
        with suppress(ConnectionError):
            sock.sendall(beginning)
        opened.append(sock)
    return opened


def is_problem(answer: Answer) -> bool:
    """Whether *answer* is a problem document and nothing else."""
    return answer.headers.get("content-type") == "application/problem+json" and set(answer.json) >= {
        "type",
        "title",
        "status",
        "detail",
    }
