"""Runs a program for what it prints, within its time and bounds, in the thread that calls.

It decides what counts as a good end. How the program is watched and ended is in `_processes`.
"""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, Final

from token_keeper._model import Secret
from token_keeper._processes import ProcessGroup, read_some
from token_keeper.sources._start import CannotStartError, Program, started

OUTPUT_LIMIT: Final = 1_048_576
"""Bytes that a program may print."""
KILL_AFTER_S: Final = 0.5
"""After SIGTERM; then comes SIGKILL."""
REAP_S: Final = 0.5
"""After SIGKILL. What is still there sleeps in the kernel, and nobody waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended.

    Args:
        output: What it printed, if all went well.
        problem: What went wrong, as in "it PROBLEM"; empty if nothing did.
        advice: What to do about that.
        unseen: Bytes that it wrote to its standard error.
        timed_out: Whether it took too long.
    """

    output: Secret | None = None
    problem: str = ""
    advice: str = ""
    unseen: int = 0
    timed_out: bool = False


class Running:
    """One run of a program.

    Args:
        program: What to run.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._is_closed = False
        self._heard, self._bell = os.pipe()

    def ended(self) -> Ended:
        """Run it and return how it ended. Blocks until then; raises nothing for what it does. Once."""
        try:
            process = _Process(self._program, self._heard)
        except CannotStartError as error:
            return Ended(problem=error.problem, advice=error.advice)
        else:
            return process.ended(self._program.timeout_s)
        finally:
            self.close()

    def stop(self) -> None:
        """End it early. From any thread."""
        with self._lock:
            if not self._is_closed:
                os.write(self._bell, b".")

    def close(self) -> None:
        """Let go of what `stop` needs. Does nothing the second time."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._heard)
                os.close(self._bell)


class _Process:
    """A program that runs."""

    def __init__(self, program: Program, stop: int) -> None:
        self._popen = started(program)
        self._output = bytearray()
        self._unseen = 0
        self._group = ProcessGroup(self._popen, stop)
        self._open: dict[IO[bytes], Callable[[bytes], None]] = {}
        for pipe, take in ((self._popen.stdout, self._keep), (self._popen.stderr, self._count)):
            assert pipe is not None  # noqa: S101 - It was asked for.
            self._open[pipe] = take
            self._group.watch(pipe, selectors.EVENT_READ, partial(self._read, pipe))

    def ended(self, timeout_s: float) -> Ended:
        """Wait for its end, and see to it that it comes."""
        group = self._group
        try:
            group.pump(
                time.monotonic() + timeout_s,
                lambda: group.has_exited or group.is_stopped or self._is_too_much(),
            )
            if not group.has_exited or self._is_too_much():
                return self._cut_short(timeout_s)
            for pipe in list(self._open):
                # What is still in it. Whoever holds it open besides is not waited for.
                while self._read(pipe) and not self._is_too_much():
                    pass
            return self._too_much() if self._is_too_much() else self._outcome()
        finally:
            group.close()

    def _outcome(self) -> Ended:
        code = self._popen.wait()
        if code:
            advice = "Run it by hand, as the same user, to see why"
            return Ended(problem=_ending(code), advice=advice, unseen=self._unseen)
        with suppress(UnicodeDecodeError):
            return Ended(output=Secret(self._output.decode("utf-8")), unseen=self._unseen)
        # Out of the handler: that exception holds the output.
        return Ended(problem="printed what is no text in UTF-8", advice="Let it print a token, or JSON")

    def _cut_short(self, timeout_s: float) -> Ended:
        """End it, and return why."""
        group = self._group
        group.end(KILL_AFTER_S, REAP_S, lambda: group.has_exited and not self._open)
        if self._is_too_much():
            return self._too_much()
        if group.is_stopped:
            return Ended(problem="was ended: nobody waits for its token any more")
        how = "was ended" if group.has_exited else "cannot be ended"
        return Ended(
            problem=f"did not end within {timeout_s:g} s and {how}",
            advice="If it usually takes longer, raise timeout; it must ask nobody for anything",
            unseen=self._unseen,
            timed_out=True,
        )

    def _read(self, pipe: IO[bytes]) -> bool:
        """Take what stands in *pipe*. Returns whether there may be more."""
        chunk = read_some(pipe)
        if chunk == b"":
            self._group.unwatch(pipe)
            del self._open[pipe]
        elif chunk:
            self._open[pipe](chunk)
        return bool(chunk)

    def _keep(self, chunk: bytes) -> None:
        self._output += chunk[: OUTPUT_LIMIT + 1 - len(self._output)]

    def _count(self, chunk: bytes) -> None:
        self._unseen += len(chunk)

    def _is_too_much(self) -> bool:
        return len(self._output) > OUTPUT_LIMIT

    def _too_much(self) -> Ended:
        return Ended(
            problem=f"printed more than {OUTPUT_LIMIT // 1_048_576} MiB and was ended",
            advice="Let it print a token, or JSON",
            unseen=self._unseen,
        )


def _ending(code: int) -> str:
    """Say in words how a program ended that did not go well."""
    if code > 0:
        return f"ended with exit status {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
