"""Reads requests, within bounds: no client can make us keep more of it than this allows.

Below the guards: it knows sizes and times, and nothing of who asks for what.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from token_keeper.sidecar.server import _refusals as refusals
from token_keeper.sidecar.server._behind import Behind, Cycle
from token_keeper.sidecar.server._crowd import BODY_S, FIRST_S, HEAD_S, IDLE_S, NEVER, Deadlines
from token_keeper.sidecar.server._guards import BODY_MAX, HEAD_MAX, HEADERS_MAX, URL_MAX
from token_keeper.sidecar.server._refusals import Refusal, Refused

PIECE = 16_384
"""Bytes that are parsed before the bounds are looked at."""
WIRE_MAX = 8 * BODY_MAX
"""Bytes that a body may take on the wire, with the sizes of its chunks."""
PIPELINE_MAX = 64
"""Requests of one connection that may wait behind another one, or come in one piece."""
LINGER_MAX = 1 << 20
"""Bytes that a client may still send after it was refused."""


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol with bounds on what it reads.

    Args:
        behind: What all connections share.
    """

    def __init__(self, behind: Behind) -> None:
        super().__init__(behind.config, behind.state, {}, behind.loop)
        self._crowd = behind.crowd
        self._deadlines = Deadlines()
        self._idle_s = FIRST_S
        self._begun = 0
        self._method = b""
        self._in_head = False
        self._head_size = 0
        self._body_size = 0
        self._wire = 0
        self._wire_max = 0
        self._reading: Cycle | None = None
        # After a refusal nothing is read any more.
        self._is_deaf = False
        self._ignored = 0
        self._refusal: Refusal | None = None

    @abstractmethod
    def drop(self) -> None:
        """End the connection at once."""

    @abstractmethod
    def _judge(self) -> None:
        """Look at a request whose head is complete; `_stop` if it does not get in."""

    @abstractmethod
    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more, and answer with *refusal*."""

    @property
    def _is_between(self) -> bool:
        """Whether the next byte begins a request."""
        return self._wire_max == 0

    def data_received(self, data: bytes) -> None:
        """Parse *data*, and stop where it breaks a bound."""
        self._begun = 0
        for start in range(0, len(data), PIECE):
            if self._is_deaf:
                self._ignore(len(data) - start)
                return
            self._parse(data[start : start + PIECE])

    def _parse(self, piece: bytes) -> None:
        while piece and not self._is_deaf:
            try:
                self._weigh(len(piece))
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                # We switch to no other protocol: what follows is the next request.
                piece = piece[upgrade.args[0] :]
                continue
            except Refused as refused:
                self._refuse(refused.refusal)
            except httptools.HttpParserCallbackError:
                self._refuse(self._refusal or refusals.GARBLED)
            except httptools.HttpParserError:
                self._refuse(refusals.GARBLED)
            return

    def _weigh(self, size: int) -> None:
        """Bound what one request takes on the wire, whatever it consists of."""
        self._wire += size
        if self._wire > self._wire_max > 0:
            raise Refused(refusals.HEADERS_TOO_LARGE if self._in_head else refusals.BODY_TOO_LARGE)

    def _ignore(self, size: int) -> None:
        self._ignored += size
        if self._ignored > LINGER_MAX:
            self.drop()

    def _stop(self, refusal: Refusal) -> NoReturn:
        """End the parsing from within a callback."""
        # The parser reports that a callback raised, not what.
        self._refusal = refusal
        raise Refused(refusal)

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        self._begun += 1
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head = True
        self._head_size = self._body_size = self._wire = 0
        self._wire_max = HEAD_MAX + URL_MAX + PIECE
        self._deadlines.read = self._crowd.now + HEAD_S
        if self._begun > PIPELINE_MAX:
            self._stop(refusals.PIPELINED)

    def on_url(self, url: bytes) -> None:
        """Read a piece of the URL."""
        self.url += url
        if len(self.url) > URL_MAX:
            self._stop(refusals.URL_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Read a header."""
        if not self._in_head:
            # A trailer would else join the headers that were already judged.
            self._stop(refusals.TRAILER)
        name = name.lower()
        self.headers.append((name, value))
        self._head_size += len(name) + len(value) + 4
        if self._head_size > HEAD_MAX or len(self.headers) > HEADERS_MAX:
            self._stop(refusals.HEADERS_TOO_LARGE)
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """Have the request judged."""
        self._in_head = False
        self._wire, self._wire_max = 0, WIRE_MAX
        self._deadlines.read = self._crowd.now + BODY_S
        self._deadlines.idle = NEVER
        self._idle_s = IDLE_S
        self._method = self.parser.get_method()
        self._judge()

    def on_body(self, body: bytes) -> None:
        """Read a piece of the body."""
        self._body_size += len(body)
        if self._body_size > BODY_MAX:
            self._stop(refusals.BODY_TOO_LARGE)
        if self._reading is not None:
            self._reading.body += body
            self._reading.message_event.set()

    def on_message_complete(self) -> None:
        """Tell whoever answers the request that it is complete."""
        self._wire_max = 0
        self._deadlines.read = NEVER
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.more_body = False
            reading.message_event.set()
