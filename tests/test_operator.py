"""What an operator asks who trusts nothing: each row of the API, what strangers can do, each wrong start."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from sidecar import COMMAND, a_config, a_directory, a_request, eventually, running

from token_keeper.testing import FakeBackend

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY = 65_534

# Each row of the API, by every way in.

TOKEN = "/v1/tokens/chat"
PLAIN = {"Accept": "text/plain"}
WAYS = ("unix", "access", "metrics", "none")
"""Over the Unix socket as its owner; over TCP with the access key, with the metrics key, without a key."""

# method, path, headers, body, and what each of WAYS gets.
WALK = [
    ("GET", TOKEN, {}, None, (200, 200, 403, 401)),
    ("GET", TOKEN, PLAIN, None, (200, 200, 403, 401)),
    ("HEAD", TOKEN, {}, None, (200, 200, 403, 401)),
    ("GET", TOKEN, {"If-None-Match": "ETAG"}, None, (304, 304, 403, 401)),
    ("GET", f"{TOKEN}?min_validity=60", {}, None, (200, 200, 403, 401)),
    ("GET", f"{TOKEN}?after_generation=CURRENT", {}, None, (304, 304, 403, 401)),
    ("GET", f"{TOKEN}?after_generation=99", {}, None, (200, 200, 403, 401)),
    ("GET", f"{TOKEN}?wait=61", {}, None, (400, 400, 403, 401)),
    ("GET", "/v1/tokens/none", {}, None, (404, 404, 403, 401)),
    ("GET", "/v1/tokens", {}, None, (200, 200, 200, 401)),
    ("GET", "/v1/events", {}, None, (200, 200, 200, 401)),
    ("GET", "/metrics", {}, None, (200, 200, 200, 401)),
    ("GET", "/openapi.json", {}, None, (200, 200, 200, 401)),
    ("GET", "/healthz", {}, None, (200, 200, 200, 200)),
    ("GET", "/readyz", {}, None, (200, 200, 200, 200)),
    ("GET", "/", {}, None, (200, 200, 200, 200)),
    ("GET", "/static/app.js", {}, None, (200, 200, 200, 200)),
    ("GET", "/v1/nothing", {}, None, (404, 404, 403, 401)),
    ("DELETE", TOKEN, {}, None, (405, 405, 403, 401)),
    ("POST", f"{TOKEN}/accepted", {}, {"generation": 1}, (204, 204, 403, 401)),
    ("POST", f"{TOKEN}/denied", {}, {"generation": 1, "code": 429}, (200, 200, 403, 401)),
    ("POST", f"{TOKEN}/denied", {}, {"generation": 9}, (200, 200, 403, 401)),
    ("POST", f"{TOKEN}/denied", {}, {}, (400, 400, 403, 401)),
    ("POST", "/v1/dashboard/codes", {}, {}, (200, 403, 403, 401)),
    ("POST", "/v1/dashboard/keys", {}, {"code": "x" * 43}, (403, 403, 403, 403)),
    ("POST", "/v1/reload", {}, {}, (200, 403, 403, 401)),
    ("POST", f"{TOKEN}/refresh", {}, None, (202, 202, 403, 401)),
]


@pytest.fixture(scope="module")
def sidecar():
    with FakeBackend() as backend, a_directory() as directory:
        config = a_config(backend.url, server=f'metrics_key_file = "{directory}/metrics-key"')
        with running(config, "--listen", "127.0.0.1:0", directory=directory) as running_one:
            running_one.until_token()
            yield running_one


def asked(sidecar, way, row):
    """Ask in one of WAYS, and return the answer; of a stream only its head."""
    method, path, headers, body = row
    if "If-None-Match" in headers:
        headers = {"If-None-Match": sidecar.until_token().headers["etag"]}
    if way != "unix":
        metrics_key = (sidecar.directory / "metrics-key").read_text().strip()
        key = {"access": sidecar.access_key, "metrics": metrics_key, "none": None}[way]
        headers = {**headers, **({"Authorization": f"Bearer {key}"} if key else {})}
    host = "localhost" if way == "unix" else f"127.0.0.1:{sidecar.port}"
    more = {"headers": headers, "json_body": body, "host": host}
    with sidecar.connect() if way == "unix" else sidecar.connect_tcp() as talk:
        if path == "/v1/events":
            talk.send(a_request(method, path, **more))
            return talk.head()
        return talk.ask(method, path, **more)


@pytest.mark.parametrize("way", WAYS)
def test_each_row_of_the_api_answers_as_promised_by_each_way_in(sidecar, way):
    wrong = []
    for method, target, headers, body, statuses in WALK:
        current = sidecar.until_token().json
        path = target.replace("CURRENT", str(current["generation"]))
        answer = asked(sidecar, way, (method, path, headers, body))
        may_see = answer.status == 200 and method == "GET" and path.startswith(TOKEN)
        has_token = current["token"].encode() in answer.raw
        is_problem = answer.headers.get("content-type") == "application/problem+json"
        if (answer.status, is_problem, has_token) != (
            wanted := statuses[WAYS.index(way)],
            wanted >= 400,
            may_see and way in {"unix", "access"},
        ):
            wrong.append((method, path, answer))
    assert not wrong


# What another user of the machine can do.

STRANGER = """
import json, os, signal, socket, sys
from contextlib import contextmanager
directory, pid, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
got_away_with = []
def tries(what, act):
    try:
        if act() is not False:
            got_away_with.append(what)
    except (PermissionError, ConnectionError, FileNotFoundError):
        pass
