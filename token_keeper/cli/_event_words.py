"""What the sidecar's events mean, in words for people. Pure functions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from token_keeper.cli._output import printable, span

NAME_WIDTH = 8
"""Least columns for names."""
KIND_WIDTH = 18
"""Of the longest name of an event, `tokenAboutToExpire`."""
STYLE_OF = {
    "tokenUpdated": "good",
    "recovered": "good",
    "tokenAboutToExpire": "info",
    "clockJumped": "info",
    "snapshot": "quiet",
    "refreshFailed": "warning",
    "tokenDenied": "warning",
    "tokenExpired": "error",
    "refreshRefused": "error",
    "recoveryFailed": "error",
}


class EventLine(NamedTuple):
    """An event for people.

    Args:
        at: Local time of day.
        name: Of the token.
        kind: Of the event.
        text: What matters of it.
        style: A key of `STYLES`.
    """

    at: str
    name: str
    kind: str
    text: str
    style: str


def line_of(event: Mapping[str, Any]) -> EventLine:
    """Return *event*, the data of a message, as a line."""
    kind = str(event.get("kind", "?"))
    return EventLine(
        at=time_of_day(event.get("at")),
        name=printable(str(event.get("name", ""))),
        kind=printable(kind),
        text=printable(_text(kind, event)),
        style=STYLE_OF.get(kind, "plain"),
    )


def snapshot_line(document: Mapping[str, Any], at: float) -> EventLine:
    """Return the state of all tokens, as a stream begins with it, as a line."""
    rows = document.get("tokens")
    tokens = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    # Null is without end.
    unusable = [f"{row.get('name')} is {row.get('status')}" for row in tokens if row.get("usable_for") == 0]
    count = f"{len(tokens)} token{'s' * (len(tokens) != 1)}"
    text = f"{count}, {', '.join(unusable[:5])}" if unusable else f"{count}, all usable"
    more = f" and {len(unusable) - 5} more are not usable" if len(unusable) > 5 else ""
    return EventLine(time_of_day(at), "", "snapshot", printable(text + more), "quiet")


def time_of_day(at: object) -> str:
    """Return the Unix time *at* as the local time of day, with the date if that is not today's."""
    if not isinstance(at, int | float):
        return "??:??:??"
    try:
        local = time.localtime(at)
    except (OverflowError, OSError, ValueError):
        return "??:??:??"
    is_today = local[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", local)


def _text(kind: str, event: Mapping[str, Any]) -> str:
    generation = f"generation {event.get('generation', 0)}"
    error = str(event.get("error") or "")
    left = _left(event)
    match kind:
        case "tokenUpdated":
            return f"{generation}, {event.get('fingerprint')}, {left}"
        case "tokenAboutToExpire" | "tokenExpired":
            return f"{generation}, {left}"
        case "tokenDenied":
            verdict = event.get("verdict")
            follows = "another is being fetched" if verdict == "denied" else f"verdict {verdict}"
            return f"{generation} was refused by a server; {follows}"
        case "recovered":
            return f"{generation} is accepted"
        case "refreshFailed":
            return f"{event.get('failures', 0)} in a row: {error}" if error else "the fetch failed"
        case "recoveryFailed":
            diagnosis = event.get("diagnosis")
            texts = [str(text) for text in diagnosis] if isinstance(diagnosis, list) else []
            return "; ".join(texts) or error or "too many tokens were denied"
        case "clockJumped":
            return "a clock of this machine was set, or it slept"
        case _:
            return error


def _left(event: Mapping[str, Any]) -> str:
    expires_at, at = event.get("expires_at"), event.get("at")
    if not isinstance(expires_at, int | float) or not isinstance(at, int | float):
        return "without a known expiry"
    left = expires_at - at
    if left <= 0:
        return f"expired {span(left)} ago" if left <= -1 else "expired"
    return f"expires in {span(left)}"
