"""What is answered to requests that do not get in: problem documents (RFC 9457), whole and ready-made.

Each closes its connection: whoever was refused may have sent more that nobody wants to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

PREFIX = "urn:token-keeper:problem:"


class Refusal:
    """The answer to requests that go no further.

    Args:
        status: The status code.
        name: The last part of the problem's type.
        title: What happened, without a full stop.
        detail: What to do.
        headers: Further header lines.
    """

    def __init__(
        self, status: int, name: str, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.name = name
        document = {"type": PREFIX + name, "title": title, "status": status, "detail": detail}
        self.body = json.dumps(document, separators=(",", ":")).encode()
        lines = {
            "content-type": "application/problem+json",
            "content-length": str(len(self.body)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            **(headers or {}),
            "connection": "close",
        }
        self.headers = [(name.encode(), value.encode()) for name, value in lines.items()]

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as an ASGI application."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})

    def answer(self, date: bytes, *, has_body: bool = True) -> bytes:
        """Return the whole answer; *date* is a header line with its end."""
        phrase = HTTPStatus(self.status).phrase
        head = b"".join(b"%s: %s\r\n" % line for line in self.headers)
        first = f"HTTP/1.1 {self.status} {phrase}\r\n".encode()
        return first + date + head + b"\r\n" + (self.body if has_body else b"")


class Refused(Exception):
    """A request does not get in.

    Args:
        refusal: What is answered.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.name)
        self.refusal = refusal


def bad_request(detail: str) -> Refusal:
    """Return the refusal of what is no plain HTTP/1.1."""
    return Refusal(400, "bad-request", "The request is not plain HTTP/1.1", detail)


GARBLED = bad_request("It breaks the rules of RFC 9112; a proxy or a client by hand is the usual reason.")
NO_HOST = bad_request("Send one Host header.")
NOT_A_PATH = bad_request("Ask for a path such as /v1/tokens; this is no proxy.")
NOT_PRINTABLE = bad_request("Ask for a path without line ends and other characters that nobody can see.")
SWITCHING = bad_request(
    "Send no body with Upgrade or CONNECT. Java's HttpClient does, until it is told version(HTTP_1_1)."
)
TWO_LENGTHS = bad_request("Send either Content-Length or Transfer-Encoding.")
ENCODED = bad_request("Transfer-Encoding can only be chunked.")
TWICE = bad_request("Send Host, Authorization, Origin and Sec-Fetch-Site once each.")
TRAILER = bad_request("Send no trailers.")
PIPELINED = bad_request("Wait for answers before more than 64 requests follow on one connection.")
BODY_TOO_LARGE = Refusal(413, "too-large", "The body is too large", "A body has at most 64 KiB.")
URL_TOO_LONG = Refusal(414, "too-large", "The URL is too long", "A URL has at most 2 KiB.")
HEADERS_TOO_LARGE = Refusal(
    431, "too-large", "The headers are too large", "There are at most 64 of them, and 16 KiB in all."
)
TOO_SLOW = Refusal(408, "too-slow", "The request took too long", "Send all of it within 10 seconds.")
NO_KEY = Refusal(
    401,
    "unauthorized",
    "A key is needed",
    "Send Authorization: Bearer KEY. The key is in the file server.access_key_file of the sidecar.",
    {"www-authenticate": "Bearer"},
)
WRONG_KEY = Refusal(
    401,
    "unauthorized",
    "The key is not known",
    "Read it again from the file server.access_key_file of the sidecar.",
    {"www-authenticate": 'Bearer error="invalid_token"'},
)
NOT_ENOUGH = Refusal(
    403,
    "forbidden",
    "This key may read metrics, status and events only",
    "Use the access key, or the Unix socket.",
)
NOT_OWNER = Refusal(
    403,
    "forbidden",
    "Only the sidecar's own user and root may do this, over its Unix socket",
    "Run it as that user, or send the sidecar SIGHUP.",
)
ONLY_UNIX = Refusal(
    403, "forbidden", "This is for callers over the Unix socket only", "Run token-keeper dashboard."
)
CROSS_SITE = Refusal(
    403,
    "forbidden",
    "This comes from a page of another site",
    "Programs send neither Origin nor Sec-Fetch-Site; the sidecar's own page is at its own address.",
)
MISDIRECTED = Refusal(
    421,
    "misdirected",
    "The Host header does not name this sidecar",
    "Use localhost, 127.0.0.1 or [::1] with the port, or add the name to server.hosts.",
)
FULL = Refusal(
    503,
    "overloaded",
    "There are too many connections",
    "Close those that are not needed, or raise server.max_connections.",
    {"retry-after": "1"},
)
TOO_MANY_STREAMS = Refusal(
    503,
    "overloaded",
    "There are too many streams and waiting requests",
    "Half of the connections may wait. Close some, or raise server.max_connections.",
    {"retry-after": "1"},
)
STOPPING = Refusal(
    503,
    "shutting-down",
    "The sidecar stops",
    "Connect again in a moment. A valid token that you have stays valid.",
    {"retry-after": "1"},
)
BROKEN = Refusal(
    500,
    "internal-error",
    "The sidecar made a mistake",
    "The tokens are kept all the same. Its log says more.",
)
