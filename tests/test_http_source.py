"""What an HTTP source asks, and what it makes of good answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fetching import fetch, fetch_all, raw

from token_keeper._errors import ConfigError
from token_keeper._model import Secret
from token_keeper.sources import HttpSource
from token_keeper.testing import FakeBackend

NOW = 1_800_000_000


def test_a_token_is_fetched_with_get():
    with FakeBackend() as backend:
        assert raw(HttpSource(backend.url)) == backend.issued[-1]
        assert backend.requests[0].method == "GET"


@pytest.mark.parametrize("body", [{"json": {"identity": "alice"}}, {"data": {"identity": "alice"}}])
def test_a_body_makes_it_post(body):
    with FakeBackend() as backend:
        fetch(HttpSource(backend.url, **body))
        request = backend.requests[0]

    sent = request.json() if "json" in body else {k: v[0] for k, v in parse_qs(request.body.decode()).items()}
    assert (request.method, sent) == ("POST", {"identity": "alice"})


def test_params_are_added_to_the_query_of_the_url():
    with FakeBackend() as backend:
        fetch(HttpSource(f"{backend.url}?a=1", params={"b": [2, 3], "c": True}))
        query = parse_qs(urlsplit(backend.requests[0].path).query)

    assert query == {"a": ["1"], "b": ["2", "3"], "c": ["true"]}


def test_functions_are_called_afresh_at_each_fetch_wherever_they_stand():
    count = iter(range(100))

    async def later() -> str:
        await asyncio.sleep(0)
        return f"async-{next(count)}"

    def now() -> str:
        return f"sync-{next(count)}"

    with FakeBackend() as backend:
        source = HttpSource(
            backend.url,
            headers={"X-Key": now},
            params={"q": later},
            json={"deep": [{"in": lambda: Secret("secret")}]},
            auth=lambda: ("user", now()),
        )
        fetch_all(source, times=2)
        first, second = backend.requests

    assert (first.headers["x-key"], first.path, first.json()) == (
        "sync-0",
        "/token?q=async-1",
        {"deep": [{"in": "secret"}]},
    )
    assert second.headers["x-key"] == "sync-3"
    assert first.headers["authorization"] != second.headers["authorization"]


def test_all_headers_may_come_from_one_function():
    with FakeBackend() as backend:
        fetch(HttpSource(backend.url, headers=lambda: {"X-Key": "one"}))
        assert backend.requests[0].headers["x-key"] == "one"


def test_a_pair_is_basic_authentication():
    with FakeBackend() as backend:
        fetch(HttpSource(backend.url, auth=("user", "password")))
        assert backend.requests[0].headers["authorization"] == "Basic dXNlcjpwYXNzd29yZA=="


def test_an_auth_of_httpx_may_ask_twice():
    challenge = {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'}
    with FakeBackend() as backend:
        backend.answer(status=401, headers=challenge)
        assert (
            raw(HttpSource(f"{backend.url}?a=1", auth=httpx.DigestAuth("user", "password")))
            == backend.issued[-1]
        )
        answer = backend.requests[1].headers["authorization"]

    assert 'uri="/token?a=1"' in answer


def test_headers_of_the_user_win_over_ours():
    with FakeBackend() as backend:
        fetch(HttpSource(backend.url, headers={"user-agent": "mine", "accept": "text/plain"}))
        headers = backend.requests[0].headers

    assert (headers["user-agent"], headers["accept"]) == ("mine", "text/plain")
    assert headers["accept-encoding"] == "identity"


def test_the_token_is_found_by_path_and_its_lifetime_beside_it():
    with FakeBackend(wrap=lambda token: {"chat": {"v": token, "ttl": 90}}) as backend:
        issued = fetch(
            HttpSource(backend.url, token_path="chat.v", expires_path="chat.ttl", default_lifetime=5)
        )

    assert (issued.expires_in, issued.expires_at, issued.default_lifetime_s) == (90.0, None, 5)


def test_the_date_of_the_answer_is_the_clock_of_the_backend():
    with FakeBackend(clock=lambda: NOW) as backend:
        assert fetch(HttpSource(backend.url)).server_time == pytest.approx(NOW, abs=1)


@pytest.mark.parametrize("headers", [{"Age": "30"}, {"Age": "old"}, {"Date": None}, {"Date": "soon"}])
def test_a_date_from_a_cache_or_none_at_all_is_no_clock(headers):
    with FakeBackend() as backend:
        backend.answer(body={"token": "opaque-1"}, headers=headers)
        assert fetch(HttpSource(backend.url)).server_time is None


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", ""])
def test_the_content_type_does_not_decide(kind):
    with FakeBackend() as backend:
        backend.answer(body='\ufeff {"token": "opaque-1"}', headers={"Content-Type": kind})
        assert raw(HttpSource(backend.url)) == "opaque-1"


def test_cookies_are_not_kept():
    with FakeBackend() as backend:
        backend.answer(body={"token": "opaque-1"}, headers={"Set-Cookie": "session=1; Path=/"})
        fetch_all(HttpSource(backend.url), times=2)
        assert "cookie" not in backend.requests[1].headers


def test_a_source_works_in_one_event_loop_after_the_other_and_after_its_close():
    with FakeBackend() as backend:
        source = HttpSource(backend.url)
        assert raw(source) != raw(source)


def test_a_source_that_was_not_closed_works_in_another_loop():
    with FakeBackend() as backend:
        backend.answer(body={"token": "one"}, headers={"Connection": "close"})
        source = HttpSource(backend.url)
        asyncio.run(source.fetch())
        assert raw(source) == backend.issued[-1]


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Backend.Example/token?key=secret", "https://backend.example:443"),
        ("https://backend.example:8443", "https://backend.example:8443"),
        ("http://localhost:80/x", "http://localhost:80"),
        ("http://127.9.9.9/x", "http://127.9.9.9:80"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url, origin):
    assert HttpSource(url).origin == origin


def test_a_repr_shows_where_to_and_no_secret():
    source = HttpSource(
        "https://backend.example/token?key=canary",
        headers={"X": "canary"},
        params={"p": "canary"},
        json={"j": "canary"},
        auth=("u", "canary"),
        proxy="http://u:canary@proxy.example",
    )

    assert repr(source) == "<HttpSource https://backend.example:443/token>"


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("url", {"url": "ftp://backend.example/"}),
        ("url", {"url": "https:///token"}),
        ("url", {"url": "backend.example/token"}),
        ("url", {"url": "https://backend.example:99999/"}),
        ("url", {"url": "https://user:canary@backend.example/"}),
        ("url", {"url": "https://backend.example/a b"}),
        ("url", {"url": "https://backend.example\\@evil.example/"}),
        ("url", {"url": 3}),
        ("url", {"url": "http://backend.example/token"}),
        ("url", {"url": "http://localhost.evil.example/token"}),
        ("method", {"method": "DELETE"}),
        ("headers", {"headers": ["a"]}),
        ("headers", {"headers": {"a b": "c"}}),
        ("headers['X-Key']", {"headers": {"X-Key": "canary\r\nInjected: 1"}}),
        ("headers['X-Key']", {"headers": {"X-Key": "canäry"}}),
        ("headers['X-Key']", {"headers": {"X-Key": 1}}),
        ("params", {"params": "a=1"}),
        ("data", {"data": {"a": "b"}, "json": {}}),
        ("data", {"data": "a=b"}),
        ("json", {"json": {"a": object()}}),
        ("json", {"json": float("nan")}),
        ("auth", {"auth": "canary"}),
        ("timeout", {"timeout": -1}),
        ("timeout", {"timeout": 31}),
        ("timeout", {"timeout": float("nan")}),
        ("timeout", {"timeout": True}),
        ("default_lifetime", {"default_lifetime": 0}),
        ("default_lifetime", {"default_lifetime": float("inf")}),
        ("token_path", {"token_path": "data["}),
        ("expires_path", {"expires_path": ""}),
        ("client_key", {"client_key": "key.pem"}),
        ("proxy", {"proxy": "u:canary@proxy.example"}),
        ("client", {"client": object()}),
        ("client", {"client": httpx.AsyncClient, "ca_file": "ca.pem"}),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_that_names_it(key, settings):
    with pytest.raises(ConfigError) as caught:
        HttpSource(**({"url": "https://backend.example/token"} | settings))

    assert caught.value.key == key
    assert "canary" not in str(caught.value)


def test_http_to_others_can_be_allowed():
    assert HttpSource("http://backend.example/", allow_http=True).origin == "http://backend.example:80"


def test_a_blocking_client_is_refused_with_advice():
    with httpx.Client() as client, pytest.raises(ConfigError, match="AsyncClient"):
        HttpSource("https://backend.example/", client=client)


def test_a_client_and_settings_of_a_client_are_not_combined():
    with pytest.raises(ConfigError, match="ca_file"):
        HttpSource("https://backend.example/", client=httpx.AsyncClient(), proxy="http://proxy.example")


def test_making_a_source_loads_no_http_library():
    program = (
        "import sys; from token_keeper.sources import HttpSource, CallableSource\n"
        "HttpSource('https://backend.example/', json={'a': 1}); CallableSource(str)\n"
        "print([name for name in ('httpx', 'httpx2', 'jwt', 'jmespath', 'tenacity') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_any_json_is_sent_as_it_is():
    body = {"list": [1, 2.5, None, True, "ü"], "nested": {"a": {}}}
    with FakeBackend() as backend:
        fetch(HttpSource(backend.url, json=body))
        assert json.loads(backend.requests[0].body) == body
