"""Programs that tests start as their reader would, and follow by what they print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from token_keeper.testing import FakeBackend

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
TIMEOUT_S = 30


def _is_ours(name: str) -> bool:
    """Whether a variable of our own surroundings would change what an example does."""
    # Unbuffered, a line of `print` is two writes, between which the log may come.
    return name.lower().endswith("_proxy") or name == "PYTHONUNBUFFERED"


def surroundings(**environment: str) -> dict[str, str]:
    """Return the environment of a program: ours, without what would change it, and *environment*.

    The commands of our interpreter's environment, such as `token-keeper`, are found first.
    """
    kept = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | environment


@contextmanager
def following(
    *command: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start *command*; its output and errors are in one stream. At the end its whole group is killed."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=surroundings(**(environment or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as program:
        # Reading what it says would wait for ever for a program that hangs.
        watchdog = threading.Timer(TIMEOUT_S, _kill_group, (program.pid,))
        watchdog.start()
        try:
            yield program
        finally:
            watchdog.cancel()
            _kill_group(program.pid)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def running(name: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start the example *name*, a Python program; a warning ends it."""
    path = str(EXAMPLES / name)
    with following(sys.executable, "-W", "error", path, environment=environment) as program:
        yield program


def run(name: str, **environment: str) -> list[str]:
    """Run an example to its end and return the lines that it printed."""
    with running(name, **environment) as program:
        said, _ = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0, said
    return said.splitlines()


def read_until(stream: Iterable[str] | None, word: str) -> list[str]:
    """Return the lines up to the first one with *word* in it."""
    assert stream is not None
    lines: list[str] = []
    for line in stream:
        lines.append(line.rstrip())
        if word in line:
            return lines
    said = "\n".join([*lines[:20], "...", *lines[-20:]])
    raise AssertionError(f"{word!r} was never printed, but:\n{said}")


def stopped(program: subprocess.Popen[str]) -> str:
    """End *program* with SIGTERM, expect that it ends well, and return the rest of what it said."""
    program.send_signal(signal.SIGTERM)
    said, _ = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0, said
    return said


def shown_to(api: FakeBackend) -> list[str]:
    """Return the tokens that *api* was shown, in order."""
    return [request.headers["authorization"].removeprefix("Bearer ") for request in api.requests]
