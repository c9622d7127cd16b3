"""What gets in: on the way that is answered from memory, and on the way to the API."""

from __future__ import annotations

import base64
import secrets

import pytest
from letting_in import COLD, HOT, a_site, problem_of, run, serving
from sidecar import a_request

from token_keeper.sidecar._access import Access, needed_access

POST = b"POST /v1/tokens/chat/refresh"
BOTH = pytest.mark.parametrize("path", [HOT, COLD], ids=["hot", "api"])


async def warmed(site):
    """Have the answer from memory ready, so that the next request is answered from there."""
    first, second = await site.ask(), await site.ask()
    assert (first.status, first.body) == (second.status, second.body)


@BOTH
def test_the_access_key_opens_tcp(path):
    async def test(site):
        await warmed(site)
        for _ in range(3):
            answer = await site.ask_tcp("GET", path)
            assert answer.status == 200
            assert answer.json["token"] == site.household.tokens["chat"].token

    serving(test)


@BOTH
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_of_the_key_may_be_in_any_case(path, scheme):
    async def test(site):
        await warmed(site)
        answer = await site.ask_tcp("GET", path, key=None, headers={"Authorization": f"{scheme} {site.key}"})
        assert answer.status == 200

    serving(test)


@BOTH
def test_tcp_without_a_key_is_told_how_to_send_one(path):
    async def test(site):
        await warmed(site)
        answer = await site.ask_tcp("GET", path, key=None)
        assert (answer.status, problem_of(answer)) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["connection"] == "close"
        assert site.household.tokens["chat"].token.encode() not in answer.raw

    serving(test)


@BOTH
@pytest.mark.parametrize(
    "shown",
    [
        "Bearer",
        "Bearer ",
        "Basic KEY",
        "Token KEY",
        "KEY",
        "Bearer KEYx",
        "Bearer xKEY",
        "Bearer KEY KEY",
        "Bearer KEY,",
        'Bearer "KEY"',
        "BearerKEY",
    ],
)
def test_a_key_shown_in_another_way_does_not_open(path, shown):
    async def test(site):
        await warmed(site)
        line = await site.tcp()
        headers = {"Authorization": shown.replace("KEY", site.key)}
        line.send(a_request("GET", path, **site.meant(None, headers=headers)))
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (401, "unauthorized")

    serving(test)


@BOTH
def test_a_wrong_key_waits_for_its_answer_and_the_right_one_does_not(path):
    async def test(site):
        await warmed(site)
        guessing = [await site.tcp() for _ in range(20)]
        for line in guessing:
            line.send(a_request("GET", path, **site.meant(secrets.token_urlsafe(32))))
        answer = await site.ask_tcp("GET", path)
        assert answer.status == 200
        assert not any(line.reader._buffer for line in guessing)
        for line in guessing:
            answer = await line.answer()
            assert (answer.status, problem_of(answer)) == (401, "unauthorized")
            assert "invalid_token" in answer.headers["www-authenticate"]
        # However often somebody guesses, the log stays short.
        assert [line["event"] for line in site.logged].count("wrongKey") == 1

    serving(test)


@BOTH
def test_a_key_in_the_address_opens_nothing(path):
    async def test(site):
        await warmed(site)
        joint = "&" if "?" in path else "?"
        for name in ("key", "access_token", "token"):
            answer = await site.ask_tcp("GET", f"{path}{joint}{name}={site.key}", key=None)
            assert answer.status == 401

    serving(test)


@BOTH
@pytest.mark.parametrize("name", ["Authorization", "Host", "Origin", "Sec-Fetch-Site"])
def test_a_header_that_decides_may_come_only_once(path, name):
    async def test(site):
        await warmed(site)
        line = await site.tcp()
        meant = site.meant()
        value = {"Host": meant["host"], "Authorization": f"Bearer {site.key}", "Sec-Fetch-Site": "none"}
        twice = f"{name}: {value.get(name, 'http://' + meant['host'])}\r\n".encode()
        request = a_request("GET", path, **meant)
        missing = 2 if name in {"Origin", "Sec-Fetch-Site"} else 1
        line.send(request[:-2] + twice * missing + b"\r\n")
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (400, "bad-request")

    serving(test)


