"""Sockets of our own: where we listen, and that nobody else stands there.

It decides what may be bound, replaced and removed. Nothing here reads from a connection.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG = 1_024
USUAL_PATH = "/run/token-keeper/api.sock"
PATH_MAX = 107
"""Bytes that fit into the address of a Unix socket."""
ANSWER_S = 1.0
"""How long whoever holds a socket may take to accept a connection."""


class CannotListenError(Exception):
    """A socket cannot be ours, in words for the operator.

    Args:
        message: What is in the way, and what to do.
        code: The exit code for it.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def usual_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the socket is if nobody says where."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime, "token-keeper", "api.sock") if runtime.startswith("/") else Path(USUAL_PATH)


@dataclass(slots=True, eq=False)
class UnixListener:
    """A Unix socket that we made and will remove.

        listener = UnixListener.bind(path, is_open=False)
        ...
        listener.close()

    Attributes:
        path: Where it is.
        socket: It listens.
    """

    path: Path
    socket: socket.socket
    _lock: int
    _identity: tuple[int, int]

    @classmethod
    def bind(cls, path: Path, *, is_open: bool) -> Self:
        """Listen at *path*; its directory is made if it is missing.

        Args:
            path: Absolute.
            is_open: Others may connect, and are judged by who they are.

        Raises:
            CannotListenError: If somebody else is or may be there.
        """
        if len(os.fsencode(path)) > PATH_MAX:
            raise CannotListenError(
                f"server.socket: {path} is longer than {PATH_MAX} bytes, more than a socket's "
                "address holds; choose a shorter path",
                os.EX_CONFIG,
            )
        with _mapped(path):
            _own_directory(path.parent, 0o711 if is_open else 0o700)
            lock = _locked(path)
            try:
                _make_room(path)
                bound = _bound(path, 0o666 if is_open else 0o600)
            except BaseException:
                os.close(lock)
                raise
        state = path.lstat()
        return cls(path, bound, lock, (state.st_dev, state.st_ino))

    def close(self) -> None:
        """Stop listening; remove the socket if it is still ours. Does nothing the second time."""
        if self._lock < 0:
            return
        self.socket.close()
        with suppress(OSError):
            state = self.path.lstat()
            if (state.st_dev, state.st_ino) == self._identity:
                self.path.unlink()
        # The lock file stays: were it removed, two servers could hold locks on two files of that name.
        os.close(self._lock)
        self._lock = -1


def bind_tcp(host: str, port: int) -> socket.socket:
    """Listen on loopback.

    Args:
        host: ``localhost``, or an address such as ``127.0.0.1`` or ``::1``.
        port: 0 takes any.

    Raises:
        CannotListenError: If it is no loopback address, or the port is taken.
    """
    address = loopback_address(host)
    if address is None:
        raise CannotListenError(
            f"server.listen: {host} is not on loopback, and tokens are not served to other machines; "
            "use 127.0.0.1 or [::1], or a proxy with TLS in front of the socket",
            os.EX_CONFIG,
        )
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        code = os.EX_NOPERM if error.errno in {errno.EACCES, errno.EPERM} else os.EX_CANTCREAT
        raise CannotListenError(
            f"server.listen: cannot listen on {host} port {port} ({error.strerror}); "
            "see who listens there with: ss -tlnp",
            code,
        ) from None
    return listener


def loopback_address(host: str) -> str | None:
    """Return the address that *host* stands for, or None if it is not on loopback."""
    if host.lower() == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    # A zone (`::1%eth0`) or an IPv4 address in IPv6's clothes is not what it looks like.
    is_plain = address.is_loopback and not getattr(address, "scope_id", None)
    return str(address) if is_plain and not getattr(address, "ipv4_mapped", None) else None


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        denied = error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}
        raise CannotListenError(
            f"server.socket: cannot listen at {path} ({error.strerror}); "
            "choose another place with server.socket or --socket, in a directory that "
            f"uid {os.geteuid()} can write, or let systemd make one with RuntimeDirectory=",
            os.EX_NOPERM if denied else os.EX_CANTCREAT,
        ) from None


def _own_directory(directory: Path, mode: int) -> None:
    if not directory.exists():
        for missing in reversed([place for place in directory.parents if not place.exists()]):
            # One by one: pathlib makes parents as open as the umask allows.
            missing.mkdir(mode=0o755, exist_ok=True)
        with suppress(FileExistsError):
            directory.mkdir(mode=mode)
            # Only adds what the umask took: the directory is ours and new.
            directory.chmod(mode)
    link, state = directory.lstat(), directory.stat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in {0, os.geteuid()}:
        raise CannotListenError(
            f"server.socket: the directory {directory} is a link of uid {link.st_uid}, who could let it lead "
            "elsewhere; remove the link, or use a directory of our own",
            os.EX_NOPERM,
        )
    if not stat.S_ISDIR(state.st_mode):
        raise CannotListenError(
            f"server.socket: {directory} is no directory; choose a path in a directory", os.EX_CANTCREAT
        )
    if state.st_uid not in {0, os.geteuid()}:
        raise CannotListenError(
            f"server.socket: the directory {directory} belongs to uid {state.st_uid}, who could put "
            "another socket in our place; use a directory of our own",
            os.EX_NOPERM,
        )
    if state.st_mode & 0o022:
        raise CannotListenError(
            f"server.socket: others can write to the directory {directory} (mode "
            f"{stat.S_IMODE(state.st_mode):04o}) and could put another socket in our place; "
            "use a directory of our own; one that does not exist yet is made, with the right mode",
            os.EX_NOPERM,
        )


def _locked(path: Path) -> int:
    """Return a descriptor that holds the lock for *path* for as long as it is open."""
    lock = path.with_name(path.name + ".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise CannotListenError(
            f"server.socket: {path} is held by {who}, a living sidecar; stop it first, or use another path",
            os.EX_CANTCREAT,
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _make_room(path: Path) -> None:
    """Remove what a former sidecar left at *path*; nothing else."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(state.st_mode):
        raise CannotListenError(
            f"server.socket: {path} exists and is no socket; it stays. Remove it, or use another path",
            os.EX_CANTCREAT,
        )
    if state.st_uid != os.geteuid():
        raise CannotListenError(
            f"server.socket: {path} is a socket of uid {state.st_uid}; it stays. Use another path",
            os.EX_CANTCREAT,
        )
    if _answers(path):
        raise CannotListenError(
            f"server.socket: somebody answers at {path} already; stop it first, or use another path",
            os.EX_CANTCREAT,
        )
    path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(ANSWER_S)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # Its queue is full, or it speaks another type of socket: somebody is there.
            return True
    return True


def _bound(path: Path, mode: int) -> socket.socket:
    """Return a socket that listens at *path*, which never had more permissions than *mode*."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    # A umask is the process's: nothing else runs yet that could make a file meanwhile.
    umask = os.umask(0o777 & ~mode)
    try:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener
