"""The sidecar's tokens as a table. Pure functions from the API's document to lines.

Whatever the document holds, it is shown: a sidecar may be older or newer than this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from token_keeper.cli._output import printable, span
from token_keeper.cli._spans import Glyphs, Line, Span, bar, fit, folded

USABLE = frozenset({"fresh", "stale"})
STATUS_STYLES = {
    "fresh": "good",
    "stale": "warning",
    "expired": "error",
    "denied": "error",
    "absent": "error",
}
STATUS_WIDTH, LEFT_WIDTH, REFRESH_WIDTH, GENERATION_WIDTH, FAILURES_WIDTH = 7, 11, 14, 3, 5
NAME_MIN, NAME_MAX = 5, 24
BAR_MIN, BAR_MAX = 6, 30
WIDE = 66
"""From so many columns on, a token has one line."""
MARGIN_S, MARGIN_RATIO = 10.0, 0.1
"""A ready token is usable for so many seconds or that share of its lifetime, whichever is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """How a token of the sidecar stands. Times are Unix seconds; None is not known."""

    name: str
    status: str
    phase: str
    generation: int
    failures: int
    issued_at: float | None
    expires_at: float | None
    stale_at: float | None
    refresh_at: float | None
    next_attempt_at: float | None
    usable_for: float | None
    last_error: str
    source: str
    sinks_failed: tuple[str, ...]
    sinks_behind: tuple[str, ...]


def token_of(row: Mapping[str, Any]) -> Token:
    """Return the token that *row* of `GET /v1/tokens` describes."""
    return Token(
        name=_text(row.get("name")),
        status=_text(row.get("status")),
        phase=_text(row.get("phase")),
        generation=_count(row.get("generation")),
        failures=_count(row.get("failures")),
        issued_at=_number(row.get("issued_at")),
        expires_at=_number(row.get("expires_at")),
        stale_at=_number(row.get("stale_at")),
        refresh_at=_number(row.get("refresh_at")),
        next_attempt_at=_number(row.get("next_attempt_at")),
        usable_for=_number(row.get("usable_for")),
        last_error=_text(row.get("last_error") or ""),
        source=_text(row.get("source") or ""),
        sinks_failed=tuple(_failed(row)),
        sinks_behind=tuple(_behind(row)),
    )


def is_ready(token: Token) -> bool:
    """Whether *token* is usable for long enough, and its sinks are well."""
    if token.status not in USABLE or token.sinks_failed:
        return False
    if token.usable_for is None:
        return True
    return token.usable_for >= min(MARGIN_S, MARGIN_RATIO * (_lifetime(token) or math.inf))


def table(tokens: Sequence[Token], *, now: float, width: int | None, glyphs: Glyphs) -> list[list[Line]]:
    """Return *tokens* as lines: a heading, then those of each token.

    Args:
        tokens: What to show.
        now: Unix seconds.
        width: Columns; None is as many as it takes.
        glyphs: To draw with.
    """
    names = max((len(token.name) for token in tokens), default=0)
    if width is not None and width < WIDE:
        return [_narrow(token, now, width, glyphs) for token in tokens]
    columns = _columns(names, width)
    return [[_heading(columns)], *(_wide(token, now, columns, width, glyphs) for token in tokens)]


@dataclass(frozen=True, slots=True)
class _Columns:
    name: int
    bar: int


def _columns(names: int, width: int | None) -> _Columns:
    if width is None:
        return _Columns(max(names, NAME_MIN), 20)
    fixed = STATUS_WIDTH + LEFT_WIDTH + REFRESH_WIDTH + GENERATION_WIDTH + FAILURES_WIDTH + 6 * 2 + 1
    name = min(max(names, NAME_MIN), NAME_MAX, max(width - fixed - BAR_MIN, NAME_MIN))
    return _Columns(name, min(width - fixed - name, BAR_MAX))


def _heading(columns: _Columns) -> Line:
    texts = (
        fit("token", columns.name),
        "status".ljust(STATUS_WIDTH),
        fit("time left", columns.bar + 1 + LEFT_WIDTH + 1),
        "next refresh".ljust(REFRESH_WIDTH),
        "gen".rjust(GENERATION_WIDTH),
        "fails".rjust(FAILURES_WIDTH),
    )
    return (Span("  ".join(texts), "quiet"),)


