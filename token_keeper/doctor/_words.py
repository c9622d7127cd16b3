"""Lengths of time and counts, written for people."""

from __future__ import annotations

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def length(seconds: float) -> str:
    """Write a length of time in its two largest units; below 10 s with one digit, below 1 s in ms."""
    seconds = abs(seconds)
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    if seconds >= 100 * 365 * 86_400:
        return "over a hundred years"
    left, parts = round(seconds), list[str]()
    for unit, name in _UNITS:
        count, left = divmod(left, unit)
        if count:
            parts.append(f"{count} {name}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts)


def whole(seconds: float) -> str:
    """Write a number of seconds, for formulas."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{round(seconds, 1):g} s"


def listed(items: list[str], *, most: int = 4) -> str:
    """Write *items* after one another, the first *most* of them."""
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")
