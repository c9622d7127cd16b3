"""An attacker's day: each test is one try, against a real sidecar, over real sockets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from attacking import (
    at_once,
    generation,
    heard,
    is_problem,
    memory_of,
    silent_connections,
    statuses,
    timed,
    viewer,
)
from browsing import CHROMEDRIVER, CHROMIUM, a_browser
from sidecar import Sidecar, a_config, a_directory, a_request, running

from token_keeper.testing import FakeBackend

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
STRANGER = 65_534


@pytest.fixture(scope="module")
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as backend:
        yield backend


@pytest.fixture(scope="module")
def sidecar(backend: FakeBackend) -> Iterator[Sidecar]:
    """One sidecar for all that must leave no trace."""
    with a_directory() as directory:
        server = (
            f'listen = "127.0.0.1:0"\nmetrics_key_file = "{directory}/metrics-key"\nlog_level = "debug"\n'
        )
        with running(a_config(backend.url, "chat", server=server), directory=directory) as sidecar:
            sidecar.until_token()
            yield sidecar


def metrics_key(sidecar: Sidecar) -> str:
    return (sidecar.directory / "metrics-key").read_text().strip()


@pytest.fixture
def unharmed(sidecar: Sidecar, backend: FakeBackend) -> Iterator[Sidecar]:
    """The shared sidecar; afterwards nothing was fetched, denied or reloaded, and it still answers."""
    before = generation(sidecar), len(backend.requests), len(sidecar.logged("configReloaded"))
    yield sidecar
    after = generation(sidecar), len(backend.requests), len(sidecar.logged("configReloaded"))
    assert after == before
    assert not sidecar.logged("denialReported")
    assert not sidecar.logged("requestFailed")


# A web page in the operator's browser.

PAGE = """
<!doctype html><title>kittens</title><iframe name="sink"></iframe>
"""
TRIES = """
const [at, key, done] = arguments;
const outcome = promise => Promise.race([promise, new Promise(end => setTimeout(end, 3000, 'silence'))])
  .then(value => `read ${value}`, error => `error ${error.name ?? error}`);
