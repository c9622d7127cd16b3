"""Servers that let in who has a good token, and the checks that every HTTP adapter passes.

`GuardedApi` is a real HTTP server. `FiveChecks` are tests: a class for a client
inherits them and says how that client calls.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest

from token_keeper import HttpSource, RefreshPolicy, TokenKeeper
from token_keeper.testing import FakeBackend

QUICK = RefreshPolicy(min_interval_s=0.1, splay=False)
"""Fetches may follow each other closely."""
CHALLENGE = 'Bearer realm="api", error="invalid_token", error_description="The access token expired"'


class Gate:
    """Who accepts the tokens of a `FakeBackend` until they are revoked.

    Every path is answered 200. Paths that begin with `/forbidden` answer 403
    `insufficient_scope`, `/narrow` 401 `insufficient_scope`, `/away` redirects
    to `elsewhere`, `/done` as well, but with 303; `/open` accepts everybody.

    Attributes:
        backend: Who issues the tokens; without one none is accepted.
        seen: The raw tokens that came, None where none came, in order.
        bodies: The bodies that came.
        statuses: What was answered.
        elsewhere: Where `/away` and `/done` redirect to.
        answer: What an accepted request is answered with, as JSON.
    """

    def __init__(self, backend: FakeBackend | None = None) -> None:
        self.seen: deque[str | None] = deque(maxlen=10_000)
        self.bodies: deque[bytes] = deque(maxlen=10_000)
        self.statuses: deque[int] = deque(maxlen=10_000)
        self.elsewhere = ""
        self.challenge: str | None = CHALLENGE
        self.answer: Callable[[str], Any] = lambda path: {"path": path}
        self.backend = backend
        self._revoked: set[str] = set()
        self._revokes_all = False

    @property
    def origin(self) -> str:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"{self.origin}/things"

    def revoke_all(self) -> None:
        """Refuse every token that was issued until now."""
        assert self.backend is not None
        self._revoked |= set(self.backend.issued)

    def refuse_all(self) -> None:
        """Refuse every token from now on."""
        self._revokes_all = True

    def accepts(self, token: str | None) -> bool:
        if self.backend is None or token is None or self._revokes_all:
            return False
        return token in self.backend.issued and token not in self._revoked

    def judge(
        self, path: str, authorization: str | None, body: bytes = b""
    ) -> tuple[int, dict[str, str], Any]:
        """Return the status, the headers and the answer, and take note of what came."""
        scheme, _, token = (authorization or "").partition(" ")
        sent = token if scheme == "Bearer" else None
        answer = self._judge(path, sent)
        self.seen.append(sent)
        self.bodies.append(body)
        self.statuses.append(answer[0])
        return answer

    def _judge(self, path: str, sent: str | None) -> tuple[int, dict[str, str], Any]:
        narrow = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="admin"'}
        if path.startswith("/open"):
            return 200, {}, self.answer(path)
        if not self.accepts(sent):
            return 401, {"WWW-Authenticate": self.challenge} if self.challenge else {}, {"error": "no"}
        if path.startswith("/forbidden"):
            return 403, narrow, {"error": "forbidden"}
        if path.startswith("/narrow"):
            return 401, narrow, {"error": "narrow"}
        if path.startswith(("/away", "/done")):
            return 303 if path.startswith("/done") else 307, {"Location": self.elsewhere}, {}
        return 200, {}, self.answer(path)


class GuardedApi(Gate):
    """An HTTP API on loopback behind a gate. It reads the body, and answers with JSON."""

    def __init__(self, backend: FakeBackend | None = None) -> None:
        super().__init__(backend)
        api = self

        class Exchange(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def _any(self) -> None:
                api._exchange(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _any  # noqa: N815 - as http.server wants it

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128  # Of more connections at once, some wait a second for the next try.

        self._server = Server(("127.0.0.1", 0), Exchange)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _exchange(self, request: BaseHTTPRequestHandler) -> None:
        body = _body(request)
        status, headers, answer = self.judge(request.path, request.headers.get("Authorization"), body)
        content = json.dumps(answer).encode()
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding", "").lower() == "chunked":
        parts = []
        while size := int(request.rfile.readline().split(b";")[0], 16):
            parts.append(request.rfile.read(size))
            request.rfile.readline()
        request.rfile.readline()
        return b"".join(parts)
    return request.rfile.read(int(request.headers.get("Content-Length") or 0))


@contextmanager
def keeping(backend: FakeBackend, **options: Any) -> Iterator[TokenKeeper]:
    """Yield a keeper that may fetch often."""
    with TokenKeeper(HttpSource(backend.url), **{"policy": QUICK, **options}) as keeper:
        yield keeper


@contextmanager
def loop_in_thread() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Yield a function that runs a coroutine in the loop of another thread, and returns its result."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


Call = Callable[[str], int]
"""Calls a URL once; returns the HTTP status, or raises."""


class FiveChecks:
    """What every HTTP adapter must do, over real sockets. Inherit, and say how to call.

    `calling` yields a function of a URL, safe to call from many threads, that
    returns the status. It is made for `api.origin` only.
    """

    raises_on_401 = False
    """Whether the client raises instead of returning the last 401."""

    def calling(self, keeper: TokenKeeper, api: GuardedApi) -> AbstractContextManager[Call]:
        raise NotImplementedError

    @pytest.fixture
    def backend(self) -> Iterator[FakeBackend]:
        with FakeBackend() as backend:
            yield backend

    @pytest.fixture
    def api(self, backend: FakeBackend) -> Iterator[GuardedApi]:
        with GuardedApi(backend) as api:
            yield api

    def test_the_token_is_used(self, backend, api):
        with keeping(backend) as keeper, self.calling(keeper, api) as call:
            assert call(api.url) == 200

            assert set(api.seen) == {keeper.token}

    def test_it_is_renewed_under_load_without_a_failed_call(self, backend, api):
        with keeping(backend) as keeper, self.calling(keeper, api) as call:
            done = threading.Event()

            def load() -> set[int]:
                statuses = set()
                while not done.is_set():
                    statuses.add(call(api.url))
                return statuses

            with ThreadPoolExecutor(4) as threads:
                loads = [threads.submit(load) for _ in range(4)]
                until(lambda: len(api.seen) > 0)
                for _ in range(4):
                    keeper.refresh()
                    shown_before = len(api.seen)
                    until(lambda before=shown_before: len(api.seen) > before + 8)
                done.set()
                statuses = set().union(*(load.result() for load in loads))

            assert statuses == {200}
            assert len(set(api.seen)) >= 5

    def test_twenty_concurrent_refusals_cause_one_refresh_and_all_calls_succeed(self, backend, api):
        with keeping(backend) as keeper, self.calling(keeper, api) as call:
            api.revoke_all()

            with ThreadPoolExecutor(20) as threads:
                statuses = list(threads.map(lambda _: call(api.url), range(20)))

            assert statuses == [200] * 20
            assert len(backend.issued) == 2

    def test_while_the_backend_is_down_calls_go_on_with_the_valid_token(self, backend, api):
        with keeping(backend) as keeper, self.calling(keeper, api) as call:
            held = keeper.token
            backend.down()
            with pytest.raises(Exception, match="token"):
                keeper.refresh(timeout=0.3)

            assert [call(api.url) for _ in range(5)] == [200] * 5
            assert set(api.seen) == {held}

    def test_another_origin_never_sees_the_token(self, backend, api):
        with GuardedApi() as other, keeping(backend) as keeper, self.calling(keeper, api) as call:
            assert call(api.url) == 200  # The first origin is the allowed one.
            api.elsewhere = f"{other.origin}/open"

            self.try_elsewhere(call, api, other)

            assert set(other.seen) <= {None}
            assert keeper.snapshot.denied_by == ()
            assert len(backend.issued) == 1

    def try_elsewhere(self, call: Call, api: GuardedApi, other: GuardedApi) -> None:
        """Call the other origin, directly and by redirect, where it refuses and where it does not."""
        for url in (f"{api.origin}/away", f"{other.origin}/things", f"{other.origin}/open"):
            _outcome(call, url)
        api.elsewhere = f"{other.origin}/things"
        _outcome(call, f"{api.origin}/away")
        assert len(other.seen) >= 4

    def test_a_missing_right_is_no_denial(self, backend, api):
        with keeping(backend) as keeper, self.calling(keeper, api) as call:
            outcomes = [_outcome(call, f"{api.origin}/{path}") for path in ("forbidden", "narrow")]

            assert outcomes == [403, 401] or self.raises_on_401
            assert keeper.snapshot.denied_by == ()
            assert len(backend.issued) == 1

    def test_a_server_that_refuses_everything_gets_one_retry_for_a_call(self, backend, api):
        with keeping(backend) as keeper, self.calling(keeper, api) as call:
            api.refuse_all()

            assert _outcome(call, api.url) == 401 or self.raises_on_401
            assert len(api.seen) == 2
            assert len(set(api.seen)) == 2


def _outcome(call: Call, url: str) -> int | str:
    try:
        return call(url)
    except Exception as error:  # noqa: BLE001 - each client has its own
        return type(error).__name__


def until(holds: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait until *holds*, for at most *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.002)


_until = until  # As its first users import it.
