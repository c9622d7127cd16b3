"""What a backend may say about how long its token lives, beside the token.

Decides which numbers and texts are a lifetime or a time. What is neither is as
if it was not said: inspection and the configured default have the last word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

IN_NAMES: Final = ("expires_in", "expiresIn")
"""Where the seconds from receipt usually stand."""

AT_NAMES: Final = ("expires_at", "expiresAt")
"""Where the time of expiry usually stands."""

_LONGEST_S: Final = 10 * 366 * 86_400.0
# The first is of 2001; in milliseconds a time is larger than any of these.
_AT_RANGE: Final = (1e9, 1e11)
_ISO_LENGTH: Final = 40
_NUMERAL: Final = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_PLAIN_PATH: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


def stated_beside(document: object, path: str) -> tuple[float | None, float | None]:
    """Return `expires_in` and `expires_at` as said in the object that holds *path*, else at the top."""
    for scope in _scopes(document, path):
        expires_in = _first(duration(scope.get(name)) for name in IN_NAMES)
        expires_at = _first(moment(scope.get(name)) for name in AT_NAMES)
        if expires_in is not None or expires_at is not None:
            return expires_in, expires_at
    return None, None


def _scopes(document: object, path: str) -> Iterator[Mapping[object, object]]:
    """Yield the object that holds the token, then the whole answer."""
    inner = document
    if _PLAIN_PATH.fullmatch(path):
        for name in path.split(".")[:-1]:
            inner = inner.get(name) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            yield inner
    if inner is not document and isinstance(document, Mapping):
        yield document


def _first(values: Iterator[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def duration(value: object) -> float | None:
    """Return *value* as seconds, up to ten years, or None if it is no lifetime."""
    seconds = _number(value)
    return seconds if seconds is not None and 0 < seconds <= _LONGEST_S else None


def moment(value: object) -> float | None:
    """Return *value* as Unix seconds, or None if it is no time of our days."""
    number = _number(value)
    if number is None:
        return _iso_time(value)
    low, high = _AT_RANGE
    if 1_000 * low <= number < 1_000 * high:
        number /= 1_000
    return number if low <= number < high else None


def _iso_time(value: object) -> float | None:
    if not isinstance(value, str) or len(value) > _ISO_LENGTH:
        return None
    try:
        time = datetime.fromisoformat(value.strip())
        # Without a zone it could be off by half a day: worse than no time at all.
        return time.timestamp() if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _number(value: object) -> float | None:
    if isinstance(value, str) and _NUMERAL.fullmatch(value):
        return float(value)
    if not is_number(value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type] # `is_number` was asked.
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def is_number(value: object) -> bool:
    """Whether *value* is a number of JSON."""
    return isinstance(value, int | float) and not isinstance(value, bool)
