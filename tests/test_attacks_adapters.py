"""Hostile servers, hostile addresses and bad luck against the HTTP adapters, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import threading
import time
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import aiohttp
import httpx
import pytest
import requests
import websockets
import websockets.sync.client
from attacking import EVIL, a_hostile_backend
from azure.core import PipelineClient
from azure.core.rest import HttpRequest
from google.auth.transport.requests import AuthorizedSession
from guarding import QUICK, GuardedApi, keeping, until
from rich.console import Console
from rich.traceback import Traceback

from token_keeper import (
    AsyncTokenKeeper,
    HttpSource,
    KeeperClosed,
    RefreshPolicy,
    TokenKeeper,
    TokenUnavailable,
)
from token_keeper.adapters import aiohttp as for_aiohttp
from token_keeper.adapters import azure_core, google_auth
from token_keeper.adapters import httpx as for_httpx
from token_keeper.adapters import requests as for_requests
from token_keeper.adapters import websockets as for_websockets
from token_keeper.adapters._origins import origin_of
from token_keeper.testing import FakeBackend, ScriptedSource, mint


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api(backend):
    with GuardedApi(backend) as api:
        yield api


@contextmanager
def by_requests(keeper, **options):
    with requests.Session() as session:
        session.auth = for_requests.KeeperAuth(keeper, **options)
        yield lambda url: session.get(url, timeout=5).status_code


@contextmanager
def by_httpx(keeper, **options):
    with httpx.Client(auth=for_httpx.KeeperAuth(keeper, **options), follow_redirects=True) as client:
        yield lambda url: client.get(url).status_code


@contextmanager
def by_azure(keeper, **options):
    with PipelineClient("", policies=[azure_core.KeeperPolicy(keeper, **options)]) as client:

        def call(url):
            with client.send_request(HttpRequest("GET", url), enforce_https=False) as response:
                return response.status_code

        yield call


@contextmanager
def by_google(keeper, **options):
    with AuthorizedSession(
        google_auth.KeeperCredentials(keeper, **options), max_refresh_attempts=1
    ) as session:
        yield lambda url: session.get(url).status_code


@contextmanager
def by_aiohttp(keeper, **options):
    async def call(url):
        middleware = for_aiohttp.KeeperMiddleware(keeper, **options)
        async with aiohttp.ClientSession(middlewares=(middleware,)) as session, session.get(url) as response:
            await response.read()
            return response.status

    yield lambda url: asyncio.run(call(url))


def what_comes_of(call, url):
    """Return the status, or what is raised: each client has its own errors."""
    try:
        return call(url)
    except Exception as error:  # noqa: BLE001 - as above
        return error


CLIENTS = [by_requests, by_httpx, by_azure, by_google, by_aiohttp]
each_client = pytest.mark.parametrize("calling", CLIENTS, ids=lambda calling: calling.__name__)

DISGUISES = [
    "http://{evil}\\@{good}/things",
    "http://{evil}/\\@{good}/things",
    "http://{evil}\x0b@{good}/things",
    "http://{good}@{evil}/things",
    "http://{good}%2f@{evil}/things",
    "http://user:word@{evil}/things",
    "http://{evil}#@{good}/things",
    "http://{evil}?@{good}/things",
    " http://{evil}/things",
    "HTTP://{evil}/things",
    "http://{good}\n@{evil}/things",
    "//{evil}/things",
    "ftp://{evil}/things",
    "things",
    "",
]


@each_client
@pytest.mark.parametrize("disguise", DISGUISES, ids=range(len(DISGUISES)))
def test_no_spelling_of_an_address_takes_the_token_elsewhere(backend, api, calling, disguise):
    with GuardedApi() as evil, keeping(backend) as keeper, calling(keeper, origins=api.origin) as call:
        places = {"evil": evil.origin.removeprefix("http://"), "good": api.origin.removeprefix("http://")}
        outcome = what_comes_of(call, disguise.format(**places))

        # Clients complain in their own words.
        assert "absolute URL of http, https" not in str(outcome)
        assert not isinstance(outcome, TokenUnavailable)
        assert set(evil.seen) <= {None}


@each_client
@pytest.mark.parametrize("location", DISGUISES[:11], ids=range(11))
def test_no_redirect_takes_the_token_elsewhere(backend, api, calling, location):
    with GuardedApi() as evil, keeping(backend) as keeper, calling(keeper) as call:
        places = {"evil": evil.origin.removeprefix("http://"), "good": api.origin.removeprefix("http://")}
        api.elsewhere = location.format(**places).replace("\n", "")
        outcome = what_comes_of(call, f"{api.origin}/away")

        assert not isinstance(outcome, TokenUnavailable)
        assert set(evil.seen) <= {None}
        assert keeper.snapshot.denied_by == ()


@pytest.mark.parametrize(
    "url",
    [
        "http://a\\@b/",
        "http://a\t/",
        "http://a\n@b/",
        " http://a/",
        "http://a b@c/",
        "http://a@b@c/",
        "a",
        "//a",
        "",
    ],
)
def test_what_clients_may_read_differently_has_no_origin(url):
    with pytest.raises(ValueError, match="not an absolute URL"):
        origin_of(url)


CHALLENGES = {
    "huge": 'Bearer error="' + "x" * 6_000 + '"',
    "nested quotes": 'Bearer realm="\\"\\\\\\"Bearer error=\\"insufficient_scope\\"", error="invalid_token"',
    "many": ", ".join(f'S{n} a="b"' for n in range(500)),
    "unclosed": 'Bearer error="' + '\\"' * 2_000,
    "commas": "," * 6_000,
    "latin": 'Bearer error="\xff\xfe", error_description="\xe9"',
    "escapes": 'Bearer error="\x1b[2J", error_description="a\x1b[31mred\x07"',
    "number": "Bearer error=20104",
}


@each_client
@pytest.mark.parametrize("challenge", CHALLENGES.values(), ids=CHALLENGES.keys())
def test_a_hostile_challenge_is_a_refusal_like_any_other(backend, api, calling, challenge):
    api.challenge = challenge
    with keeping(backend) as keeper, calling(keeper) as call:
        assert call(api.url) == 200
        api.revoke_all()
        began = time.monotonic()

        assert call(api.url) == 200

        assert time.monotonic() - began < 3
        assert len(backend.issued) == 2


@each_client
def test_a_server_that_quotes_the_token_gets_it_into_no_log(backend, api, calling, caplog):
    caplog.set_level(logging.DEBUG)
    with keeping(backend) as keeper, calling(keeper) as call:
        call(api.url)
        sent = keeper.token
        api.challenge = f'Bearer error="{sent}", error_description="{sent} is no good, {sent}"'
        api.revoke_all()

        call(api.url)
        renewed = keeper.token

        ours = [one.getMessage() + repr(vars(one)) for one in caplog.records if "token_keeper" in one.name]
        assert not [line for line in ours if sent in line or renewed in line]
        assert sent not in repr(keeper.snapshot)


class Answers:
    """Answers with the statuses of a script, over and over."""

    def __init__(self, *statuses, headers=()):
        self.asked = 0
        self._statuses = statuses
        self._headers = headers

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        request.protocol_version, request.close_connection = "HTTP/1.1", True
        status = self._statuses[self.asked % len(self._statuses)]
        self.asked += 1
        request.send_response(status)
        for name, value in self._headers:
            request.send_header(name, value)
        request.send_header("Connection", "close")
        request.send_header("Content-Length", "0")
        request.end_headers()


@each_client
def test_a_server_that_refuses_every_other_request_causes_few_fetches(backend, calling):
    answers = Answers(401, 200)
    with a_hostile_backend({"/": answers}) as server, keeping(backend) as keeper:
        with calling(keeper, timeout=0.05) as call:
            for _ in range(30):
                what_comes_of(call, server.url("/"))

        assert len(backend.issued) <= 1 + 5
        assert answers.asked <= 2 * 30


@pytest.mark.parametrize("calling", [by_requests, by_httpx, by_azure, by_aiohttp], ids=lambda c: c.__name__)
def test_several_challenges_in_lines_of_their_own_are_all_read(backend, calling):
    headers = (
        ("WWW-Authenticate", 'Basic realm="x"'),
        ("WWW-Authenticate", 'Bearer error="insufficient_scope"'),
    )
    answers = Answers(401, headers=headers)
    with a_hostile_backend({"/": answers}) as server, keeping(backend) as keeper:
        with calling(keeper) as call:
            assert call(server.url("/")) == 401

        assert answers.asked == 1
        assert keeper.snapshot.denied_by == ()
        assert len(backend.issued) == 1


def test_an_origin_that_refuses_takes_the_token_from_no_other(backend, api):
    with GuardedApi() as picky, keeping(backend, policy=RefreshPolicy(splay=False)) as keeper:
        held = keeper.token
        backend.down()
        with by_httpx(keeper, timeout=0.05) as there, by_requests(keeper) as here:
            assert there(picky.url) == 401
            with pytest.raises(TokenUnavailable):
                there(picky.url)

            assert [here(api.url) for _ in range(3)] == [200] * 3
        assert set(api.seen) == {held}
        assert keeper.snapshot.denied_by == (picky.origin,)


@each_client
def test_storms_of_refusals_are_bounded(backend, calling):
    with GuardedApi() as picky, keeping(backend) as keeper:
        with calling(keeper, timeout=0.05) as call, ThreadPoolExecutor(10) as threads:
            list(threads.map(lambda _: what_comes_of(call, picky.url), range(200)))

        assert len(backend.issued) <= 1 + 5
        assert len(picky.seen) <= 2 * 200


@each_client
def test_twenty_threads_with_the_first_request_show_the_token_to_one_origin(backend, calling):
    with GuardedApi(backend) as one, GuardedApi(backend) as two, keeping(backend) as keeper:
        with calling(keeper) as call:
            if calling is by_aiohttp:
                pytest.skip("it has a middleware for each call here")
            barrier = threading.Barrier(20)

            def first(number):
                barrier.wait()
                return what_comes_of(call, (one, two)[number % 2].url)

            with ThreadPoolExecutor(20) as threads:
                list(threads.map(first, range(20)))

        shown = [api for api in (one, two) if set(api.seen) != {None}]
        assert len(shown) == 1


@each_client
def test_a_keeper_that_is_not_started_or_closed_says_so_at_once(backend, api, calling):
    keeper = TokenKeeper(HttpSource(backend.url))
    with calling(keeper) as call:
        with pytest.raises(KeeperClosed):
            call(api.url)
        with keeper:
            assert call(api.url) == 200
        with pytest.raises(KeeperClosed):
            call(api.url)


@pytest.mark.parametrize("calling", [by_requests, by_httpx, by_azure], ids=lambda calling: calling.__name__)
def test_in_a_listener_a_client_does_not_wait_for_what_only_the_listener_s_end_can_bring(
    backend, api, calling
):
    with keeping(backend) as keeper, calling(keeper) as call:
        assert call(api.url) == 200
        outcomes = []

        @keeper.on("tokenDenied")
        def denied(_):
            outcomes.append(what_comes_of(call, api.url))

        api.revoke_all()

        assert call(api.url) == 200
        until(lambda: outcomes)
        assert outcomes[0] == 200 or isinstance(outcomes[0], RuntimeError | TokenUnavailable)


def test_thousands_of_clients_leave_nothing_in_the_keeper(backend, api):
    with keeping(backend) as keeper:
        gone = []
        for _ in range(2_000):
            auth = for_httpx.KeeperAuth(keeper)
            auth._guard.of(api.url)
            gone.append(weakref.ref(auth))
        del auth
        gc.collect()

        assert not [ref for ref in gone if ref() is not None]
        assert len(keeper.snapshot.denied_by) == 0


def test_a_hundred_thousand_requests_cost_no_memory(backend):
    """About 6 s: it is about the number."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    hosts = [f"https://h{n}.example" for n in range(100)]
    with keeping(backend) as keeper:
        auth = for_httpx.KeeperAuth(keeper, origins=hosts[:50])
        request = httpx.Request("GET", hosts[0])
        answer = transport.handle_request(request)
        answer.request = request

        def once(url):
            request.url = url
            flow = auth.sync_auth_flow(request)
            next(flow)
            with pytest.raises(StopIteration):
                flow.send(answer)

        urls = [httpx.URL(host) for host in hosts]
        for url in urls:
            once(url)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(20_000):
                once(urls[number % 100])
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

        assert grown < 200_000


