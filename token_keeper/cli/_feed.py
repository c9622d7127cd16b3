"""Follows the sidecar's events, whatever becomes of the connection. Never blocks but to connect."""

from __future__ import annotations

import re
import time

from token_keeper.cli._answers import document_of
from token_keeper.cli._client import TIMEOUT_S, Exchange, Nonsense, NotAllowed, Sidecar, Unreachable
from token_keeper.cli._polled import Polled
from token_keeper.cli._wire import Garbled, Message, MessageParser

SILENCE_S = 45.0
"""Seconds without a byte after which a connection is given up. The sidecar says something every 15 s."""
PAUSE_MIN_S, PAUSE_MAX_S = 0.25, 5.0
"""Seconds before the next try to connect; doubled with each."""

_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class Feed(Polled):
    """The events of a sidecar, from piece to piece.

        feed = Feed(sidecar, "/v1/events")
        feed.connect()
        while True:
            is_readable = poll(feed.descriptor, feed.timeout_s())
            messages = feed.advance(is_readable=is_readable)

    After a lost connection it goes on after the last event that was seen.

    Args:
        sidecar: Whom to ask.
        target: Path and query of the stream.

    Attributes:
        path: Of the sidecar's socket.
        lost_at: Unix seconds since when there is no connection, or None.
        reason: Why it was lost.
    """

    def __init__(self, sidecar: Sidecar, target: str) -> None:
        super().__init__(sidecar)
        self.path = sidecar.path
        self._target = target
        self._messages = MessageParser()
        self._last_id = ""
        self._pause_s = PAUSE_MIN_S
        self.lost_at: float | None = None
        self.reason = ""

    def connect(self) -> None:
        """Ask for the stream. Raises as `Exchange`."""
        last = f"Last-Event-ID: {self._last_id}\r\n" if self._last_id else ""
        headers = f"Accept: text/event-stream\r\n{last}"
        self._messages = MessageParser()
        self._exchange = self._sidecar.begin("GET", self._target, headers=headers, body_max=None)
        self._due_at = time.monotonic() + TIMEOUT_S

    def suspend(self, reason: str) -> None:
        """Hang up, and try again after the longest pause."""
        self._pause_s = PAUSE_MAX_S
        self._lose(reason)

    def advance(self, *, is_readable: bool) -> list[Message]:
        """Read what came, or do what is due. Returns the events that are complete.

        Raises:
            Failure: Trying again cannot help.
        """
        try:
            if self._exchange is None:
                if not self.timeout_s():
                    self.connect()
                return []
            if is_readable:
                return self._read(self._exchange)
            if not self.timeout_s():
                self._lose("nothing came for too long")
        except (NotAllowed, Nonsense):
            self.close()
            raise
        except Unreachable as error:
            self._lose(error.message)
        return []

    def _read(self, exchange: Exchange) -> list[Message]:
        piece = exchange.receive(0.0)
        parser = exchange.parser
        if not parser.status:
            return []
        if parser.status != 200:
            return self._refused(exchange)
        self._due_at = time.monotonic() + SILENCE_S
        self._pause_s, self.lost_at = PAUSE_MIN_S, None
        try:
            messages = self._messages.feed(piece)
        except Garbled as error:
            raise Nonsense(self._sidecar.path, str(error)) from None
        for message in messages:
            if _ID.fullmatch(message.id):
                self._last_id = message.id
        if parser.is_complete:
            self._lose("the sidecar ended the stream")
        return messages

    def _refused(self, exchange: Exchange) -> list[Message]:
        answer = exchange.finish(TIMEOUT_S)
        if answer.status != 503:
            self.close()
            document_of(answer, self._sidecar.path, 200)
        self._lose("the sidecar has too many streams")
        return []

    def _lose(self, reason: str) -> None:
        self.close()
        self.reason = reason
        if self.lost_at is None:
            self.lost_at = time.time()
        self._due_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
