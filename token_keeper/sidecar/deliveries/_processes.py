"""Runs one command to its end, within its time, in the thread that calls.

The command is alone in a session, so that whatever it starts can be ended with it. It is reaped only
after the last signal was sent: until then nobody else can get its number.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from token_keeper._model import Secret

OUTPUT_MAX = 2_048
"""Characters of a failed command's output that are kept: the last ones."""
KILL_AFTER_S = 5.0
"""After SIGTERM; then comes SIGKILL."""
STOP_GRACE_S = 0.5
"""The same when the sidecar ends."""
REAP_S = 1.0
"""After SIGKILL. What is still there sleeps in the kernel, and nobody waits for it."""

_KEPT = OUTPUT_MAX + 16_384
"""Bytes that are kept, so that a token at the cut is found whole."""
_CHUNK = 65_536
_BUSY = 4_096
"""A reading that brings more is followed by a pause."""
_PAUSE_S = 0.005
"""So a command that writes without end waits for us, and not the event loop for it."""
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a hook ended.

    Args:
        problem: What went wrong and what to do; empty if nothing did.
        output: The end of what it wrote, if something went wrong.
    """

    problem: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run.

    Args:
        run: The program and its arguments.
        environment: All of it.
        timeout_s: Seconds until SIGTERM.
        secret: Returns the token of now, or None. It is masked in the output.
        gives: Whether the command gets it on its standard input.
    """

    run: tuple[str, ...]
    environment: Mapping[str, str]
    timeout_s: float
    secret: Callable[[], Secret | None]
    gives: bool = False


def run_command(command: Command, stop: int) -> Outcome:
    """Run *command* and return how it ended. Blocks until then; never raises for what it does.

    Args:
        command: What to run.
        stop: A descriptor that becomes readable when it is to end early.
    """
    secret = command.secret()
    try:
        process = _Process(command, secret, stop)
    except OSError as error:
        return Outcome(f"could not be started: {error.strerror}. Correct `run`")
    except ValueError:
        return Outcome("could not be started: an argument holds a NUL. Correct `run`")
    try:
        problem = process.problem(command.timeout_s)
        return Outcome(problem, _masked(process.output, process.is_cut, secret)) if problem else Outcome()
    finally:
        process.close()