def rendered(error: BaseException) -> str:
    """Return *error* as a crash reporter shows it: every cause, every frame, every local."""
    console = Console(file=io.StringIO(), width=400, color_system=None)
    trace = Traceback.from_exception(
        type(error),
        error,
        error.__traceback__,
        show_locals=True,
        locals_max_length=None,
        locals_max_string=None,
    )
    console.print(trace)
    return console.file.getvalue()


OPAQUE = "opaque-canary-Zq3vN8xW1kLp7TfR"


@pytest.mark.parametrize("package", ["httpx", "aiohttp", "websockets"])
def test_who_is_interrupted_while_waiting_for_another_token_shows_none(package):
    picky = httpx.MockTransport(lambda _: httpx.Response(401))

    async def once(server):
        async with AsyncTokenKeeper(ScriptedSource(lambda: OPAQUE), policy=QUICK) as keeper:
            async with asyncio.timeout(0.3):
                if package == "httpx":
                    auth = for_httpx.KeeperAuth(keeper)
                    async with httpx.AsyncClient(transport=picky, auth=auth) as client:
                        await client.get(server.url("/"))
                elif package == "aiohttp":
                    middlewares = (for_aiohttp.KeeperMiddleware(keeper),)
                    async with aiohttp.ClientSession(middlewares=middlewares) as session:
                        await session.get(server.url("/"))
                else:
                    await for_websockets.connect(keeper, server.url("/").replace("http", "ws"))

    with a_hostile_backend({"/": Answers(401)}) as server, pytest.raises(TimeoutError) as caught:
        asyncio.run(once(server))

    shown = rendered(caught.value)
    assert "another_awaited" in shown
    assert OPAQUE not in shown


