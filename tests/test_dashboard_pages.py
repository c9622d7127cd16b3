"""What is served of the dashboard, and with which headers. No browser is needed for it."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from importlib.resources import files

import pytest
from browsing import Telling

from token_keeper.sidecar.dashboard._pages import HEADERS, PAGES

FILES = files("token_keeper.sidecar.dashboard")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Telling([]) as server:
        yield int(server.address.rpartition(":")[2].strip("/"))


def ask(port: int, method: str, path: str, headers: dict[str, str] | None = None):
    """Return status, headers by lower-case name, and body, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", PAGES)
def test_each_part_is_served_as_it_is_with_its_type_and_all_guarding_headers(port, path):
    name, content_type = PAGES[path]
    status, headers, body = ask(port, "GET", path)
    assert (status, body) == (200, FILES.joinpath(name).read_bytes())
    assert headers["content-type"] == content_type
    assert HEADERS.items() <= headers.items()


@pytest.mark.parametrize("path", PAGES)
def test_head_says_the_same_without_the_body(port, path):
    _, of_get, body = ask(port, "GET", path)
    status, of_head, nothing = ask(port, "HEAD", path)
    assert (status, nothing, of_head["content-length"]) == (200, b"", str(len(body)))
    assert of_head["etag"] == of_get["etag"]


def test_a_part_that_the_browser_has_is_not_sent_again(port):
    _, headers, _ = ask(port, "GET", "/static/app.js")
    status, _, body = ask(port, "GET", "/static/app.js", {"If-None-Match": headers["etag"]})
    assert (status, body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/_pages.py",
        "/static/index.html",
        "/static/",
        "/static/../_pages.py",
        "/static/..%2f_pages.py",
        "/static/%2e%2e/%2e%2e/_access.py",
        "//static/app.js",
        "/static/app.js%00",
        "/static//etc/passwd",
    ],
)
def test_nothing_else_is_served(port, path):
    assert ask(port, "GET", path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_the_page_takes_nothing(port, method):
    assert ask(port, method, "/")[0] == 405


def test_the_policy_allows_no_inline_code_no_evaluation_and_no_other_host(port):
    policy = ask(port, "GET", "/")[1]["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert not re.search(r"unsafe|\*|https?:", policy)


def test_the_page_has_no_inline_script_or_style_and_names_no_other_host():
    page = FILES.joinpath("index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page)
    hosts = {
        name: re.findall(r"https?://[\w.-]+", FILES.joinpath(name).read_text()) for name, _ in PAGES.values()
    }
    assert {host for found in hosts.values() for host in found} <= {
        "http://www.w3.org",
        "https://backend.example",
    }


def test_no_part_can_make_markup_out_of_a_text_or_run_one():
    parts = "".join(FILES.joinpath(name).read_text() for name, _ in PAGES.values())
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc"
    assert not re.search(sinks, parts)
    assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", parts)


def test_every_file_of_the_package_that_a_browser_could_want_is_served():
    there = {path.name for path in FILES.iterdir() if path.name.endswith((".js", ".css", ".html"))}
    assert there == {name for name, _ in PAGES.values()}