@BOTH
@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "attacker.example:PORT",
        "127.0.0.1",
        "localhost",
        "127.0.0.1:1",
        "127.0.0.1.attacker.example:PORT",
        "localhost.:PORT",
        "user@localhost:PORT",
        "0.0.0.0:PORT",
        "[::ffff:127.0.0.1]:PORT",
        "",
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused_even_with_the_key(path, host):
    async def test(site):
        await warmed(site)
        answer = await site.ask_tcp("GET", path, host=host.replace("PORT", str(site.port)))
        assert (answer.status, problem_of(answer)) == (421, "misdirected")

    serving(test)


@BOTH
@pytest.mark.parametrize("name", ["localhost", "LocalHost", "127.0.0.1", "[::1]"])
def test_the_names_of_loopback_are_ours_with_our_port(path, name):
    async def test(site):
        await warmed(site)
        assert (await site.ask_tcp("GET", path, host=f"{name}:{site.port}")).status == 200

    serving(test)


@BOTH
def test_the_operators_names_are_ours_with_any_port(path):
    async def test(site):
        await warmed(site)
        for host in ("Token.Internal", "token.internal:443", f"token.internal:{site.port}"):
            assert (await site.ask_tcp("GET", path, host=host)).status == 200
        for host in ("token.internal:x", "x.token.internal", "token.internal:"):
            assert (await site.ask_tcp("GET", path, host=host)).status == 421

    serving(test, hosts=("token.internal",))


@BOTH
def test_over_the_unix_socket_any_host_will_do(path):
    async def test(site):
        await warmed(site)
        for host in ("localhost", "token-keeper", "attacker.example:80"):
            assert (await site.ask("GET", path, host=host)).status == 200

    serving(test)


@BOTH
def test_http_1_1_needs_a_host(path):
    async def test(site):
        await warmed(site)
        for ask in (site.ask, site.ask_tcp):
            answer = await ask("GET", path, host=None)
            assert (answer.status, problem_of(answer)) == (400, "bad-request")

    serving(test)


@BOTH
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "https://OURS"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://attacker.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://OURS"},
    ],
    ids=str,
)
def test_a_page_of_another_site_gets_nothing_even_with_the_key(path, headers):
    async def test(site):
        await warmed(site)
        ours = f"127.0.0.1:{site.port}"
        headers_sent = {name: value.replace("OURS", ours) for name, value in headers.items()}
        for ask in (site.ask, site.ask_tcp):
            answer = await ask("GET", path, headers=headers_sent)
            assert (answer.status, problem_of(answer)) == (403, "forbidden")
            assert not [name for name in answer.headers if name.startswith("access-control")]

    serving(test)


@BOTH
def test_our_own_page_gets_in(path):
    async def test(site):
        await warmed(site)
        ours = {"Sec-Fetch-Site": "same-origin", "Origin": f"http://127.0.0.1:{site.port}"}
        for headers in (ours, {"Sec-Fetch-Site": "none"}):
            assert (await site.ask_tcp("GET", path, headers=headers)).status == 200

    serving(test)


@BOTH
def test_a_browsers_question_beforehand_is_answered_like_any_other_request(path):
    async def test(site):
        await warmed(site)
        headers = {"Origin": "https://attacker.example", "Access-Control-Request-Method": "GET"}
        answer = await site.ask_tcp("OPTIONS", path, key=None, headers=headers)
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert (await site.ask_tcp("OPTIONS", path)).status == 405

    serving(test)


