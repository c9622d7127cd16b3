"""Planted tokens, credentials and keys, looked for wherever a whole sidecar shows or leaves anything."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from attacking import at_once, events_of, viewer
from sidecar import Sidecar, a_directory, eventually, running

from token_keeper.testing import FakeBackend

FROM_ENV = "canary-env-0123456789abcdefghij"
FROM_FILE = "canary-file-0123456789abcdefghij"
IN_CONFIG = "canary-config-0123456789abcdefghij"
BAD_VALUE = "canary-badvalue-0123456789abcdef"

CONFIG = """
[server]
listen = "127.0.0.1:0"
metrics_key_file = "{directory}/metrics-key"
log_level = "debug"

[tokens.jwt.source]
type = "http"
url = "{jwt}?key={in_config}"
method = "POST"
headers = {{ Authorization = "Bearer ${{env:CANARY}}", X-Key = "${{file:{directory}/secret}}" }}
json = {{ password = "{in_config}" }}

[[tokens.jwt.sinks]]
type = "file"
path = "{directory}/sinks/jwt"

[[tokens.jwt.sinks]]
type = "file"
path = "{directory}/blocked/jwt"

[[tokens.jwt.hooks]]
on = ["tokenUpdated"]
run = ["sh", "-c", "env; echo $0 $*; cat; cat {directory}/sinks/jwt >&2; exit 3"]
stdin = "token"

[tokens.opaque.source]
type = "http"
url = "{opaque}"
headers = {{ Authorization = "Basic {basic}" }}

