"""The dashboard of a real sidecar, in a real Chromium: what an operator sees while things happen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import CHROMEDRIVER, CHROMIUM, Browser, a_browser
from sidecar import Sidecar, a_config, a_directory, running

from token_keeper.testing import FakeBackend
from token_keeper.testing._loopback import bound_socket

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="chromium and chromedriver are needed"
)
CHAT = '.row[data-name="chat"]'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as browser:
        yield browser


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend(lifetime=900) as backend:
        yield backend


@pytest.fixture
def directory() -> Iterator[Path]:
    with a_directory() as directory:
        yield directory


@pytest.fixture
def sidecar(backend, directory) -> Iterator[Sidecar]:
    with serving(backend, directory) as sidecar:
        sidecar.until_token()
        yield sidecar


def serving(backend: FakeBackend, directory: Path, *names: str, port: int = 0, extra: str = ""):
    server = f'listen = "127.0.0.1:{port}"\n'
    return running(a_config(backend.url, *names, server=server, extra=extra), directory=directory)


def a_free_port() -> int:
    with bound_socket(0) as sock:
        return sock.getsockname()[1]


def url_of(sidecar: Sidecar) -> str:
    """Return the address that `token-keeper dashboard` opens."""
    return sidecar.ask("POST", "/v1/dashboard/codes", json_body={}).json["url"]


def opened(browser: Browser, sidecar: Sidecar, **look: object) -> None:
    browser.open(url_of(sidecar), **look)
    browser.wait_for("Live", "#link")
    browser.until(lambda: browser.text("#verdict-title"), what="a verdict")


def list_opened(browser: Browser) -> None:
    browser.all("#log summary")[0].click()


def test_it_opens_by_code_shows_the_token_and_keeps_no_code(browser, sidecar):
    opened(browser, sidecar)
    browser.wait_for("Ready", "#verdict")
    token = sidecar.until_token().json["token"]
    page = browser.run("return document.documentElement.outerHTML")
    stored = browser.run("return [localStorage.length, sessionStorage.length, document.cookie]")
    assert "Usable for 14 min" in browser.text(CHAT)
    assert browser.driver.current_url == f"http://127.0.0.1:{sidecar.port}/"
    assert stored == [0, 0, ""]
    assert token not in page
    assert sidecar.access_key not in page
    assert browser.complaints() == []


def test_a_code_works_once(browser, sidecar):
    url = url_of(sidecar)
    browser.open(url)
    browser.wait_for("Ready", "#verdict")
    browser.open(url)
    browser.wait_for("This code is used or too old")


# The page tells of the recovery after the back-off, a second or two.
def test_a_denial_and_the_recovery_are_seen_live(browser, backend, sidecar):
    opened(browser, sidecar)
    list_opened(browser)
    browser.run("window.stillTheSame = true")
    backend.down()
    denied = {"generation": 1, "code": 20104}
    assert sidecar.ask("POST", "/v1/tokens/chat/denied", json_body=denied).json["verdict"] == "denied"
    browser.wait_for("Denied", CHAT)
    browser.wait_for("chat was denied by a server and is withheld.", "#verdict")
    browser.wait_for("a server denied generation 1", "#events")
    backend.up()
    browser.wait_for("generation 2 is published", "#events")
    browser.wait_for("Fresh", CHAT)
    assert sidecar.ask("POST", "/v1/tokens/chat/accepted", json_body={"generation": 2}).status == 204
    browser.wait_for("recovered: generation 2 is accepted", "#events")
    browser.wait_for("Ready", "#verdict")
    kinds = set(browser.values("#picture .event", "data-kind"))
    assert {"tokenDenied", "tokenUpdated", "recovered"} <= kinds
    assert browser.run("return window.stillTheSame")


# The page tells of the recovery after the back-off, a second or two.
def test_failures_and_what_time_is_left_are_seen_while_the_backend_is_down(browser, backend, sidecar):
    opened(browser, sidecar)
    backend.down()
    sidecar.ask("POST", "/v1/tokens/chat/refresh", json_body={})
    browser.wait_for("Ready, with trouble ahead", "#verdict")
    browser.wait_for("Last error", CHAT)
    row = browser.text(CHAT)
    assert "backing off" in row
    assert "Usable for 14 min; " in row
    assert "attempts fit" in row
    backend.up()
    browser.wait_for("usable and in time", "#verdict")


def test_a_restart_is_seen_and_the_next_code_opens_it_again(browser, backend, directory):
    port = a_free_port()
    with serving(backend, directory, port=port) as first:
        first.until_token()
        opened(browser, first)
        assert first.stop() == 0
        browser.wait_for("Reconnecting since", "#link")
        browser.wait_for("Not known", "#verdict")
    with serving(backend, directory, port=port) as second:
        second.until_token()
        browser.wait_for("The sidecar was restarted")
        # The page is still open: only the fragment of its address changes.
        browser.driver.get(url_of(second))
        browser.wait_for("Ready", "#verdict")


def test_a_token_that_a_reload_adds_appears(browser, sidecar):
    opened(browser, sidecar)
    config = sidecar.config_path.read_text()
    sidecar.config_path.write_text(config + config[config.index("[tokens.chat]") :].replace("chat", "mail"))
    assert sidecar.ask("POST", "/v1/reload", json_body={}).json["added"] == ["mail"]
    browser.wait_for("mail", "#rows")
    browser.wait_for("2 tokens", "#present")


def test_a_sink_that_can_no_longer_be_written_is_seen(browser, backend, directory):
    place = directory / "sinks"
    place.mkdir()
    sinks = f'sinks = [{{ type = "file", path = "{place}/token" }}]'
    with serving(backend, directory, extra=sinks) as sidecar:
        sidecar.until_token()
        opened(browser, sidecar)
        browser.wait_for("holds generation 1", CHAT)
        place.rename(directory / "elsewhere")
        sidecar.ask("POST", "/v1/tokens/chat/refresh", json_body={})
        browser.wait_for("holds generation 1; ", CHAT)
        browser.wait_for("Not ready", "#verdict")
        browser.wait_for("chat has 1 file that cannot be written.", "#verdict")


def test_the_pages_key_reads_no_token_and_changes_nothing(sidecar):
    code = sidecar.ask("POST", "/v1/dashboard/codes", json_body={}).json["code"]
    key = sidecar.ask_tcp("POST", "/v1/dashboard/keys", json_body={"code": code}).json["key"]

    def status(method: str, path: str) -> int:
        return sidecar.ask_tcp(method, path, key=key).status

    assert status("GET", "/v1/tokens") == 200
    assert {status("GET", "/v1/tokens/chat"), status("POST", "/v1/tokens/chat/refresh")} == {403}
    assert {status("POST", "/v1/reload"), status("POST", "/v1/dashboard/codes")} == {403}
    assert sidecar.ask_tcp("POST", "/v1/dashboard/keys", json_body={"code": code}).status >= 400


def test_no_code_and_no_key_is_in_the_log(browser, sidecar):
    url = url_of(sidecar)
    browser.open(url)
    browser.wait_for("Ready", "#verdict")
    assert url.partition("#")[2] not in sidecar.log_text


def test_it_fits_a_telephone_and_asks_nobody_else(browser, sidecar):
    opened(browser, sidecar, width=400, height=800)
    browser.until(lambda: browser.all("#picture .event"), what="the picture")
    assert browser.run("return document.documentElement.scrollWidth") == 400
    asked = {url for url in browser.requested() if not url.startswith(("data:", "about:"))}
    assert {url for url in asked if not url.startswith(f"http://127.0.0.1:{sidecar.port}/")} == set()
    assert browser.complaints() == []


# The token lives for 20 s and is renewed after some 10 s at the latest: a renewal is waited for.
def test_a_renewal_is_seen_without_anybody_asking(browser, directory):
    with FakeBackend(lifetime=20) as backend, serving(backend, directory) as sidecar:
        sidecar.until_token()
        opened(browser, sidecar)
        began = time.monotonic()
        browser.until(lambda: json.loads(browser.run(GENERATION)) > 1, what="the next generation")
        assert time.monotonic() - began < 15
        browser.wait_for("Ready", "#verdict")


GENERATION = f"return document.querySelector('{CHAT} .facts dd:has(.print) span').textContent.trim()"
