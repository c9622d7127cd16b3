"""Times in HTTP headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from typing import Final

_SECONDS: Final = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)
_YEAR_S: Final = 366 * 86_400.0


def http_date(value: str | None) -> float | None:
    """Return an HTTP date as Unix seconds, or None if *value* is none."""
    if not value:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - It costs more than the rest of this file.

    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that `Retry-After` asks for, up to a year; None if it is unreadable.

    Args:
        headers: Of the answer. A date in it is read by the answer's own clock.
        now: Unix seconds, for an answer that does not say its own.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        wait: float = float(value)
    else:
        until, sent_at = http_date(value), http_date(headers.get("date"))
        if until is None:
            return None
        wait = until - (sent_at if sent_at is not None else now)
    return wait if 0 < wait <= _YEAR_S else None


def server_time(headers: Mapping[str, str]) -> float | None:
    """Return the backend's clock when it answered, unless the answer is from a cache."""
    age = headers.get("age", "0").strip()
    return http_date(headers.get("date")) if age == "0" else None