def _wide(token: Token, now: float, columns: _Columns, width: int | None, glyphs: Glyphs) -> list[Line]:
    style = style_of(token)
    line = (
        Span(fit(token.name, columns.name) + "  "),
        Span(fit(token.status, STATUS_WIDTH), style),
        Span("  "),
        Span(drawn_life(token, now, columns.bar, glyphs), style),
        Span(f" {left_text(token, now):>{LEFT_WIDTH}}   "),
        Span(fit(next_text(token, now), REFRESH_WIDTH)),
        Span(f"  {token.generation:>{GENERATION_WIDTH}}"),
        Span(f"  {token.failures:>{FAILURES_WIDTH}}", "warning" if token.failures else "plain"),
    )
    return [line, *_notes(token, width)]


def _narrow(token: Token, now: float, width: int, glyphs: Glyphs) -> list[Line]:
    style = style_of(token)
    left = left_text(token, now)
    failures = f", {token.failures} failed" if token.failures else ""
    return [
        (Span(fit(token.name, width - STATUS_WIDTH - 1) + " "), Span(fit(token.status, STATUS_WIDTH), style)),
        (
            Span("  "),
            Span(drawn_life(token, now, max(width - LEFT_WIDTH - 3, BAR_MIN), glyphs), style),
            Span(f" {left:>{LEFT_WIDTH}}"),
        ),
        *folded(
            f"refresh {next_text(token, now)}, generation {token.generation}{failures}", width, 2, "quiet"
        ),
        *_notes(token, width),
    ]


def _notes(token: Token, width: int | None) -> list[Line]:
    # A chain has several sources; which one works is worth a line.
    lines = folded(f"from {token.source}", width, 2, "quiet") if token.source else []
    if token.last_error:
        style = "warning" if token.status in USABLE else "error"
        lines += folded(token.last_error, width, 2, style)
    for problem in token.sinks_failed:
        lines += folded(problem, width, 2, "error")
    for problem in token.sinks_behind:
        lines += folded(problem, width, 2, "quiet")
    return lines


def style_of(token: Token) -> str:
    """Return the key of `STYLES` for the state of *token*."""
    return STATUS_STYLES.get(token.status, "plain")


def drawn_life(token: Token, now: float, width: int, glyphs: Glyphs) -> str:
    """Return the share of its lifetime that *token* has left, as a bar.

    An opaque token does not say when it was issued: its bar is full until the refresh is due.
    """
    if token.status not in USABLE:
        return bar(0.0, width, glyphs)
    lifetime = _lifetime(token) or _lead(token)
    if not lifetime or token.expires_at is None:
        return bar(1.0, width, glyphs)
    return bar((token.expires_at - now) / lifetime, width, glyphs)


def left_text(token: Token, now: float) -> str:
    """Return for how long *token* is still usable."""
    if token.status == "denied":
        return "denied"
    if token.generation == 0 or token.status == "absent":
        return "none yet"
    if token.expires_at is None:
        return "no expiry"
    left = token.expires_at - now
    return span(left) if left > 0 else f"{_short(left)} ago"


def next_text(token: Token, now: float) -> str:
    """Return when the next fetch of *token* is due."""
    if token.phase == "fetching":
        return "now"
    at = token.next_attempt_at if token.next_attempt_at is not None else token.refresh_at
    if at is None:
        return "-"
    return f"in {span(at - now)}" if at - now >= 1 else "due"


def _short(length_s: float) -> str:
    return " ".join(span(length_s).split()[:2])


def _lifetime(token: Token) -> float | None:
    if token.expires_at is None or token.issued_at is None:
        return None
    return max(token.expires_at - token.issued_at, 0.0)


def _lead(token: Token) -> float | None:
    if token.expires_at is None or token.stale_at is None:
        return None
    return max(token.expires_at - token.stale_at, 0.0)


def _sinks(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    sinks = row.get("sinks")
    return [sink for sink in sinks if isinstance(sink, dict)] if isinstance(sinks, list) else []


def _failed(row: Mapping[str, Any]) -> Iterator[str]:
    for sink in _sinks(row):
        if sink.get("error"):
            yield _text(f"{sink.get('path')} {_held(sink)}: {sink['error']}")


def _behind(row: Mapping[str, Any]) -> Iterator[str]:
    for sink in _sinks(row):
        if not sink.get("error") and sink.get("generation") != row.get("generation"):
            yield _text(f"{sink.get('path')} {_held(sink)}: the current one is being written")


def _held(sink: Mapping[str, Any]) -> str:
    generation = sink.get("generation")
    return f"holds generation {generation}" if generation else "was not written yet"


def _text(value: object) -> str:
    return printable(str(value)[:2_000])


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return float(value)


def _count(value: object) -> int:
    return int(_number(value) or 0)
