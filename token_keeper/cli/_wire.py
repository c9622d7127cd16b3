"""What comes over the wire: HTTP/1.1 answers and server-sent events. Pure: bytes in, values out.

Everything has a bound, since whoever listens on a socket may send anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import NamedTuple

HEAD_MAX = 65_536
"""Most bytes of an answer's status line and headers."""
LINE_MAX = 4_096
"""Most bytes of the lines between the chunks of a body."""
BODY_MAX = 1 << 20
"""Most bytes of a usual answer."""
LIST_MAX = 64 << 20
"""Most bytes of an answer about all tokens: 100 000 of them fit."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([2-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e]*)?")


class Garbled(ValueError):
    """What came is no answer in HTTP/1.1, or more of it than there may be."""


class Answer(NamedTuple):
    """A whole answer. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Expects(Enum):
    HEAD = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    LENGTH = auto()
    CLOSE = auto()
    NOTHING = auto()


class AnswerParser:
    """Reads one answer from pieces of any size.

    Args:
        body_max: Most bytes of the body; None for streams: what `feed` returns of them is not kept.

    Attributes:
        status: Known once the head was read; 0 before.
        headers: As the status. Names are in lower case.
    """

    def __init__(self, body_max: int | None = BODY_MAX) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._body_max = body_max
        self._buffer = bytearray()
        self._expects = _Expects.HEAD
        self._left = 0
        self._body = bytearray()

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer was read."""
        return self._expects is _Expects.NOTHING

    @property
    def has_begun(self) -> bool:
        """Whether anything was read."""
        return bool(self._buffer) or self._expects is not _Expects.HEAD

    @property
    def answer(self) -> Answer:
        """The answer, as far as it was read."""
        return Answer(self.status, self.headers, bytes(self._body))

    def feed(self, piece: bytes) -> bytes:
        """Read *piece*, and return what it holds of the body. Raises `Garbled`."""
        self._buffer += piece
        found = b"".join(self._bodies())
        if self._body_max is not None or self.status != 200:
            if len(self._body) + len(found) > (self._body_max or BODY_MAX):
                raise Garbled("the answer is too long")
            self._body += found
        return found

    def end(self) -> None:
        """Take note that nothing more comes. Raises `Garbled` if something is missing."""
        if self._expects is _Expects.CLOSE:
            self._expects = _Expects.NOTHING
        if not self.is_complete:
            raise Garbled("the answer ends in the middle")

    def _bodies(self) -> Iterator[bytes]:
        while not self.is_complete:
            match self._expects:
                case _Expects.HEAD:
                    goes_on = self._read_head()
                case _Expects.LENGTH | _Expects.CHUNK:
                    goes_on = bool(self._buffer)
                    yield self._counted()
                case _Expects.CLOSE:
                    yield bytes(self._buffer)
                    self._buffer.clear()
                    goes_on = False
                case _:
                    goes_on = self._read_between_chunks()
            if not goes_on:
                return

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, HEAD_MAX)
        if end < 0:
            if len(self._buffer) >= HEAD_MAX or b"HTTP/1."[: len(self._buffer)] != self._buffer[:7]:
                raise Garbled("the answer is not HTTP/1.1")
            return False
        first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        status = _STATUS_LINE.fullmatch(first)
        if status is None:
            raise Garbled("the answer is not HTTP/1.1")
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                raise Garbled("a header of the answer is broken")
            self.headers[header[1].decode("ascii").lower()] = header[2].decode("latin-1")
        self.status = int(status[1])
        self._expect_body()
        return True

    def _expect_body(self) -> None:
        length = self.headers.get("content-length")
        if self.status in {204, 304}:
            self._expects = _Expects.NOTHING
        elif self.headers.get("transfer-encoding", "").lower() == "chunked":
            self._expects = _Expects.CHUNK_SIZE
        elif length is None:
            self._expects = _Expects.CLOSE
        elif length.isascii() and length.isdigit() and len(length) < 16:
            self._left = int(length)
            if self._body_max is not None and self._left > self._body_max:
                raise Garbled("the answer is too long")
            self._expects = _Expects.LENGTH if self._left else _Expects.NOTHING
        else:
            raise Garbled("the length of the answer is no number")

    def _counted(self) -> bytes:
        taken = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        self._left -= len(taken)
        if not self._left:
            is_chunk = self._expects is _Expects.CHUNK
            self._expects = _Expects.CHUNK_END if is_chunk else _Expects.NOTHING
        return taken

    def _read_between_chunks(self) -> bool:
        end = self._buffer.find(b"\r\n", 0, LINE_MAX)
        if end < 0:
            if len(self._buffer) >= LINE_MAX:
                raise Garbled("the chunks of the answer are broken")
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._expects is _Expects.CHUNK_SIZE:
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise Garbled("the chunks of the answer are broken")
            self._left = int(size[1], 16)
            self._expects = _Expects.CHUNK if self._left else _Expects.TRAILER
        elif self._expects is _Expects.CHUNK_END:
            if line:
                raise Garbled("the chunks of the answer are broken")
            self._expects = _Expects.CHUNK_SIZE
        elif not line:
            self._expects = _Expects.NOTHING
        return True


class Message(NamedTuple):
    """One server-sent event."""

    id: str
    event: str
    data: str


class MessageParser:
    """Reads server-sent events from pieces of any size.

    Args:
        message_max: Most bytes of one event.
    """

    def __init__(self, message_max: int = LIST_MAX) -> None:
        self._message_max = message_max
        self._rest = bytearray()
        self._taken = 0
        self._searched = 0
        self._fields: dict[str, list[str]] = {}

    def feed(self, piece: bytes) -> list[Message]:
        """Read *piece*, and return the events that it completes. Raises `Garbled`."""
        self._rest += piece
        found = [message for line in self._lines() if (message := self._read(line)) is not None]
        if len(self._rest) + self._taken > self._message_max:
            raise Garbled("an event is too long")
        return found

    def _lines(self) -> Iterator[str]:
        begin = 0
        while (end := self._rest.find(b"\n", max(begin, self._searched))) >= 0:
            yield self._rest[begin:end].removesuffix(b"\r").decode("utf-8", "replace")
            begin = end + 1
        del self._rest[:begin]
        # A long line comes in many pieces; what was searched need not be searched again.
        self._searched = len(self._rest)

    def _read(self, line: str) -> Message | None:
        if line:
            name, _, value = line.partition(":")
            if name:
                self._taken += len(line)
                self._fields.setdefault(name, []).append(value.removeprefix(" "))
            return None
        fields, self._fields, self._taken = self._fields, {}, 0
        if "data" not in fields:
            return None
        last = {name: values[-1] for name, values in fields.items()}
        return Message(last.get("id", ""), last.get("event", "message"), "\n".join(fields["data"]))
