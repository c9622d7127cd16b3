"""A broker of one topic that speaks as much Kafka as two real clients need, and checks their tokens.

Requests and answers are those of the protocol's guide, in versions before the flexible ones.
"""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from token_keeper.testing import FakeBackend

PRODUCE, FETCH, METADATA, HANDSHAKE, VERSIONS, AUTHENTICATE = 0, 1, 3, 17, 18, 36
OFFERED = {
    PRODUCE: (3, 7),
    FETCH: (4, 4),
    METADATA: (1, 4),
    HANDSHAKE: (1, 1),
    VERSIONS: (0, 0),
    AUTHENTICATE: (0, 1),
}
"""FETCH is offered because librdkafka wants to see it before it uses records of version 2; nobody fetches."""
UNSUPPORTED_VERSION, AUTHENTICATION_FAILED = 35, 58
TOPIC = "numbers"
COUNT_AT = 57
"""Where a batch of records says how many it has."""


class KafkaBroker:
    """Lets in who shows a token of *backend* that was not revoked.

    Attributes:
        shown: The raw tokens that were shown, in order, each with the number of its connection.
        received: How many records came.
        session_s: How long a login holds, in seconds; 0 for ever. Who goes on without
            a new one is cut off (KIP-368).
        cut_off: How many were.
    """

    def __init__(self, backend: FakeBackend, session_s: float = 0.0) -> None:
        self.shown: deque[tuple[int, str]] = deque(maxlen=10_000)
        self.received = 0
        self.cut_off = 0
        self.session_s = session_s
        self._backend = backend
        self._revoked: set[str] = set()
        self._refuses_all = False
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._talks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.throw_out()
        for thread in self._threads:
            thread.join()

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def tokens(self) -> list[str]:
        """The different tokens that were shown, in order."""
        return list(dict.fromkeys(token for _, token in self.shown))

    def throw_out(self) -> None:
        """Close all connections."""
        for talk in list(self._talks):
            with suppress(OSError):
                talk.shutdown(socket.SHUT_RDWR)

    def revoke_all(self) -> None:
        """Refuse every token that was issued until now, also on connections that are open."""
        self._revoked |= set(self._backend.issued)
        self.throw_out()

    def refuse_all(self) -> None:
        """Refuse every token from now on."""
        self._refuses_all = True

    def accepts(self, token: str) -> bool:
        return not self._refuses_all and token in self._backend.issued and token not in self._revoked

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                talk, _ = self._listener.accept()
                self._talks.append(talk)
                thread = threading.Thread(target=_Connection(self, talk, len(self._talks)).serve, daemon=True)
                self._threads.append(thread)
                thread.start()

    def note(self, records: int) -> None:
        with self._lock:
            self.received += records


class _Connection:
    """One client's requests, answered one after the other."""

    def __init__(self, broker: KafkaBroker, talk: socket.socket, number: int) -> None:
        self._broker = broker
        self._talk = talk
        self._number = number
        self._let_in = False
        self._until = float("inf")
        self._answers: dict[int, Callable[[_Reader, int], bytes]] = {
            PRODUCE: self._produce,
            METADATA: self._metadata,
            HANDSHAKE: self._handshake,
            VERSIONS: self._versions,
            AUTHENTICATE: self._authenticate,
        }

    def serve(self) -> None:
        with self._talk, suppress(OSError, EOFError), self._talk.makefile("rb") as incoming:
            while True:
                request = _Reader(_exactly(incoming, _exactly(incoming, 4)))
                key, version, correlation = request.i16(), request.i16(), request.i32()
                request.string()  # The client's name.
                if key in {PRODUCE, METADATA} and not self._may_go_on():
                    return
                answer = struct.pack(">i", correlation) + self._answers[key](request, version)
                self._talk.sendall(struct.pack(">i", len(answer)) + answer)

    def _may_go_on(self) -> bool:
        if time.monotonic() > self._until:
            self._broker.cut_off += 1
            return False
        return self._let_in

    def _versions(self, _: _Reader, version: int) -> bytes:
        error = UNSUPPORTED_VERSION if version else 0
        ranges = [struct.pack(">hhh", key, *offered) for key, offered in OFFERED.items()]
        return struct.pack(">h", error) + _array(ranges)

    def _handshake(self, _: _Reader, __: int) -> bytes:
        return struct.pack(">h", 0) + _array([_string("OAUTHBEARER")])

    def _authenticate(self, request: _Reader, version: int) -> bytes:
        # As RFC 7628 says: gs2 header, then key=value pairs, all divided by 0x01.
        said = request.blob().decode().split("\x01")
        token = next((part.removeprefix("auth=Bearer ") for part in said if part.startswith("auth=")), "")
        if token:
            self._broker.shown.append((self._number, token))
        self._let_in = self._broker.accepts(token)
        session_s = self._broker.session_s
        self._until = time.monotonic() + session_s if session_s else float("inf")
        error = 0 if self._let_in else AUTHENTICATION_FAILED
        why = _string(None if self._let_in else "invalid token")
        lifetime = struct.pack(">q", int(session_s * 1000)) if version else b""
        return struct.pack(">h", error) + why + _blob(b"") + lifetime

    def _metadata(self, _: _Reader, version: int) -> bytes:
        me = (
            struct.pack(">i", 0) + _string("127.0.0.1") + struct.pack(">i", self._broker.port) + _string(None)
        )
        own = _array([struct.pack(">i", 0)])
        partition = struct.pack(">hii", 0, 0, 0) + own + own
        topic = struct.pack(">h", 0) + _string(TOPIC) + b"\x00" + _array([partition])
        throttled = struct.pack(">i", 0) if version >= 3 else b""
        cluster = _string("test") if version >= 2 else b""
        return throttled + _array([me]) + cluster + struct.pack(">i", 0) + _array([topic])

    def _produce(self, request: _Reader, version: int) -> bytes:
        request.string()  # No transaction.
        request.i16(), request.i32()  # Acknowledgements and timeout are as we like.
        topics = []
        for _ in range(request.i32()):
            name, partitions = request.string(), []
            for _ in range(request.i32()):
                number, records = request.i32(), request.blob()
                self._broker.note(struct.unpack_from(">i", records, COUNT_AT)[0])
                start = struct.pack(">q", 0) if version >= 5 else b""
                partitions.append(struct.pack(">ihqq", number, 0, 0, -1) + start)
            topics.append(_string(name) + _array(partitions))
        return _array(topics) + struct.pack(">i", 0)


class _Reader:
    """Reads the protocol's types from a request."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def i16(self) -> int:
        return struct.unpack(">h", self._content.read(2))[0]

    def i32(self) -> int:
        return struct.unpack(">i", self._content.read(4))[0]

    def string(self) -> str | None:
        size = self.i16()
        return self._content.read(size).decode() if size >= 0 else None

    def blob(self) -> bytes:
        return self._content.read(self.i32())


def _exactly(incoming: io.BufferedReader, size: int | bytes) -> bytes:
    wanted = struct.unpack(">i", size)[0] if isinstance(size, bytes) else size
    content = incoming.read(wanted)
    if len(content) < wanted:
        raise EOFError
    return content


def _string(text: str | None) -> bytes:
    return struct.pack(">h", -1) if text is None else struct.pack(">h", len(text)) + text.encode()


def _blob(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


def _array(items: list[bytes]) -> bytes:
    return struct.pack(">i", len(items)) + b"".join(items)
