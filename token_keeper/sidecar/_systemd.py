"""What a service manager wants to hear, and the sockets that it passes: sd_notify(3), sd_listen_fds(3).

Both protocols are a few lines, so no package is needed for them. Without
systemd nothing here does anything.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from token_keeper.sidecar.server._sockets import CannotListenError, loopback_address

FIRST_FD = 3
"""Where passed sockets begin."""
PASSED_MAX = 16
"""Sockets that may be passed."""


class Notifier:
    """Tells the service manager how we are. Never raises, never blocks.

    Args:
        address: Of its socket; empty if nobody listens.
        watchdog_s: How often it wants a sign of life, in seconds; None never.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = watchdog_s

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Return the one that *environ* describes. It is taken out, so that no program inherits it."""
        address = environ.pop("NOTIFY_SOCKET", "")
        interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        microseconds = int(interval) if interval.isascii() and interval.isdigit() and ours else 0
        known = address if address.startswith(("/", "@")) else ""
        return cls(known, microseconds / 1e6 if known and microseconds else None)

    def ready(self, status: str) -> None:
        """Say that we serve; *status* is for people."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that we read the configuration again; `ready` follows."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self) -> None:
        """Say that we end."""
        self._send("STOPPING=1", "STATUS=Stopping")

    def alive(self) -> None:
        """Give a sign of life."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with (
            suppress(OSError),
            socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as way,
        ):
            way.sendto("\n".join(lines).encode(), self._address)


@dataclass(frozen=True, slots=True)
class Passed:
    """The listening sockets that were passed to us."""

    unix: tuple[socket.socket, ...] = ()
    tcp: tuple[socket.socket, ...] = ()

    def path(self) -> Path | None:
        """Return where the first Unix socket is, if it is in the file system."""
        names = [one.getsockname() for one in self.unix]
        return next((Path(name) for name in names if isinstance(name, str) and name.startswith("/")), None)


def passed_sockets(
    environ: MutableMapping[str, str], *, open_fd: Callable[[int], socket.socket] | None = None
) -> Passed:
    """Return the sockets that *environ* says were passed, and take that out of it.

    Raises:
        CannotListenError: If one is not what we listen on.
    """
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return Passed()
    if int(count) > PASSED_MAX:
        raise _wrong(f"{count} sockets were passed, at most {PASSED_MAX} are served")
    sockets = [_checked((open_fd or _opened)(FIRST_FD + place)) for place in range(int(count))]
    unix = tuple(one for one in sockets if one.family == socket.AF_UNIX)
    return Passed(unix, tuple(one for one in sockets if one not in unix))


def _opened(descriptor: int) -> socket.socket:
    try:
        # Not for programs that we start.
        os.set_inheritable(descriptor, False)
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise _wrong(f"what was passed as descriptor {descriptor} is no socket ({error.strerror})") from None


def _checked(passed: socket.socket) -> socket.socket:
    passed.setblocking(False)
    if passed.type != socket.SOCK_STREAM or not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise _wrong("a passed socket does not listen for streams; use ListenStream= and Accept=no")
    if passed.family == socket.AF_UNIX:
        return passed
    is_inet = passed.family in {socket.AF_INET, socket.AF_INET6}
    if not is_inet or loopback_address(str(passed.getsockname()[0])) is None:
        raise _wrong(
            "a passed socket is neither a Unix socket nor TCP on loopback, and tokens are not served to "
            "other machines; use a path, 127.0.0.1 or [::1] with ListenStream="
        )
    return passed


def _wrong(what: str) -> CannotListenError:
    return CannotListenError(f"socket activation: {what}", os.EX_CONFIG)
