"""Runs the client commands as a user does: as processes, in pipes and in terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

PROGRAM = str(Path(sys.executable).with_name("token-keeper"))
PATIENCE_S = 20.0
SHELL = """
import os, signal, subprocess, sys, time

def to_foreground():
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)

def state(pid):
    return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]

def family(pid):
    return [pid, *map(int, open(f"/proc/{pid}/task/{pid}/children").read().split())]

job = subprocess.Popen(sys.argv[1:], preexec_fn=to_foreground)
_, status = os.waitpid(job.pid, os.WUNTRACED)
while not all(state(pid) == "T" for pid in family(job.pid)):
    time.sleep(0.01)
print("STOPPED", flush=True)
os.killpg(job.pid, signal.SIGCONT)
_, status = os.waitpid(job.pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Does what a shell does for a job that is stopped once by Ctrl-Z, and then continued."""

CSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

LOGIN = "import os, sys; os.login_tty(os.open(sys.argv[1], os.O_RDWR)); os.execv(sys.argv[2], sys.argv[2:])"
# Nobody may not be able to read the interpreter's files: what is needed is loaded before.
AS_NOBODY = (
    "import locale, os, sys, token_keeper.cli._get; from token_keeper.cli._group import cli; "
    "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(cli.run(sys.argv[1:]))"
)


def environ(socket_path: Path | str | None = None, **more: str) -> dict[str, str]:
    """Return our environment for a client of the sidecar at *socket_path*."""
    dropped = {"TOKEN_KEEPER_SOCKET", "XDG_RUNTIME_DIR", "NO_COLOR", "COLUMNS"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    where = {} if socket_path is None else {"TOKEN_KEEPER_SOCKET": str(socket_path)}
    return {**kept, **where, **more}


def command(
    *args: str,
    at: Path | str | None = None,
    stdin: str = "",
    env: dict[str, str] | None = None,
    **popen: object,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, against the sidecar *at* a socket."""
    return subprocess.run(
        [PROGRAM, *args],
        env=env if env is not None else environ(at),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        **popen,
    )


def command_as_nobody(*args: str, at: Path | str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user who is not the sidecar's. Only root can."""
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *args],
        env=environ(at),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


@contextmanager
def begun(*args: str, at: Path | str | None = None, **popen: object) -> Iterator[subprocess.Popen[str]]:
    """Start a command; in the end it is killed, if it still runs."""
    popen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environ(at), **popen}
    with subprocess.Popen([PROGRAM, *args], text=True, **popen) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(stream, *, containing: str = "", within_s: float = PATIENCE_S) -> str:
    """Read lines of *stream*, of a process, up to one with *containing*; return it."""
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(_up_to(stream, containing)), daemon=True)
    reader.start()
    reader.join(within_s)
    assert found, f"there was no line with {containing!r} within {within_s:g} s"
    return found[0]


def _up_to(stream, containing: str) -> Iterator[str]:
    for line in stream:
        if containing in line:
            yield line
            return
    yield ""


@contextmanager
def speaking(path: Path | str, *answers: bytes | Callable[[socket.socket], None]) -> Iterator[list[bytes]]:
    """Stand where a sidecar would: give each connection the next of *answers*, the last one for ever.

    Bytes are sent once the request was read, then the connection is closed; a
    callable gets the connection. Yields the requests, as they came.
    """
    requests: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        index = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            answer = answers[min(index, len(answers) - 1)]
            index += 1
            with connection, suppress(OSError):
                connection.settimeout(PATIENCE_S)
                if callable(answer):
                    answer(connection)
                    continue
                requests.append(request_in(connection))
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE_S)
        Path(path).unlink(missing_ok=True)


def request_in(connection: socket.socket) -> bytes:
    """Read the head of a request."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = connection.recv(65_536)
        if not piece:
            break
        request += piece
    return request


def json_answer(text: str, status: int = 200) -> bytes:
    """Return an HTTP answer with *text* as its body."""
    body = text.encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


class InTerminal:
    """A command in a terminal of its own, which is its controlling one.

        with InTerminal("status", "--watch", at=path) as shown:
            shown.until("fresh")
            shown.type("q")
            assert shown.ended() == 0

    Args:
        args: Of the command.
        at: The sidecar's socket.
        columns: Of the terminal.
        lines: Of the terminal.
        in_shell: Whether there is a shell above it, which continues it after Ctrl-Z.
    """

    def __init__(
        self,
        *args: str,
        at: Path | str | None = None,
        columns: int = 80,
        lines: int = 24,
        in_shell: bool = False,
        **env: str,
    ) -> None:
        self._terminal, inside = pty.openpty()
        self._raw = b""
        self.resize(columns, lines)
        above = (sys.executable, "-c", SHELL) if in_shell else ()
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOGIN, os.ttyname(inside), *above, PROGRAM, *args],
            env=environ(at, TERM="xterm-256color", LANG="C.UTF-8", **env),
        )
        self._inside = inside

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self._terminal)
        os.close(self._inside)

    @property
    def raw(self) -> str:
        """All that was written so far."""
        while select.select([self._terminal], [], [], 0)[0]:
            try:
                self._raw += os.read(self._terminal, 65_536)
            except OSError:
                break
        return self._raw.decode("utf-8", "replace")

    @property
    def mode(self) -> list[object]:
        """The terminal's settings."""
        return termios.tcgetattr(self._inside)

    def last_screen(self) -> list[str]:
        """Return the lines of the last picture that is complete."""
        pictures = self.raw.split("\x1b[H")
        whole = [picture for picture in pictures[1:] if "\x1b[J" in picture]
        assert whole, "nothing was drawn"
        return [CSI.sub("", line).rstrip("\r") for line in whole[-1].split("\x1b[J")[0].split("\n")]

    def until(self, text: str, *, after: int = 0, within_s: float = PATIENCE_S) -> int:
        """Wait until *text* was written beyond *after*; return where it ends."""
        deadline = time.monotonic() + within_s
        while (at := self.raw.find(text, after)) < 0:
            assert time.monotonic() < deadline, f"{text!r} was not shown; there was {self.raw[after:]!r}"
            assert self.process.poll() is None or text in self.raw, f"it ended; there was {self.raw!r}"
            select.select([self._terminal], [], [], 0.05)
        return at + len(text)

    def type(self, keys: str) -> None:
        """Press *keys*."""
        os.write(self._terminal, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the terminal's size."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def ended(self, within_s: float = PATIENCE_S) -> int:
        """Wait for the end; return the exit code."""
        deadline = time.monotonic() + within_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it did not end; there was {self.raw!r}"
            select.select([self._terminal], [], [], 0.05)
            _ = self.raw
        return self.process.returncode


def is_running(pid: int) -> bool:
    """Whether a process *pid* runs; one that waits for its burial does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False
