"""Lines of styled text that fit a terminal. Pure functions."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from textwrap import wrap
from typing import NamedTuple

from token_keeper.cli._output import STYLES

Line = tuple["Span", ...]


class Span(NamedTuple):
    """Some text, and how it looks.

    Args:
        text: Without control characters.
        style: A key of `STYLES`.
    """

    text: str
    style: str = "plain"


class Glyphs(NamedTuple):
    """The characters to draw with.

    Args:
        bar: Of a bar: empty, and then ever fuller.
        rule: Of a horizontal line.
        dot: Before a state.
    """

    bar: str
    rule: str
    dot: str


UNICODE = Glyphs(bar="░▏▎▍▌▋▊▉█", rule="─", dot="●")
ASCII = Glyphs(bar=".#", rule="-", dot="*")


def glyphs_for(encoding: str) -> Glyphs:
    """Return the best characters that a terminal of this *encoding* can show."""
    try:
        "".join(UNICODE).encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return UNICODE


def bar(share: float, width: int, glyphs: Glyphs) -> str:
    """Return a bar of *width* characters, of which *share*, 0 to 1, is full."""
    steps = len(glyphs.bar) - 1
    filled = round(min(max(share, 0.0), 1.0) * width * steps)
    full, rest = divmod(filled, steps)
    drawn = glyphs.bar[-1] * full + (glyphs.bar[rest] if rest else "")
    return drawn.ljust(width, glyphs.bar[0])


def cells(text: str) -> int:
    """Return how many columns *text* takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def cut(line: Line, width: int) -> Line:
    """Return *line* in at most *width* columns."""
    spans: list[Span] = []
    left = width
    for span in line:
        text = span.text if cells(span.text) <= left else _beginning(span.text, left)
        spans.append(span._replace(text=text))
        left -= cells(text)
        if text != span.text:
            break
    return tuple(spans)


def fit(text: str, width: int) -> str:
    """Return *text* in exactly *width* columns; if it is too long, two dots stand for the rest."""
    taken = cells(text)
    if taken > width:
        text = _beginning(text, max(width - 2, 0)) + ".."[:width]
        taken = cells(text)
    return text + " " * (width - taken)


def folded(text: str, width: int | None, indent: int, style: str = "plain") -> list[Line]:
    """Return *text* in indented lines of at most *width* columns; None does not fold."""
    margin = " " * indent
    if width is None or cells(text) <= width - indent:
        return [(Span(margin + text, style),)]
    # A character may take two columns, and then a line as many less.
    room = max((width - indent) * len(text) // max(cells(text), 1), 8)
    return [(Span(margin + each, style),) for each in wrap(text, room, break_on_hyphens=False)]


def painted(line: Iterable[Span], *, has_colours: bool) -> str:
    """Return *line* as a terminal shows it (ECMA-48), without blanks at the end if it has no colours."""
    if not has_colours:
        return "".join(span.text for span in line).rstrip()
    return "".join(
        f"\x1b[{STYLES[style]}m{text}\x1b[0m" if text and STYLES[style] else text for text, style in line
    )


def _beginning(text: str, width: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _cells(character)
        if taken > width:
            return text[:index]
    return text


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
