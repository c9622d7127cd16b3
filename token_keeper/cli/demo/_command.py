"""`token-keeper demo`: a keeper at work among faults, for about a minute."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractContextManager, nullcontext

import click

from token_keeper._errors import TokenUnavailable
from token_keeper.cli._group import fail
from token_keeper.cli._input import Seconds
from token_keeper.cli.demo._lines import JsonLines, PlainLines
from token_keeper.cli.demo._play import Display, perform
from token_keeper.cli.demo._story import Pace


@click.command()
@click.option(
    "--for",
    "for_s",
    type=Seconds(1),
    metavar="SECONDS",
    help="End after so long, instead of after the script. Once that is over, nothing more breaks.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Write one event a line, as JSON; the last is the summary."
)
def demo(*, for_s: float | None, as_json: bool) -> int:
    """See a keeper at work, without any configuration.

    A backend on this machine issues access tokens that live for 12 s. A keeper
    keeps one fresh, and a client shows it to a chat server once a second. The
    backend goes down, comes back, breaks; the server revokes a token.

    Nothing leaves this machine. It takes about a minute.

    Exit codes: 0 the client never saw a bad token, 1 it did, 130 interrupted.
    """
    pace = Pace()
    with _display(pace, as_json=as_json) as display:
        try:
            summary = asyncio.run(perform(display, pace, for_s=for_s))
        except TokenUnavailable:
            fail("the demo's own backend cannot be reached on 127.0.0.1", os.EX_TEMPFAIL)
    return summary.exit_code


def _display(pace: Pace, *, as_json: bool) -> AbstractContextManager[Display]:
    if as_json:
        return nullcontext(JsonLines(sys.stdout))
    if not sys.stdout.isatty() or os.environ.get("TERM") in {"", "dumb"}:
        return nullcontext(PlainLines(sys.stdout, pace.lifetime_s))
    from rich.console import Console  # noqa: PLC0415 # Only a terminal needs it.

    from token_keeper.cli.demo._screen import Screen  # noqa: PLC0415 # As above.

    return Screen(Console(highlight=False))