const text = answer => answer.type === 'opaque' ? Promise.reject('opaque') : answer.text();
const bearer = {Authorization: `Bearer ${key}`};
const socket = new Promise((good, bad) => {
  const socket = new WebSocket(at.replace('http', 'ws') + '/v1/events');
  socket.onopen = () => good('open'); socket.onerror = () => bad('error');
});
const stream = new Promise((good, bad) => {
  const stream = new EventSource(at + '/v1/events');
  stream.onmessage = () => good('event'); stream.onerror = () => { stream.close(); bad('error'); };
});
const script = new Promise((good, bad) => {
  const script = document.createElement('script');
  script.src = at + '/v1/tokens/chat'; script.onload = () => good('');
  script.onerror = () => bad('error');
  document.head.append(script);
});
const frame = new Promise((good, bad) => {
  const frame = document.createElement('iframe');
  frame.src = at + '/'; document.body.append(frame);
  frame.onload = () => { try { good(frame.contentDocument.title); } catch (error) { bad(error); } };
});
for (const path of ['/v1/tokens/chat/refresh', '/v1/tokens/chat/denied', '/v1/reload']) {
  const form = document.createElement('form');
  form.method = 'post'; form.action = at + path; form.enctype = 'text/plain'; form.target = 'sink';
  const field = document.createElement('input');
  field.name = '{"generation":1,"x":"'; field.value = '"}';
  form.append(field); document.body.append(form); form.submit();
  navigator.sendBeacon(at + path, new Blob(['{"generation":1}'], {type: 'text/plain'}));
}
Promise.all([
  fetch(at + '/v1/tokens/chat', {mode: 'no-cors'}).then(text),
  fetch(at + '/v1/tokens/chat').then(text),
  fetch(at + '/v1/tokens/chat', {headers: bearer}).then(text),
  fetch(at + '/', {headers: bearer}).then(text),
  fetch(at + '/').then(text),
  fetch(at + '/v1/tokens/chat/refresh', {method: 'POST', mode: 'no-cors', body: '{}'}).then(text),
  fetch(at + '/v1/tokens/chat/refresh', {method: 'POST', headers: bearer, body: '{}'}).then(text),
  fetch(at + '/v1/dashboard/keys', {method: 'POST', mode: 'no-cors', body: '{"code":"x"}'}).then(text),
  socket, stream, script, frame,
].map(outcome)).then(done);
"""


@pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="chromium and chromedriver are needed")
def test_a_page_of_another_site_in_a_real_browser_reads_nothing_and_changes_nothing(unharmed):
    """Even if it knows the access key. A start of Chromium takes a second or two."""
    from attacking import a_hostile_backend, says

    with a_hostile_backend({"/": says(PAGE, Content_Type="text/html")}) as site, a_browser() as browser:
        browser.open(site.url("/"))
        browser.driver.set_script_timeout(10)
        at = f"http://127.0.0.1:{unharmed.port}"
        outcomes = browser.driver.execute_async_script(TRIES, at, unharmed.access_key)
        assert [one for one in outcomes if not one.startswith("error")] == []
        assert len(outcomes) == 12


@pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="chromium and chromedriver are needed")
def test_a_page_whose_name_suddenly_points_here_reads_nothing_in_a_real_browser(unharmed):
    """Chromium resolves every name below localhost to this machine, as a rebound name would be."""
    with a_browser() as browser:
        browser.open(f"http://kittens.localhost:{unharmed.port}/")
        assert "does not name this sidecar" in browser.text()
        browser.driver.set_script_timeout(10)
        said = browser.driver.execute_async_script(
            "const [key, done] = arguments;"
            "fetch('/v1/tokens/chat', {headers: {Authorization: `Bearer ${key}`}})"
            ".then(answer => done(answer.status), error => done(error.name))",
            unharmed.access_key,
        )
        assert said == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "CROSS-SITE"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
    ids=str,
)
@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_what_a_foreign_page_would_send_is_refused_even_with_the_key(unharmed, over, headers):
    body = {"json_body": {"generation": 1}}
    chat = "/v1/tokens/chat"
    for method, path, more in (
        ("GET", chat, {}),
        ("POST", f"{chat}/denied", body),
        ("POST", f"{chat}/refresh", {"json_body": {}}),
    ):
        if over == "tcp":
            answer = unharmed.ask_tcp(method, path, key=unharmed.access_key, headers=headers, **more)
        else:
            answer = unharmed.ask(method, path, headers=headers, **more)
        assert (answer.status, is_problem(answer)) == (403, True)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_page_cannot_be_framed_and_a_simple_form_is_not_taken_for_json(unharmed):
    page = unharmed.ask_tcp("GET", "/")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        headers = {"Content-Type": kind}
        answer = unharmed.ask_tcp(
            "POST",
            "/v1/tokens/chat/denied",
            key=unharmed.access_key,
            headers=headers,
            body=b'{"generation":1}',
        )
        assert answer.status == 415


# Another user of this machine.

INTRUDER = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, run, key, port = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
def tries(act):
    try:
        return repr(act())
    except OSError as error:
        return type(error).__name__
def connects():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(run + "/api.sock")
def traces():
    if libc.ptrace(16, pid, 0, 0) != 0:
        raise PermissionError(ctypes.get_errno())
def reads(name):
    return lambda: open(f"/proc/{pid}/{name}", "rb").read(1)
print(tries(connects), tries(lambda: open(key).read()), tries(lambda: os.listdir(run)), tries(traces))
print(*(tries(reads(name)) for name in ("environ", "mem", "maps", "stack")))
print(*(tries(lambda: os.listdir(f"/proc/{pid}/{name}")) for name in ("fd", "fdinfo")))
print(tries(lambda: os.kill(pid, 1)), tries(lambda: os.symlink("/etc/passwd", run + "/api.sock.lock")))
"""


