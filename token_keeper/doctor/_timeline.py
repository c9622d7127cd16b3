"""A picture of a token's life in one line of text, scaled to a width."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from token_keeper.doctor._words import length

LEAST_WIDTH = 40
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

    groups = _groups(marks, column)
    names = [(place, ", ".join(mark.name for mark in group)) for place, group in groups]
    times = [(place, _time(group)) for place, group in groups]
    return [*reversed(_lines(names, width)), _bar(marks, column, width), *_lines(times, width)]


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


def _groups(marks: Sequence[Mark], column: Callable[[float], int]) -> list[tuple[int, list[Mark]]]:
    """Return the marks of each column that has any, from left to right."""
    places: dict[int, list[Mark]] = {}
    for mark in sorted(marks, key=lambda mark: mark.at):
        middle = mark.at if mark.until is None else (mark.at + mark.until) / 2
        places.setdefault(column(middle), []).append(mark)
    return sorted(places.items())


def _time(group: Sequence[Mark]) -> str:
    mark = next((mark for mark in group if mark.name == "now"), group[-1])
    if mark.until is not None and round(mark.until) != round(mark.at):
        return f"in {length(mark.at)} .. {length(mark.until)}"
    if round(mark.at) == 0:
        return "0 s"
    return f"in {length(mark.at)}" if mark.at > 0 else f"{length(mark.at)} ago"


def _lines(texts: Iterable[tuple[int, str]], width: int) -> list[str]:
    """Put each text around its column, into the first line where it does not touch the one before it."""
    lines: list[str] = []
    for column, text in texts:
        start = max(0, min(column - len(text) // 2, width - len(text)))
        for index, line in enumerate(lines):
            if len(line) + _GAP <= start:
                lines[index] = line.ljust(start) + text
                break
        else:
            lines.append(" " * start + text)
    return [line[:width] for line in lines]
