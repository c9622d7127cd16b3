"""`token-keeper status`: how the tokens are, for people, programs and probes."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from token_keeper.cli._answers import document_of
from token_keeper.cli._asking import Name, all_tokens, fail_unknown, rows_of, sidecar_at, socket_option
from token_keeper.cli._client import Sidecar
from token_keeper.cli._group import Failure, SafeUsageError
from token_keeper.cli._output import printable, span, terminal_width, write_json
from token_keeper.cli._printing import has_colours, write
from token_keeper.cli._spans import Line, Span, cut, glyphs_for, painted
from token_keeper.cli.status._rows import is_ready, table, token_of

NOT_READY = 1


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, type=Name())
@click.option("--json", "as_json", is_flag=True, help="Write the sidecar's answer, as JSON.")
@click.option("--watch", is_flag=True, help="Stay and show it live; q ends.")
@click.option("--quiet", is_flag=True, help="Write nothing at all; the exit code tells. For probes.")
@click.option("--live", is_flag=True, help="Ask only whether the sidecar is alive, not for its tokens.")
@socket_option
def status(  # noqa: PLR0913 # One per option.
    *, names: tuple[str, ...], as_json: bool, watch: bool, quiet: bool, live: bool, socket_path: str | None
) -> int:
    """Say how the sidecar's tokens are: all, or those of each NAME.

    \b
        token-keeper status
        token-keeper status --watch
        token-keeper status --quiet && echo ready

    Ready: each token is usable for a while, and each sink was written with it.

    Exit codes: 0 ready, 1 not ready, 64 wrong usage, 65 no such token, 69 no
    sidecar, 77 not allowed.
    """  # noqa: D301 # click looks for the character, not for its name.
    _check_usage(watch=watch, live=live, names=names, others=as_json or quiet)
    sidecar = sidecar_at(socket_path)
    if watch:
        from token_keeper.cli.status._live import watch as watch_live  # noqa: PLC0415 # Only a terminal needs it.

        return watch_live(sidecar, names)
    try:
        if live:
            return _alive(sidecar, quiet=quiet, as_json=as_json)
        return _once(sidecar, names, quiet=quiet, as_json=as_json)
    except Failure as failure:
        if quiet:
            return failure.code
        raise


def _check_usage(*, watch: bool, live: bool, names: tuple[str, ...], others: bool) -> None:
    context = click.get_current_context()
    if watch and (live or others):
        raise SafeUsageError("--watch goes with no other option but --socket", context)
    if live and names:
        raise SafeUsageError("--live is about the sidecar, not about a token", context)
    if watch and not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise SafeUsageError(
            "--watch needs a terminal; for programs there is token-keeper events --json", context
        )


def _alive(sidecar: Sidecar, *, quiet: bool, as_json: bool) -> int:
    is_live = sidecar.ask("GET", "/healthz").status == 200
    if as_json and not quiet:
        write_json({"live": is_live})
    elif not quiet:
        write("alive\n" if is_live else "not alive: its loop hangs; restart it\n")
    return os.EX_OK if is_live else NOT_READY


def _once(sidecar: Sidecar, names: tuple[str, ...], *, quiet: bool, as_json: bool) -> int:
    document = all_tokens(sidecar)
    rows = chosen(rows_of(document), names)
    tokens = [token_of(row) for row in rows]
    is_all_ready = document.get("ready") is True
    if names and not is_all_ready:
        is_all_ready = all(map(is_ready, tokens)) and _blamed(sidecar).isdisjoint(names)
    if not quiet:
        if as_json:
            write_json({**document, "tokens": rows, "ready": is_all_ready})
        else:
            _write_table(document, tokens_ready=is_all_ready, rows=rows)
    return os.EX_OK if is_all_ready else NOT_READY


def _blamed(sidecar: Sidecar) -> set[str]:
    """Return the names of the tokens because of which the sidecar is not ready."""
    answer = sidecar.ask("GET", "/readyz")
    reasons = document_of(answer, sidecar.path, 200, 503).get("reasons")
    listed = reasons if isinstance(reasons, list) else []
    return {str(reason.get("token")) for reason in listed if isinstance(reason, dict)}


def chosen(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows of *names*, or all; exit 65 if one is missing."""
    if not names:
        return rows
    by_name = {str(row.get("name")): row for row in rows}
    if any(name not in by_name for name in names):
        fail_unknown(list(by_name))
    return [by_name[name] for name in names]


def _write_table(document: dict[str, Any], *, tokens_ready: bool, rows: list[dict[str, Any]]) -> None:
    now = time.time()
    width = terminal_width() if sys.stdout is not None and sys.stdout.isatty() else None
    glyphs = glyphs_for(getattr(sys.stdout, "encoding", None) or "ascii")
    colours = has_colours()
    first = headline(document, len(rows), now, is_ready=tokens_ready)
    lines = [first if width is None else cut(first, width), ()]
    for block in table([token_of(row) for row in rows], now=now, width=width, glyphs=glyphs):
        lines += block
    write("".join(f"{painted(line, has_colours=colours)}\n" for line in lines))


def headline(document: dict[str, Any], count: int, now: float, *, is_ready: bool) -> Line:
    """Return the first line: whether the sidecar is ready, and what it is."""
    state = Span("ready", "good") if is_ready else Span("not ready", "error")
    started_at = document.get("started_at")
    up = f", up {span(now - started_at)}" if isinstance(started_at, int | float) else ""
    tokens = f"{count} token{'s' * (count != 1)}" if count else "no token configured"
    version = printable(str(document.get("version", "?"))[:40])
    return (state, Span(f": {tokens}"), Span(f"; sidecar {version}{up}", "quiet"))
