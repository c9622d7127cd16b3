"""`token_keeper.adapters.httpx` with the real httpx and httpx2, blocking and async, with both keepers."""

import asyncio
import io
import subprocess
import sys
from contextlib import contextmanager

import httpx
import httpx2
import pytest
from guarding import QUICK, FiveChecks, GuardedApi, keeping, loop_in_thread

from token_keeper import AsyncTokenKeeper, ConfigError, HttpSource, KeeperClosed, TokenUnavailable
from token_keeper.adapters.httpx import KeeperAuth
from token_keeper.testing import FakeBackend, ScriptedSource, mint


class BlockingClient(FiveChecks):
    package = httpx

    @contextmanager
    def calling(self, keeper, api):  # noqa: ARG002 - the first origin is found out
        auth = KeeperAuth(keeper)
        with self.package.Client(auth=auth, follow_redirects=True, trust_env=False) as client:
            yield lambda url: client.get(url).status_code


class AsyncClient(FiveChecks):
    package = httpx

    @contextmanager
    def calling(self, keeper, api):  # noqa: ARG002 - the first origin is found out
        client = self.package.AsyncClient(auth=KeeperAuth(keeper), follow_redirects=True, trust_env=False)

        async def call(url):
            return (await client.get(url)).status_code

        with loop_in_thread() as run:
            yield lambda url: run(call(url))
            run(client.aclose())


class TestHttpx(BlockingClient):
    pass


class TestHttpxAsync(AsyncClient):
    pass


class TestHttpx2(BlockingClient):
    package = httpx2


class TestHttpx2Async(AsyncClient):
    package = httpx2


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api(backend):
    with GuardedApi(backend) as api:
        yield api


@pytest.fixture
def client_of():
    """Return a function that makes a client for a keeper; it is closed at the end."""
    clients = []

    def make(keeper, package=httpx, **options):
        client = package.Client(auth=KeeperAuth(keeper, **options), trust_env=False)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


BODIES = {
    "bytes": lambda _: {"content": b"the-whole"},
    "JSON": lambda _: {"json": "the-whole"},
    "a form": lambda _: {"data": {"body": "the-whole"}},
    "a file in a form": lambda _: {"files": {"file": io.BytesIO(b"the-whole")}},
    "bytes in a form": lambda _: {"files": {"file": b"the-whole"}},
    "a file": lambda path: {"content": path.open("rb")},
}


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_can_be_sent_again_comes_whole_with_the_other_token(
    api, client_of, tmp_path, package, body
):
    (tmp_path / "body").write_bytes(b"not this: the-whole")
    options = BODIES[body](tmp_path / "body")
    if body == "a file":
        options["content"].seek(len("not this: "))
        options["headers"] = {"Content-Length": str(len("the-whole"))}
    with keeping(api.backend) as keeper:
        client = client_of(keeper, package)
        api.revoke_all()

        assert client.post(api.url, **options).status_code == 200

        first, second = api.bodies
        assert first == second
        assert b"the-whole" in second

    if body == "a file":
        options["content"].close()


class Pipe(io.BytesIO):
    """A file that cannot seek."""

    def seekable(self):
        return False


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(lambda: {"content": (part for part in [b"a", b"b"])}, id="a generator"),
        pytest.param(lambda: {"content": Pipe(b"ab")}, id="a pipe"),
    ],
)
def test_a_body_that_is_gone_is_not_sent_again_but_the_denial_is_reported(backend, api, client_of, options):
    with keeping(backend) as keeper:
        client = client_of(keeper)
        refused = keeper.token
        api.revoke_all()

        assert client.post(api.url, **options()).status_code == 401

        assert client.get(api.url).status_code == 200
        assert api.bodies[0] == b"ab"
        assert refused not in list(api.seen)[1:]


def test_an_async_generator_is_not_sent_again(backend, api):
    async def parts():
        yield b"a"
        yield b"b"

    async def post():
        async with (
            AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK) as keeper,
            httpx.AsyncClient(auth=KeeperAuth(keeper), trust_env=False) as client,
        ):
            api.revoke_all()
            refusal = await client.post(api.url, content=parts())
            return refusal.status_code, (await client.get(api.url)).status_code

    assert asyncio.run(post()) == (401, 200)


