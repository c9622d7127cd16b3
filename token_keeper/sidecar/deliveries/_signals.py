"""Sends a signal to the process that a pid file names, and never to another one."""

from __future__ import annotations

import os
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

MAX_PID_FILE = 4_096
"""Bytes of a pid file that are read. The number stands on its first line."""
MAX_PID = 4_194_304
"""The kernel's own limit."""
SLACK_S = 2.0
"""By so much the process may seem newer than the file: the clocks of both are coarse."""

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotSent(Exception):
    """No signal was sent. The message says why, and what to do."""


def send_signal(name: str, pid_file: str) -> None:
    """Send the signal *name* to the process whose number stands in *pid_file*.

    Args:
        name: Such as ``SIGHUP``.
        pid_file: Absolute path. It and its process are checked first.

    Raises:
        NotSent: If it could not be sent, or might have reached somebody else.
    """
    pid, written_at = _process_in(pid_file)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        raise NotSent(
            f"{pid_file} names process {pid}, but there is none ({error.strerror}): is the service running?"
        ) from None
    try:
        # From here on the number cannot be taken over by another process without our notice.
        _check_age(pid, written_at, pid_file)
        signal.pidfd_send_signal(pidfd, signal.Signals[name])
    except PermissionError:
        raise NotSent(
            f"uid {os.geteuid()} may not signal process {pid} of {pid_file}: "
            "run both as one user, or give the sidecar CAP_KILL"
        ) from None
    except OSError as error:
        raise NotSent(f"process {pid} of {pid_file} got no signal: {error.strerror}") from None
    finally:
        os.close(pidfd)


def _process_in(path: str) -> tuple[int, float]:
    """Return the number in the file and when it was written."""
    try:
        file = os.open(path, _FILE)
    except OSError as error:
        raise NotSent(f"{path} cannot be read: {error.strerror}. Correct `pid_file`") from None
    try:
        found = os.fstat(file)
        _check_trust(path, found)
        line = os.read(file, MAX_PID_FILE).partition(b"\n")[0].strip()
    except OSError as error:
        raise NotSent(f"{path} cannot be read: {error.strerror}. Correct `pid_file`") from None
    finally:
        os.close(file)
    pid = int(line) if line.isdigit() and len(line) <= 7 else 0
    if not 1 < pid <= MAX_PID:
        raise NotSent(f"{path} holds no number of a process above 1 on its first line. Correct `pid_file`")
    if pid == os.getpid():
        raise NotSent(f"{path} names this sidecar itself. Correct `pid_file`")
    return pid, found.st_mtime


def _check_trust(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotSent(f"{path} is not a regular file. Correct `pid_file`")
    if found.st_uid not in {0, os.geteuid()}:
        raise NotSent(
            f"{path} belongs to uid {found.st_uid}, who could have us signal anybody: "
            f"it must belong to root or uid {os.geteuid()}"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotSent(f"others can write {path}, and could have us signal anybody: chmod go-w")
    directory = os.path.split(path)[0] or "/"
    mode = Path(directory).stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise NotSent(f"others can replace files in {directory}, so {path} is not believed: chmod o-w")


def _check_age(pid: int, written_at: float, path: str) -> None:
    """Check that the process is not newer than the file: else its number was used again."""
    started_at = _started_at(pid)
    if started_at is None:
        raise NotSent(f"/proc does not say when process {pid} of {path} started, so it is left alone")
    if started_at > written_at + SLACK_S:
        raise NotSent(
            f"process {pid} started {started_at - written_at:.0f} s after {path} was written, so it is "
            "another one: let the service write its pid file at its start"
        )


def _started_at(pid: int) -> float | None:
    """Return when the process started, in Unix seconds, or None if the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/stat").read_bytes()
        # Field 22 of all, the 20th after the name, which ends at the last bracket.
        ticks = int(status.rpartition(b")")[2].split()[19])
        booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted_at + ticks / os.sysconf("SC_CLK_TCK")
    return None