def asks(*address, family):
    with socket.socket(family) as sock:
        sock.settimeout(5)
        sock.connect(*address)
        sock.sendall(b"GET /v1/tokens/chat HTTP/1.1\\r\\nHost: 127.0.0.1:%d\\r\\n\\r\\n" % port)
        return b'"token"' in sock.recv(65536)
run = directory + "/run/token-keeper"
private = (run + "/access-key", directory + "/out/token", directory + "/keeper.toml", run + "/api.sock.lock")
for path in private:
    tries("read " + path, lambda: open(path).read())
    tries("write " + path, lambda: open(path, "a").close())
    tries("remove " + path, lambda: os.unlink(path))
tries("connect", lambda: asks(run + "/api.sock", family=socket.AF_UNIX))
tries("remove socket", lambda: os.unlink(run + "/api.sock"))
tries("list", lambda: os.listdir(run))
tries("make", lambda: open(directory + "/out/.token-keeper.x", "w"))
tries("tcp", lambda: asks(("127.0.0.1", port), family=socket.AF_INET))
tries("signal", lambda: os.kill(pid, signal.SIGHUP))
tries("descriptors", lambda: os.listdir(f"/proc/{pid}/fd"))
for name in ("environ", "mem"):
    tries(name, lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
print(json.dumps(got_away_with))
"""


@AS_ROOT
def test_another_user_gets_nothing_in_any_way():
    with FakeBackend() as backend, a_directory() as directory:
        (directory / "out").mkdir(mode=0o755)
        sink = f'[[tokens.chat.sinks]]\ntype = "file"\npath = "{directory}/out/token"\n'
        with running(a_config(backend.url) + sink, "--listen", "127.0.0.1:0", directory=directory) as sidecar:
            eventually((directory / "out" / "token").exists, what="the file is written")
            sidecar.config_path.chmod(0o600)
            for place in (directory, directory / "run"):
                place.chmod(0o755)
            told = [str(directory), str(sidecar.process.pid), str(sidecar.port)]
            done = subprocess.run([sys.executable, "-c", STRANGER, *told], capture_output=True, check=True)
            assert json.loads(done.stdout) == []
            assert sidecar.until_token().status == 200
            assert sidecar.ask("GET", "/readyz").status == 200


# Started wrongly. Each says what is wrong and what to do, in words that need no source code.

SOURCE = '[tokens.chat.source]\ntype = "http"\nurl = "http://127.0.0.1:9/token"\n'
HERE = ("--config", "PLACE/keeper.toml")
UNPRIVILEGED = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
"""Root without its privileges is kept out by modes like everybody else."""

# What is wrong, the command's options, the configuration, the exit code, what is said, and what to do.
# PLACE is a directory of our own; it holds a file `plain`, and `theirs`, which belongs to another user.
WRONG = [
    ("no configuration", (), SOURCE, 64, "name the configuration", "--config FILE"),
    (
        "no such file",
        ("--config", "PLACE/none"),
        SOURCE,
        66,
        "PLACE/none cannot be read (No such file",
        "--config",
    ),
    ("a directory", ("--config", "PLACE"), SOURCE, 66, "PLACE cannot be read (Is a directory)", "--config"),
    ("their file", ("--config", "PLACE/theirs/file"), SOURCE, 66, "(Permission denied)", "uid 0 can read"),
    ("no TOML", HERE, "[tokens.chat", 78, "line 1, column 13: is not TOML", "Expected"),
    ("no text", HERE, "\x00\x01\x02", 78, "line 1, column 1: is not TOML", "line 1"),
    ("unknown key", HERE, "[server]\nsokcet = '/x'\n" + SOURCE, 78, "server.sokcet", "socket"),
    ("unset variable", HERE, SOURCE + 'headers = { A = "${env:NO_SUCH}" }\n', 78, "not set", "NO_SUCH"),
    ("no key", HERE, SOURCE + 'headers = { A = "${file:/none/k}" }\n', 78, "cannot be read", "/none/k"),
    (
        "no sink",
        HERE,
        SOURCE + '[[tokens.chat.sinks]]\ntype = "file"\npath = "/none/x"\n',
        78,
        "sinks[0].path",
        "make it",
    ),
    (
        "port taken",
        (*HERE, "--listen", "127.0.0.1:TAKEN"),
        SOURCE,
        73,
        "port TAKEN (Address already in use)",
        "ss -tlnp",
    ),
    ("no port", (*HERE, "--listen", "8750"), SOURCE, 78, "server.listen", "127.0.0.1:8750"),
    ("all addresses", (*HERE, "--listen", "0.0.0.0:0"), SOURCE, 78, "not on loopback", "use 127.0.0.1"),
    (
        "long path",
        (*HERE, "--socket", f"PLACE/{'x' * 100}/s"),
        SOURCE,
        78,
        "107 bytes",
        "choose a shorter path",
    ),
    (
        "no directory",
        (*HERE, "--socket", "PLACE/plain/s"),
        SOURCE,
        73,
        "PLACE/plain is no directory",
        "choose",
    ),
    (
        "in the way",
        (*HERE, "--socket", "PLACE/plain"),
        SOURCE,
        73,
        "exists and is no socket; it stays",
        "Remove it",
    ),
    (
        "their directory",
        (*HERE, "--socket", "PLACE/theirs/s"),
        SOURCE,
        77,
        "belongs to uid 65534",
        "directory of our own",
    ),
    (
        "below theirs",
        (*HERE, "--socket", "PLACE/theirs/x/s"),
        SOURCE,
        77,
        "(Permission denied)",
        "uid 0 can write",
    ),
    (
        "everybody's",
        (*HERE, "--socket", "/tmp/s"),
        SOURCE,
        77,
        "others can write",
        "does not exist yet is made",
    ),
    (
        "no key file",
        HERE,
        '[server]\nlisten = "127.0.0.1:0"\naccess_key_file = "/none/k"\n' + SOURCE,
        78,
        "/none/k",
        "directory must exist",
    ),
]


@AS_ROOT
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv of util-linux")
@pytest.mark.parametrize(
    ("options", "config", "code", "said", "remedy"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_started_wrongly_it_says_what_is_wrong_and_what_to_do(options, config, code, said, remedy):
    with a_directory() as place, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        (place / "plain").touch()
        (place / "theirs").mkdir(mode=0o755)
        (place / "theirs" / "file").touch(mode=0o600)
        for theirs in (place / "theirs" / "file", place / "theirs"):
            os.chown(theirs, NOBODY, NOBODY)
        (place / "keeper.toml").write_text(config)

        def meant(text):
            return text.replace("PLACE", str(place)).replace("TAKEN", port)

        environ = {key: value for key, value in os.environ.items() if not key.startswith("TOKEN_KEEPER")}
        environ["XDG_RUNTIME_DIR"] = str(place)
        done = subprocess.run(
            [*UNPRIVILEGED, *COMMAND, *map(meant, options)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith("token-keeper: ")
        assert meant(said) in done.stderr
        assert meant(remedy) in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(place.rglob("*.sock"))
