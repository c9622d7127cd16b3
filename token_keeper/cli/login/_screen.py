"""Shows a login in a terminal: the code in large letters, and below it how long it still is good for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from textwrap import wrap
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

from token_keeper.cli._output import LEAST_TEXT, span
from token_keeper.cli.login._display import Invitation
from token_keeper.cli.login._letters import large

WIDEST: Final = 78
"""Columns that are used at most: a longer bar says nothing more."""
_STEP: Final = "  "
_INDENT: Final = "     "
_SOON_S: Final = 60.0


class _Bar(ProgressColumn):
    """The time that is left of the code's life: it shrinks.

    Args:
        width: Columns.
    """

    max_refresh = 0.5

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def render(self, task: Task) -> ProgressBar:
        return ProgressBar(
            total=task.total, completed=_left_s(task), width=self._width, complete_style="cyan"
        )


class _Left(ProgressColumn):
    """For how long the code is still good."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = _left_s(task)
        if left < 1:
            return Text("the code has expired", style="yellow")
        return Text(f"{span(left)} left", style="yellow" if left < _SOON_S else "")


def _left_s(task: Task) -> float:
    return max((task.total or 0.0) - (task.elapsed or 0.0), 0.0)


class Screen:
    """Shows it in the terminal of standard error."""

    def __init__(self) -> None:
        console = Console(file=sys.stderr, highlight=False, emoji=False, markup=False)
        self._has_blocks = _writes(console.encoding, "\u2580\u280b\u2501")
        self._console = console
        self._width = min(console.width, WIDEST)
        self._waiting: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._waiting is not None:
            self._waiting.stop()
            self._waiting = None

    def invite(self, to: Invitation) -> None:
        """As `Display`."""
        for line in self._page(to):
            # An address that is cut into lines could not be clicked on, nor copied.
            self._console.print(line, soft_wrap=True)
        self._waiting = Progress(
            SpinnerColumn("dots" if self._has_blocks else "line", style="cyan"),
            TextColumn("waiting for your approval"),
            _Bar(max(min(self._width - 50, 28), 4)),
            _Left(),
            console=self._console,
            transient=True,
            get_time=time.monotonic,
        )
        self._waiting.add_task("", total=to.expires_in)
        self._waiting.start()

    def _page(self, to: Invitation) -> Iterator[Text]:
        yield Text()
        yield Text.assemble(_STEP, ("Log in for the token ", "bold"), (to.token, "bold cyan"))
        yield Text()
        yield from self._prose("1. Open this page, on this or any other device:")
        yield Text()
        yield Text.assemble(_INDENT, (to.page, "bold cyan"))
        yield Text()
        yield from self._prose("2. Enter this code there, and approve:")
        yield Text()
        letters = large(to.code, self._width - len(_INDENT)) if self._has_blocks else ()
        for line in letters:
            yield Text.assemble(_INDENT, (line, "bold green"))
        if letters:
            yield Text()
        yield Text.assemble(_INDENT, (to.code, "bold green"))
        yield Text()
        if to.whole_page is not None:
            yield from self._prose(
                "With the code in it already; approve only if the page shows the same one:"
            )
            yield Text.assemble(_INDENT, (to.whole_page, "cyan"))
            yield Text()
        yield from self._prose(to.browser, style="dim")
        yield from self._prose("Ctrl-C ends it, and nothing is changed.", style="dim")
        yield Text()

    def _prose(self, text: str, *, style: str = "") -> Iterator[Text]:
        for line in wrap(text, max(self._width - len(_STEP), LEAST_TEXT)):
            yield Text(f"{_STEP}{line}", style=style)


def _writes(encoding: str, signs: str) -> bool:
    try:
        signs.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