class _Process:
    """A command that runs."""

    def __init__(self, command: Command, secret: Secret | None, stop: int) -> None:
        program = _found(command.run[0], command.environment.get("PATH"))
        gives = command.gives and secret is not None
        self.output = b""
        self.is_cut = False
        self._has_exited = False
        self._stop = stop
        self._popen = subprocess.Popen(  # noqa: S603 - The operator wrote it; no shell.
            command.run,
            executable=program,
            stdin=subprocess.PIPE if gives else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd="/",
            env=dict(command.environment),
            start_new_session=True,
        )
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._exited)
        self._selector.register(stop, selectors.EVENT_READ, None)
        assert self._popen.stdout is not None  # noqa: S101 - It was asked for.
        self._open(self._popen.stdout.fileno(), selectors.EVENT_READ, self._read)
        if gives and secret is not None and self._popen.stdin is not None:
            self._rest = secret.reveal().encode("ascii", "replace")
            self._open(self._popen.stdin.fileno(), selectors.EVENT_WRITE, self._feed)

    def problem(self, timeout_s: float) -> str:
        """Wait for the end, and see to it that it comes. Returns what went wrong, or nothing."""
        stopped = self._pump(time.monotonic() + timeout_s)
        if not self._has_exited:
            self._end(STOP_GRACE_S if stopped else KILL_AFTER_S)
            why = "the sidecar ends" if stopped else f"it took longer than {timeout_s:g} s"
            return f"was ended: {why}" if self._has_exited else f"cannot be ended, although {why}"
        for _ in range(4):
            # What is still in the pipe. Whoever holds it open besides is not waited for.
            self._read()
        code = self._popen.wait()
        if code < 0:
            with suppress(ValueError):
                return f"was killed by {signal.Signals(-code).name}"
        return f"exited with code {code}" if code else ""

    def close(self) -> None:
        """Reap it and let go of its pipes."""
        self._selector.close()
        os.close(self._pidfd)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self._has_exited:
            self._popen.wait()
        else:
            threading.Thread(target=self._popen.wait, name="token-keeper reaper", daemon=True).start()

    def _pump(self, until: float, *, heeds_stop: bool = True) -> bool:
        """Read and write until it exited, or *until*. Returns whether it was to stop."""
        while not self._has_exited and (rest := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(rest):
                if key.data is not None:
                    key.data()
                elif heeds_stop:
                    self._selector.unregister(self._stop)
                    return True
        return False

    def _end(self, grace_s: float) -> None:
        """End the whole group, at first with SIGTERM."""
        with suppress(KeyError):
            self._selector.unregister(self._stop)
        self._signal(signal.SIGTERM)
        until = time.monotonic() + grace_s
        while time.monotonic() < until:
            self._pump(min(until, time.monotonic() + _LOOK_S))
            if self._has_exited:
                if not _has_members(self._popen.pid):
                    return
                time.sleep(_LOOK_S)
        self._signal(signal.SIGKILL)
        self._pump(time.monotonic() + REAP_S)

    def _signal(self, number: signal.Signals) -> None:
        # Not reaped yet, so the group is still ours. One that changed its user may be out of reach.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def _open(self, fd: int, event: int, act: Callable[[], None]) -> None:
        os.set_blocking(fd, False)
        self._selector.register(fd, event, act)

    def _exited(self) -> None:
        self._selector.unregister(self._pidfd)
        self._has_exited = True

    def _read(self) -> None:
        pipe = self._popen.stdout
        if pipe is None or pipe.closed:
            return
        chunk = pipe.read(_CHUNK)
        if chunk == b"":
            self._selector.unregister(pipe.fileno())
            pipe.close()
        elif chunk:
            self.is_cut = self.is_cut or len(self.output) + len(chunk) > _KEPT
            self.output = (self.output + chunk)[-_KEPT:]
            if len(chunk) > _BUSY:
                time.sleep(_PAUSE_S)

    def _feed(self) -> None:
        pipe = self._popen.stdin
        assert pipe is not None  # noqa: S101 - It is registered.
        try:
            self._rest = self._rest[os.write(pipe.fileno(), self._rest) :]
        except BlockingIOError:
            return
        except OSError:
            # It does not want to read it.
            self._rest = b""
        if not self._rest:
            self._selector.unregister(pipe.fileno())
            pipe.close()


def _found(program: str, path: str | None) -> str:
    """Return the file of *program*.

    It is looked for here, where a file system that does not answer holds up this thread alone: while a
    process is started all threads wait.
    """
    from shutil import which  # noqa: PLC0415 - It brings all compressions along, and most tokens have no hooks.

    wanted = f"/{program}" if "/" in program and not program.startswith("/") else program
    found = which(wanted, path=path)
    if found is not None:
        return found
    if "/" in wanted and Path(wanted).exists():
        raise PermissionError(13, f"uid {os.geteuid()} may not execute {wanted}")
    raise FileNotFoundError(2, f"there is no program {wanted}")


def _has_members(group: int) -> bool:
    """Whether a process of *group* still runs. Its leader has ended, but was not reaped."""
    with os.scandir("/proc") as entries:
        return any(_runs_in(group, entry.name) for entry in entries if entry.name.isdigit())


def _runs_in(group: int, pid: str) -> bool:
    with suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/stat").read_bytes()
        # The name may hold anything, also blanks and brackets; the last bracket ends it.
        state, _, belongs = status.rpartition(b")")[2].split()[:3]
        return int(belongs) == group and state != b"Z"
    return False


def _masked(output: bytes, is_cut: bool, secret: Secret | None) -> str:  # noqa: FBT001 - two facts of one thing
    """Return the end of *output* as text, without the token, also where a cut goes through it."""
    text = output.decode("utf-8", "replace")
    if secret is None or not secret.reveal():
        return text.strip()[-OUTPUT_MAX:]
    text = text.replace(secret.reveal(), f"<token {secret.fingerprint}>")
    length = len(secret.reveal())
    if is_cut:
        text = text[_longest(lambda n: text.startswith(secret.reveal()[-n:]), length) :]
    cut = _longest(lambda n: text.endswith(secret.reveal()[:n]), length)
    # Fewer than four characters of it are more likely something else.
    return (text[:-cut] if cut >= 4 else text).strip()[-OUTPUT_MAX:]


def _longest(fits: Callable[[int], bool], length: int) -> int:
    return next((n for n in range(length - 1, 0, -1) if fits(n)), 0)