@AS_ROOT
def test_another_user_can_neither_connect_nor_look_nor_meddle(unharmed):
    for place in (unharmed.directory, unharmed.directory / "run"):
        place.chmod(0o711)
    run = unharmed.socket_path.parent
    arguments = [str(unharmed.process.pid), str(run), str(run / "access-key"), str(unharmed.port)]
    done = subprocess.run(
        [sys.executable, "-c", INTRUDER, *arguments], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"PermissionError"}, done.stdout


def test_what_every_user_can_see_of_the_process_holds_no_secret(unharmed):
    secrets = [unharmed.access_key, metrics_key(unharmed), unharmed.until_token().json["token"]]
    for name in ("cmdline", "comm", "status", "environ"):
        seen = ""
        # Only root may read the environment, not even our own user.
        with suppress(PermissionError):
            seen = Path(f"/proc/{unharmed.process.pid}/{name}").read_bytes().decode(errors="replace")
        assert not [secret for secret in secrets if secret in seen]


@AS_ROOT
@pytest.mark.parametrize(
    "trap", ["link to a directory", "directory", "link to a socket", "lock", "access-key"]
)
def test_traps_in_the_place_of_the_socket_end_the_start_and_nothing_is_followed(trap):
    """In a directory where everybody may make files, as /tmp."""
    with a_directory() as directory, FakeBackend() as backend:
        shared, target = directory / "shared", directory / "target"
        shared.mkdir()
        target.mkdir(mode=0o700)
        shared.chmod(0o1777)
        place = shared / "tk"
        if trap == "link to a directory":
            place.symlink_to(target)
            os.lchown(place, STRANGER, STRANGER)
        elif trap == "directory":
            place.mkdir(mode=0o700)
            os.chown(place, STRANGER, STRANGER)
        else:
            place.mkdir(mode=0o700)
            name = {"link to a socket": "api.sock", "lock": "api.sock.lock", "access-key": "access-key"}[trap]
            (place / name).symlink_to(target / "file")
        path = place / "api.sock"
        server = 'listen = "127.0.0.1:0"\n'
        config = directory / "keeper.toml"
        config.write_text(a_config(backend.url, server=server, socket_path=path))
        command = [str(Path(sys.executable).with_name("token-keeper")), "serve", "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode in {os.EX_NOPERM, os.EX_CANTCREAT, os.EX_CONFIG}, done.stderr
        assert list(target.iterdir()) == []


# Somebody who can connect over TCP, without a key.


def test_guessing_the_key_is_slow_tells_nothing_and_keeps_nobody_out(unharmed):
    key = unharmed.access_key
    last = "A" if key[-1] != "A" else "E"
    guesses = [key[:-1] + last, "A" * 43, key + "A", key[:-1], key.swapcase(), "x", f"{key} {key}", key[::-1]]

    def guess(number: int) -> tuple[float, tuple[int, bytes]]:
        headers = {"Authorization": f"Bearer {guesses[number]}"}
        return timed(lambda: _seen(unharmed.ask_tcp("GET", "/v1/tokens/chat", headers=headers)))

    began = time.monotonic()
    told = at_once(len(guesses), guess)
    assert time.monotonic() - began < 5
    assert len({seen for _, seen in told}) == 1
    assert told[0][1][0] == 401
    assert min(took for took, _ in told) > 0.9
    took, answer = timed(lambda: unharmed.ask_tcp("GET", "/v1/tokens/chat", key=key))
    assert (answer.status, took < 0.9) == (200, True)


def _seen(answer) -> tuple[int, bytes]:
    return answer.status, answer.body


def test_while_others_guess_the_owner_is_answered_at_once(unharmed):
    """200 guesses at once are three times as many connections as strangers may have."""
    wrong = a_request(
        "GET", "/v1/tokens/chat", host=f"127.0.0.1:{unharmed.port}", headers={"Authorization": "Bearer x"}
    )
    guessing = silent_connections(unharmed, 200, wrong)
    try:
        took, answer = timed(lambda: unharmed.ask_tcp("GET", "/v1/tokens/chat", key=unharmed.access_key))
        assert (answer.status, took < 0.9) == (200, True)
        assert unharmed.ask("GET", "/v1/tokens/chat").status == 200
    finally:
        for sock in guessing:
            sock.close()


@pytest.mark.parametrize(
    "beginning", [b"", b"G", b"GET / HTTP/1.1\r\nX: y", b"POST /v1/dashboard/keys HTTP/1.1\r\n"], ids=str
)
def test_500_connections_that_say_nothing_keep_nobody_out(unharmed, beginning):
    before = memory_of(unharmed)
    idle = silent_connections(unharmed, 500, beginning)
    try:
        for answer in (
            unharmed.ask("GET", "/v1/tokens/chat"),
            unharmed.ask_tcp("GET", "/v1/tokens/chat", key=unharmed.access_key),
            unharmed.ask_tcp("GET", "/healthz"),
        ):
            assert answer.status == 200
        assert memory_of(unharmed) - before < 20
    finally:
        for sock in idle:
            sock.close()


BOMBS = {
    "URL": b"GET /" + b"a" * 10_000_000,
    "header name": b"GET / HTTP/1.1\r\n" + b"a" * 10_000_000,
    "header value": b"GET / HTTP/1.1\r\nA: " + b"a" * 10_000_000,
    "headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1_000_000,
    "body": b"POST /v1/dashboard/keys HTTP/1.1\r\nHost: %b\r\nContent-Length: 9999999\r\n\r\n"
    + b" " * 9_999_999,
    "chunks": b"POST /v1/dashboard/keys HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\n \r\n" * 1_000_000,
    "chunk extension": b"POST /v1/dashboard/keys HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n1;"
    + b"a" * 10_000_000,
    "chunk size": b"POST /v1/dashboard/keys HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"0" * 10_000_000,
    "pipeline": b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" * 100_000,
    "pipeline of bodies": (
        b"POST /v1/dashboard/keys HTTP/1.1\r\nHost: %b\r\nContent-Length: 60000\r\n\r\n" + b" " * 60_000
    )
    * 100,
    "line ends": b"\r\n" * 5_000_000,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_ten_megabytes_of_anything_cost_little_memory_and_get_no_further(unharmed, kind):
    before = memory_of(unharmed)
    data = BOMBS[kind].replace(b"%b", b"127.0.0.1:%d" % unharmed.port)
    with unharmed.connect_tcp() as talk:
        received = heard(talk, data, quiet_s=1)
    assert memory_of(unharmed) - before < 15
    assert len(statuses(received)) <= 65 * 4
    assert unharmed.ask_tcp("GET", "/healthz").status == 200


HOST = b"Host: 127.0.0.1:%d\r\n"
SMUGGLED = {
    "TE and CL": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CL and TE": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 0\r\n\r\n{}",
    "a list of lengths": b"Content-Length: 2, 2\r\n\r\n{}",
    "a hexadecimal length": b"Content-Length: 0x2\r\n\r\n{}",
    "a signed length": b"Content-Length: +2\r\n\r\n{}",
    "a length beyond 64 bits": b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "a length with NUL": b"Content-Length: 2\x00\r\n\r\n{}",
    "a blank before the colon": b"Content-Length : 2\r\n\r\n{}",
    "TE with a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "TE with a vertical tab": b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "TE twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "TE quoted": b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE unknown": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE folded": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare carriage return": b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk that is longer than it says": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}X\r\n0\r\n\r\n",
    "a chunk size with a sign": b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "a chunk size with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk size that overflows": b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk that ends with a line feed": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\n0\r\n\r\n",
    "a chunk extension with a line feed": b"Transfer-Encoding: chunked\r\n\r\n2;a\n{}\r\n0\r\n\r\n",
    "a trailer": b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n",
    "a body with Upgrade": b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n",
    "chunks with Upgrade": b"Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two hosts": b"Host: evil.example\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("kind", SMUGGLED)
def test_a_request_hidden_in_another_is_never_answered(unharmed, kind):
    host, key = HOST % unharmed.port, b"Authorization: Bearer %b\r\n" % unharmed.access_key.encode()
    hidden = b"GET /v1/tokens/chat HTTP/1.1\r\n" + host + key + b"\r\n"
    first = b"POST /v1/tokens/chat/accepted HTTP/1.1\r\n" + host + key + SMUGGLED[kind]
    with unharmed.connect_tcp() as talk:
        received = heard(talk, first + hidden, quiet_s=3)
        assert statuses(received) == [400], received
        assert talk.is_closed()


def test_connect_with_a_body_is_no_way_around_either(unharmed):
    host, key = HOST % unharmed.port, b"Authorization: Bearer %b\r\n" % unharmed.access_key.encode()
    hidden = b"GET /v1/tokens/chat HTTP/1.1\r\n" + host + key + b"\r\n"
    first = b"CONNECT /v1/tokens HTTP/1.1\r\n" + host + key + b"Content-Length: %d\r\n\r\n" % len(hidden)
    with unharmed.connect_tcp() as talk:
        assert statuses(heard(talk, first + hidden, quiet_s=3)) == [400]


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x80\x2e\x01\x00\x02",
        b"\x05\x01\x00",
        b"*1\r\n$4\r\nPING\r\n",
        b"EHLO evil.example\r\nMAIL FROM:<a@b>\r\n",
        b"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
        b"\x00" * 100,
        b"\xff" * 100,
        b"() { :;}; echo / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_other_protocols_are_told_no_and_hung_up_on(unharmed, data):
    with unharmed.connect_tcp() as talk:
        received = heard(talk, data, quiet_s=3)
        assert statuses(received) == [400], received
        assert talk.is_closed()


# Somebody who holds the metrics key or a dashboard's key, and wants more.

WANTED = [
    *(
        ("GET", path)
        for path in ("/v1/tokens/chat", "/v1/tokens/chat?by=", "/v1/tokens/%63hat", "/v1/tokens/nobody")
    ),
    *(("GET", path) for path in ("/v1/tokens/", "/v1/tokens//chat", "//v1/tokens/chat", "/V1/TOKENS/chat")),
    *(
        ("GET", path)
        for path in ("/v1/tokens/./chat", "/static/../v1/tokens/chat", "/v1/events/../tokens/chat")
    ),
    *(("GET", path) for path in ("/v1/tokens;/chat", "/v1/tokens%2fchat", "/metrics/../v1/tokens/chat")),
    *(("HEAD", path) for path in ("/v1/tokens/chat",)),
    *(("POST", f"/v1/tokens/chat/{path}") for path in ("denied", "accepted", "refresh", "refresh?wait=1")),
    *(("POST", path) for path in ("/v1/reload", "/v1/dashboard/codes", "/v1/tokens/chat", "/v1/%72eload")),
    *((method, "/v1/tokens/chat") for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")),
]


@pytest.mark.parametrize("holder", [metrics_key, viewer])
def test_a_key_for_the_status_opens_nothing_else(unharmed, holder):
    key, token = holder(unharmed), unharmed.until_token().json["token"]
    for method, path in WANTED:
        answer = unharmed.ask_tcp(method, path, key=key, json_body={} if method == "POST" else None)
        assert (answer.status, path) == (403, path)
        assert token.encode() not in answer.raw
    for path in ("/v1/tokens", "/metrics", "/openapi.json"):
        answer = unharmed.ask_tcp("GET", path, key=key)
        assert answer.status == 200
        assert token.split(".")[2].encode() not in answer.raw


@pytest.mark.parametrize("end", ["%0A", "%0a", "%0D%0A", "%00", "%09", "%1b", "%c2%85", "%e2%80%a8", "%7f"])
def test_a_path_with_a_hidden_end_is_no_other_name_of_a_request_that_needs_more(unharmed, end):
    """The holder of the access key may not reload, and may not open more streams than there may be."""
    requests = [
        ("POST", "/v1/reload"),
        ("GET", "/v1/events"),
        ("POST", "/v1/dashboard/codes"),
        ("GET", "/metrics"),
    ]
    for method, path in requests:
        answer = unharmed.ask_tcp(
            method, path + end, key=unharmed.access_key, json_body={} if method == "POST" else None
        )
        assert answer.status == 400


def test_a_code_is_traded_once_however_many_try_at_the_same_moment(unharmed):
    code = unharmed.ask("POST", "/v1/dashboard/codes", json_body={}).json["code"]
    told = at_once(
        16, lambda _: unharmed.ask_tcp("POST", "/v1/dashboard/keys", json_body={"code": code}).status
    )
    assert sorted(told) == [200] + [403] * 15


def test_codes_and_keys_that_were_guessed_or_used_open_nothing(unharmed):
    code = unharmed.ask("POST", "/v1/dashboard/codes", json_body={}).json["code"]
    for guess in (code[:-1], code.swapcase(), code + "\n", code + "\u0000", "x" * 43, "*", "\u00e9" * 40):
        assert unharmed.ask_tcp("POST", "/v1/dashboard/keys", json_body={"code": guess}).status == 403
    assert unharmed.ask_tcp("GET", "/v1/tokens", key=code).status == 401
    key = unharmed.ask_tcp("POST", "/v1/dashboard/keys", json_body={"code": code}).json["key"]
    assert unharmed.ask_tcp("POST", "/v1/dashboard/keys", json_body={"code": key}).status == 403


# Whoever chooses a name.

NAMES = (
    *("..%2f..%2fetc%2fpasswd", "..", "%2e%2e", "%252e%252e", "%00", "chat%00", "%ff", "%c0%ae", "chat.json"),
    *(
        "CHAT",
        "chat%20",
        "%20chat",
        "chat;a=b",
        "chat,mail",
        "*",
        "%F0%9F%98%80",
        "ch%E2%80%8Bat",
        "a" * 1_900,
    ),
    *("__class__", "__proto__", "{name}", "%7Bname%7D", "%24%7Benv:HOME%7D", "'OR'1'='1", "%3Cscript%3E"),
)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:24])
def test_a_name_in_the_address_is_looked_up_and_nothing_else(unharmed, name):
    for method, rest in (("GET", ""), ("POST", "/denied"), ("POST", "/refresh")):
        body = {"json_body": {"generation": 1} if rest == "/denied" else {}} if rest else {}
        answer = unharmed.ask(method, f"/v1/tokens/{name}{rest}", **body)
        assert answer.status in {400, 404}
        assert is_problem(answer)
        assert name.encode() not in answer.body


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"generation":' + b"1" * 60_000 + b"}",
        b'{"generation":1e400}',
        b'{"generation":-1}',
        b'{"generation":0.5}',
        b'{"generation":true}',
        b'{"generation":NaN}',
        b'{"generation":1,"code":1e308}',
        b'{"generation":1,"by":"../../x"}',
        b'{"generation":1,"by":"\\u0000"}',
        b'{"token":"\\ud800"}',
        b'{"token":"\xff"}',
        b'{"token":["x"]}',
        b'{"fingerprint":"*"}',
        b'{"__class__":"x","generation":1}',
        b'{"generation":1}{"generation":1}',
        b"\xef\xbb\xbf{}",
        b"null",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_report_that_is_none_is_refused_without_repeating_it(unharmed, body):
    answer = unharmed.ask(
        "POST", "/v1/tokens/chat/denied", body=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status == 400
    assert is_problem(answer)


def test_each_test_that_the_page_about_security_names_exists():
    tests = Path(__file__).parent
    page = (tests.parent / "docs" / "security.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in tests.glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) >= 20
    assert {name for name in named if f"def {name}(" not in code} == set()
