"""A program that runs in a session of its own, so that whatever it starts can be ended with it.

It is reaped only after the last signal was sent: until then nobody else can get its number. Neither
signals of the host program nor the watchers of its event loop have a part in this.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Final

CHUNK: Final = 65_536
"""Bytes that are read at once."""
_BUSY: Final = 4_096
"""A reading that brings more is followed by a pause."""
_PAUSE_S: Final = 0.005
"""So a program that writes without end waits for us, and the other threads do not wait for it."""
_POLL_S: Final = 0.02
"""Between two looks whether it ended, where the system cannot tell that by itself."""


class ProcessGroup:
    """A program with all that it starts. It blocks, and is for one thread.

    Args:
        popen: The program, in a session of its own, with pipes that are not buffered.
        stop: A descriptor that becomes readable when it is to end early.
    """

    def __init__(self, popen: subprocess.Popen[bytes], stop: int) -> None:
        self.has_exited = False
        self.is_stopped = False
        self._popen = popen
        self._stop = stop
        self._pidfd = _pidfd(popen.pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(stop, selectors.EVENT_READ, self._stopped)
        if self._pidfd is not None:
            self._selector.register(self._pidfd, selectors.EVENT_READ, self._exited)

    def watch(self, pipe: IO[bytes], event: int, act: Callable[[], Any]) -> None:
        """Call *act* when *pipe* can be read or written, as the *event* of `selectors` says."""
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, event, act)

    def unwatch(self, pipe: IO[bytes]) -> None:
        """Leave *pipe* alone from now on."""
        self._selector.unregister(pipe)

    def pump(self, until: float, is_done: Callable[[], bool], *, look_s: float | None = None) -> None:
        """Let happen what happens until *is_done*.

        Args:
            until: When to give up, by the monotonic clock.
            is_done: Asked after whatever happens.
            look_s: Seconds after which it is asked although nothing did.
        """
        if self._pidfd is None:
            look_s = _POLL_S
        while not is_done() and (rest := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(rest if look_s is None else min(rest, look_s)):
                key.data()
            if self._pidfd is None and _is_over(self._popen.pid):
                self.has_exited = True

    def end(
        self, grace_s: float, reap_s: float, is_done: Callable[[], bool], *, look_s: float | None = None
    ) -> None:
        """End all of it: with SIGTERM, and with SIGKILL what is left of it then.

        Args:
            grace_s: Seconds between the two, unless *is_done* before.
            reap_s: Seconds that the end may take after SIGKILL.
            is_done: As in `pump`.
            look_s: As in `pump`.
        """
        with suppress(KeyError):
            self._selector.unregister(self._stop)
        self._signal(signal.SIGTERM)
        self.pump(time.monotonic() + grace_s, is_done, look_s=look_s)
        self._signal(signal.SIGKILL)
        self.pump(time.monotonic() + reap_s, lambda: self.has_exited)

    def close(self) -> None:
        """Reap it and let go of its pipes. One that did not end is reaped when it does."""
        self._selector.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self.has_exited:
            self._popen.wait()
        else:
            threading.Thread(target=self._popen.wait, name="token_keeper reaper", daemon=True).start()

    def _signal(self, number: signal.Signals) -> None:
        # Whoever ignores SIGCHLD has it reaped by the kernel: then its number may be another's.
        # One that changed its user may be out of reach.
        if _is_ours(self._popen.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def _exited(self) -> None:
        self._selector.unregister(self._pidfd)  # type: ignore[arg-type] # It was registered.
        self.has_exited = True

    def _stopped(self) -> None:
        self._selector.unregister(self._stop)
        self.is_stopped = True


def read_some(pipe: IO[bytes]) -> bytes | None:
    """Return what stands in *pipe*, nothing at its end, and None if nothing stands in it now."""
    chunk = pipe.read(CHUNK)
    if chunk and len(chunk) > _BUSY:
        time.sleep(_PAUSE_S)
    return chunk


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
