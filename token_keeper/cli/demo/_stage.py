"""What the demo's script acts on: a backend, a keeper, a client, a chat server, and what they tell."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from token_keeper import AsyncTokenKeeper
from token_keeper._errors import TokenUnavailable
from token_keeper._model import EventKind, Snapshot, TokenEvent, fingerprint_of
from token_keeper.cli.demo import _words as words
from token_keeper.cli.demo._backend import DemoBackend, Doing
from token_keeper.cli.demo._record import Fault, Happening, Outcome, Tally
from token_keeper.cli.demo._server import ChatServer
from token_keeper.cli.demo._story import REPEATED, Pace, script


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


class Stage:
    """What the script acts on, and who remembers what happened.

    Args:
        pace: How fast the demo goes.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.scenes = script(pace)
        self.tally = Tally()
        self.server = ChatServer()
        self._loop = asyncio.get_running_loop()
        self.backend = DemoBackend(pace.lifetime_s, repeated=self._on_repeat)
        self._started = time.monotonic()
        self._seen_until: float | None = None
        self._news: list[Happening] = []
        self._expected: list[tuple[str, asyncio.Future[None]]] = []
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
        met = [future for expected, future in self._expected if expected == event]
        self._expected = [pair for pair in self._expected if pair[0] != event]
        for future in met:
            if not future.done():
                future.set_result(None)

    def news(self) -> list[Happening]:
        """Return what happened since the last call."""
        news, self._news = self._news, []
        return news

    def coming(self, event: str) -> asyncio.Future[None]:
        """Return a future that is done when *event* is told the next time."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._expected.append((event, future))
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
            f"revokes generation {snapshot.generation}, and tells nobody",
            "error",
        )

    def open(self, index: int) -> None:
        """Begin a scene."""
        scene = self.scenes[index]
        self._headline = f"Scene {index + 1} of {len(self.scenes)}: {scene.title}"
        self._caption = scene.caption
        self.tell("demo", "scene", self._headline, "heading", caption=self._caption)

    def watch(self) -> None:
        """Note whether there was a token to read since the last call."""
        now = time.monotonic()
        if self._seen_until is not None:
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
            if not self.tally.marks or self.tally.marks[-1] is not Outcome.NO_TOKEN:
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
            self._last, self._denied = event, False
        elif event.kind is EventKind.TOKEN_DENIED:
            self._denied = True
        elif event.kind is EventKind.TOKEN_EXPIRED:
            self.tally.run_out()
        elif event.kind is EventKind.REFRESH_FAILED:
            self.tally.failed_fetches += 1

    def _on_repeat(self) -> None:
        text = "sends the denied token again, from a cache"
        self._loop.call_soon_threadsafe(self.tell, "backend", REPEATED, text, "warning")


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