def test_async_client_and_async_keeper_recover_together_from_one_denial(backend, api):
    async def gather():
        async with (
            AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK) as keeper,
            httpx.AsyncClient(auth=KeeperAuth(keeper), trust_env=False) as client,
        ):
            api.revoke_all()
            answers = await asyncio.gather(*(client.get(api.url) for _ in range(20)))
            return [answer.status_code for answer in answers]

    assert asyncio.run(gather()) == [200] * 20
    assert len(backend.issued) == 2


def test_a_blocking_client_takes_an_async_keeper_that_lives_in_another_thread(backend, api, client_of):
    with loop_in_thread() as run:
        keeper = AsyncTokenKeeper(HttpSource(backend.url), policy=QUICK)
        run(keeper.start())
        client = client_of(keeper)
        api.revoke_all()

        assert client.get(api.url).status_code == 200

        run(keeper.close())


def test_a_blocking_client_in_an_event_loop_gets_the_refusal_instead_of_blocking_the_loop(
    backend, api, client_of
):
    with keeping(backend) as keeper:
        client = client_of(keeper)
        api.revoke_all()

        async def call():
            return client.get(api.url).status_code

        assert asyncio.run(call()) == 401
        assert client.get(api.url).status_code == 200


def test_the_servers_refusal_stands_if_no_other_token_comes(backend, api, client_of):
    with keeping(backend) as keeper:
        client = client_of(keeper, timeout=0.1)
        backend.down()
        api.revoke_all()

        answer = client.get(api.url)

        assert (answer.status_code, answer.json()) == (401, {"error": "no"})


def test_a_request_without_any_token_says_so(backend, api, client_of):
    backend.down()
    with keeping(backend, start_timeout=0) as keeper:
        client = client_of(keeper, timeout=0.05)

        with pytest.raises(TokenUnavailable):
            client.get(api.url)
        assert len(api.seen) == 0


def test_an_answer_that_comes_after_the_end_of_the_keeper_is_none_the_worse(backend, client_of):
    with GuardedApi(backend) as api, keeping(backend) as keeper:
        client = client_of(keeper)
        ended = []

        def close(_):
            keeper.close()
            ended.append(True)

        client.event_hooks = {"response": [close]}
        assert client.get(api.url).status_code == 200
        assert ended
        with pytest.raises(KeeperClosed):
            client.get(api.url)


def test_a_refusal_that_comes_after_the_end_of_the_keeper_stands(backend, api, client_of):
    with keeping(backend) as keeper:
        client = client_of(keeper)
        api.revoke_all()
        client.event_hooks = {"response": [lambda _: keeper.close()]}

        assert client.get(api.url).status_code == 401


def test_the_token_takes_the_place_of_a_header_unless_the_request_has_no_auth(backend, api, client_of):
    with keeping(backend) as keeper:
        client = client_of(keeper)
        own = {"Authorization": "Bearer own"}

        client.get(api.url, headers=own)
        client.get(api.url, headers=own, auth=None)

        assert list(api.seen) == [keeper.token, "own"]


def test_named_origins_get_the_token_and_others_do_not(backend, api, client_of):
    with GuardedApi(backend) as second, GuardedApi(backend) as third, keeping(backend) as keeper:
        client = client_of(keeper, origins=[api.origin, f"{second.origin.upper()}/v1"])

        assert [client.get(server.url).status_code for server in (third, second, api)] == [401, 200, 200]
        assert list(third.seen) == [None]


def test_one_server_that_refuses_the_token_does_not_take_it_from_the_others(backend, api, client_of):
    with GuardedApi(backend) as other, keeping(backend) as keeper:
        client = client_of(keeper, origins=[api.origin, other.origin])
        backend.down()
        held = keeper.token
        other.refuse_all()

        auth = KeeperAuth(keeper, origins=[api.origin, other.origin], timeout=0.05)
        assert client.get(other.url, auth=auth).status_code == 401
        assert client.get(api.url).status_code == 200

        assert keeper.snapshot.denied_by == (f"{other.origin}",)
        assert list(api.seen) == [held]


