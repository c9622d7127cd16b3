r"""Twilsock's frames: bytes in, values out, and back. Pure.

A frame is a line with the length of a header, the header (a JSON object), and
a payload whose length the header states:

    TWILSOCK V3.0 44\r\n
    {"method":"close","id":"1","payload_size":0}\r\n

Nothing here trusts the sender: what cannot be read is None, not an exception,
whose traceback would hold the frame and so, perhaps, a token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_FRAME: Final = 1_048_576
"""Longest frame that is read, in bytes."""

_MAGIC: Final = re.compile(rb"TWILSOCK V3\.0 ([0-9]{1,7})\r\n")
_END: Final = b"\r\n"
_MAX_CODE: Final = 999_999


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a reply or a close says of its cause. All of it is foreign text or numbers.

    Args:
        code: As of HTTP: 200, 401, 410, 429 ...; None if there is none.
        status: A word or two for the code.
        error_code: Of Twilio's error dictionary, or None.
        description: A sentence for people, or empty.
    """

    code: int | None
    status: str = ""
    error_code: int | None = None
    description: str = ""

    @property
    def is_success(self) -> bool:
        """Whether it says that all is well."""
        return self.code is not None and 200 <= self.code < 300

    def as_member(self) -> dict[str, object]:
        """Return it as headers spell it."""
        member: dict[str, object] = {"code": self.code, "status": self.status}
        if self.error_code is not None:
            member["errorCode"] = self.error_code
        if self.description:
            member["description"] = self.description
        return member


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message. Neither part is shown: an `init` has a token in its header.

    Args:
        header: What the message says.
        payload: As it arrived.
    """

    header: Mapping[str, object] = field(repr=False)
    payload: bytes = field(default=b"", repr=False)

    @property
    def method(self) -> str:
        """What it is: `init`, `update`, `reply`, `client_update`, `close` ...; empty if it does not say."""
        return self.text("method")

    @property
    def id(self) -> str:
        """What a reply to it refers to."""
        return self.text("id")

    @property
    def status(self) -> Status:
        """The header's `status`; all of it missing if there is none."""
        member = self.header.get("status")
        if not isinstance(member, dict):
            return Status(code=None)
        return Status(
            code=_number(member.get("code")),
            status=_text(member.get("status")),
            error_code=_number(member.get("errorCode")),
            description=_text(member.get("description")),
        )

    def text(self, name: str) -> str:
        """Return the header's *name* if it is a string, else an empty one."""
        return _text(self.header.get(name))

    def document(self) -> Mapping[str, object]:
        """Return the payload if it is a JSON object, else an empty one."""
        return _object(self.payload) or {}


def encode(header: Mapping[str, object], payload: object = None) -> bytes:
    """Return the frame of *header*, and of *payload* as JSON if it is not None."""
    body = b"" if payload is None else _json(payload)
    kind = {} if payload is None else {"payload_type": "application/json"}
    head = _json({**header, **kind, "payload_size": len(body)})
    return b"TWILSOCK V3.0 %d\r\n%s\r\n%s" % (len(head), head, body)


def decode(raw: bytes) -> Frame | None:
    """Return the message in *raw*, or None if it is not a whole frame of this protocol."""
    magic = _MAGIC.match(raw)
    if magic is None or len(raw) > MAX_FRAME:
        return None
    start, length = magic.end(), int(magic[1])
    header = _object(raw[start : start + length])
    rest = raw[start + length :]
    if header is None or len(raw) < start + length:
        return None
    size = header.get("payload_size", 0)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_FRAME:
        return None
    if size == 0:
        return Frame(header=header)
    payload = rest[len(_END) : len(_END) + size]
    return Frame(header=header, payload=payload) if rest[:2] == _END and len(payload) == size else None


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def _object(raw: bytes) -> dict[str, object] | None:
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_CODE else None
