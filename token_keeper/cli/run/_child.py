"""The program that `run` runs: how it is started, told, and buried. One thread, so a fork is safe."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from token_keeper.cli._group import Failure
from token_keeper.cli.run._kernel import Signal, end_with_parent, open_signals, read_signals

EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE = 127, 126
EXIT_KILLED = 128
"""Plus the number of the signal."""
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
PASSED = ENDING | {
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
    signal.SIGTSTP,
    signal.SIGALRM,
}
"""What is passed on. Those that were ignored when we were started stay so, here and in the child."""


class Signals:
    """The signals of this process, as something to poll instead of an interruption.

    Attributes:
        descriptor: To poll for reading.
        former: The blocked signals as they were before, for children.
    """

    def __init__(self) -> None:
        self.descriptor = -1
        self.former: Iterable[int] = ()

    def __enter__(self) -> Self:
        # Were it ignored, nobody would learn how a child ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        numbers = {number for number in PASSED if signal.getsignal(number) is not signal.SIG_IGN}
        numbers.add(signal.SIGCHLD)
        self.former = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        self.descriptor = open_signals(numbers)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def read(self) -> list[Signal]:
        """Return what came."""
        return read_signals(self.descriptor)


class Child:
    """A process that was started with *command*.

    Args:
        command: The program and its arguments.
        environ: The whole environment.
        blocked: The signals that it blocks.

    Attributes:
        started_at: Seconds of the monotonic clock.

    Raises:
        Failure: It could not be started: exit code 127 or 126.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], blocked: Iterable[int]) -> None:
        self.started_at = time.monotonic()
        self._pid = _spawned(command, environ, blocked)
        self._is_alive = True

    def send(self, number: int) -> None:
        """Send it a signal. Does nothing if it has ended."""
        # Not yet buried, its number belongs to nobody else.
        if self._is_alive:
            os.kill(self._pid, number)

    def pass_on(self, came: Signal) -> None:
        """Send it what came to us, unless the terminal sent it to both."""
        if not (came.is_from_terminal and self._is_alive and os.getpgid(self._pid) == os.getpgrp()):
            self.send(came.number)

    def bury(self) -> int | None:
        """Take note of every process that ended, also orphans; return the exit code if this one did."""
        code = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return code
            if pid == 0:
                return code
            if pid == self._pid:
                self._is_alive = False
                code = _exit_code(status)


def stop_as_asked() -> None:
    """Stop this process as Ctrl-Z does, until it is continued."""
    # Not SIGSTOP: without a shell above us nobody would continue us, and only of SIGTSTP the kernel knows.
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else EXIT_KILLED - code


def _spawned(command: Sequence[str], environ: Mapping[str, str], blocked: Iterable[int]) -> int:
    read, write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, environ, blocked, parent, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        failed = pipe.read()
    if failed:
        os.waitpid(pid, 0)
        raise _failure(int(failed))
    return pid


def _become(
    command: Sequence[str], environ: Mapping[str, str], blocked: Iterable[int], parent: int, write: int
) -> None:
    """Turn the forked process into *command*, or tell *write* the errno, and end."""
    try:
        end_with_parent(signal.SIGTERM)
        # It may have ended before the kernel was told.
        if os.getppid() != parent:
            os._exit(EXIT_KILLED + signal.SIGTERM)
        # Python ignores these two; programs expect that they end them.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.execvpe(command[0], list(command), dict(environ))  # noqa: S606 # The user's own command.
    except OSError as error:
        os.write(write, str(error.errno or 0).encode())
    finally:
        os._exit(EXIT_NOT_FOUND)


def _failure(code: int) -> Failure:
    error = OSError(code, os.strerror(code))
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Failure("the command was not found; check its name, and $PATH", EXIT_NOT_FOUND)
    return Failure(f"the command cannot be executed ({error.strerror})", EXIT_NOT_EXECUTABLE)