@pytest.mark.parametrize("is_blocking", [False, True], ids=["asyncio", "blocking"])
def test_websockets_own_log_does_not_show_the_token(backend, caplog, is_blocking):
    caplog.set_level(logging.DEBUG)

    async def serve_once(keeper):
        seen = []

        async def serve(connection):
            seen.append(connection.request.headers["Authorization"])
            await connection.wait_closed()

        quiet = logging.getLogger("a server of somebody else")
        quiet.setLevel(logging.ERROR)
        async with websockets.serve(serve, "127.0.0.1", 0, logger=quiet) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            if is_blocking:

                def call():
                    with for_websockets.connect_sync(keeper, uri):
                        return

                await asyncio.to_thread(call)
            else:
                async with for_websockets.connect(keeper, uri):
                    pass
        return seen

    with keeping(backend) as keeper:
        seen = asyncio.run(serve_once(keeper))
        token = keeper.token

    assert seen == [f"Bearer {token}"]
    assert "Authorization: <token>" in caplog.text
    assert token not in caplog.text


def endless(request: BaseHTTPRequestHandler) -> None:
    """Answer 401 with a body that never ends."""
    request.send_response(401)
    request.send_header("Content-Length", str(10**12))
    request.end_headers()
    while not request.server.is_over:
        try:
            request.wfile.write(b"x" * 65_536)
        except OSError:
            return


