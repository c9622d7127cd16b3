"""A picture of a token's life in one line of text, scaled to a width."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from token_keeper.doctor._words import length

LEAST_WIDTH = 24
_GAP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point in time, or a span, with a name.

    Args:
        name: What happens then.
        at: Seconds from now; negative in the past.
        until: The end of the span, if it is one.
    """

    name: str
    at: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class _Label:
    """What stands above and below the bar, around one column."""

    column: int
    name: str
    time: str

    def span(self, width: int) -> tuple[int, int]:
        """Return the first column of it, and the first one after it."""
        wider = max(self.name, self.time, key=len)
        start = _start(self.column, wider, width)
        return start, start + len(wider)


def timeline(marks: Sequence[Mark], width: int) -> list[str]:
    """Draw *marks* into lines of at most *width* characters: names, a bar, and times.

    `=` is past, `-` is to come, `#` is a span. Nothing is drawn of fewer than two times.
    """
    ends = [point for mark in marks for point in (mark.at, mark.until) if point is not None]
    if not ends or max(ends) - min(ends) < 1:
        return []
    width = max(width, LEAST_WIDTH)
    first, last = min(ends), max(ends)

    def column(at: float) -> int:
        return round((at - first) / (last - first) * (width - 1))

    rows = _rows(_labels(marks, column), width)
    return [
        *(_line(row, width, lambda label: label.name) for row in reversed(rows)),
        _bar(marks, column, width),
        *(_line(row, width, lambda label: label.time) for row in rows),
    ]


def _bar(marks: Sequence[Mark], column: Callable[[float], int], width: int) -> str:
    now = column(0)
    bar = ["=" if index < now else "-" for index in range(width)]
    for mark in marks:
        if mark.until is not None:
            start, end = column(mark.at), column(mark.until) + 1
            bar[start:end] = "#" * (end - start)
    for mark in marks:
        if mark.until is None:
            bar[column(mark.at)] = "|"
    return "".join(bar)


def _labels(marks: Sequence[Mark], column: Callable[[float], int]) -> list[_Label]:
    """Return a label for each column that has marks, from left to right."""
    places: dict[int, list[Mark]] = {}
    for mark in sorted(marks, key=lambda mark: mark.at):
        middle = mark.at if mark.until is None else (mark.at + mark.until) / 2
        places.setdefault(column(middle), []).append(mark)
    return [
        _Label(place, ", ".join(mark.name for mark in group), _time(group))
        for place, group in sorted(places.items())
    ]


def _time(group: Sequence[Mark]) -> str:
    mark = next((mark for mark in group if mark.name == "now"), group[-1])
    if mark.until is not None and round(mark.until) != round(mark.at):
        return f"in {length(mark.at)} .. {length(mark.until)}"
    if round(mark.at) == 0:
        return "0 s"
    return f"in {length(mark.at)}" if mark.at > 0 else f"{length(mark.at)} ago"


def _rows(labels: Iterable[_Label], width: int) -> list[list[_Label]]:
    """Put each label into the first row where it does not touch the one before it."""
    rows: list[list[_Label]] = []
    for label in labels:
        start, _ = label.span(width)
        row = next((row for row in rows if row[-1].span(width)[1] + _GAP <= start), None)
        if row is None:
            rows.append([label])
        else:
            row.append(label)
    return rows


def _line(row: Sequence[_Label], width: int, text: Callable[[_Label], str]) -> str:
    line = ""
    for label in row:
        line = line.ljust(_start(label.column, text(label), width)) + text(label)
    return line


def _start(column: int, text: str, width: int) -> int:
    """Return where *text* begins so that its middle is at *column*, within *width*."""
    return max(0, min(column - len(text) // 2, width - len(text)))
