"""Asks the sidecar over its Unix socket, with the standard library alone: `get` has to be quick."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import NoReturn, Self

from token_keeper.cli._group import Failure
from token_keeper.cli._output import printable
from token_keeper.cli._wire import BODY_MAX, Answer, AnswerParser, Garbled

VARIABLE = "TOKEN_KEEPER_SOCKET"
SYSTEM_SOCKET = "/run/token-keeper/api.sock"
TIMEOUT_S = 10.0
"""Seconds until an answer is given up, besides those that the sidecar was asked to wait."""
CONNECT_S = 2
"""Seconds until a sidecar that accepts no connection is given up."""
COMING_S = 0.1
"""Seconds between two looks whether a sidecar has come."""
PATH_MAX = 107
"""Most bytes of a Unix socket's path."""
PIECE = 65_536
EX_PROTOCOL = 76


class Unreachable(Failure):
    """Nobody answers at the socket."""

    def __init__(self, message: str) -> None:
        super().__init__(message, os.EX_UNAVAILABLE)


class NotAllowed(Failure):
    """Somebody is there, and this user may not ask."""

    def __init__(self, message: str) -> None:
        super().__init__(message, os.EX_NOPERM)


class UnknownToken(Failure):
    """The sidecar keeps no token of this name."""

    def __init__(self, message: str) -> None:
        super().__init__(message, os.EX_DATAERR)


class Nonsense(Failure):
    """What answers does not speak the sidecar's language."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"what answers at {printable(path)} is no sidecar: {what}", EX_PROTOCOL)


def find_socket(given: str | None, environ: Mapping[str, str] | None = None) -> str:
    """Return the path of the sidecar's socket: *given*, or the first that is set, or the usual one."""
    variables = os.environ if environ is None else environ
    if path := given or variables.get(VARIABLE):
        return path
    directory = variables.get("XDG_RUNTIME_DIR", "")
    # A relative one is to be ignored, says the XDG Base Directory Specification.
    return f"{directory}/token-keeper/api.sock" if directory.startswith("/") else SYSTEM_SOCKET


class Exchange:
    """One request that was sent, and its answer that comes.

    Args:
        path: Of the socket.
        request: All bytes of it.
        body_max: As for `AnswerParser`.

    Raises:
        Unreachable: Nobody listens at *path*.
        NotAllowed: This user may not connect.
    """

    def __init__(self, path: str, request: bytes, *, body_max: int | None = BODY_MAX) -> None:
        self.path = path
        self.parser = AnswerParser(body_max)
        self._socket = _connected(path)
        try:
            self._socket.sendall(request)
        except OSError as error:
            # Whoever closes at once may have said why before.
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                self.close()
                raise Unreachable(
                    f"the sidecar at {printable(path)} does not read ({_reason(error)})"
                ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for polling."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def finish(self, timeout_s: float) -> Answer:
        """Wait for the whole answer. Raises as `receive`."""
        deadline = time.monotonic() + timeout_s
        while not self.parser.is_complete:
            self.receive(deadline - time.monotonic())
        return self.parser.answer

    def receive(self, timeout_s: float) -> bytes:
        """Wait for the next piece of the answer, and return what it holds of the body.

        Raises:
            Unreachable: Nothing came in *timeout_s* seconds, or the sidecar hung up.
            NotAllowed: It hung up on this user without a word.
            Nonsense: What came is no answer.
        """
        try:
            self._socket.settimeout(max(timeout_s, 0.001))
            piece = self._socket.recv(PIECE)
        except TimeoutError:
            raise Unreachable(f"the sidecar at {printable(self.path)} does not answer; it may hang") from None
        except ConnectionResetError:
            piece = b""
        try:
            if piece:
                return self.parser.feed(piece)
            if not self.parser.has_begun:
                self._fail_closed()
            self.parser.end()
        except Garbled as error:
            raise Nonsense(self.path, str(error)) from None
        return b""

    def _fail_closed(self) -> NoReturn:
        where = printable(self.path)
        if _serves_us(self._socket):
            raise Unreachable(
                f"the sidecar at {where} hung up without an answer: it may be stopping; try again"
            )
        raise NotAllowed(
            f"the sidecar at {where} does not serve this user ({os.geteuid()}): "
            "add it to allow_uids, or a group of it to allow_gids, in [server] of its configuration"
        )


class Sidecar:
    """The sidecar at a socket.

        answer = Sidecar(find_socket(None)).ask("GET", "/v1/tokens")

    Args:
        path: Of the socket.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def begin(
        self,
        method: str,
        target: str,
        body: Mapping[str, object] | None = None,
        *,
        headers: str = "",
        body_max: int | None = BODY_MAX,
    ) -> Exchange:
        """Send a request, and do not wait. *headers* are whole lines, each with its CRLF."""
        content = b"" if body is None else json.dumps(body).encode("ascii")
        if method == "POST":
            headers += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        return Exchange(self.path, head.encode("ascii") + content, body_max=body_max)

    def ask(
        self,
        method: str,
        target: str,
        body: Mapping[str, object] | None = None,
        *,
        wait_s: float = 0.0,
        body_max: int = BODY_MAX,
    ) -> Answer:
        """Send a request and return its answer, which may take *wait_s* seconds longer than usual."""
        with self.begin(method, target, body, body_max=body_max) as exchange:
            return exchange.finish(TIMEOUT_S + wait_s)

    def await_presence(self, wait_s: float) -> float:
        """Wait until somebody listens, at most *wait_s* seconds; return those that are left."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                _connected(self.path).close()
            except Unreachable:
                if time.monotonic() + COMING_S >= deadline:
                    raise
                time.sleep(COMING_S)
            else:
                return max(deadline - time.monotonic(), 0.0)


def _connected(path: str) -> socket.socket:
    where = printable(path)
    if len(os.fsencode(path)) > PATH_MAX:
        raise Failure(f"the path of the socket, {where}, is longer than {PATH_MAX} bytes", os.EX_USAGE)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A socket whose queue is full makes connect() wait; Python's own timeout would end it at once.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", CONNECT_S, 0))
        connection.connect(path)
    except OSError as error:
        connection.close()
        _fail_to_connect(error, path, where)
    except BaseException:
        connection.close()
        raise
    return connection


def _fail_to_connect(error: OSError, path: str, where: str) -> NoReturn:
    if isinstance(error, PermissionError):
        raise NotAllowed(
            f"this user ({os.geteuid()}) may not connect to {where}: run as the sidecar's user, "
            "or add this one to allow_uids in [server] of its configuration"
        ) from None
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        problem = f"there is no sidecar: {where} does not exist"
    elif error.errno == errno.ECONNREFUSED:
        problem = f"the sidecar is gone: nobody answers at {where}"
    else:
        problem = f"the sidecar at {where} cannot be reached ({_reason(error)})"
    raise Unreachable(f"{problem}. {_remedy(path)}") from None


def _remedy(path: str) -> str:
    if path != SYSTEM_SOCKET and os.path.exists(SYSTEM_SOCKET):  # noqa: PTH110 # pathlib costs too much time.
        return f"There is one at {SYSTEM_SOCKET}: name it with --socket or ${VARIABLE}"
    return f"Start it with token-keeper serve, or say where it is with --socket or ${VARIABLE}"


def _serves_us(connection: socket.socket) -> bool:
    """Whether whoever listens is of a user that would never turn us away: our own; and root may always."""
    us = os.geteuid()
    try:
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return True
    return us in {0, struct.unpack("3i", peer)[1]}


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
