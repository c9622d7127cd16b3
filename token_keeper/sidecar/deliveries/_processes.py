"""Runs one command to its end, within its time, in the thread that calls.

It decides what is said of its end. How the command is watched and ended is in `token_keeper._processes`.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from token_keeper._model import Secret
from token_keeper._processes import ProcessGroup, read_some

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
_LOOK_S = 0.05
"""Between two looks whether something of it still runs."""


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
        self._group = ProcessGroup(self._popen, stop)
        assert self._popen.stdout is not None  # noqa: S101 - It was asked for.
        self._group.watch(self._popen.stdout, selectors.EVENT_READ, self._read)
        if gives and secret is not None and self._popen.stdin is not None:
            self._rest = secret.reveal().encode("ascii", "replace")
            self._group.watch(self._popen.stdin, selectors.EVENT_WRITE, self._feed)

    def problem(self, timeout_s: float) -> str:
        """Wait for the end, and see to it that it comes. Returns what went wrong, or nothing."""
        group = self._group
        group.pump(time.monotonic() + timeout_s, lambda: group.has_exited or group.is_stopped)
        if not group.has_exited:
            grace_s = STOP_GRACE_S if group.is_stopped else KILL_AFTER_S
            group.end(grace_s, REAP_S, self._is_gone, look_s=_LOOK_S)
            why = "the sidecar ends" if group.is_stopped else f"it took longer than {timeout_s:g} s"
            return f"was ended: {why}" if group.has_exited else f"cannot be ended, although {why}"
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
        self._group.close()

    def _is_gone(self) -> bool:
        """Whether nothing of it runs any more."""
        return self._group.has_exited and not _has_members(self._popen.pid)

    def _read(self) -> None:
        pipe = self._popen.stdout
        if pipe is None or pipe.closed:
            return
        chunk = read_some(pipe)
        if chunk == b"":
            self._group.unwatch(pipe)
            pipe.close()
        elif chunk:
            self.is_cut = self.is_cut or len(self.output) + len(chunk) > _KEPT
            self.output = (self.output + chunk)[-_KEPT:]

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
            self._group.unwatch(pipe)
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
