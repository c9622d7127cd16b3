"""The programs of examples/twilio-js run as they are, and what they ask the sidecar for over each way."""

import hashlib
import http.client
import json
import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from browsing import CHROMEDRIVER, CHROMIUM, a_browser
from npm_client import JS, NodeProgram, modules_or_skip
from sidecar import a_config, running
from twilio_js import GRANTS

from token_keeper.testing import FakeBackend, FakeTwilsock

EXAMPLES = Path(__file__).parents[1] / "examples" / "twilio-js"


@pytest.fixture(autouse=True)
def _node():
    if shutil.which("node") is None:
        pytest.skip("node is not installed")


@pytest.fixture
def server():
    with FakeTwilsock() as server:
        yield server


@pytest.fixture
def backend(server):
    with FakeBackend(mint=lambda now: server.mint(now, grants=GRANTS)) as backend:
        yield backend


@pytest.fixture
def sidecar(backend):
    with running(a_config(backend.url, server='listen = "127.0.0.1:0"')) as sidecar:
        yield sidecar


@contextmanager
def example(folder, name, *arguments, **environ):
    """Run an example in a copy, beside the packages if they are in *folder*."""
    process = subprocess.Popen(
        ["node", str(folder / name), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environ},
    )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        process.stdout.close()


def lines_until(process, wanted):
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if wanted in line:
            return lines
    raise AssertionError(f"it ended without {wanted!r}: {lines}")


def fingerprint(token):
    return hashlib.sha256(token.encode()).hexdigest()[:8]


@pytest.fixture
def beside(request, tmp_path):
    """A copy of the examples beside the real packages."""
    modules = modules_or_skip(request.config)
    folder = tmp_path / "twilio-js"
    shutil.copytree(EXAMPLES, folder)
    (folder / "node_modules").symlink_to(modules)
    return folder


@pytest.mark.parametrize("name", ["conversations.mjs", "sync.mjs"])
def test_the_program_connects_recovers_and_says_goodbye(beside, server, backend, sidecar, name):
    options = json.dumps({"twilsock": {"uri": server.url}, "Sync": {"enableSessionStorage": False}})
    with example(
        beside, name, "chat", TOKEN_KEEPER_SOCKET=str(sidecar.socket_path), TWILIO_OPTIONS=options
    ) as process:
        lines_until(process, "connected")
        server.close_live(401)
        lines = lines_until(process, "token: generation 2")
        process.terminate()
        assert process.wait(10) == 0
    assert not [token for token in backend.issued if token in str(lines)]
    server.wait_for_live(0)


@pytest.fixture
def asking():
    with NodeProgram("kept-client.mjs", JS) as program:
        yield program


def fetched(asking, where, **options):
    asking.tell(order="fetch", name="a", where=where, options=options)
    return asking.next("fetched", name="a")["fingerprint"]


def failed(asking, where):
    asking.tell(order="fetch", name="a", where=where)
    return asking.next("failed", name="a")


def test_a_token_is_fetched_over_the_socket_and_over_http_with_the_key(asking, backend, sidecar):
    by_socket = {"socketPath": str(sidecar.socket_path), "token": "chat"}
    by_http = {"url": f"http://127.0.0.1:{sidecar.port}/", "accessKey": sidecar.access_key, "token": "chat"}

    found = {fetched(asking, by_socket), fetched(asking, by_http)}

    assert found == {fingerprint(backend.issued[0])}


def test_instead_of_a_refused_token_another_one_is_fetched(asking, backend, sidecar):
    where = {"socketPath": str(sidecar.socket_path), "token": "chat"}

    found = fetched(asking, where, insteadOf=True, code=20104)

    assert found == fingerprint(backend.issued[1])


def test_a_wrong_key_is_an_error_that_does_not_repeat_it(asking, sidecar):
    wrong = "wrong-key-0123456789"

    error = failed(asking, {"url": f"http://127.0.0.1:{sidecar.port}", "accessKey": wrong, "token": "chat"})

    assert error["status"] == 401
    assert '"chat"' in error["message"]
    assert wrong not in str(error)


def test_an_unknown_token_is_named_with_what_the_sidecar_says(asking, sidecar):
    error = failed(asking, {"socketPath": str(sidecar.socket_path), "token": "chats"})

    assert error["status"] == 404
    assert error["message"].startswith('no token "chats" (404): ')


def test_a_sidecar_that_is_not_there_is_said_with_its_address(asking, tmp_path):
    error = failed(asking, {"socketPath": str(tmp_path / "no.sock"), "token": "chat"})

    assert error["status"] == 0
    assert "no.sock (ENOENT)" in error["message"]


def test_each_connect_to_a_room_has_a_fresh_token_and_a_refused_one_is_replaced(backend, sidecar):
    run = subprocess.run(
        ["node", str(JS / "join-rooms.mjs"), str(sidecar.socket_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    first, second, third = (fingerprint(token) for token in list(backend.issued)[:3])
    # Connected; refused when the signalling connected again; the next one refused at once.
    assert told == {"shown": [first, second, third], "rooms": 2}


def test_a_page_gets_its_token_through_its_own_server_and_nothing_else(asking, backend, sidecar):
    environ = {"TOKEN_KEEPER_SOCKET": str(sidecar.socket_path), "PORT": "0"}
    with example(EXAMPLES, "serve.mjs", "chat", **environ) as process:
        address = lines_until(process, "http://")[-1].removeprefix("http://").partition("/")[0]

        assert fetched(asking, {"url": f"http://{address}/token-keeper", "token": "chat"}) == fingerprint(
            backend.issued[0]
        )
        assert statuses(address, "/voice.html", "/keeper.mjs") == [200, 200]
        refused = (
            "/token-keeper/v1/tokens",
            "/token-keeper/v1/tokens/other",
            "/token-keeper/v1/reload",
            "/../x.mjs",
        )
        assert statuses(address, *refused) == [404] * 4
        assert statuses(address, "/token-keeper/v1/tokens/chat", **{"Sec-Fetch-Site": "cross-site"}) == [404]


@pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="chromium or its driver is not installed")
def test_a_page_in_a_real_browser_gets_its_token_through_its_own_server(backend, sidecar):
    environ = {"TOKEN_KEEPER_SOCKET": str(sidecar.socket_path), "PORT": "0"}
    with example(EXAMPLES, "serve.mjs", "chat", **environ) as process, a_browser() as browser:
        browser.open(lines_until(process, "http://")[-1])
        token = browser.run(
            "const { fetchToken, keepFresh } = await import('/keeper.mjs');"
            "return await fetchToken({ url: `${location.origin}/token-keeper`, token: 'chat' });"
        )

    assert token == backend.issued[0]


def statuses(address, *paths, **headers):
    connection = http.client.HTTPConnection(address, timeout=5)
    found = []
    for path in paths:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        found.append(answer.status)
    connection.close()
    return found
