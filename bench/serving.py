"""What a read from the sidecar costs: requests per second, latency, cold start, memory.

Servers have one core to themselves, the load has another; needs a C compiler.
Go and nginx are measured where they are installed.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import peers
from fetches import backend
from report import Figures, heading, note, run, table, times

COMMAND = str(Path(sys.executable).with_name("token-keeper"))
ROUNDS = 5
SECONDS = 1.5
FIGURES = ("per_s", "per_cpu_s", "p50_us", "p99_us")
CONNECTIONS = 32
STARTS = 5
PATIENCE_S = 20.0
OURS, ASGI = "token-keeper serve", "uvicorn, raw ASGI"
KEY = "K" * 42 + "A"
CONFIG = """
[server]
socket = "{directory}/api.sock"
listen = "127.0.0.1:{port}"
access_key_file = "{directory}/key"
"""
TOKEN = """
[tokens.{name}.source]
type = "http"
url = "{url}"
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A command that serves, and what to ask it for."""

    name: str
    command: Sequence[str]
    family: str
    where: str
    request: bytes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def request(path: str, host: str = "localhost", **headers: str) -> bytes:
    own = (f"{name}: {text}" for name, text in headers.items())
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *own]
    return "\r\n".join([*lines, "", ""]).encode()


def connected(family: str, where: str) -> socket.socket | None:
    dialled = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
    try:
        dialled.connect(where if family == "unix" else ("127.0.0.1", int(where)))
    except OSError:
        dialled.close()
        return None
    return dialled


def answers(server: Server) -> bool:
    """Return whether *server* answers its request with 200."""
    dialled = connected(server.family, server.where)
    if dialled is None:
        return False
    with dialled:
        dialled.settimeout(PATIENCE_S)
        dialled.sendall(server.request)
        return dialled.recv(65536)[9:12] == b"200"


def wait_for(server: Server) -> None:
    until = time.monotonic() + PATIENCE_S
    while not answers(server):
        if time.monotonic() > until:
            raise TimeoutError(f"{server.name} does not answer")
        time.sleep(0.002)


@contextmanager
def running(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Run *server* on the first core."""
    pinned = ["taskset", "-c", "0", *server.command] if shutil.which("taskset") else list(server.command)
    if server.family == "unix":
        Path(server.where).unlink(missing_ok=True)  # Peers trip over what they leave behind.
    with subprocess.Popen(pinned, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(server)
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Return the CPU seconds that *process* has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(
    program: Path, server: Server, process: subprocess.Popen[bytes]
) -> tuple[float, float, float, float]:
    """Return answers per second, by the clock and by the server's CPU, and latencies' p50 and p99 in us."""
    command = [str(program), server.family, server.where, str(CONNECTIONS), str(SECONDS)]
    pinned = ["taskset", "-c", "1", *command] if shutil.which("taskset") else command
    used = cpu_s(process)
    done = subprocess.run(pinned, input=server.request, stdout=subprocess.PIPE, check=True)
    used = cpu_s(process) - used
    count, seconds, p50, p99, errors = map(float, done.stdout.split())
    if errors:
        raise RuntimeError(f"{server.name}: {errors:.0f} wrong answers")
    return count / seconds, count / used, p50, p99


def configured(directory: Path, url: str, *, tokens: int = 1) -> tuple[list[str], int]:
    """Write a configuration; return the command that serves it, and its TCP port."""
    port = free_port()
    key = directory / "key"
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    names = ["chat", *(f"t{number}" for number in range(1, tokens))]
    text = CONFIG.format(directory=directory, port=port)
    text += "".join(TOKEN.format(name=name, url=url) for name in names)
    (directory / "keeper.toml").write_text(text)
    command = [COMMAND, "serve", "--config", str(directory / "keeper.toml")]
    return command, port


def all_servers(directory: Path, url: str) -> list[Server]:
    command, port = configured(directory, url)
    path, bearer = "/v1/tokens/chat", {"host": f"127.0.0.1:{port}", "Authorization": f"Bearer {KEY}"}
    ours = {"unix": str(directory / "api.sock"), "tcp": str(port)}
    found = []
    for family in ("tcp", "unix"):
        own = request(path, **bearer) if family == "tcp" else request(path)
        slow = request(f"{path}?wait=0", **bearer) if family == "tcp" else request(f"{path}?wait=0")
        found.append(Server(f"{OURS}, {family}", command, family, ours[family], own))
        found.append(Server(f"{OURS}, with a query, {family}", command, family, ours[family], slow))

        def peer(name: str, base: Sequence[str], *, family: str = family) -> Server:
            where = str(free_port()) if family == "tcp" else str(directory / f"{name[:2]}.sock")
            return Server(f"{name}, {family}", [*base, where], family, where, request(path))

        found.append(peer(ASGI, peers.uvicorn(directory)))
        if (compiled := peers.go(directory)) is not None:
            found.append(peer("Go net/http", ["env", "GOMAXPROCS=1", *compiled]))
        where = str(free_port()) if family == "tcp" else str(directory / "nginx.sock")
        listen = f"127.0.0.1:{where}" if family == "tcp" else f"unix:{where}"
        if (static := peers.nginx(directory, listen)) is not None:
            found.append(Server(f"nginx, {family}", static, family, where, request(path)))
    return found


def reads(directory: Path, url: str) -> Figures:
    program = directory / "load"
    subprocess.run(["cc", "-O2", "-o", str(program), str(Path(__file__).with_name("load.c"))], check=True)
    servers = all_servers(directory, url)
    measured: dict[str, list[tuple[float, float, float, float]]] = {}
    for _ in range(ROUNDS):
        for server in servers:
            with running(server) as process:
                measured.setdefault(server.name, []).append(load(program, server, process))
    found = {
        name: dict(zip(FIGURES, map(statistics.median, zip(*each, strict=True)), strict=True))
        for name, each in measured.items()
    }
    heading(f"GET /v1/tokens/NAME, {CONNECTIONS} connections, the server on one core")
    floors = {family: found[f"{ASGI}, {family}"]["per_cpu_s"] for family in ("tcp", "unix")}
    table(
        ["", "requests/s", "per CPU second", "to raw ASGI", "p50 us", "p99 us"],
        [
            [
                name,
                f"{each['per_s']:.0f}",
                f"{each['per_cpu_s']:.0f}",
                times(each["per_cpu_s"], floors[name.rpartition(", ")[2]]),
                f"{each['p50_us']:.0f}",
                f"{each['p99_us']:.0f}",
            ]
            for name, each in found.items()
        ],
    )
    note(f"Medians of {ROUNDS} rounds of {SECONDS:g} s. Ours checks peer, key, Host and limits.")
    note("On a busy machine the rate per second of the server's own CPU is the one to trust.")
    return {**found}


def cold_start(server: Server) -> float:
    """Return the time from the start of the process to its first answer with a token, in ms."""
    began = time.perf_counter()
    with running(server):
        return 1000 * (time.perf_counter() - began)


def memory_mib(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def starts(directory: Path, url: str) -> Figures:
    socket_path = str(directory / "api.sock")
    ours = Server(OURS, configured(directory, url)[0], "unix", socket_path, request("/v1/tokens/chat"))
    where = str(directory / "floor.sock")
    floor = Server(ASGI, [*peers.uvicorn(directory), where], "unix", where, request("/"))
    took: dict[str, list[float]] = {OURS: [], ASGI: []}
    for _ in range(STARTS):
        for server in (ours, floor):
            took[server.name].append(cold_start(server))
    found: dict[str, float] = {name: statistics.median(each) for name, each in took.items()}
    weights: dict[str, float] = {}
    for tokens in (1, 100):
        command, _ = configured(directory, url, tokens=tokens)
        last = "chat" if tokens == 1 else f"t{tokens - 1}"
        weighed = Server(OURS, command, "unix", socket_path, request(f"/v1/tokens/{last}"))
        with running(weighed) as process:
            weights[f"{OURS}, {tokens} tokens"] = memory_mib(process)
    with running(floor) as process:
        weights[ASGI] = memory_mib(process)
    heading("Cold start to the first token, and memory")
    table(["", "ms"], [[name, f"{each:.0f}"] for name, each in found.items()])
    table(["", "MiB"], [[name, f"{each:.1f}"] for name, each in weights.items()])
    return {"start_ms": found, "memory_mib": weights}


def measure() -> Figures:
    if shutil.which("cc") is None:
        note("skipped: the load is a C program, and there is no cc")
        return {}
    with tempfile.TemporaryDirectory() as made, backend() as url:
        directory = Path(made)
        directory.chmod(0o700)
        return {"reads": reads(directory, url), **starts(directory, url)}


if __name__ == "__main__":
    run(measure)
