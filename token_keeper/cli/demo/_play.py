"""Plays the demo: a backend, a keeper, a client and a chat server, all of them real.

A display shows it some ten times a second. It is called by nobody else, so
that what it raises, such as at a closed pipe, ends the demo.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import httpx

from token_keeper import AsyncTokenKeeper, HttpSource, RefreshPolicy
from token_keeper.cli.demo._record import Happening, Summary
from token_keeper.cli.demo._stage import Picture, Stage
from token_keeper.cli.demo._story import Pace

PULSE_S = 0.1
"""How often the display is refreshed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Display(Protocol):
    """Shows the demo to somebody. Whatever it raises ends the demo."""

    def show(self, news: Sequence[Happening], picture: Picture) -> None:
        """Show what happened since the last time, and how everything stands now."""

    def finish(self, summary: Summary) -> None:
        """Show what it adds up to."""


async def perform(display: Display, pace: Pace | None = None, *, for_s: float | None = None) -> Summary:
    """Play the demo.

    Args:
        display: Shows it.
        pace: How fast it goes.
        for_s: Seconds after which it ends; None plays the script once. The
            weather stays fair after the script.

    Raises:
        TokenUnavailable: If not even the first token came.
    """
    stage = Stage(pace or Pace())
    with stage.backend, _signals() as caught:
        # The environment's proxies are not for a server of our own.
        async with httpx.AsyncClient(trust_env=False) as client:
            keeper = _keeper(stage, client)
            stage.play_with(keeper)
            stage.open(0)
            async with keeper:
                await _run(stage, display, caught, for_s)
                summary = Summary.of(stage.tally, seconds=stage.after_s, signal=next(iter(caught), None))
    display.finish(summary)
    return summary


def _keeper(stage: Stage, client: httpx.AsyncClient) -> AsyncTokenKeeper:
    # Splay spreads a fleet that starts together; a single keeper refreshes where the bar says.
    policy = RefreshPolicy(
        splay=False, min_interval_s=stage.pace.min_interval_s, backoff_min_s=stage.pace.min_interval_s
    )
    source = HttpSource(stage.backend.url, token_path="data.token", client=client)
    return AsyncTokenKeeper(source, policy=policy, profile="twilio", name="demo", logger=_silent_logger())


async def _run(stage: Stage, display: Display, caught: list[int], for_s: float | None) -> None:
    story = asyncio.create_task(_tell_story(stage))
    client = asyncio.create_task(_use(stage))
    try:
        is_over = False
        while not is_over:
            is_over = bool(caught) or (story.done() if for_s is None else stage.after_s >= for_s)
            for task in (story, client):
                if task.done():
                    task.result()
            stage.watch()
            display.show(stage.news(), stage.picture())
            await asyncio.sleep(0 if is_over else PULSE_S)
    finally:
        story.cancel()
        client.cancel()
        await asyncio.gather(story, client, return_exceptions=True)


async def _tell_story(stage: Stage) -> None:
    for index, scene in enumerate(stage.scenes):
        if index:
            stage.open(index)
        await scene.play(stage)


async def _use(stage: Stage) -> None:
    """Make a request every now and then, at an even pace."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        stage.request()
        due += stage.pace.request_interval_s
        await asyncio.sleep(max(due - loop.time(), 0.0))


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that end the demo, so that it ends in order."""
    caught: list[int] = []
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        for each in SIGNALS:
            loop.add_signal_handler(each, caught.append, int(each))
            stack.callback(loop.remove_signal_handler, each)
        yield caught


def _silent_logger() -> logging.Logger:
    # Without a handler, warnings would go to standard error, over the screen.
    logger = logging.Logger("token_keeper demo")  # noqa: LOG001 - Nobody else shall find or configure it.
    logger.addHandler(logging.NullHandler())
    return logger
