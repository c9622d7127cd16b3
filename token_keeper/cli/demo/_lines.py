"""The demo for those who read lines: programs, files, terminals that can do no more."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from token_keeper.cli.demo import _words as words
from token_keeper.cli.demo._record import Happening, Summary
from token_keeper.cli.demo._stage import Picture

EVENT_WIDTH = 18
"""Of the longest name of an event, `tokenAboutToExpire`."""
UNBOUNDED = 1_000
MIN_VALUE_WIDTH = 20


class JsonLines:
    """Writes each happening as one line of JSON, the summary as the last.

    Args:
        stream: Is flushed after each line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, news: Sequence[Happening], _picture: Picture) -> None:
        """Write what happened."""
        for happening in news:
            self._write(happening.as_dict())

    def finish(self, summary: Summary) -> None:
        """Write what it adds up to."""
        self._write(summary.as_dict())

    def _write(self, document: dict[str, object]) -> None:
        self._stream.write(json.dumps(document, allow_nan=False) + "\n")
        self._stream.flush()


class PlainLines:
    """Writes each happening as one line of ASCII, then the summary.

    Args:
        stream: Is flushed after each line.
        lifetime_s: Of the tokens, for the introduction.
    """

    def __init__(self, stream: TextIO, lifetime_s: float) -> None:
        self._stream = stream
        self._write(f"{words.TITLE}: {words.intro(lifetime_s)}")

    def show(self, news: Sequence[Happening], _picture: Picture) -> None:
        """Write what happened."""
        for happening in news:
            if happening.event == "scene":
                self._write("")
            self._write(line(happening))

    def finish(self, summary: Summary) -> None:
        """Write what it adds up to."""
        for each in ending(summary):
            self._write(each)

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def line(happening: Happening) -> str:
    """Return *happening* as one line."""
    at = words.clock(happening.after_s)
    if happening.event == "scene":
        return f"{at:>5}  {happening.text}. {happening.details['caption']}"
    return f"{at:>5}  {label(happening):<{EVENT_WIDTH}}  {happening.text}"


def label(happening: Happening) -> str:
    """Return what stands before the text: the keeper's events by name, others by who acts."""
    return happening.event if happening.who == "keeper" else happening.who


def ending(summary: Summary, *, width: int = UNBOUNDED) -> Iterator[str]:
    """Yield the lines of the summary, of at most *width* characters if there is room for labels."""
    rows = words.results(summary)
    label_width = max(len(name) for name, _ in rows) + 4
    yield ""
    yield "Summary" + (", ended early" if summary.signal else "")
    for name, value in rows:
        first, *more = textwrap.wrap(value, max(width - label_width, MIN_VALUE_WIDTH))
        yield f"{f'  {name}':<{label_width}}{first}"
        yield from (" " * label_width + each for each in more)
    yield ""
    yield words.conclusion(summary)
    yield ""
    yield from words.NEXT
