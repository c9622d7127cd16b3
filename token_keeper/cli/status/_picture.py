"""The live view of the sidecar's tokens as lines of text. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from token_keeper.cli._event_words import KIND_WIDTH, EventLine, time_of_day
from token_keeper.cli._spans import Glyphs, Line, Span, cells, cut, fit, folded
from token_keeper.cli.status._rows import NAME_MAX, NAME_MIN, USABLE, WIDE, Token, is_ready, table

HINT = "q ends"
EVENTS_LEAST = 3
"""Lines that events get, however many tokens there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is to be seen.

    Args:
        now: Unix seconds.
        head: Whether the sidecar is ready, and what it is.
        tokens: As they were when the sidecar was last asked.
        events: The latest last.
        lost_at: Since when there is no connection, Unix seconds; None if there is one.
        reason: Why there is none.
    """

    now: float
    head: Line
    tokens: Sequence[Token]
    events: Sequence[EventLine]
    lost_at: float | None = None
    reason: str = ""


def draw(view: View, *, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """Return *view* in at most *height* lines of *width* columns."""
    lines = [*_head(view, width), ()]
    events = [_event(line, view.events, width) for line in view.events]
    least = min(len(events), max(EVENTS_LEAST, height // 4))
    lines += _tokens(view, width, max(height - len(lines) - least - 2, 1), glyphs)
    lines += [(), _rule("events", width, glyphs)]
    room = max(height - len(lines), 0)
    lines += events[-room:] if room else []
    if not events:
        lines.append((Span("nothing yet: it is shown here as it happens", "quiet"),))
    return [cut(line, width) for line in lines[:height]]


def _head(view: View, width: int) -> list[Line]:
    right = f"{time_of_day(view.now)}  {HINT}"
    head = cut(view.head, max(width - len(right) - 2, 0))
    blank = " " * max(width - sum(cells(span.text) for span in head) - len(right), 1)
    lines: list[Line] = [(*head, Span(blank), Span(right, "quiet"))]
    if view.lost_at is not None:
        text = f"no connection since {time_of_day(view.lost_at)}: {view.reason}"
        lines += folded(text, width, 0, "error")[:3]
    return lines


def _tokens(view: View, width: int, room: int, glyphs: Glyphs) -> list[Line]:
    tokens = sorted((_at(token, view.now) for token in view.tokens), key=is_ready)
    lines: list[Line] = []
    shown = 0
    heading, blocks = _split(
        table(tokens[:room], now=view.now, width=width, glyphs=glyphs), len(tokens[:room])
    )
    lines += heading
    for index, block in enumerate(blocks):
        rest = len(tokens) - index - 1
        if len(lines) + len(block) + (1 if rest else 0) > room:
            break
        lines += block
        shown += 1
    if unseen := tokens[shown:]:
        counts = Counter(token.status for token in unseen)
        states = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        lines.append((Span(f"and {len(unseen)} more: {states}", "quiet"),))
    return lines


def _split(blocks: list[list[Line]], count: int) -> tuple[list[Line], list[list[Line]]]:
    """Part the heading, if there is one, from the lines of the tokens."""
    return (blocks[0], blocks[1:]) if len(blocks) > count else ([], blocks)


def _at(token: Token, now: float) -> Token:
    """Return *token* as it is at *now*: one that nobody renews expires."""
    if token.status in USABLE and token.expires_at is not None and token.expires_at <= now:
        return replace(token, status="expired", usable_for=0.0)
    return token


def _event(line: EventLine, all_events: Sequence[EventLine], width: int) -> Line:
    at = Span(f"{line.at}  ", "quiet")
    longest = max(len(each.name) for each in all_events)
    name = fit(line.name, min(max(longest, NAME_MIN), NAME_MAX if width >= 100 else 12))
    if width < WIDE:
        return (at, Span(f"{name} "), Span(line.kind, line.style))
    return (at, Span(f"{name}  "), Span(f"{line.kind:<{KIND_WIDTH}}  ", line.style), Span(line.text))


def _rule(title: str, width: int, glyphs: Glyphs) -> Line:
    return (Span(f"{title} {glyphs.rule * (width - len(title) - 1)}", "quiet"),)
