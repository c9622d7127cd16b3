"""Runs a program for what it prints, within its time and bounds, in the thread that calls.

The program is alone in a session, so that whatever it starts can be ended with it. It is reaped
only after the last signal was sent: until then nobody else can get its number. Neither signals of
the host program nor the watchers of its event loop have a part in this.
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
from typing import IO, Final

from token_keeper._model import Secret
from token_keeper.sources._start import CannotStartError, Program, started

OUTPUT_LIMIT: Final = 1_048_576
"""Bytes that a program may print."""
KILL_AFTER_S: Final = 0.5
"""After SIGTERM; then comes SIGKILL."""
REAP_S: Final = 0.5
"""After SIGKILL. What is still there sleeps in the kernel, and nobody waits for it."""

_CHUNK: Final = 65_536
_BUSY: Final = 4_096
"""A reading that brings more is followed by a pause."""
_PAUSE_S: Final = 0.001
"""So a program that writes without end waits for us, and the other threads do not wait for it."""
_POLL_S: Final = 0.02
"""Between two looks whether it ended, where the system cannot tell that by itself."""


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
        assert self._popen.stdout is not None  # noqa: S101 - It was asked for.
        assert self._popen.stderr is not None  # noqa: S101 - As above.
        self._output = bytearray()
        self._unseen = 0
        self._has_exited = False
        self._is_stopped = False
        self._stop = stop
        self._selector = selectors.DefaultSelector()
        self._pidfd = _pidfd(self._popen.pid)
        self._selector.register(stop, selectors.EVENT_READ, self._stopped)
        if self._pidfd is not None:
            self._selector.register(self._pidfd, selectors.EVENT_READ, self._exited)
        self._open: set[IO[bytes]] = set()
        self._listen(self._popen.stdout, self._keep)
        self._listen(self._popen.stderr, self._count)

    def ended(self, timeout_s: float) -> Ended:
        """Wait for its end, and see to it that it comes."""
        try:
            self._pump(time.monotonic() + timeout_s, lambda: self._has_exited)
            if not self._has_exited or self._is_too_much():
                return self._cut_short(timeout_s)
            for pipe in list(self._open):
                # What is still in it. Whoever holds it open besides is not waited for.
                self._drain(pipe)
            return self._too_much() if self._is_too_much() else self._outcome()
        finally:
            self._close()

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
        self._end()
        if self._is_too_much():
            return self._too_much()
        if self._is_stopped:
            return Ended(problem="was ended: nobody waits for its token any more")
        how = "was ended" if self._has_exited else "cannot be ended"
        return Ended(
            problem=f"did not end within {timeout_s:g} s and {how}",
            advice="If it usually takes longer, raise timeout; it must ask nobody for anything",
            unseen=self._unseen,
            timed_out=True,
        )

    def _end(self) -> None:
        """End the whole group, at first with SIGTERM."""
        with suppress(KeyError):
            self._selector.unregister(self._stop)
        self._signal(signal.SIGTERM)
        self._pump(time.monotonic() + KILL_AFTER_S, lambda: self._has_exited and not self._open)
        self._signal(signal.SIGKILL)
        self._pump(time.monotonic() + REAP_S, lambda: self._has_exited)

    def _pump(self, until: float, is_done: Callable[[], bool]) -> None:
        """Read until *is_done*, or *until*, or it was stopped or printed too much."""
        ending = self._is_stopped or self._is_too_much()
        while not is_done() and (rest := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(rest if self._pidfd is not None else min(rest, _POLL_S)):
                key.data()
            if self._pidfd is None and _is_over(self._popen.pid):
                self._has_exited = True
            if not ending and (self._is_stopped or self._is_too_much()):
                return

    def _signal(self, number: signal.Signals) -> None:
        # Whoever ignores SIGCHLD has it reaped by the kernel: then its number may be another's.
        if _is_ours(self._popen.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def _listen(self, pipe: IO[bytes], take: Callable[[bytes], None]) -> None:
        os.set_blocking(pipe.fileno(), False)
        self._open.add(pipe)
        self._selector.register(pipe, selectors.EVENT_READ, lambda: self._read(pipe, take))

    def _drain(self, pipe: IO[bytes]) -> None:
        read = self._selector.get_key(pipe).data
        while read() and not self._is_too_much():
            pass

    def _read(self, pipe: IO[bytes], take: Callable[[bytes], None]) -> bool:
        """Take what stands in *pipe*. Returns whether there may be more."""
        chunk = pipe.read(_CHUNK)
        if chunk == b"":
            self._selector.unregister(pipe)
            self._open.discard(pipe)
        if not chunk:
            return False
        take(chunk)
        if len(chunk) > _BUSY:
            time.sleep(_PAUSE_S)
        return True

    def _keep(self, chunk: bytes) -> None:
        self._output += chunk[: OUTPUT_LIMIT + 1 - len(self._output)]

    def _count(self, chunk: bytes) -> None:
        self._unseen += len(chunk)

    def _exited(self) -> None:
        self._selector.unregister(self._pidfd)  # type: ignore[arg-type] # It was registered.
        self._has_exited = True

    def _stopped(self) -> None:
        self._selector.unregister(self._stop)
        self._is_stopped = True

    def _is_too_much(self) -> bool:
        return len(self._output) > OUTPUT_LIMIT

    def _too_much(self) -> Ended:
        return Ended(
            problem=f"printed more than {OUTPUT_LIMIT // 1_048_576} MiB and was ended",
            advice="Let it print a token, or JSON",
            unseen=self._unseen,
        )

    def _close(self) -> None:
        """Reap it and let go of its pipes."""
        self._selector.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
        for pipe in (self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()
        if self._has_exited:
            self._popen.wait()
        else:
            threading.Thread(target=self._popen.wait, name="token_keeper reaper", daemon=True).start()


def _ending(code: int) -> str:
    """Say in words how a program ended that did not go well."""
    if code > 0:
        return f"ended with exit status {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


def _pidfd(pid: int) -> int | None:
    """Return what becomes readable when *pid* ends, or None if the system has no such thing."""
    with suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None


def _is_over(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _is_ours(pid: int) -> bool:
    """Whether *pid* was not reaped yet."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False
