"""Whether a request gets in: its form, where it was meant to go, where it comes from, and its key.

Pure but for the keys: the head of a request in, a caller or a refusal out. The
protocol asks for every request, so nothing behind it has to ask again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import unquote_to_bytes

from token_keeper.sidecar._access import Access, Caller, Keys, needed_access
from token_keeper.sidecar.server import _refusals as refusals
from token_keeper.sidecar.server._refusals import Refusal, Refused

URL_MAX = 2_048
"""Bytes of a URL."""
HEADERS_MAX = 64
"""Header lines of a request."""
HEAD_MAX = 16_384
"""Bytes of them."""
BODY_MAX = 65_536
"""Bytes of a body."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEALTH = frozenset({"/healthz", "/readyz"})
ONLY_UNIX = frozenset({"/v1/dashboard/codes"})
_NOTED = frozenset(
    {
        b"host",
        b"authorization",
        b"origin",
        b"sec-fetch-site",
        b"content-length",
        b"transfer-encoding",
        b"upgrade",
    }
)
_CONDITIONS = frozenset(
    {
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        b"range",
        b"expect",
    }
)
_OWN_SITE = frozenset({b"same-origin", b"none"})
_LENGTH = re.compile(rb"[0-9]{1,9}")
_SCHEME = re.compile(rb"bearer +([!-~]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hosts:
    """What `Host` may say.

    A page of another site can make a browser connect to us, but not make it say our name:
    that is what stops names that suddenly point to this machine (DNS rebinding).

    Args:
        whole: With the port, as browsers send it.
        names: Further names of the operator's, with any port: a proxy may stand in front.
    """

    whole: frozenset[bytes] = frozenset()
    names: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, host: str, port: int, extra: Iterable[str] = ()) -> Self:
        """Return those of a listener at *host* and *port*; *extra* are the operator's."""
        shown = f"[{host}]" if ":" in host else host
        names = {*LOOPBACK_NAMES, shown}
        # A browser leaves out the usual port.
        whole = {f"{name}:{port}" for name in names} | (names if port == 80 else set())
        return cls(
            frozenset(name.encode() for name in whole), frozenset(name.lower().encode() for name in extra)
        )

    def allow(self, sent: bytes) -> bool:
        """Whether a request with *sent* is meant for us."""
        sent = sent.lower()
        if sent in self.whole or sent in self.names:
            return True
        name, colon, port = sent.rpartition(b":")
        return bool(colon) and port.isdigit() and name in self.names


@dataclass(frozen=True, slots=True)
class Gate:
    """What one listener asks of a request.

    Args:
        over: Which kind of socket it is.
        keys: The keys that callers over TCP can show.
        hosts: What `Host` may be over TCP.
    """

    over: Literal["unix", "tcp"]
    keys: Keys
    hosts: Hosts = Hosts()


@dataclass(slots=True)
class Head:
    """The head of a request.

    Args:
        method: As sent.
        version: ``1.1`` or ``1.0``, or what is not spoken here.
        path: With its escapes resolved.
        query: As sent.
        noted: Values of the headers that matter here, by name in lower case.
        accept: Which forms the answer may have.
        is_plain: Nothing in it asks for anything but the resource as it is.
    """

    method: bytes
    version: str
    path: str
    query: bytes
    noted: dict[bytes, bytes]
    accept: bytes
    is_plain: bool

    @property
    def wants_to_wait(self) -> bool:
        """Whether the answer may take its time. Also if only its escapes say so."""
        return self.path == "/v1/events" or b"wait" in unquote_to_bytes(self.query)

    @property
    def is_about_health(self) -> bool:
        """Whether a probe asks, for which some connections are kept free."""
        return self.path in HEALTH


