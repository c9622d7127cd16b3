"""The real sidecar as a process, and raw HTTP to it. Shared by the tests of everything around it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

T = TypeVar("T")

COMMAND = (str(Path(sys.executable).with_name("token-keeper")), "serve")
PATIENCE_S = 10.0
"""How long anything in these tests may take before it counts as broken."""


def eventually(look: Callable[[], T], *, within_s: float = PATIENCE_S, what: str = "") -> T:
    """Return the first true result of *look*; it is asked again and again."""
    deadline = time.monotonic() + within_s
    while True:
        result = look()
        if result:
            return result
        assert time.monotonic() < deadline, f"it did not happen within {within_s:g} s: {what or look}"
        time.sleep(0.01)


def a_token_table(name: str, url: str, extra: str = "") -> str:
    """Return the configuration of one token that comes from *url*; *extra* is TOML below `[tokens.NAME]`."""
    return f'[tokens.{name}]\n{extra}\n[tokens.{name}.source]\ntype = "http"\nurl = "{url}"\n'


def a_config(
    url: str, *names: str, server: str = "", extra: str = "", socket_path: Path | str | None = None
) -> str:
    """Return a configuration with a token for each of *names* (default: ``chat``).

    *server* is TOML below `[server]`, *extra* below each `[tokens.NAME]`.
    """
    where = f'socket = "{socket_path}"\n' if socket_path else ""
    tables = "\n".join(a_token_table(name, url, extra) for name in names or ("chat",))
    return f"[server]\n{where}{server}\n{tables}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. *headers* by lower-case name; *raw* is all of it, as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    raw: bytes = b""

    @property
    def json(self) -> Any:
        """The body as a JSON document."""
        return json.loads(self.body)


@dataclass(slots=True)
class Talk:
    """One connection, byte by byte."""

    sock: socket.socket
    buffer: bytes = b""

    def send(self, data: bytes) -> None:
        """Send *data* as it is."""
        self.sock.sendall(data)

    def ask(self, method: str, path: str, **more: Any) -> Answer:
        """Send a request, and return its answer."""
        self.send(a_request(method, path, **more))
        return self.answer(head_only=method == "HEAD")

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read the next answer; interim ones are skipped."""
        while True:
            head = self._until(b"\r\n\r\n")
            status, headers = _parsed(head)
            if status != 100:
                break
        if head_only or status in {204, 304}:
            body = b""
        elif "content-length" in headers:
            body = self.take(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            body = self._chunks()
        else:
            body = self.rest()
        return Answer(status, headers, body, head + body)

    def head(self) -> Answer:
        """Read only the next answer's head: for streams."""
        head = self._until(b"\r\n\r\n")
        status, headers = _parsed(head)
        return Answer(status, headers, b"", head)

    def take(self, count: int) -> bytes:
        """Read exactly *count* bytes."""
        while len(self.buffer) < count:
            self._more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def rest(self) -> bytes:
        """Read until the other side closes, in whatever way."""
        with suppress(EOFError, ConnectionError):
            while True:
                self._more()
        taken, self.buffer = self.buffer, b""
        return taken

    def is_closed(self) -> bool:
        """Whether the other side closes without another byte, within the socket's timeout."""
        try:
            return not self.buffer and self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def until(self, mark: bytes) -> bytes:
        """Read up to and with *mark*."""
        return self._until(mark)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(mark)
        return head + mark

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            body += self.take(size)
            self.take(2)
        self.take(2)
        return body

    def _more(self) -> None:
        data = self.sock.recv(65_536)
        if not data:
            raise EOFError("the connection was closed")
        self.buffer += data


def a_request(  # noqa: PLR0913 - One for each part of a request.
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    json_body: Any = None,
    host: str | None = "localhost",
    version: str = "1.1",
) -> bytes:
    """Return the bytes of a request. *host* None leaves the header out."""
    lines = [f"{method} {path} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    if json_body is not None:
        body = json.dumps(json_body).encode()
        lines.append("Content-Type: application/json")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


@dataclass(slots=True)
class Sidecar:
    """A running `token-keeper serve`.

    Attributes:
        process: The process.
        directory: Its own; holds `keeper.toml`, `log` and the socket's directory.
        socket_path: Where it listens.
        config_path: Its configuration.
    """

    process: subprocess.Popen[bytes]
    directory: Path
    socket_path: Path
    config_path: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def log_text(self) -> str:
        """Everything that it wrote to standard error."""
        return (self.directory / "log").read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log lines, in JSON. One that is being written just now is not among them."""
        whole, _, _ = self.log_text.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of *event*."""
        return [line for line in self.log if line["event"] == event]

    @property
    def port(self) -> int:
        """The TCP port; it is in the line about the start."""

        def ours() -> list[dict[str, Any]]:
            return [line for line in self.logged("sidecarStarted") if line["pid"] == self.process.pid]

        return int(eventually(ours, what="the line about the start")[0]["listen"].rpartition(":")[2])

    @property
    def access_key(self) -> str:
        """What a caller over TCP has to show."""
        return (self.socket_path.parent / "access-key").read_text().strip()

    def connect(self, *, timeout: float = PATIENCE_S) -> Talk:
        """Connect to the Unix socket."""
        return Talk(_connected(self.socket_path, timeout))

    def connect_tcp(self, *, timeout: float = PATIENCE_S) -> Talk:
        """Connect over TCP."""
        return Talk(socket.create_connection(("127.0.0.1", self.port), timeout))

    def ask(self, method: str, path: str, **more: Any) -> Answer:
        """Send one request over the Unix socket, and return the answer."""
        with self.connect() as talk:
            return talk.ask(method, path, **more)

    def ask_tcp(self, method: str, path: str, *, key: str | None = None, **more: Any) -> Answer:
        """Send one request over TCP, with *key* if given."""
        headers = dict(more.pop("headers", None) or {})
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        more.setdefault("host", f"127.0.0.1:{self.port}")
        with self.connect_tcp() as talk:
            return talk.ask(method, path, headers=headers, **more)

    def has_token(self, name: str = "chat") -> Answer | None:
        """Return the answer with the token, or None if there is none yet."""
        answer = self.ask("GET", f"/v1/tokens/{name}")
        return answer if answer.status == 200 else None

    def until_token(self, name: str = "chat") -> Answer:
        """Wait for the first token of *name*."""
        return eventually(lambda: self.has_token(name), what=f"a token of {name}")

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self, *, within_s: float = PATIENCE_S) -> int:
        """End it with SIGTERM, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)


def _connected(path: Path, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def a_directory() -> Iterator[Path]:
    """A directory of our own with a short name: a socket's address holds 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="tk-") as directory:
        yield Path(directory)


@contextmanager
def started(
    directory: Path,
    config: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    log_format: str | None = "json",
    **popen: Any,
) -> Iterator[Sidecar]:
    """Start `serve` in *directory* with *config*, wait for nothing. Ended (or killed) at the end."""
    config_path = directory / "keeper.toml"
    config_path.write_text(config)
    runtime = directory / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    environ = {
        **{key: value for key, value in os.environ.items() if key not in {"NOTIFY_SOCKET", "LISTEN_FDS"}},
        "XDG_RUNTIME_DIR": str(runtime),
        **(env or {}),
    }
    looks = ("--log-format", log_format) if log_format else ()
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [*COMMAND, "--config", str(config_path), *looks, *options],
            stdin=subprocess.DEVNULL,
            stdout=popen.pop("stdout", subprocess.DEVNULL),
            stderr=log,
            env=environ,
            **popen,
        )
    socket_path = Path(_option(options, "--socket") or runtime / "token-keeper" / "api.sock")
    try:
        yield Sidecar(process, directory, socket_path, config_path, environ)
    finally:
        _ended(process)


@contextmanager
def running(config: str, *options: str, directory: Path | None = None, **more: Any) -> Iterator[Sidecar]:
    """Start `serve` with *config*, and wait until its socket answers.

    The socket is in the usual place below a runtime directory of the test's own,
    unless *options* name another with ``--socket``.
    """
    with a_directory() as made, started(directory or made, config, *options, **more) as sidecar:
        eventually(lambda: _answers(sidecar), what="the socket answers")
        yield sidecar


def _answers(sidecar: Sidecar) -> bool:
    code = sidecar.process.poll()
    assert code is None, f"serve ended with {code}:\n{sidecar.log_text}"
    try:
        return sidecar.ask("GET", "/healthz").status > 0
    except (OSError, EOFError):
        return False


def _ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _option(options: Sequence[str], name: str) -> str | None:
    return options[options.index(name) + 1] if name in options else None
