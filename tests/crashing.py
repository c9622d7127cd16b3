"""Processes that fetch from one store, and are killed at it. What they do is in `crash_children`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PROGRAM = Path(__file__).parent / "crash_children.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one fetch.

    Attributes:
        token: A digest of the access token, if there is one.
        error: The type of the failure, if there is one.
        message: What it says.
        killed: Whether the process died of it.
        status: Its exit code, if it died.
        seconds: How long it took.
        steps: What it asked the system for, if it was to die at a later step: "before write" ...
    """

    token: str | None = None
    error: str | None = None
    message: str = ""
    killed: bool = False
    status: int = 0
    seconds: float = 0.0
    steps: Sequence[str] = ()


class Worker:
    """One process with a source of its own."""

    def __init__(self, crew: Crew, name: str) -> None:
        self._crew = crew
        self.name = name

    def fetch(self, *, kill_at: int | None = None, kill_after: float | None = None) -> Outcome:
        """Fetch once.

        Args:
            kill_at: The process kills itself at this step.
            kill_after: It is killed if it is not done after so many seconds.
        """
        self.begin(kill_at=kill_at)
        return self.outcome(kill_after=kill_after)

    def begin(self, *, kill_at: int | None = None) -> None:
        """Begin to fetch."""
        self._crew.ask("begin", name=self.name, kill_at=kill_at)

    def outcome(self, *, kill_after: float | None = None) -> Outcome:
        """Wait for what comes of what was begun."""
        return Outcome(**self._crew.ask("outcome", name=self.name, kill_after=kill_after))

    def kill(self) -> None:
        self._crew.ask("signal", name=self.name, number=signal.SIGKILL)

    def stop(self) -> None:
        self._crew.ask("signal", name=self.name, number=signal.SIGSTOP)

    def go_on(self) -> None:
        self._crew.ask("signal", name=self.name, number=signal.SIGCONT)

    def end(self) -> None:
        """Wait for its end."""
        self._crew.ask("dismiss", name=self.name)


class Crew:
    """All processes that share one store.

    Args:
        directory: Of the store.
        source: The words of `OAuth2Source`, without the store.
    """

    def __init__(self, directory: Path, **source: Any) -> None:
        self._order = {"directory": str(directory), "source": source}
        self._serial = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def hire(self) -> Worker:
        """Start a process."""
        self._serial += 1
        worker = Worker(self, f"worker-{self._serial}")
        answer = self.ask("hire", name=worker.name, **self._order)
        assert answer.get("ready"), answer
        return worker

    @contextmanager
    def hired(self) -> Iterator[Worker]:
        """Start a process, and wait for its end after the block."""
        worker = self.hire()
        yield worker
        worker.end()

    def ask(self, order: str, **details: Any) -> dict[str, Any]:
        """Give an order. Returns the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"order": order, **details}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the program that starts the processes ended"
        answer: dict[str, Any] = json.loads(line)
        return answer