def test_a_link_on_another_site_may_open_the_page_and_nothing_else():
    async def test(site):
        headers = {"Sec-Fetch-Site": "cross-site"}
        assert (await site.ask_tcp("GET", "/", key=None, headers=headers)).status == 200
        for method, path in [("GET", "/healthz"), ("GET", "/metrics"), ("POST", "/v1/dashboard/keys")]:
            answer = await site.ask_tcp(method, path, key=None, headers=headers)
            assert (answer.status, problem_of(answer)) == (403, "forbidden")

    serving(test)


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("/", Access.NOTHING),
        ("/static/app.js", Access.NOTHING),
        ("/healthz", Access.NOTHING),
        ("/readyz", Access.NOTHING),
        ("/v1/dashboard/keys", Access.NOTHING),
        ("/metrics", Access.STATUS),
        ("/v1/tokens", Access.STATUS),
        ("/v1/events", Access.STATUS),
        ("/openapi.json", Access.STATUS),
        ("/v1/tokens/chat", Access.TOKENS),
        ("/v1/tokens/chat/denied", Access.TOKENS),
        ("/v1/dashboard/codes", Access.TOKENS),
        ("/v1/reload", Access.OWNER),
        ("/unknown", Access.TOKENS),
        ("//healthz", Access.TOKENS),
        ("/healthz/", Access.TOKENS),
        ("/static/../v1/tokens", Access.TOKENS),
        ("/static", Access.TOKENS),
        ("/static/", Access.TOKENS),
    ],
)
def test_each_path_needs_what_the_table_says(path, needed):
    assert needed_access(path) is needed


def test_health_over_tcp_says_only_its_status_without_a_key():
    async def test(site):
        for path in ("/healthz", "/readyz"):
            bare = await site.ask_tcp("GET", path, key=None)
            assert (bare.status, bare.body) == (200, b"")
            assert (await site.ask_tcp("GET", path)).body != b""

    serving(test)


def test_the_metrics_key_reads_status_and_no_token():
    async def test(site):
        key = (site.path.parent.parent / "metrics-key").read_text().strip()
        for path in ("/metrics", "/v1/tokens", "/openapi.json"):
            assert (await site.ask_tcp("GET", path, key=key)).status == 200
        await warmed(site)
        for method, path in [("GET", HOT), ("GET", COLD), ("POST", f"{HOT}/refresh"), ("POST", "/v1/reload")]:
            answer = await site.ask_tcp(method, path, key=key)
            assert (answer.status, problem_of(answer)) == (403, "forbidden")

    serving(test)


def test_a_dashboards_key_is_traded_once_for_a_code_and_reads_no_token():
    async def test(site):
        code = (await site.ask("POST", "/v1/dashboard/codes", json_body={})).json["code"]
        traded = await site.ask_tcp("POST", "/v1/dashboard/keys", key=None, json_body={"code": code})
        key = traded.json["key"]
        assert (await site.ask_tcp("GET", "/v1/tokens", key=key)).status == 200
        assert (await site.ask_tcp("GET", HOT, key=key)).status == 403
        again = await site.ask_tcp("POST", "/v1/dashboard/keys", key=None, json_body={"code": code})
        assert again.status == 403

    serving(test)


def test_a_code_is_good_for_a_minute():
    async def test(site):
        code = (await site.ask("POST", "/v1/dashboard/codes", json_body={})).json["code"]
        site.clock.advance(61)
        late = await site.ask_tcp("POST", "/v1/dashboard/keys", key=None, json_body={"code": code})
        assert late.status == 403

    serving(test)


def test_codes_are_not_given_over_tcp_and_reloads_are_not_done():
    async def test(site):
        for path in ("/v1/dashboard/codes", "/v1/reload"):
            answer = await site.ask_tcp("POST", path, json_body={})
            assert (answer.status, problem_of(answer)) == (403, "forbidden")
        assert (await site.ask("POST", "/v1/reload", json_body={})).status == 200

    serving(test)


