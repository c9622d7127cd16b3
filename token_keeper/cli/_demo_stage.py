"""The demo on stage: a backend, a keeper, a client and a chat server, all of them real.

Whatever happens is told to a chronicle; a display shows it some ten times a second.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx

from token_keeper import AsyncTokenKeeper, HttpSource, RefreshPolicy
from token_keeper._errors import TokenUnavailable
from token_keeper._model import EventKind, Snapshot, Status, TokenEvent, fingerprint_of
from token_keeper.cli import _demo_words as words
from token_keeper.cli._demo_backend import DemoBackend, Doing
from token_keeper.cli._demo_record import Fault, Happening, Summary, Tally
from token_keeper.cli._demo_server import ChatServer
from token_keeper.cli._demo_story import Pace, Scene, script

PULSE_S = 0.1
"""How often the display is refreshed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """How everything stands at one moment.

    Args:
        after_s: Seconds since the start.
        now: Unix seconds.
        lifetime_s: Of the current token, from its receipt.
        headline: Which scene it is.
        caption: What the keeper does in it.
        backend: What the backend is doing.
        snapshot: Of the keeper.
        tally: So far.
        pace: Of the demo.
    """

    after_s: float
    now: float
    lifetime_s: float
    headline: str
    caption: str
    backend: Doing
    snapshot: Snapshot
    tally: Tally
    pace: Pace


class Display(Protocol):
    """Shows the demo to somebody. Whatever it raises ends the demo."""

    def show(self, news: Sequence[Happening], picture: Picture) -> None:
        """Show what happened since the last time, and how everything stands now."""

    def finish(self, summary: Summary) -> None:
        """Show what it adds up to."""


class Stage:
    """What the script acts on, and who remembers what happened.

    Args:
        pace: How fast the demo goes.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.tally = Tally()
        self.server = ChatServer()
        self._loop = asyncio.get_running_loop()
        self.backend = DemoBackend(pace.lifetime_s, repeated=self._on_repeat)
        self._started = time.monotonic()
        self._seen_until = self._started
        self._news: list[Happening] = []
        self._expected: list[tuple[EventKind, asyncio.Future[None]]] = []
        self._last: TokenEvent | None = None
        self._denied = False
        self._headline = self._caption = ""

    @property
    def after_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def play_with(self, keeper: AsyncTokenKeeper) -> None:
        """Watch *keeper* and let the script act on it."""
        self.keeper = keeper
        keeper.on()(self._on_event)

    def tell(self, who: str, event: str, text: str, style: str = "plain", **details: object) -> None:
        """Note that something happened."""
        happening = Happening(
            after_s=self.after_s, who=who, event=event, text=text, style=style, details=details
        )
        self._news.append(happening)

    def news(self) -> list[Happening]:
        """Return what happened since the last call."""
        news, self._news = self._news, []
        return news

    def coming(self, kind: EventKind) -> asyncio.Future[None]:
        """Return a future that is done at the next event of this *kind*."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._expected.append((kind, future))
        return future

    def fault(self, name: str) -> Fault:
        """Note that something goes wrong on purpose."""
        fault = Fault(name)
        self.tally.faults.append(fault)
        return fault

    def revoke(self) -> None:
        """Let the server accept the current token no more."""
        snapshot = self.keeper.snapshot
        self.server.revoke(snapshot.fingerprint or "")
        self.tell(
            "chat server",
            "tokenRevoked",
            f"revokes generation {snapshot.generation}: it is not told",
            "error",
        )

    def open(self, scene: Scene, number: int, of: int) -> None:
        """Begin a scene."""
        self._headline, self._caption = f"Scene {number} of {of}: {scene.title}", scene.caption
        self.tell("demo", "scene", self._headline, "heading", caption=self._caption)

    def watch(self) -> None:
        """Note whether there was a token to read since the last call."""
        now = time.monotonic()
        self.tally.watch(now - self._seen_until, valid=self._read() is not None)
        self._seen_until = now

    def picture(self) -> Picture:
        """Return how everything stands now."""
        last = self._last
        return Picture(
            after_s=self.after_s,
            now=time.time(),
            lifetime_s=(last.expires_at or last.at) - last.at if last else 0.0,
            headline=self._headline,
            caption=self._caption,
            backend=self.backend.doing,
            snapshot=self.keeper.snapshot,
            tally=self.tally,
            pace=self.pace,
        )

    def request(self) -> None:
        """Let the client make one request: it shows its token, and reports what came of it."""
        token = self._read()
        if token is None:
            if not self.tally.marks or self.tally.marks[-1] != "no token":
                self.tell("client", "noToken", "has no token, and waits with its requests", "warning")
            self.tally.do_without()
            return
        refusal = self.server.check(token, now=time.time())
        if refusal is None:
            self.tally.accept()
            self.keeper.report_accepted(token)
            return
        is_bad = self.tally.refuse(refusal, fingerprint_of(token))
        text = f"refuses the token: {refusal.code}, {refusal.reason}"
        self.tell("chat server", "requestRefused", text, "error", code=refusal.code, bad=is_bad)
        self.keeper.report_denied(token, code=refusal.code, reason=refusal.reason)

    def _read(self) -> str | None:
        try:
            return self.keeper.token
        except TokenUnavailable:
            return None

    def _on_event(self, event: TokenEvent) -> None:
        subject = self._last if event.kind is EventKind.TOKEN_UPDATED and self._last else event
        left_s = (subject.expires_at or event.at) - event.at
        text, style = words.meaning(event, left_s=left_s, after_denial=self._denied)
        self.tell("keeper", str(event.kind), text, style, **_details(event))
        if event.kind is EventKind.TOKEN_UPDATED:
            self.tally.refreshes += event.generation > 1
            self._last = event
        elif event.kind is EventKind.REFRESH_FAILED:
            self.tally.failed_fetches += 1
        self._denied = self.keeper.snapshot.status is Status.DENIED
        met = [future for kind, future in self._expected if kind is event.kind]
        self._expected = [(kind, future) for kind, future in self._expected if kind is not event.kind]
        for future in met:
            if not future.done():
                future.set_result(None)

    def _on_repeat(self) -> None:
        text = "sends the denied token again, from a cache"
        self._loop.call_soon_threadsafe(self.tell, "backend", "sameTokenReturned", text, "warning")


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
            async with keeper:
                await _run(stage, display, caught, for_s)
                summary = Summary.of(stage.tally, seconds=stage.after_s, signal=next(iter(caught), None))
    display.finish(summary)
    return summary


def _keeper(stage: Stage, client: httpx.AsyncClient) -> AsyncTokenKeeper:
    # Splay spreads a fleet that starts together; without it the only keeper here refreshes where the bar says.
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
    scenes = script(stage.pace)
    for number, scene in enumerate(scenes, 1):
        stage.open(scene, number, len(scenes))
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


def _details(event: TokenEvent) -> dict[str, object]:
    return {
        "at": round(event.at, 3),
        "generation": event.generation,
        "fingerprint": event.fingerprint,
        "expires_at": event.expires_at,
        "failures": event.failures or None,
        "error": event.error,
        "verdict": str(event.verdict) if event.verdict else None,
        "diagnosis": list(event.diagnosis) or None,
    }


def _silent_logger() -> logging.Logger:
    # Without a handler, warnings would go to standard error, over the screen.
    logger = logging.Logger("token_keeper demo")  # noqa: LOG001 - Nobody else shall find or configure it.
    logger.addHandler(logging.NullHandler())
    return logger