@pytest.mark.parametrize("package", ["requests", "aiohttp"])
def test_a_refusal_with_an_endless_body_is_not_read_by_who_streams(backend, package):
    """In a thread, so that a failure is one, and no hang."""

    def by_package(keeper, url):
        if package == "requests":
            with requests.Session() as session:
                session.auth = for_requests.KeeperAuth(keeper)
                with session.get(url, stream=True, timeout=5) as response:
                    return response.status_code

        async def call():
            middlewares = (for_aiohttp.KeeperMiddleware(keeper),)
            async with (
                aiohttp.ClientSession(middlewares=middlewares) as session,
                session.post(url, data=io.BytesIO(b"x" * 1000)) as response,
            ):
                return response.status

        return asyncio.run(call())

    with a_hostile_backend({"/": endless}) as server, keeping(backend) as keeper:
        outcomes = []
        thread = threading.Thread(
            target=lambda: outcomes.append(by_package(keeper, server.url("/"))), daemon=True
        )
        thread.start()
        thread.join(5)

        assert outcomes == [401]


def test_evil_words_of_a_server_do_not_reach_the_terminal(capsys):
    script = mint(jti="1")
    with TokenKeeper(ScriptedSource(lambda: script), policy=QUICK) as keeper:
        keeper.report_denied(keeper.token, by="x", code=EVIL, reason=EVIL)
    out = "".join(capsys.readouterr())

    assert "\x1b" not in out
    assert "\u202e" not in out
