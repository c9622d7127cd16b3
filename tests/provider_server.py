"""One TLS server for all host names of `docs/sources.md`: what was asked, and how an answer is sent.

Who answers what is in `provider_shapes`.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote_plus

import trustme


class UnlikeTheDocumentation(Exception):
    """A request that a provider would not take; *document* is what it answers then."""

    def __init__(self, why: str, status: int, document: object) -> None:
        super().__init__(why)
        self.status = status
        self.document = document


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as it came."""

    method: str
    host: str
    path: str
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        assert self.headers.get_content_type() == "application/json"
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        """The body as form fields, none of which may come twice (RFC 6749 section 3.2)."""
        assert self.headers.get_content_type() == "application/x-www-form-urlencoded"
        pairs = parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    @property
    def basic(self) -> tuple[str, str] | None:
        """Client ID and secret by RFC 6749 section 2.3.1."""
        kind, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return None
        import base64

        user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        return unquote_plus(user), unquote_plus(password)


Answer = Callable[[Asked], tuple[int, object]]


class ProviderServer(ThreadingHTTPServer):
    """Serves *hosts* with certificates of *authority*; each request is answered by *answer*."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, authority: trustme.CA, hosts: tuple[str, ...], answer: Answer) -> None:
        self.answer = answer
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(*hosts).configure_cert(self._tls)
        super().__init__(("127.0.0.1", 0), _Provider)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; its handshake is made by the thread that serves it."""
        connection, address = super().get_request()
        return self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent: a client that goes away in the middle is no failure."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Provider(BaseHTTPRequestHandler):
    server: ProviderServer

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - As it is called there.
        """Write no log."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        host = self.headers.get("Host", "").partition(":")[0]
        status, document = self.server.answer(Asked(self.command, host, self.path, self.headers, body))
        text = document if isinstance(document, str) else json.dumps(document)
        kind = "text/html" if isinstance(document, str) else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", f"{kind};charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
