"""The demo for a terminal: a live picture, and in the end what happened."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from token_keeper.cli._output import STYLES
from token_keeper.cli.demo import _words as words
from token_keeper.cli.demo._lines import ending
from token_keeper.cli.demo._picture import MAX_WIDTH, draw, entry, glyphs_for
from token_keeper.cli.demo._record import Happening, Summary
from token_keeper.cli.demo._stage import Picture

MAX_LOG = 500
"""Happenings that are remembered."""


class Screen:
    """Draws on the alternate screen, and gives the terminal back as it was.

    Args:
        console: Of a terminal. It knows about colours, also about NO_COLOR.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._glyphs = glyphs_for(console.encoding)
        self._log: deque[Happening] = deque(maxlen=MAX_LOG)
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, news: Sequence[Happening], picture: Picture) -> None:
        """Draw how everything stands now."""
        self._log.extend(news)
        width, height = self._console.size
        lines = draw(picture, self._log, width=width, height=height, glyphs=self._glyphs)
        self._live.update(Group(*lines), refresh=True)

    def finish(self, summary: Summary) -> None:
        """Give the terminal back and write what happened."""
        self._live.stop()
        width = min(self._console.width, MAX_WIDTH)
        self._console.print(Text(words.TITLE, style=STYLES["heading"]))
        for happening in self._log:
            self._console.print(*entry(happening, width), sep="\n")
        good = STYLES["good" if summary.ok else "error"]
        for each in ending(summary, width=width):
            is_verdict = each == words.conclusion(summary)
            is_heading = each.startswith("Summary")
            style = good if is_verdict else STYLES["heading"] if is_heading else ""
            self._console.print(Text(each, style=style))
