"""`token-keeper status --watch`: the tokens as they live, until somebody has seen enough."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

from token_keeper.cli._answers import document_of
from token_keeper.cli._asking import all_tokens, rows_of
from token_keeper.cli._client import TIMEOUT_S, Sidecar
from token_keeper.cli._event_words import EventLine, line_of, snapshot_line
from token_keeper.cli._feed import Feed
from token_keeper.cli._group import EXIT_INTERRUPTED, Failure
from token_keeper.cli._polled import Polled
from token_keeper.cli._spans import glyphs_for
from token_keeper.cli._terminal import Terminal
from token_keeper.cli._wire import LIST_MAX, Answer, Message
from token_keeper.cli.status._command import chosen, headline
from token_keeper.cli.status._picture import View, draw
from token_keeper.cli.status._rows import is_ready, token_of

REDRAW_S = 1.0
ASK_MIN_S, ASK_RATIO = 1.0, 10.0
"""Seconds between two questions for all tokens: so many, or so many times what the last one took."""
EVENTS_KEPT = 200
HISTORY = "/v1/events?history=600"
ENDING = {
    signal.SIGINT: EXIT_INTERRUPTED,
    signal.SIGTERM: 128 + signal.SIGTERM,
    signal.SIGHUP: 128 + signal.SIGHUP,
}


def watch(sidecar: Sidecar, names: tuple[str, ...]) -> int:
    """Show the tokens *names*, or all, until a key or a signal ends it; return the exit code."""
    # What is wrong from the start is better said on the usual screen.
    document = all_tokens(sidecar)
    chosen(rows_of(document), names)
    board = _Board(document, names)
    listing, feed = Listing(sidecar), Feed(sidecar, HISTORY)
    try:
        with Terminal() as terminal:
            return _run(terminal, board, listing, feed)
    finally:
        listing.close()
        feed.close()


def _run(terminal: Terminal, board: _Board, listing: Listing, feed: Feed) -> int:
    glyphs = glyphs_for(sys.stdout.encoding or "ascii")
    drawn_at = 0.0
    has_news = True
    while True:
        if has_news or time.time() // REDRAW_S != drawn_at // REDRAW_S:
            width, height = terminal.size
            terminal.draw(draw(board.view(listing), width=width, height=height, glyphs=glyphs))
            drawn_at = time.time()
        ready = _poll(terminal, listing, feed)
        code = _asked_to_end(terminal, ready)
        if code is not None:
            return code
        messages = _advance(feed, ready)
        for message in messages:
            board.note(message)
        if messages:
            listing.hurry()
        document = listing.advance(is_readable=listing.descriptor in ready)
        if document is not None:
            board.update(document)
        has_news = bool(messages) or document is not None or terminal.signals in ready


def _asked_to_end(terminal: Terminal, ready: set[int | None]) -> int | None:
    """Return the exit code if a key or a signal asks for the end."""
    for number in terminal.read_signals() if terminal.signals in ready else ():
        if number in ENDING:
            return ENDING[signal.Signals(number)]
    if terminal.keyboard in ready:
        keys = terminal.read_keys()
        if not keys or "q" in keys.lower():
            return os.EX_OK
    return None


def _poll(terminal: Terminal, listing: Listing, feed: Feed) -> set[int | None]:
    poller = select.poll()
    for descriptor in (terminal.keyboard, terminal.signals, listing.descriptor, feed.descriptor):
        if descriptor is not None:
            poller.register(descriptor, select.POLLIN)
    # Whole seconds after the hour, so that the clock on the screen does not skip one.
    to_next_s = REDRAW_S - time.time() % REDRAW_S
    timeout_s = min(to_next_s, feed.timeout_s(), listing.timeout_s())
    return {descriptor for descriptor, _ in poller.poll(timeout_s * 1_000 + 1)}


def _advance(feed: Feed, ready: set[int | None]) -> list[Message]:
    try:
        return feed.advance(is_readable=feed.descriptor is not None and feed.descriptor in ready)
    except Failure as failure:
        # The tokens are shown without events, too.
        feed.suspend(failure.message)
        return []


class _Board:
    """What is known so far."""

    def __init__(self, document: dict[str, Any], names: tuple[str, ...]) -> None:
        self._names = names
        self._start = document.get("start")
        self._events: deque[EventLine] = deque(maxlen=EVENTS_KEPT)
        self.update(document)

    def update(self, document: dict[str, Any]) -> None:
        """Take note of how the tokens are."""
        self._document = document
        rows = rows_of(document)
        if self._names:
            rows = [row for row in rows if row.get("name") in self._names]
        self._tokens = [token_of(row) for row in rows]
        self._is_ready = document.get("ready") is True
        if self._names:
            self._is_ready = all(map(is_ready, self._tokens))

    def note(self, message: Message) -> None:
        """Take note of an event."""
        with suppress(ValueError, RecursionError):
            document = json.loads(message.data)
            if not isinstance(document, dict):
                return
            if message.event != "snapshot":
                if not self._names or document.get("name") in self._names:
                    self._events.append(line_of(document))
            elif document.get("start") != self._start:
                self._start = document.get("start")
                line = snapshot_line(document, time.time())
                self._events.append(line._replace(kind="sidecarStarted", style="info"))

    def view(self, listing: Listing) -> View:
        """Return what is to be seen now."""
        now = time.time()
        ready = self._is_ready and listing.lost_at is None
        return View(
            now=now,
            head=headline(self._document, len(self._tokens), now, is_ready=ready),
            tokens=self._tokens,
            events=tuple(self._events),
            lost_at=listing.lost_at,
            reason=listing.reason,
        )


class Listing(Polled):
    """Asks for all tokens, again and again, without ever blocking but to connect.

    Args:
        sidecar: Whom to ask.

    Attributes:
        lost_at: Unix seconds since when there is no answer, or None.
        reason: Why there is none.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        super().__init__(sidecar)
        self._asked_at = time.monotonic()
        self._due_at = self._asked_at + ASK_MIN_S
        self._took_s = 0.0
        self.lost_at: float | None = None
        self.reason = ""

    def hurry(self) -> None:
        """Ask soon: something happened."""
        if self._exchange is None:
            soon_s = max(ASK_MIN_S / 2, ASK_RATIO * self._took_s)
            self._due_at = min(self._due_at, self._asked_at + soon_s)

    def advance(self, *, is_readable: bool) -> dict[str, Any] | None:
        """Read what came, or do what is due; return an answer that is complete."""
        try:
            if self._exchange is None:
                if not self.timeout_s():
                    self._ask()
                return None
            answer = self._whole_answer(self._exchange, is_readable=is_readable)
            return None if answer is None else self._read(answer)
        except Failure as failure:
            self._lose(failure.message)
            return None

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        self._exchange = self._sidecar.begin("GET", "/v1/tokens", body_max=LIST_MAX)
        self._due_at = self._asked_at + TIMEOUT_S

    def _read(self, answer: Answer) -> dict[str, Any]:
        document = document_of(answer, self._sidecar.path, 200)
        self._took_s = time.monotonic() - self._asked_at
        self._due_at = self._asked_at + max(ASK_MIN_S, ASK_RATIO * self._took_s)
        self.lost_at = None
        return document

    def _lose(self, reason: str) -> None:
        self.close()
        self.reason = reason
        if self.lost_at is None:
            self.lost_at = time.time()
        self._due_at = time.monotonic() + ASK_MIN_S