[[tokens.opaque.sinks]]
type = "file"
path = "{directory}/sinks/opaque"
format = "json"
"""
BASIC = base64.b64encode(f"user:{IN_CONFIG}".encode()).decode()
BROKEN = f"""
[tokens.jwt.source]
type = "http"
url = 7
headers = {{ Authorization = ["{BAD_VALUE}"] }}
pasword = "{BAD_VALUE}"
[tokens.jwt.policy]
lead = "1m"
"""


def pieces(token: str) -> list[str]:
    """Return what must not be shown of a token: itself, its claims, its signature."""
    return [token, *token.split(".")[1:]]


def command(*args: str, env: Mapping[str, str]) -> str:
    """Run a command of ours, and return all that it wrote."""
    program = str(Path(sys.executable).with_name("token-keeper"))
    done = subprocess.run(
        [program, *args], capture_output=True, text=True, env={**os.environ, **env}, timeout=20, check=False
    )
    return done.stdout + done.stderr


def files_below(directory: Path) -> Iterator[tuple[Path, str]]:
    for path in directory.rglob("*"):
        if path.is_file():
            yield path, path.read_text(errors="replace")


def drive(sidecar: Sidecar, jwt: FakeBackend, opaque: FakeBackend) -> list[str]:
    """Do with it whatever can be done, and return all that it showed."""
    tokens = {name: sidecar.until_token(name).json["token"] for name in ("jwt", "opaque")}
    blocked = sidecar.directory / "blocked" / "jwt"
    eventually(blocked.exists)
    blocked.unlink()
    blocked.mkdir()
    shown = [*tell_of(sidecar, tokens), *fail(sidecar, tokens, jwt, opaque)]
    eventually(lambda: sidecar.logged("hookFailed") and sidecar.logged("sinkFailed"))
    blocked.rmdir()
    shown += reload(sidecar)
    for path in ("/", "/static/app.js", "/v1/tokens", "/metrics", "/openapi.json", "/readyz", "/healthz"):
        shown.append(sidecar.ask("GET", path).raw)
    shown += [Path(f"/proc/{sidecar.process.pid}/{name}").read_bytes() for name in ("cmdline", "comm")]
    shown.append(events_of(sidecar))
    return [*(piece.decode(errors="replace") for piece in shown), *commands(sidecar, tokens)]


def tell_of(sidecar: Sidecar, tokens: dict[str, str]) -> Iterator[bytes]:
    """Report tokens in all ways, with answers that quote them, and name them in wrong places."""
    for name, token in tokens.items():
        at = f"/v1/tokens/{name}"
        quoted = {"code": f"bad {token}", "reason": f"Authorization: Bearer {token} was refused"}
        for report in ({"token": token, "by": "a"}, {"generation": 1, "by": "b"}, {"token": f"x{token}"}):
            yield sidecar.ask("POST", f"{at}/denied", json_body={**report, **quoted}).raw
        yield sidecar.ask("POST", f"{at}/accepted", json_body={"token": token, "x": token}).raw
        yield sidecar.ask("GET", f"{at}?by=%20{token}").raw
        yield sidecar.ask("GET", f"/v1/tokens/{token}").raw
        yield sidecar.ask("POST", "/v1/dashboard/keys", json_body={"code": token}).raw
        yield sidecar.ask_tcp("GET", "/metrics", key=token).raw


def fail(sidecar: Sidecar, tokens: dict[str, str], *backends: FakeBackend) -> Iterator[bytes]:
    """Have both backends quote what they were sent, and ask for new tokens."""
    said = {"error": f"{FROM_ENV} {FROM_FILE} {IN_CONFIG}", "error_description": f"Bearer {tokens['opaque']}"}
    for backend in backends:
        backend.answer(status=401, body=said, times=2)
        backend.answer(body={"token": f"{IN_CONFIG} with blanks"}, times=1)
    for name in tokens:
        yield sidecar.ask("POST", f"/v1/tokens/{name}/refresh?wait=2", json_body={}).raw


def reload(sidecar: Sidecar) -> Iterator[bytes]:
    """Reload a file that cannot work and holds a secret, then one that can."""
    good = sidecar.config_path.read_text()
    sidecar.config_path.write_text(BROKEN)
    sidecar.signal(signal.SIGHUP)
    yield sidecar.ask("POST", "/v1/reload", json_body={}).raw
    yield command("check", "--config", str(sidecar.config_path), env={}).encode()
    sidecar.config_path.write_text(good.replace("method", 'timeout = "5s"\nmethod'))
    yield sidecar.ask("POST", "/v1/reload", json_body={}).raw


def commands(sidecar: Sidecar, tokens: dict[str, str]) -> list[str]:
    """Return what all commands say that a human may run in a terminal that is filmed."""
    environ = {"CANARY": FROM_ENV, "TOKEN_KEEPER_SOCKET": str(sidecar.socket_path)}
    config = ("--config", str(sidecar.config_path))
    lines = [
        *(("check", *config), ("check", *config, "--json")),
        *(("doctor", *config), ("doctor", *config, "--json")),
        *(("status",), ("status", "--json"), ("get", tokens["jwt"])),
        ("denied", "jwt", "--code", tokens["jwt"], tokens["opaque"]),
    ]
    return at_once(len(lines), lambda number: command(*lines[number], env=environ))


def test_a_whole_life_of_the_sidecar_shows_no_token_no_credential_and_no_key_anywhere():
    """Everything, once: fetches, denials, reloads, sinks, hooks, commands, a signal. It takes seconds."""
    serial = itertools.count()
    issued = mint_opaque(serial)
    with a_directory() as directory, FakeBackend() as jwt, FakeBackend(mint=issued, wrap=as_opaque) as opaque:
        (directory / "secret").write_text(FROM_FILE)
        (directory / "sinks").mkdir()
        (directory / "blocked").mkdir()
        config = CONFIG.format(
            directory=directory, jwt=jwt.url, opaque=opaque.url, in_config=IN_CONFIG, basic=BASIC
        )
        with running(config, directory=directory, env={"CANARY": FROM_ENV}) as sidecar:
            keys = {sidecar.access_key, (directory / "metrics-key").read_text().strip()}
            keys.add(viewer(sidecar))
            shown = drive(sidecar, jwt, opaque)
            assert sidecar.stop() == 0
            keys.add(sidecar.access_key if (sidecar.socket_path.parent / "access-key").exists() else "-" * 43)
        tokens = [*jwt.issued, *opaque.issued]
        log = (directory / "log").read_text()
        left = dict(files_below(directory))
    assert len(tokens) >= 4
    events = {json.loads(line)["event"] for line in log.splitlines()}
    assert events >= {
        "tokenDenied",
        "denialReported",
        "hookFailed",
        "sinkFailed",
        "configReloaded",
        "wrongKey",
    }
    assert events & {"refreshFailed", "refreshRefused"}
    assert any("422" in text and "pasword" in text for text in shown)
    secrets = [piece for token in tokens for piece in pieces(token)]
    secrets += [FROM_ENV, FROM_FILE, IN_CONFIG, BASIC, BAD_VALUE, *keys]
    for text in (*shown, log):
        found = [secret for secret in secrets if secret in text]
        assert not found, (found, text[max(0, text.find(found[0]) - 300) :][:600] if found else "")
    allowed = {"jwt", "opaque", "secret", "keeper.toml", "access-key", "metrics-key"}
    for path, text in left.items():
        assert path.name in allowed or not [secret for secret in secrets if secret in text], path


def mint_opaque(serial):
    return lambda now: f"opaque-canary-{next(serial)}-{int(now)}-abcdefghijklmnop"


def as_opaque(token):
    return {"access_token": token, "expires_in": 3600}


BUGGY = """
import sys
from token_keeper.sidecar.api import _reads
def buggy(served, start, by=""):
    raw = served.kept.state.current.token.secret.reveal()
    answer = {"token": raw, "authorization": "Bearer " + raw}
    if by:
        # An opaque text in a message looks like any other text: only its frames are hidden.
        raise ValueError(f"no answer for {raw}" if "." in raw else "no answer")
    return real(served, start, by)
real, _reads.token_answer = _reads.token_answer, buggy
from token_keeper.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("kind", ["jwt", "opaque"])
def test_a_bug_of_ours_is_logged_without_the_token_that_it_held(kind, log_format):
    """The bug puts the token into an exception, beside frames that hold it."""
    makers = {"jwt": {}, "opaque": {"mint": mint_opaque(itertools.count()), "wrap": as_opaque}}
    with a_directory() as directory, FakeBackend(**makers[kind]) as backend:
        config, path = directory / "keeper.toml", directory / "run" / "api.sock"
        config.write_text(f'[tokens.chat.source]\ntype = "http"\nurl = "{backend.url}"\n')
        arguments = ["serve", "--config", str(config), "--socket", str(path), "--log-format", log_format]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-c", BUGGY, *arguments], stderr=log)
        sidecar = Sidecar(process, directory, path, config)
        try:
            eventually(lambda: "sidecarStarted" in sidecar.log_text)
            sidecar.until_token()
            answer = sidecar.ask("GET", "/v1/tokens/chat?by=me")
            eventually(lambda: "requestFailed" in sidecar.log_text)
            assert sidecar.stop() == 0
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
        assert answer.status == 500
        assert "ValueError" in sidecar.log_text
        for piece in pieces(backend.issued[0]):
            assert piece not in answer.raw.decode() + sidecar.log_text
