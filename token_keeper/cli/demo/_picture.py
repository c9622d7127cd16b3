"""The demo as a picture in characters: pure functions from how things stand to lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from token_keeper._model import Snapshot, Status
from token_keeper.cli._output import STYLES
from token_keeper.cli.demo import _words as words
from token_keeper.cli.demo._lines import EVENT_WIDTH, label
from token_keeper.cli.demo._record import Happening, Outcome, Tally
from token_keeper.cli.demo._stage import Picture

MAX_WIDTH = 100
"""Longer lines are hard to read."""
LABEL_WIDTH = 10
LEFT_WIDTH = 13
"""Of what stands after the bar."""
URGENT_S = 2.0
"""A token with less left is shown in red."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters to draw with.

    Args:
        bar: Of the bar: empty, full, and what is in between.
        mark: Points up at the bar.
        arrow: From who gives to who takes.
        outcomes: One for each `Outcome`.
        rule: Of a horizontal line.
        dot: Between words.
    """

    bar: str
    mark: str
    arrow: str
    outcomes: str
    rule: str
    dot: str


UNICODE = Glyphs(
    bar="░▏▎▍▌▋▊▉█",
    mark="▲",
    arrow="──▶",
    outcomes="■✗·",
    rule="─",
    dot="·",
)
ASCII = Glyphs(bar=".#", mark="^", arrow="-->", outcomes="+x-", rule="-", dot="-")


def glyphs_for(encoding: str) -> Glyphs:
    """Return the best characters that a terminal of this *encoding* can show."""
    try:
        f"{UNICODE.bar}{UNICODE.mark}{UNICODE.arrow}{UNICODE.outcomes}{UNICODE.rule}{UNICODE.dot}".encode(
            encoding
        )
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return UNICODE


def draw(
    picture: Picture, log: Sequence[Happening], *, width: int, height: int, glyphs: Glyphs
) -> list[Text]:
    """Return how things stand, then the latest of *log*: at most *height* lines of *width* characters."""
    width = min(width, MAX_WIDTH)
    lines = [
        *_head(picture, width, glyphs),
        *_scene(picture, width),
        Text(),
        *_board(picture, width, glyphs),
        Text(),
    ]
    heading = f" events {glyphs.rule * (width - 9)}"
    lines.append(Text(heading, style=STYLES["quiet"]))
    lines += latest(log, width=width, height=height - len(lines))
    for each in lines:
        each.truncate(width)
    return lines[:height]


def bar(left: float, width: int, glyphs: Glyphs) -> str:
    """Return a bar of *width* characters, of which the share *left*, 0 to 1, is full."""
    steps = len(glyphs.bar) - 1
    filled = round(min(max(left, 0.0), 1.0) * width * steps)
    full, rest = divmod(filled, steps)
    drawn = glyphs.bar[-1] * full + (glyphs.bar[rest] if rest else "")
    return drawn.ljust(width, glyphs.bar[0])


def mark(at: float, text: str, width: int, glyphs: Glyphs) -> str:
    """Return a line that points with *text* at the share *at*, 0 to 1, of the bar above."""
    column = round(min(max(at, 0.0), 1.0) * (width - 1))
    if column + 2 + len(text) <= width:
        return f"{'':{column}}{glyphs.mark} {text}"
    return f"{text} {glyphs.mark}".rjust(column + 1)


def latest(log: Sequence[Happening], *, width: int, height: int) -> list[Text]:
    """Return the last lines of *log* that fit, the oldest first."""
    lines: list[Text] = []
    for happening in reversed(log):
        block = entry(happening, width)
        if len(lines) + len(block) > height:
            break
        lines[:0] = block
    return lines


def entry(happening: Happening, width: int) -> list[Text]:
    """Return *happening* as lines of at most *width* characters."""
    at = Text(f" {words.clock(happening.after_s):>5}  ", style=STYLES["quiet"])
    style = STYLES[happening.style]
    if happening.event == "scene":
        return [Text.assemble(at, (happening.text, style))]
    indent = len(at) + EVENT_WIDTH + 2
    first, *more = _wrapped(happening.text, width - indent)
    lines = [Text.assemble(at, (f"{label(happening):<{EVENT_WIDTH}}  ", style), first)]
    return lines + [Text(" " * indent + each) for each in more]


def _head(picture: Picture, width: int, glyphs: Glyphs) -> Iterable[Text]:
    title, time = f" {words.TITLE}", f"Ctrl-C ends it  {words.clock(picture.after_s)} "
    yield Text.assemble((title, STYLES["heading"]), (time.rjust(width - len(title)), STYLES["quiet"]))
    for line in _wrapped(words.intro(picture.pace.lifetime_s), width - 1):
        yield Text(f" {line}")
    arrow = glyphs.arrow
    chain = f" backend {arrow} tokens {arrow} keeper {arrow} a valid token {arrow} client {arrow} chat server"
    if len(chain) <= width:
        yield Text(chain, style=STYLES["quiet"])
    yield Text()


def _scene(picture: Picture, width: int) -> Iterable[Text]:
    yield Text(f" {picture.headline}", style=STYLES["heading"])
    for line in _wrapped(picture.caption, width - 3):
        yield Text(f"   {line}")


def _board(picture: Picture, width: int, glyphs: Glyphs) -> Iterable[Text]:
    snapshot, doing = picture.snapshot, picture.backend
    dot = f" {glyphs.dot} "
    yield _row("backend", (doing.label, STYLES[doing.style]), f"{dot}{doing.text}")
    status = (str(snapshot.status), STYLES[words.STATUS_STYLES.get(snapshot.status, "plain")])
    yield _row("keeper", status, dot + words.business(snapshot, now=picture.now))
    yield from _life(picture, width - LABEL_WIDTH - 2, glyphs)
    yield _row("client", *_strip(picture.tally, width - LABEL_WIDTH - 2, glyphs))
    yield _row("", *_counts(picture.tally, glyphs))


def _life(picture: Picture, width: int, glyphs: Glyphs) -> Iterable[Text]:
    snapshot = picture.snapshot
    yield _row("token", f"generation {snapshot.generation} {glyphs.dot} fingerprint {snapshot.fingerprint}")
    left_s = max((snapshot.expires_at or picture.now) - picture.now, 0.0)
    lifetime_s = picture.lifetime_s or 1.0
    style = _urgency(snapshot, left_s)
    drawn = bar(left_s / lifetime_s, width - LEFT_WIDTH, glyphs)
    filled = len(drawn.rstrip(glyphs.bar[0]))
    left = "withheld" if snapshot.status is Status.DENIED else f"{left_s:.1f} s left"
    yield _row("", (drawn[:filled], style), (drawn[filled:], STYLES["quiet"]), (f"  {left}", style))
    due = (snapshot.expires_at or 0.0) - (snapshot.refresh_at or 0.0)
    pointed = mark(due / lifetime_s, "refresh due", width - LEFT_WIDTH, glyphs) if snapshot.refresh_at else ""
    yield _row("", (pointed, STYLES["quiet"]))


def _urgency(snapshot: Snapshot, left_s: float) -> str:
    name = "error" if left_s < URGENT_S else words.STATUS_STYLES.get(snapshot.status, "plain")
    # Bold blocks are brighter in some terminals, and of another colour in others.
    return STYLES[name].removeprefix("bold ")


def _strip(tally: Tally, width: int, glyphs: Glyphs) -> Iterable[tuple[str, str]]:
    """Yield the last requests, one character each."""
    for outcome in list(tally.marks)[-width:]:
        yield _glyph(outcome, glyphs)


def _counts(tally: Tally, glyphs: Glyphs) -> Iterable[tuple[str, str] | str]:
    counts = {
        Outcome.ACCEPTED: tally.accepted,
        Outcome.REFUSED: tally.refused,
        Outcome.NO_TOKEN: tally.without_token,
    }
    for outcome, count in counts.items():
        yield _glyph(outcome, glyphs)
        yield f" {count} {outcome}   "


def _glyph(outcome: Outcome, glyphs: Glyphs) -> tuple[str, str]:
    position = list(Outcome).index(outcome)
    return glyphs.outcomes[position], ("green", STYLES["error"], STYLES["warning"])[position]


def _row(name: str, *spans: str | tuple[str, str]) -> Text:
    return Text.assemble((f" {name:<{LABEL_WIDTH}}", STYLES["quiet"]), *spans)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 10)) or [""]