@BOTH
def test_a_key_that_was_replaced_no_longer_opens_an_open_connection(path):
    async def test(site):
        line = await site.tcp()
        for _ in range(3):
            assert (await line.ask("GET", path, **site.meant())).status == 200
        file = site.path.parent.parent / "access-key"
        replacement = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=")
        file.write_bytes(replacement + b"\n")
        assert site.keys.read()
        line.send(a_request("GET", path, **site.meant()))
        assert (await line.answer()).status == 401
        assert (await site.ask_tcp("GET", path, key=replacement.decode())).status == 200

    serving(test)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET http://localhost/v1/tokens/chat HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/tokens/chat#x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/tokens/ch\xc3\xa4t HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/tokens/chat HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"GET /v1/tokens/chat HTTP/0.9\r\n\r\n",
        b"GET /v1/tokens/chat\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/tokens/chat HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        b"GET /v1/tokens/chat HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /v1/tokens/chat HTTP/1.1\r\nHost: localhost\r\nX\x00: a\r\n\r\n",
        b"GET /v1/tokens/chat HTTP/1.1\nHost: localhost\n\n",
        POST + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        POST + b" HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\n{}",
        POST + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b" HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/tokens/chat%0A HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /v1/tokens/chat%00 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /v1/reload%0A HTTP/1.1\r\nHost: h\r\n\r\n",
        POST + b" HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=lambda data: data[:60].decode("latin-1").encode("unicode_escape").decode(),
)
def test_what_is_not_plain_http_1_1_is_refused_and_closed(request_bytes):
    async def test(site):
        await warmed(site)
        line = await site.unix()
        line.send(request_bytes)
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (400, "bad-request")
        assert await line.rest() == b""

    serving(test)


def test_a_trailer_does_not_join_the_headers():
    async def test(site):
        line = await site.tcp()
        head = a_request("POST", f"{HOT}/refresh", **site.meant(headers={"Transfer-Encoding": "chunked"}))
        line.send(head + b"2\r\n{}\r\n0\r\nX-Late: 1\r\n\r\n")
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (400, "bad-request")

    serving(test)


@BOTH
def test_nobody_is_told_what_serves(path):
    async def test(site):
        await warmed(site)
        for answer in (await site.ask("GET", path), await site.ask_tcp("GET", path, key=None)):
            assert "server" not in answer.headers
            assert "date" in answer.headers
            assert "uvicorn" not in answer.raw.decode("latin-1").lower()

    serving(test)


@BOTH
def test_requests_with_an_offer_to_switch_protocols_are_answered_as_they_are(path):
    async def test(site):
        await warmed(site)
        line = await site.unix()
        headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQ"}
        for _ in range(2):
            answer = await line.ask("GET", path, headers=headers)
            assert answer.status == 200
        assert (await line.ask("GET", path)).status == 200

    serving(test)


@BOTH
def test_http_1_0_and_head_behave(path):
    async def test(site):
        await warmed(site)
        old = await site.unix()
        answer = await old.ask("GET", path, version="1.0", host=None)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await old.rest() == b""
        line = await site.unix()
        whole, head = await line.ask("GET", path), await line.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}
        asked = await site.tcp()
        asked.send(a_request("HEAD", path, **site.meant(None)))
        assert (await asked.answer(head_only=True)).status == 401
        assert await asked.rest() == b""

    serving(test)


def test_an_error_of_ours_is_an_answer_and_a_log_line_without_the_request():
    def breaking(app):
        async def broken(scope, receive, send):
            if scope["path"] == "/metrics":
                raise RuntimeError("boom")
            await app(scope, receive, send)

        return broken

    async def test(site):
        answer = await site.ask("GET", "/metrics")
        assert (answer.status, problem_of(answer)) == (500, "internal-error")
        assert [line["event"] for line in site.logged if line["level"] == "error"] == ["requestFailed"]
        assert (await site.ask()).status == 200

    serving(test, wrap=breaking)


def test_at_debug_each_request_is_logged_without_what_the_client_chose():
    async def test(site):
        await warmed(site)
        await site.ask("GET", "/v1/tokens/chat?by=secret")
        await site.ask("GET", "/secret")
        lines = [line for line in site.logged if line["event"] == "request"]
        assert {
            "level": "debug",
            "event": "request",
            "method": "GET",
            "path": "/v1/tokens/{name}",
            "status": 200,
        } in lines
        assert len(lines) == 4
        assert "secret" not in str(lines)

    serving(test, is_verbose=True)


def test_two_sites_do_not_share_their_keys():
    async def main():
        async with a_site() as one, a_site() as other:
            assert (await other.ask_tcp("GET", HOT, key=one.key)).status == 401

    run(main())
