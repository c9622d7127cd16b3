"""The pages about the sidecar, walked through with a real one; and its example clients."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from pages import blocks_of
from programs import read_until, shown_to
from sidecar import Sidecar, a_config, a_directory, a_token_table, eventually, running, started
from test_docs import Tunnels
from walk import Walk, sections_of, walk

from token_keeper.testing import FakeBackend

ROOT = Path(__file__).parent.parent
DOCS, CLIENTS = ROOT / "docs", ROOT / "examples" / "sidecar"
PAGES = [DOCS / f"{name}.md" for name in ("sidecar", "operations", "systemd", "docker", "kubernetes")]

needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("bash") is None, reason="curl or bash is not installed"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    with a_directory() as directory:
        yield directory


@contextmanager
def the_internet(directory: Path) -> Iterator[dict[str, str]]:
    """Serve backend.example and api.example; yield the environment in which they are found."""
    authority = trustme.CA()
    trusted = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("backend.example", "api.example").configure_cert(tls)
    with FakeBackend(ssl_context=tls) as backend, FakeBackend(ssl_context=tls) as api:
        api.answer(body={"things": []}, times=None)
        ports = {"backend.example": urlsplit(backend.url).port, "api.example": urlsplit(api.url).port}
        with Tunnels({host: port or 0 for host, port in ports.items()}) as proxy:
            serving = threading.Thread(target=proxy.serve_forever, daemon=True)
            serving.start()
            yield {
                "HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_address[1]}",
                "SSL_CERT_FILE": str(trusted),
                "CURL_CA_BUNDLE": str(trusted),
            }
            proxy.shutdown()
            serving.join()


# Some twenty programs are started, one after the other, each for a quarter of a second.
@needs_curl
def test_the_five_minutes_of_the_first_page_work_as_they_stand(directory: Path) -> None:
    with the_internet(directory) as environ:
        assert walk(DOCS / "sidecar.md", Walk(directory, environ), {}) >= 8


class Incidents:
    """What goes wrong in the night that `operations.md` is about; all of it with the token `voice`."""

    def __init__(self, sidecar: Sidecar, voice: FakeBackend) -> None:
        self.sidecar = sidecar
        self.voice = voice

    def down(self) -> None:
        self.voice.answer(status=503, times=None)
        self._fetch()
        eventually(lambda: self.sidecar.logged("refreshFailed"))

    def refused(self) -> None:
        self.voice.answer(status=400, body={"error": "invalid_client"}, times=None)
        self._fetch()
        eventually(lambda: self.sidecar.logged("refreshRefused"))

    def repaired(self) -> None:
        self.voice.answer(times=None)

    def denied(self) -> None:
        def is_over() -> bool:
            self.sidecar.ask("POST", "/v1/tokens/voice/denied", json_body=self._report())
            return bool(self.sidecar.logged("recoveryFailed"))

        eventually(is_over, within_s=30)

    def without_directory(self) -> None:
        (self.sidecar.directory / "app").rename(self.sidecar.directory / "gone")
        self._fetch()
        eventually(lambda: self.sidecar.logged("sinkFailed"))

    def without_app(self) -> None:
        (self.sidecar.directory / "gone").rename(self.sidecar.directory / "app")
        eventually(lambda: self.sidecar.logged("sinkRecovered"))
        (self.sidecar.directory / "broken").touch()
        self._fetch()
        eventually(lambda: self.sidecar.logged("hookFailed"))

    def _fetch(self) -> None:
        self.sidecar.ask("POST", "/v1/tokens/voice/refresh", json_body={})

    def _report(self) -> dict[str, object]:
        rows = self.sidecar.ask("GET", "/v1/tokens").json["tokens"]
        generation = next(row["generation"] for row in rows if row["name"] == "voice")
        return {"generation": generation, "by": "page", "code": 401}


@contextmanager
def a_night(directory: Path) -> Iterator[Incidents]:
    (directory / "app").mkdir(mode=0o700)
    check = f"if [ -e {directory}/broken ]; then echo app is not there; exit 3; fi"
    extra = f"""
        [[tokens.voice.sinks]]
        type = "file"
        path = "{directory}/app/voice.token"
        [[tokens.voice.hooks]]
        run = ["/bin/sh", "-c", "{check}"]
    """
    with FakeBackend() as chat, FakeBackend() as voice:
        # Each denial of the page causes a fetch; without the pause between two the night is over sooner.
        policy = "[tokens.voice.policy]\nmin_interval = '0.1s'\nbackoff_min = '20s'\n"
        config = a_config(chat.url) + a_token_table("voice", voice.url, extra + policy)
        with running(config, directory=directory) as sidecar:
            sidecar.until_token("voice")
            yield Incidents(sidecar, voice)


@needs_curl
# A server has to deny five tokens, and the pause before each next one doubles: that alone takes 15 s.
def test_the_commands_for_three_in_the_morning_work_and_say_what_the_page_says(directory: Path) -> None:
    with a_night(directory) as night:
        (directory / "bin").mkdir()
        journal = directory / "bin" / "journalctl"
        journal.write_text(f"#!/bin/sh\ncat {directory}/log\n")
        journal.chmod(0o755)
        reader = Walk(directory, {"TOKEN_KEEPER_SOCKET": str(night.sidecar.socket_path)})
        before = {
            ("First look", 1): night.down,
            ("TokenKeeperRefreshRefused", 1): night.refused,
            ("TokenKeeperRefreshRefused", 2): night.repaired,
            ("TokenKeeperRecoveryGaveUp", 1): night.denied,
            ("TokenKeeperSinkBehind", 1): night.without_directory,
            ("TokenKeeperHookFailing", 1): night.without_app,
        }
        assert before.keys() <= {
            (heading, number) for heading, number, _ in sections_of(DOCS / "operations.md")
        }
        assert walk(DOCS / "operations.md", reader, before) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_shell_block_that_is_not_run_says_why_and_is_shell_at_least(page: Path) -> None:
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.language == "sh":
            assert block.note in {"", "background"} or block.excuse, f"{page.name}:{block.line}"
            subprocess.run(["bash", "-n", "-c", block.code], check=True)


def test_a_page_that_shows_other_output_than_a_command_prints_is_found_out(directory: Path) -> None:
    page = directory / "page.md"
    page.write_text("# Page\n\n```sh\necho 2\n```\n\n```text\n3\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:3 printed other than the page says:\n2"):
        walk(page, Walk(directory, {}), {})


def test_a_page_with_a_command_that_fails_is_found_out(directory: Path) -> None:
    page = directory / "page.md"
    page.write_text("# Page\n\n```sh\nfalse\necho on\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:3 ended with 1"):
        walk(page, Walk(directory, {}), {})


# The example clients.


@contextmanager
def a_place() -> Iterator[tuple[Sidecar, FakeBackend, FakeBackend]]:
    with FakeBackend() as backend, FakeBackend() as api, running(a_config(backend.url)) as sidecar:
        api.answer(body={"things": []}, times=None)
        sidecar.until_token()
        yield sidecar, backend, api


def environ_of(sidecar: Sidecar, api: FakeBackend) -> dict[str, str]:
    own = {"TOKEN_KEEPER_SOCKET": str(sidecar.socket_path), "API_URL": api.url}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return (
        {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        | own
        | {"PATH": path}
    )


def said_by(*command: str, environ: dict[str, str]) -> str:
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


CALLERS = {
    "python": (sys.executable, "-W", "error", str(CLIENTS / "client.py"), "chat"),
    "shell": (str(CLIENTS / "call-api.sh"), "chat"),
}


@pytest.mark.parametrize("command", CALLERS.values(), ids=CALLERS.keys())
def test_a_client_calls_the_api_with_the_sidecars_token(command: tuple[str, ...]) -> None:
    with a_place() as (sidecar, backend, api):
        said = said_by(*command, environ=environ_of(sidecar, api))
    assert "the API answered 200" in said
    assert shown_to(api) == [backend.issued[-1]]


@pytest.mark.parametrize("command", CALLERS.values(), ids=CALLERS.keys())
def test_a_client_shows_the_api_another_token_after_a_401(command: tuple[str, ...]) -> None:
    with a_place() as (sidecar, backend, api):
        api.answer(status=401)
        said = said_by(*command, environ=environ_of(sidecar, api))
        assert sidecar.logged("tokenDenied")
    assert "the API answered 200" in said
    assert shown_to(api) == list(backend.issued)[:2]


# The sidecar is killed and starts again, and the client asks once a second whether it is back.
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_a_client_in_node_follows_the_token_through_a_denial_a_renewal_and_a_restart(directory: Path) -> None:
    with FakeBackend() as backend, FakeBackend() as api:
        api.answer(body={"things": []}, times=None)
        api.answer(status=401)
        config = a_config(backend.url)
        with running(config, directory=directory) as sidecar:
            sidecar.until_token()
            with subprocess.Popen(
                ["node", str(CLIENTS / "client.mjs"), "chat"],
                env=environ_of(sidecar, api),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as client:
                try:
                    read_until(client.stdout, "the API answered 200 to generation 2")
                    sidecar.ask("POST", "/v1/tokens/chat/refresh", json_body={})
                    read_until(client.stdout, "generation 3")
                    sidecar.signal(signal.SIGKILL)
                    sidecar.process.wait()
                    with started(directory, config):
                        read_until(client.stdout, "generation 1")
                finally:
                    client.kill()
    assert shown_to(api) == list(backend.issued)[:2]
