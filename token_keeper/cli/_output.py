"""What commands write: JSON for programs, pages for people."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import click

from token_keeper.cli._group import fail, fail_to_write

STYLES = {
    "error": "1;31",
    "warning": "1;33",
    "info": "36",
    "good": "1;32",
    "quiet": "2",
    "plain": "",
    "heading": "1",
}
"""By meaning, the attributes with which a terminal shows it (ECMA-48, SGR)."""

USUAL_WIDTH = 80
LEAST_TEXT = 24
"""Narrowest column for texts, in characters. If less is left, texts stand below their labels."""


class Row(NamedTuple):
    """One line of a page: a label, a text, and what to add in the lines below it.

    Args:
        label: Stands in the first column.
        text: Stands in the second.
        notes: Stand under the text.
        style: A key of `STYLES`, for the label.
    """

    label: str
    text: str
    notes: tuple[str, ...] = ()
    style: str = "plain"


class Section(NamedTuple):
    """A part of a page.

    Args:
        heading: Stands above the rows; may be empty.
        rows: Have a common width of their first column.
        style: A key of `STYLES`, for the heading.
    """

    heading: str = ""
    rows: Sequence[Row] = ()
    style: str = "heading"


class Paper(NamedTuple):
    """What a page is written on.

    Args:
        width: Columns; None does not wrap.
        has_colours: Whether styles are shown.
    """

    width: int | None = None
    has_colours: bool = False

    def wrapped(self, text: str, taken: int) -> list[str]:
        """Return *text* in lines that fit beside *taken* columns."""
        if self.width is None or len(text) <= self.width - taken:
            return [text]
        from textwrap import wrap  # noqa: PLC0415 # Only a terminal needs it.

        return wrap(text, max(self.width - taken, LEAST_TEXT), break_on_hyphens=False) or [""]

    def painted(self, text: str, style: str) -> str:
        """Return *text* as *style* shows it."""
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.has_colours and text and STYLES[style] else text


def write_json(document: object) -> None:
    """Write *document* as JSON (RFC 8259), in ASCII."""
    _write(json.dumps(finite(document), indent=2, allow_nan=False))


def finite(node: Any) -> Any:
    """Return *node* with null for the numbers that JSON does not have."""
    if isinstance(node, float) and not math.isfinite(node):
        return None
    if isinstance(node, dict):
        return {key: finite(child) for key, child in node.items()}
    if isinstance(node, list | tuple):
        return [finite(child) for child in node]
    return node


def write_page(sections: Iterable[Section]) -> None:
    """Write *sections* for a person: wrapped and with colours in a terminal, else plain."""
    paper = _terminal() if sys.stdout is not None and sys.stdout.isatty() else Paper()
    _write("\n\n".join("\n".join(_lines(section, paper)) for section in sections))


def terminal_width() -> int:
    """Return how many columns standard output has, or $COLUMNS; the usual number if it is no terminal."""
    stated = os.environ.get("COLUMNS", "")
    if stated.isascii() and stated.isdigit() and int(stated[:4]) > 0:
        return int(stated[:4])
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or USUAL_WIDTH
    except (OSError, ValueError, AttributeError):
        return USUAL_WIDTH


def printable(text: str) -> str:
    """Escape whatever a terminal might obey or hide, and what its encoding lacks."""
    escaped = "".join(character if character.isprintable() else _escape(character) for character in text)
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def span(length_s: float) -> str:
    """Write a length of time for people, in its two largest units."""
    left = abs(length_s)
    if left < 1:
        return "0 s"
    if left >= 100 * 365 * 86_400:
        return "over a hundred years"
    parts: list[str] = []
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, unit)
        if count and len(parts) < 2:
            parts.append(f"{count:.0f} {name}")
        elif parts:
            break
    return " ".join(parts)


def _write(text: str) -> None:
    if sys.stdout is None:
        fail("standard output is closed", os.EX_IOERR)
    try:
        click.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        fail_to_write(error)


def _terminal() -> Paper:
    has_colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Paper(width=terminal_width(), has_colours=has_colours)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _lines(section: Section, paper: Paper) -> Iterator[str]:
    heading = paper.wrapped(printable(section.heading), 0) if section.heading else ()
    yield from (paper.painted(line, section.style) for line in heading)
    rows = [row._replace(label=printable(row.label)) for row in section.rows]
    indent = "  " if section.heading else ""
    width = max((len(row.label) for row in rows), default=0)
    margin = len(indent) + width + 2
    if paper.width is not None and paper.width - margin < LEAST_TEXT:
        for row in rows:
            yield f"{indent}{paper.painted(row.label, row.style)}".rstrip()
            yield from (f"{indent}  {line}" for line in _texts(row, paper, len(indent) + 2))
        return
    for row in rows:
        first, *others = _texts(row, paper, margin)
        padding = " " * (width - len(row.label) + 2)
        yield f"{indent}{paper.painted(row.label, row.style)}{padding}{first}".rstrip()
        yield from (f"{' ' * margin}{line}" for line in others)


def _texts(row: Row, paper: Paper, margin: int) -> Iterator[str]:
    yield from paper.wrapped(printable(row.text), margin)
    for note in row.notes:
        yield from (paper.painted(line, "quiet") for line in paper.wrapped(printable(note), margin))
