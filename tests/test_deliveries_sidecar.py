"""Sinks and hooks of the whole program: started, killed, started again without a backend."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from sidecar import a_config, eventually, running, started

from token_keeper.testing import FakeBackend

NOWHERE = "http://127.0.0.1:9/token"


def with_sink(url: str, directory: Path, extra: str = "") -> str:
    sink = (
        f'[[tokens.chat.sinks]]\ntype = "file"\npath = "{directory}/token.json"\n'
        f'format = "json"\nadopt = true\n{extra}'
    )
    return f"{a_config(url)}allow_http = true\n{sink}"


def test_after_kill_9_and_without_a_backend_the_former_token_serves(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "token.json"
    with FakeBackend() as backend, running(with_sink(backend.url, tmp_path)) as sidecar:
        raw = sidecar.until_token().json["token"]
        eventually(path.exists, what="the file is written")
        sidecar.signal(signal.SIGKILL)
        sidecar.process.wait(10)
    with running(with_sink(NOWHERE, tmp_path)) as sidecar:
        answer = sidecar.until_token().json
        assert answer["token"] == raw
        assert answer["expires_at"] > time.time()
        assert sidecar.logged("sinkAdopted")
        eventually(
            lambda: json.loads(path.read_text())["start"] == answer["start"], what="it is written anew"
        )


def test_sigterm_writes_what_is_due_and_leaves_the_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    hook = f'[[tokens.chat.hooks]]\nrun = ["/bin/sh", "-c", "echo $TOKEN_KEEPER_GENERATION >> {out}"]\n'
    with FakeBackend() as backend, running(with_sink(backend.url, tmp_path, hook)) as sidecar:
        raw = sidecar.until_token().json["token"]
        assert sidecar.stop() == 0
    assert json.loads((tmp_path / "token.json").read_text())["token"] == raw
    assert out.read_text() == "1\n"


def test_a_sink_that_cannot_be_written_makes_the_sidecar_unready_and_says_why(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    missing.mkdir()
    with FakeBackend() as backend, started(tmp_path, with_sink(backend.url, missing)) as sidecar:
        eventually((missing / "token.json").exists, what="the file is written")
        eventually(lambda: sidecar.ask("GET", "/readyz").status == 200, what="it is ready")
        (missing / "token.json").unlink()
        missing.rmdir()
        sidecar.ask("POST", "/v1/tokens/chat/refresh")
        eventually(lambda: sidecar.ask("GET", "/readyz").status == 503, what="it is not ready")
        row = sidecar.ask("GET", "/v1/tokens").json["tokens"][0]
        assert "create the directory" in row["sinks"][0]["error"]
