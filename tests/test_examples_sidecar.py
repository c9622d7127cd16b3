"""The shell examples beside a real sidecar. `test_sidecar_docs.py` has those in other languages."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from programs import EXAMPLES, TIMEOUT_S, following, read_until, shown_to, stopped
from sidecar import a_config, a_directory, eventually, running

from token_keeper.testing import FakeBackend

SCRIPTS = EXAMPLES / "sidecar"
WITH, CALL, POLL = (str(SCRIPTS / name) for name in ("with-sidecar.sh", "call-api.sh", "poll-api.sh"))

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of our own with a configuration, a backend and an API."""

    directory: Path
    backend: FakeBackend
    api: FakeBackend

    @property
    def socket_path(self) -> Path:
        return self.directory / "run" / "token-keeper" / "api.sock"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "TOKEN_KEEPER_SOCKET": str(self.socket_path),
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            "KEEPER_CONFIG": str(self.directory / "keeper.toml"),
            "API_URL": self.api.url,
            "PAUSE_S": "0.05",
        }


@pytest.fixture
def place() -> Iterator[Place]:
    with a_directory() as directory, FakeBackend() as backend, FakeBackend() as api:
        (directory / "run").mkdir(mode=0o700)
        (directory / "keeper.toml").write_text(a_config(backend.url))
        api.answer(body={"things": []}, times=None)
        yield Place(directory, backend, api)


def test_a_script_starts_a_sidecar_where_there_is_none_and_ends_it(place: Place) -> None:
    with following(WITH, CALL, "chat", environment=place.environment) as script:
        said, _ = script.communicate(timeout=TIMEOUT_S)
    assert script.returncode == 0, said
    assert "the API answered 200" in said.splitlines()
    assert shown_to(place.api) == [place.backend.issued[0]]
    assert not place.socket_path.exists()


def test_a_script_uses_the_sidecar_that_runs_and_leaves_it_running(place: Place) -> None:
    with running(a_config(place.backend.url), directory=place.directory) as sidecar:
        with following(WITH, CALL, "chat", environment=place.environment) as script:
            said, _ = script.communicate(timeout=TIMEOUT_S)
        assert script.returncode == 0, said
        assert sidecar.ask("GET", "/healthz").status == 200
        assert len(sidecar.logged("sidecarStarted")) == 1
    assert len(place.backend.issued) == 1


def test_the_exit_code_is_that_of_the_command(place: Place) -> None:
    with following(WITH, "sh", "-c", "exit 3", environment=place.environment) as script:
        script.communicate(timeout=TIMEOUT_S)
    assert script.returncode == 3


def test_a_sidecar_that_cannot_start_ends_the_script_with_its_own_code(place: Place) -> None:
    (place.directory / "keeper.toml").write_text("[tokens.chat]\n")
    with following(WITH, CALL, "chat", environment=place.environment) as script:
        said, _ = script.communicate(timeout=TIMEOUT_S)
    assert script.returncode == os.EX_CONFIG
    assert "tokens.chat.source" in said
    assert not place.api.requests


def test_a_script_reports_the_token_that_it_sent_and_calls_again_with_another(place: Place) -> None:
    place.api.answer(status=401)
    with running(a_config(place.backend.url), directory=place.directory) as sidecar:
        with following(CALL, "chat", environment=place.environment) as script:
            said, _ = script.communicate(timeout=TIMEOUT_S)
        assert script.returncode == 0, said
        assert [line["generation"] for line in sidecar.logged("tokenDenied")] == [1]
    assert said.splitlines()[-1] == "the API answered 200"
    assert shown_to(place.api) == list(place.backend.issued)[:2]


def test_a_script_that_runs_for_days_reads_a_file_that_stays_fresh(place: Place) -> None:
    run = ("token-keeper", "run", "chat", "--file", "TOKEN_FILE", "--", POLL, "chat")
    with (
        running(a_config(place.backend.url), directory=place.directory) as sidecar,
        following(*run, environment=place.environment) as script,
    ):
        read_until(script.stdout, "the API answered 200")
        sidecar.ask("POST", "/v1/tokens/chat/refresh", json_body={})
        eventually(lambda: len(set(shown_to(place.api))) == 2, what="a call with the second token")
        place.api.answer(status=401)
        read_until(script.stdout, "the API answered 401")
        read_until(script.stdout, "the API answered 200")
        assert sidecar.logged("tokenDenied")
        assert stopped(script).endswith("stopped\n")


def test_sigterm_ends_the_command_and_then_the_sidecar(place: Place) -> None:
    run = (WITH, "token-keeper", "run", "chat", "--file", "TOKEN_FILE", "--", POLL, "chat")
    with following(*run, environment=place.environment) as script:
        read_until(script.stdout, "the API answered 200")
        script.send_signal(signal.SIGTERM)
        said, _ = script.communicate(timeout=TIMEOUT_S)
    assert script.returncode == 128 + signal.SIGTERM, said
    assert "stopped\n" in said
    assert not place.socket_path.exists()


@pytest.mark.parametrize("script", [WITH, CALL, POLL], ids=["with-sidecar", "call-api", "poll-api"])
def test_a_script_can_be_executed_as_it_is(script: str) -> None:
    assert Path(script).stat().st_mode & stat.S_IXUSR
