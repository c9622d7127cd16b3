"""Starts a program, or says in words why it does not start."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run.

    Args:
        run: The program and its arguments.
        environment: All of it.
        directory: Where to run it, or None for the directory of now.
        timeout_s: Seconds until it is ended.
    """

    run: tuple[str, ...] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    directory: str | None
    timeout_s: float


class CannotStartError(Exception):
    """The program does not even start.

    Args:
        problem: Why, as in "it PROBLEM".
        advice: What to do about it.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.advice = advice


def started(program: Program) -> subprocess.Popen[bytes]:
    """Start *program* in a session of its own, its output and standard error in pipes.

    Raises:
        CannotStartError: If it does not start.
    """
    name = program.run[0]
    if program.directory is not None and not os.path.isdir(program.directory):  # noqa: PTH112 - It stays a string.
        raise CannotStartError(f"was not started: there is no directory {program.directory}", "Correct cwd")
    path = _found(name, program.environment.get("PATH", os.defpath), program.directory)
    try:
        return subprocess.Popen(  # noqa: S603 - The user wrote it; no shell unless he asked for one.
            program.run,
            executable=path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=program.directory,
            env=dict(program.environment),
            start_new_session=True,
        )
    except OSError as error:
        problem, advice = _start_problem(error)
    except ValueError:
        problem, advice = "was not started: an argument or a variable holds a NUL", "Correct run and env"
    raise CannotStartError(problem, advice)


def _found(name: str, path: str, directory: str | None) -> str:
    """Return the file of the program *name*.

    It is looked for here, where a file system that does not answer holds up this thread alone: while a
    process is started all threads wait.
    """
    if "/" in name:
        candidates = [os.path.join(directory or "", name)]  # noqa: PTH118 - Names, as they are written.
    else:
        candidates = [os.path.join(place, name) for place in path.split(os.pathsep) if place]  # noqa: PTH118
    problem, advice = (
        "was not found",
        "Install it, or write its whole path" if "/" not in name else "Correct run",
    )
    for candidate in candidates:
        try:
            mode = os.stat(candidate).st_mode  # noqa: PTH116 - As above.
        except OSError as error:
            if error.errno == errno.EACCES:
                problem, advice = f"may not be reached by uid {os.geteuid()}", "Correct the modes on its path"
            continue
        if stat.S_ISREG(mode) and os.access(candidate, os.X_OK):
            # With a directory given it is run there; ours is that of now.
            return os.path.abspath(candidate)  # noqa: PTH100 - As above.
        if stat.S_ISDIR(mode):
            problem, advice = "is a directory", "Correct run"
        else:
            problem, advice = f"is not executable for uid {os.geteuid()}", "Correct its mode: chmod +x"
    raise CannotStartError(problem, advice)


def _start_problem(error: OSError) -> tuple[str, str]:
    """Say why a file that may be executed was not."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return (
            "was not started: the interpreter in its first line is not there",
            "Install that, or correct the line",
        )
    if error.errno == errno.ENOEXEC:
        return (
            "was not started: it is no program",
            "If it is a script, let its first line name the interpreter",
        )
    return f"was not started ({error.strerror})", "Correct run"
