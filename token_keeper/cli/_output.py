"""What commands write: JSON for programs, pages for people."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import click

STYLES = {
    "error": "bold red",
    "warning": "bold yellow",
    "info": "cyan",
    "good": "bold green",
    "quiet": "dim",
    "plain": "",
    "heading": "bold",
}
"""By meaning, how rich writes it."""


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
    """Rows under a heading.

    Args:
        heading: Stands above the rows; may be empty.
        rows: Have a common width of their first column.
        style: A key of `STYLES`, for the heading.
    """

    heading: str = ""
    rows: Sequence[Row] = ()
    style: str = "heading"


def write_json(document: object) -> None:
    """Write *document* as JSON (RFC 8259), in ASCII."""
    click.echo(json.dumps(finite(document), indent=2, allow_nan=False))


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
    """Write *sections* for a person: with colours in a terminal, else plain."""
    if sys.stdout.isatty():
        _write_rich(sections)
    else:
        click.echo("\n\n".join("\n".join(_plain(section)) for section in sections))


def printable(text: str) -> str:
    """Escape whatever a terminal might obey or hide, and what its encoding lacks."""
    escaped = "".join(character if character.isprintable() else _escape(character) for character in text)
    encoding = sys.stdout.encoding or "ascii"
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


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _plain(section: Section) -> Iterable[str]:
    if section.heading:
        yield printable(section.heading)
    width = max((len(row.label) for row in section.rows), default=0)
    indent = "  " if section.heading else ""
    for row in section.rows:
        yield f"{indent}{printable(row.label):<{width}}  {printable(row.text)}".rstrip()
        for note in row.notes:
            yield f"{indent}{'':<{width}}  {printable(note)}"


def _write_rich(sections: Iterable[Section]) -> None:
    from rich.console import Console  # noqa: PLC0415 # Only a terminal needs it.
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=False)
    for index, section in enumerate(sections):
        if index:
            console.print()
        if section.heading:
            console.print(Text(printable(section.heading), style=STYLES[section.style]))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for row in section.rows:
            label = Text(f"  {printable(row.label)}", style=STYLES[row.style])
            grid.add_row(label, Text(printable(row.text)))
            for note in row.notes:
                grid.add_row("", Text(printable(note), style=STYLES["quiet"]))
        console.print(grid)
