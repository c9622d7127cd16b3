"""Small programs for tests, and what becomes of them: real scripts, real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 10.0


def script(directory: Path, body: str, *, name: str = "give-token", first: str = "#!/bin/sh") -> str:
    """Write an executable script and return its path."""
    path = directory / name
    path.write_text(f"{first}\n{body}\n")
    path.chmod(0o755)
    return str(path)


def until(look: Callable[[], T], *, within_s: float = PATIENCE_S) -> T:
    """Return the first true result of *look*; it is asked again and again."""
    deadline = time.monotonic() + within_s
    while not (result := look()):
        assert time.monotonic() < deadline, f"it did not happen within {within_s:g} s: {look}"
        time.sleep(0.005)
    return result


def pid_in(path: Path) -> int:
    """Return the process id that a script wrote to *path*, once it is there."""
    return int(until(lambda: path.exists() and path.read_text().strip()))


def runs(pid: int) -> bool:
    """Whether *pid* is a process that runs: neither gone nor a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def end(pid: int) -> None:
    """Kill *pid*, if it still is there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def children() -> set[int]:
    """Return the children of this process, zombies included, whichever thread started them."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def descriptors() -> set[str]:
    """Return the open descriptors of this process."""
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - The listing itself opens one more.
