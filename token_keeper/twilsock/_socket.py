"""Opens a WebSocket to one server and no other. Needs the extra `[twilio]`."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.frames import CloseCode

from token_keeper.twilsock._frames import MAX_FRAME
from token_keeper.twilsock._url import Endpoint

_CLOSE_TIMEOUT_S: Final = 1.0


class _Opening(websockets_connect):
    """An opening that follows no redirect: it would show the token to whoever it leads to."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def opening(endpoint: Endpoint, ssl_context: ssl.SSLContext | None) -> websockets_connect:
    """Return what opens a connection when it is awaited. The caller limits its time."""
    is_tls = endpoint.url[:4].lower() == "wss:"
    tls: dict[str, Any] = {"ssl": ssl_context} if is_tls and ssl_context is not None else {}
    return _Opening(
        endpoint.url,
        compression=None,
        user_agent_header="token-keeper",
        proxy=None if endpoint.is_loopback else True,
        open_timeout=None,
        ping_interval=None,
        close_timeout=_CLOSE_TIMEOUT_S,
        max_size=MAX_FRAME,
        logger=silent_logger(),
        **tls,
    )


def silent_logger() -> logging.Logger:
    """Return a logger for `websockets`, which would log every frame at the level DEBUG, tokens and all."""
    silent = logging.Logger("silent")  # noqa: LOG001 - One from `getLogger` could be enabled by anybody.
    silent.disabled = True
    return silent


def http_status_of(error: BaseException) -> int | None:
    """Return the HTTP status with which a server refused the WebSocket, if that is what happened."""
    return error.response.status_code if isinstance(error, InvalidStatus) else None


def problem_of(error: BaseException) -> str:
    """Say what went wrong, by the type of the *error* and never by its text."""
    if isinstance(error, InvalidStatus):
        return f"the server refused the WebSocket with HTTP {error.response.status_code}"
    if isinstance(error, ConnectionClosed):
        return _closing(error)
    if isinstance(error, InvalidHandshake):
        return "what answered is no WebSocket server, or a proxy is in the way"
    if isinstance(error, WebSocketException):
        return f"the WebSocket failed ({type(error).__name__})"
    return _system_problem(error)


def _system_problem(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or type(error).__name__})"
    if isinstance(error, socket.gaierror):
        return "the host has no address (DNS)"
    if isinstance(error, ConnectionRefusedError):
        return "the host refused the connection"
    if isinstance(error, ConnectionError | EOFError):
        return "the connection broke off"
    if isinstance(error, OSError):
        return f"the host cannot be reached ({errno.errorcode.get(error.errno or 0, type(error).__name__)})"
    return f"it failed with {type(error).__name__}"


def _closing(error: ConnectionClosed) -> str:
    if error.sent is not None and error.sent.code == CloseCode.MESSAGE_TOO_BIG and not error.rcvd_then_sent:
        return "the server's answer is too large to be Twilsock"
    how = "no close frame" if error.rcvd is None else f"close code {error.rcvd.code}"
    return f"the server closed the WebSocket without an answer ({how})"


__all__ = ["ClientConnection", "http_status_of", "opening", "problem_of", "silent_logger"]
