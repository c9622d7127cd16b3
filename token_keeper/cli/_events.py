"""`token-keeper events`: one line for each thing that happens."""

from __future__ import annotations

import json
import select
import sys
import time
from typing import Any

import click

from token_keeper.cli._asking import Length, Name, query, sidecar_at, socket_option
from token_keeper.cli._client import Nonsense, Unreachable
from token_keeper.cli._event_words import KIND_WIDTH, NAME_WIDTH, line_of, snapshot_line
from token_keeper.cli._feed import Feed
from token_keeper.cli._printing import has_colours, say, write, write_json_line
from token_keeper.cli._spans import Span, painted
from token_keeper.cli._wire import Message


@click.command()
@click.option("--token", "name", type=Name(), metavar="NAME", help="Only the events of this token.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object a line.")
@click.option(
    "--history",
    "history_s",
    type=Length("1d"),
    default="0s",
    metavar="LENGTH",
    help="Begin with the events of so long ago, such as 10m, as far as they are kept.",
)
@click.option("--reconnect/--no-reconnect", default=True, help="Go on after a lost connection (default).")
@socket_option
def events(
    *, name: str | None, as_json: bool, history_s: float, reconnect: bool, socket_path: str | None
) -> int:
    """Follow what happens to the sidecar's tokens, until interrupted.

    \b
        token-keeper events --history 10m
        token-keeper events --json | jq 'select(.kind == "refreshFailed")'

    After a lost connection it goes on after the last event that it wrote.

    Exit codes: 64 wrong usage, 65 no such token, 69 no sidecar, 77 not allowed,
    130 interrupted.
    """  # noqa: D301 # click looks for the character, not for its name.
    target = f"/v1/events{query(history=history_s)}"
    if name is not None:
        target += f"{'&' if '?' in target else '?'}token={name}"
    feed = Feed(sidecar_at(socket_path), target)
    feed.connect()
    try:
        return _follow(feed, _JsonLines() if as_json else _Lines(), reconnect=reconnect)
    finally:
        feed.close()


class _Lines:
    """Writes events as lines for people."""

    def __init__(self) -> None:
        self._has_colours = has_colours()
        self._width = NAME_WIDTH

    def write(self, message: Message, document: dict[str, Any]) -> None:
        is_snapshot = message.event == "snapshot"
        line = snapshot_line(document, time.time()) if is_snapshot else line_of(document)
        self._width = max(self._width, len(line.name))
        spans = (
            Span(line.at, "quiet"),
            Span(f"  {line.name:<{self._width}}  "),
            Span(f"{line.kind:<{KIND_WIDTH}}", line.style),
            Span(f"  {line.text}"),
        )
        write(f"{painted(spans, has_colours=self._has_colours)}\n")


class _JsonLines:
    """Writes events for programs."""

    def write(self, message: Message, document: dict[str, Any]) -> None:
        write_json_line({"id": message.id, "kind": message.event, **document})


def _follow(feed: Feed, lines: _Lines | _JsonLines, *, reconnect: bool) -> int:
    was_lost = False
    while True:
        is_readable = _wait(feed)
        for message in feed.advance(is_readable=is_readable):
            lines.write(message, _document(message, feed.path))
        is_lost = feed.lost_at is not None
        if is_lost and not reconnect:
            raise Unreachable(f"the stream ended: {feed.reason}")
        if is_lost and not was_lost:
            say(f"the stream was lost ({feed.reason}); trying again until it is back")
        if was_lost and not is_lost:
            say("the stream is back")
        was_lost = is_lost


def _wait(feed: Feed) -> bool:
    """Wait until something is due or came, and return whether it came. A closed standard output ends us."""
    poller = select.poll()
    if feed.descriptor is not None:
        poller.register(feed.descriptor, select.POLLIN)
    output = _output_descriptor()
    if output is not None:
        # Nothing is asked for: errors, such as a reader that went away, are told anyway.
        poller.register(output, 0)
    ready = dict(poller.poll(feed.timeout_s() * 1_000 + 1))
    if output is not None and ready.pop(output, 0) & (select.POLLERR | select.POLLNVAL):
        raise BrokenPipeError
    return bool(ready)


def _output_descriptor() -> int | None:
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _document(message: Message, path: str) -> dict[str, Any]:
    try:
        document = json.loads(message.data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Nonsense(path, "an event of it is not a JSON object")
    return document
