"""A real Chromium, and a server that tells the dashboard whatever a test wants it to see."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from token_keeper.sidecar.dashboard._pages import routes
from token_keeper.testing._loopback import bound_socket

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")
PATIENCE_S = 15.0
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"),
)
_SEEN = """
const found = document.querySelector(arguments[0]);
return found?.checkVisibility() ? found.innerText : '';
"""


class Browser:
    """One Chromium with a new profile."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load *url* in a fresh document, even if only its fragment differs."""
        self.driver.get("about:blank")
        self.forget_logs()
        self.look(width=width, height=height, dark=dark)
        self.driver.get(url)

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Set the size of the page (px) and the colours that its user prefers."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def all(self, selector: str) -> list[WebElement]:
        """Return the elements that a CSS selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def values(self, selector: str, attribute: str) -> list[str]:
        """Return an attribute of each such element, all read in one moment."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getAttribute(arguments[1]))"
        found = self.run(script, selector, attribute)
        assert isinstance(found, list)
        return found

    def text(self, selector: str = "body") -> str:
        """Return what is seen of the first such element; empty if nothing is."""
        found = self.run(_SEEN, selector)
        assert isinstance(found, str)
        return found

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page, and return its value; a promise is awaited."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, text: str, selector: str = "body", *, within_s: float = PATIENCE_S) -> None:
        """Wait until *text* is seen."""
        self.until(lambda: text in self.text(selector), within_s=within_s, what=f"{text!r} in {selector}")

    def until(self, look: Callable[[], object], *, within_s: float = PATIENCE_S, what: str = "it") -> None:
        """Wait until *look* returns something true."""
        deadline = time.monotonic() + within_s
        while not look():
            assert time.monotonic() < deadline, f"{what} was not seen; the page says:\n{self.text()}"
            time.sleep(0.02)

    def complaints(self) -> list[str]:
        """Return what the console said since the page was opened, such as violations of its policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened."""
        told = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [one["params"] for one in told if one["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def history(self) -> list[str]:
        """Return the addresses that the tab can go back and forth to."""
        entries = self.driver.execute_cdp_cmd("Page.getNavigationHistory", {})["entries"]
        return [entry["url"] for entry in entries]

    def forget_logs(self) -> None:
        """Forget what was said and requested so far."""
        self.driver.get_log("browser")
        self.driver.get_log("performance")

    def photograph(self, path: Path) -> None:
        """Save the window as a PNG."""
        self.driver.save_screenshot(str(path))


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Start a Chromium with a profile of its own; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        try:
            yield browser
        finally:
            browser.driver.quit()


class Telling:
    """The dashboard's endpoints over real HTTP, telling what a test sets.

        with Telling([a_row("chat")]) as server:
            browser.open(server.url)
            server.tell("tokenDenied", "chat")

    Attributes:
        address: Where the page is.
        rows: Of the document of `GET /v1/tokens`.
        document: Its other members.
        keys: That are good; emptied, every request is refused.
        is_down: Drops streams and answers 503.
        resumed: The `Last-Event-ID` of each stream that was opened.
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.document: dict[str, Any] = {"start": "0a1b2c3d", "ready": True, "live": True, "version": "0.1.0"}
        self.document["started_at"] = time.time() - 7_200
        self.codes = {"the-code"}
        self.keys = {"the-key"}
        self.is_down = False
        self.resumed: list[str | None] = []
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._socket = bound_socket(0)
        self._socket.listen()
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        app = Starlette(routes=[*routes(), *self._routes()])
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._is_over = False

    @property
    def url(self) -> str:
        """Where the page is, with a code that is good once more."""
        self.codes.add("the-code")
        return f"{self.address}#the-code"

    def tell(self, kind: str, name: str, *, at: float | None = None, **members: Any) -> None:
        """Send an event to all streams, and to those that come later as history."""
        event = {"kind": kind, "name": name, "at": time.time() if at is None else at, "generation": 1}
        event |= {"fingerprint": None, "expires_at": None, "failures": 0, "error": None}
        event |= {"verdict": None, "diagnosis": [], **members}
        self._events.append((f"{self.document['start']}-{len(self._events) + 1}", event))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def _routes(self) -> list[Route]:
        return [
            Route("/v1/dashboard/keys", self._trade, methods=["POST"]),
            Route("/v1/tokens", self._tokens),
            Route("/v1/events", self._stream),
        ]

    async def _trade(self, request: Request) -> Response:
        code = (await request.json())["code"]
        if code not in self.codes:
            return JSONResponse({"title": "no such code"}, 403)
        self.codes.remove(code)
        return JSONResponse({"key": "the-key", "start": self.document["start"]})

    def _refusal(self, request: Request) -> Response | None:
        if self.is_down:
            return Response(status_code=503)
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        return None if key in self.keys else Response(status_code=401)

    def _all(self) -> dict[str, Any]:
        return {**self.document, "tokens": self.rows}

    async def _tokens(self, request: Request) -> Response:
        return self._refusal(request) or JSONResponse(self._all())

    async def _stream(self, request: Request) -> Response:
        resumed = request.headers.get("last-event-id")
        refusal = self._refusal(request)
        if refusal:
            return refusal
        self.resumed.append(resumed)
        return StreamingResponse(self._lines(resumed), media_type="text/event-stream")

    async def _lines(self, resumed: str | None) -> AsyncIterator[str]:
        known = [event_id for event_id, _ in self._events]
        start = self.document["start"]
        if resumed == f"{start}-0" or resumed in known:
            place = known.index(resumed) + 1 if resumed in known else 0
        else:
            place = 0
            yield f"event: snapshot\nid: {start}-0\ndata: {json.dumps(self._all())}\n\n"
        yield ": here\n\n"
        while not (self.is_down or self._is_over):
            for event_id, event in self._events[place:]:
                yield f"event: {event['kind']}\nid: {event_id}\ndata: {json.dumps(event)}\n\n"
                place += 1
            await asyncio.sleep(0.02)


def a_row(name: str, **members: Any) -> dict[str, Any]:
    """Return a row of `GET /v1/tokens`: a sound token of an hour, ten minutes old, but for *members*."""
    now = time.time()
    usual = {
        "name": name,
        "profile": "jwt",
        "status": "fresh",
        "phase": "waiting",
        "generation": 1,
        "fingerprint": "3fa9c1d2",
        "issued_at": now - 600,
        "expires_at": now + 3000,
        "expires_in": 3000,
        "stale_at": now + 2280,
        "refresh_at": now + 2280,
        "next_attempt_at": now + 2280,
        "failures": 0,
        "unchanged": 0,
        "last_error": None,
        "usable_for": 3000.0,
        "attempts_left": 7,
        "denied_by": [],
        "source": None,
        "sinks": [],
    }
    return {**usual, **members}