def head_of(method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Return the head with these parts, if its form is plain HTTP/1.1. Names of *headers* are in lower case.

    Raises:
        Refused: If it is not.
    """
    if not url.startswith(b"/") or b"#" in url or not url.isascii():
        raise Refused(refusals.NOT_A_PATH)
    if version not in {"1.1", "1.0"}:
        raise Refused(refusals.GARBLED)
    noted, accept, is_plain = _sorted(headers)
    if b"transfer-encoding" in noted or b"content-length" in noted:
        _check_body(method, version, noted)
        is_plain = False
    if version == "1.1" and b"host" not in noted:
        raise Refused(refusals.NO_HOST)
    raw_path, mark, query = url.partition(b"?")
    path = _unescaped(raw_path) if b"%" in raw_path else raw_path.decode()
    is_plain = is_plain and not mark and version == "1.1"
    return Head(method, version, path, query, noted, accept, is_plain)


def _sorted(headers: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], bytes, bool]:
    """Return the headers that matter here, what may be answered, and whether there is no condition."""
    noted: dict[bytes, bytes] = {}
    accepts = []
    is_plain = True
    for name, value in headers:
        if name in _NOTED:
            if name in noted:
                raise Refused(refusals.TWICE)
            noted[name] = value
        elif name == b"accept":
            accepts.append(value)
        elif name in _CONDITIONS or (name == b"connection" and value.lower() != b"keep-alive"):
            is_plain = False
    is_plain = is_plain and len(accepts) < 2 and b"upgrade" not in noted
    return noted, accepts[0] if accepts else b"*/*", is_plain


def _unescaped(raw_path: bytes) -> str:
    path = unquote_to_bytes(raw_path).decode("utf-8", "replace")
    if not path.isprintable():
        # Routes end with a `$`, which also matches before a line end: another path for the table of accesses.
        raise Refused(refusals.NOT_PRINTABLE)
    return path


def _check_body(method: bytes, version: str, noted: dict[bytes, bytes]) -> None:
    if b"upgrade" in noted or method == b"CONNECT":
        # The parser would take the body for the next request.
        raise Refused(refusals.SWITCHING)
    length = noted.get(b"content-length")
    encoding = noted.get(b"transfer-encoding")
    if encoding is not None:
        if length is not None:
            raise Refused(refusals.TWO_LENGTHS)
        if encoding.lower() != b"chunked" or version != "1.1":
            raise Refused(refusals.ENCODED)
    elif length is not None and (not _LENGTH.fullmatch(length) or int(length) > BODY_MAX):
        raise Refused(refusals.BODY_TOO_LARGE)


def admitted(head: Head, gate: Gate, peer: Caller | None) -> Caller:
    """Return who sends *head* through *gate*. *peer* is who is at the other end of a Unix socket.

    Raises:
        Refused: If the request does not get in.
    """
    needed = needed_access(head.path)
    if gate.over == "tcp" and not gate.hosts.allow(head.noted.get(b"host", b"")):
        raise Refused(refusals.MISDIRECTED)
    is_page = needed is Access.NOTHING and head.method in {b"GET", b"HEAD"} and not head.is_about_health
    if not is_page and _is_cross_site(head.noted):
        raise Refused(refusals.CROSS_SITE)
    caller = peer or Caller(_access_shown(head.noted, gate.keys), None, "tcp")
    if caller.access < needed:
        raise Refused(_refusal(head, needed, caller))
    if caller.over == "tcp" and head.path in ONLY_UNIX:
        raise Refused(refusals.ONLY_UNIX)
    return caller


def _is_cross_site(noted: dict[bytes, bytes]) -> bool:
    """Whether a browser says that a page of another site is behind it. Programs say nothing of the kind."""
    site, origin = noted.get(b"sec-fetch-site"), noted.get(b"origin")
    if site is not None and site.lower() not in _OWN_SITE:
        return True
    return origin is not None and origin.lower() != b"http://" + noted.get(b"host", b"").lower()


def _access_shown(noted: dict[bytes, bytes], keys: Keys) -> Access:
    match = _SCHEME.fullmatch(noted.get(b"authorization", b""))
    return keys.access_of(match[1]) if match else Access.NOTHING


def _refusal(head: Head, needed: Access, caller: Caller) -> Refusal:
    if needed is Access.OWNER and caller.access > Access.NOTHING:
        return refusals.NOT_OWNER
    if caller.access is Access.NOTHING:
        return refusals.WRONG_KEY if b"authorization" in head.noted else refusals.NO_KEY
    return refusals.NOT_ENOUGH