def revoke_after_the_first_hop(client, api):
    """Let every token be refused from the moment of the first redirect."""
    moved = []

    def revoke(answer):
        if answer.has_redirect_location and not moved:
            moved.append(True)
            api.revoke_all()

    client.follow_redirects = True
    client.event_hooks = {"response": [revoke]}


def test_a_redirect_within_the_origin_that_ends_in_a_refusal_is_a_denial(backend, api, client_of):
    with keeping(backend) as keeper:
        client = client_of(keeper)
        api.elsewhere = api.url
        revoke_after_the_first_hop(client, api)

        assert client.get(f"{api.origin}/away").status_code == 200
        assert len(backend.issued) == 2


def test_what_a_server_took_and_answered_with_see_other_is_not_sent_twice(backend, api, client_of):
    with keeping(backend) as keeper:
        client = client_of(keeper)
        api.elsewhere = api.url
        revoke_after_the_first_hop(client, api)

        assert client.post(f"{api.origin}/done", content=b"an order").status_code == 401

        assert list(api.bodies) == [b"an order", b""]
        assert client.get(api.url).status_code == 200


@pytest.mark.parametrize("package", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_it_works_with_transports_that_have_no_network(package):
    seen = []

    def answer(request):
        seen.append(request.headers["Authorization"])
        return package.Response(401 if len(seen) == 1 else 200)

    async def app(scope, _, send):
        seen.append(dict(scope["headers"])[b"authorization"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    tokens = iter([mint(jti="1"), mint(jti="2")])

    async def call():
        async with AsyncTokenKeeper(ScriptedSource(lambda: next(tokens)), policy=QUICK) as keeper:
            auth = KeeperAuth(keeper, origins="https://api.example")
            for transport in (package.MockTransport(answer), package.ASGITransport(app)):
                async with package.AsyncClient(
                    transport=transport, auth=auth, base_url="https://api.example"
                ) as client:
                    assert (await client.get("/things")).status_code == 200

    asyncio.run(call())

    assert len(seen) == 3
    assert seen[0] != seen[1] == seen[2]


def test_every_argument_that_cannot_work_is_named(backend):
    with keeping(backend) as keeper:
        for options in (
            {"origins": []},
            {"origins": "api.example"},
            {"origins": 3},
            {"by": 3},
            {"by": "x" * 1000},
            {"timeout": -1},
            {"timeout": "3"},
        ):
            with pytest.raises(ConfigError) as caught:
                KeeperAuth(keeper, **options)
            assert caught.value.key == next(iter(options))
    with pytest.raises(ConfigError, match="keeper"):
        KeeperAuth("https://api.example")


def test_nothing_of_it_shows_the_token(backend, api, client_of):
    with keeping(backend) as keeper:
        client = client_of(keeper, timeout=0.05)
        client.get(api.url)
        token = keeper.token

        assert token not in repr(client.auth)
        assert token not in repr(vars(client.auth))
        assert api.origin in repr(client.auth)


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_it_works_where_httpx2_took_the_name_of_httpx():
    code = """
import httpx2
httpx2.alias_httpx()
import httpx
from token_keeper.adapters.httpx import KeeperAuth
from token_keeper.adapters.httpx2 import KeeperAuth as Same
print(httpx is httpx2, KeeperAuth is Same, issubclass(KeeperAuth, httpx2.Auth))
"""
    assert run_python(code) == "True True True\n"


def test_it_works_where_httpx2_is_not_installed():
    code = """
import sys
sys.modules["httpx2"] = None
import httpx
from token_keeper.adapters.httpx import KeeperAuth
print(issubclass(KeeperAuth, httpx.Auth))
try:
    import token_keeper.adapters.httpx2
except ImportError as error:
    print(error.name)
"""
    assert run_python(code) == "True\nhttpx2\n"
