"""The command `token-keeper doctor` over real sockets: what it sees, and what it advises."""

from __future__ import annotations

import json
import socket
import time

import pytest
from examining import examined, for_twilio, run, statuses
from minting import ACCOUNT, APPLICATION, AUTH_TOKEN, CHAT, SECRET, SERVICE, VIDEO, VOICE
from twilio.jwt.access_token.grants import VoiceGrant

from token_keeper.testing import FakeBackend
from token_keeper.testing._mint import mint

ALL_STEPS = ["dns", "tcp", "tls", "http", "token", "kind", "findings", "clock", "schedule"]


@pytest.fixture
def backend():
    with FakeBackend() as running:
        yield running


def test_a_good_backend_passes_every_step_and_exits_0(backend):
    document = examined(backend.url)

    assert (document["ok"], list(statuses(document))) == (True, ALL_STEPS)
    assert {**statuses(document), "tls": "ok"} == dict.fromkeys(ALL_STEPS, "ok")
    assert document["step"]["http"]["details"]["status"] == 200
    assert document["step"]["token"]["details"]["path"] == "token"
    assert document["step"]["kind"]["details"]["profile"] == "jwt"
    assert len(backend.requests) == 1


def test_the_document_has_the_shape_that_is_documented(backend):
    document = json.loads(run("--json", f"{backend.url}?user=alice").stdout)

    assert list(document) == ["url", "ok", "steps", "schedule", "products"]
    assert document["url"] == backend.url
    assert {tuple(step) for step in document["steps"]} == {("step", "status", "summary", "details", "remedy")}
    assert document["products"] is None


def test_the_url_may_be_an_option(backend):
    assert run("--url", backend.url).exit_code == 0


def test_it_asks_as_the_options_say(backend, tmp_path):
    (tmp_path / "key").write_text("from-the-file\n")
    (tmp_path / "body").write_text('{"identity": "alice"}')
    result = run(
        backend.url,
        *("--header", "Authorization: Bearer ${env:BACKEND_KEY}"),
        *("--header", f"X-Key: ${{file:{tmp_path / 'key'}}}"),
        *("--header", "X-Plain: a$$b"),
        *("--json-body", f"@{tmp_path / 'body'}"),
        env={"BACKEND_KEY": "from-the-environment"},
    )
    (request,) = backend.requests

    assert (result.exit_code, result.stderr) == (0, "")
    assert (request.method, request.json()) == ("POST", {"identity": "alice"})
    assert request.headers["authorization"] == "Bearer from-the-environment"
    assert (request.headers["x-key"], request.headers["x-plain"]) == ("from-the-file", "a$b")
    assert request.headers["user-agent"] == "token-keeper"


def test_a_literal_secret_on_the_command_line_is_sent_and_warned_of(backend):
    result = run(backend.url, "--header", "Authorization: Bearer literal-secret")

    assert backend.requests[0].headers["authorization"] == "Bearer literal-secret"
    assert "warning: header 1" in result.stderr
    assert "literal-secret" not in result.output


def test_a_name_that_does_not_resolve_fails_at_dns_and_skips_the_rest():
    document = examined("https://nothing.invalid/token")

    assert statuses(document) == {"dns": "failed", **dict.fromkeys(ALL_STEPS[1:], "skipped")}
    assert "nothing.invalid" in document["step"]["dns"]["summary"]
    assert document["step"]["dns"]["remedy"]
    assert document["schedule"] is None


def test_a_refused_port_fails_at_tcp(backend):
    backend.down()
    document = examined(backend.url)

    assert (statuses(document)["dns"], statuses(document)["tcp"]) == ("ok", "failed")
    assert set(statuses(document).values()) == {"ok", "failed", "skipped"}
    assert "nobody listens" in document["step"]["tcp"]["summary"]
    assert document["step"]["tcp"]["details"]["failures"] == {"127.0.0.1": "ECONNREFUSED"}


def test_localhost_is_resolved_and_the_address_that_answers_is_used(backend):
    document = examined(backend.url.replace("127.0.0.1", "localhost"))

    assert document["ok"]
    assert "127.0.0.1" in document["step"]["dns"]["details"]["addresses"]
    assert document["step"]["tcp"]["details"]["address"] == "127.0.0.1"


def test_a_backend_that_says_nothing_fails_at_http(backend):
    backend.fail("stall_headers")
    document = examined(backend.url, "--timeout", "0.3")

    assert statuses(document)["http"] == "failed"
    assert "timed out" in document["step"]["http"]["summary"]
    assert "--timeout" in document["step"]["http"]["remedy"]
    assert statuses(document)["clock"] == "skipped"


def test_a_login_page_is_no_token(backend):
    backend.fail("html")
    document = examined(backend.url)

    assert (statuses(document)["http"], statuses(document)["token"]) == ("ok", "failed")
    assert document["step"]["http"]["details"]["content_type"] == "text/html"
    assert "HTML" in document["step"]["token"]["summary"]
    assert statuses(document)["clock"] == "ok"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, None, "refused to issue a token: 401,"),
        (400, {"error": "invalid_client"}, "refused to issue a token: 400, invalid_client,"),
        (404, None, "answered 404"),
        (503, None, "answered 503"),
    ],
)
def test_an_answer_without_success_fails_at_http_with_a_remedy(backend, status, body, said):
    backend.answer(status=status, body=body)
    step = examined(backend.url)["step"]["http"]

    assert step["status"] == "failed"
    assert said in step["summary"]
    assert step["remedy"]
    assert "current token" not in step["summary"] + step["remedy"]
    assert step["details"]["status"] == status


def test_redirects_within_the_origin_are_followed_and_counted(backend):
    backend.redirect("/elsewhere")
    document = examined(backend.url)

    assert document["ok"]
    assert document["step"]["http"]["details"]["requests"] == 2


def test_a_redirect_to_another_origin_fails_at_http(backend):
    backend.redirect("https://elsewhere.example/token")
    step = examined(backend.url)["step"]["http"]

    assert step["status"] == "failed"
    assert "another origin" in step["summary"]


def test_an_answer_that_is_too_large_has_no_token(backend):
    backend.fail("huge")
    document = examined(backend.url)

    assert statuses(document)["token"] == "failed"
    assert "larger than 1 MiB" in document["step"]["token"]["summary"]


def test_a_wrong_path_names_what_stands_there_instead(backend):
    step = examined(backend.url, "--token-path", "data.token")["step"]["token"]

    assert step["status"] == "failed"
    assert "an object with token" in step["summary"]
    assert "--token-path" in step["remedy"]


@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda token: {"data": {"accessToken": token}}, "data.accessToken"),
        (lambda token: token, ""),
        (json.dumps, "@"),
    ],
)
def test_it_says_where_in_the_answer_the_token_stood(wrap, path):
    with FakeBackend(wrap=wrap) as backend:
        step = examined(backend.url)["step"]["token"]

    assert (step["status"], step["details"]["path"]) == ("ok", path)


def test_a_compressed_answer_is_read_too(backend):
    import gzip

    body = gzip.compress(json.dumps({"jwt": mint(exp=time.time() + 60)}).encode())
    backend.answer(body=body, headers={"Content-Encoding": "gzip"})

    assert examined(backend.url)["step"]["token"]["details"]["path"] == "jwt"


def test_a_token_that_is_wrapped_twice_is_refused():
    with FakeBackend(wrap=lambda token: {"token": json.dumps({"token": token})}) as backend:
        step = examined(backend.url)["step"]["token"]

    assert step["status"] == "failed"
    assert "JSON document in a string" in step["summary"]


def test_an_expired_token_fails_with_its_findings_and_has_no_schedule():
    with FakeBackend(mint=for_twilio(age=7200)) as backend:
        document = examined(backend.url)
    (first, *_) = document["step"]["findings"]["details"]["findings"]

    assert statuses(document)["findings"] == "failed"
    assert (first["code"], bool(first["hint"])) == ("expired", True)
    assert statuses(document)["schedule"] == "skipped"
    assert document["schedule"] is None
    assert document["products"]["chat"]["verdict"] == "refused"


@pytest.mark.parametrize(("offset", "status"), [(0, "ok"), (-20, "ok"), (-300, "warning"), (300, "warning")])
def test_the_clocks_are_compared_and_the_token_judged_by_the_backends(offset, status):
    with FakeBackend(clock_offset=offset) as backend:
        document = examined(backend.url)
    step = document["step"]["clock"]

    assert step["status"] == status
    assert step["details"]["ahead"] == pytest.approx(offset, abs=2)
    assert bool(step["remedy"]) == (status == "warning")
    assert statuses(document)["findings"] == "ok"
    assert document["schedule"]["remaining"] == pytest.approx(3600, abs=2)


def test_without_a_date_the_clocks_cannot_be_compared(backend):
    backend.answer(headers={"Date": None})
    document = examined(backend.url)

    assert (document["ok"], statuses(document)["clock"]) == (True, "skipped")


def test_a_cached_token_is_a_warning_with_its_age():
    with FakeBackend(mint=for_twilio(age=2700)) as backend:
        document = examined(backend.url)
        page = run(backend.url).stdout

    assert (document["ok"], statuses(document)["schedule"]) == (True, "warning")
    assert document["schedule"]["used"] == pytest.approx(0.75, abs=0.01)
    assert "caches" in document["step"]["schedule"]["remedy"]
    assert "75% of its lifetime of 1 h is used up" in page


def test_the_schedule_is_spelled_out_with_the_tokens_numbers(backend):
    document = examined(backend.url)
    schedule = document["schedule"]

    assert schedule["lead"] == pytest.approx(720, abs=2)
    assert schedule["jitter_max"] == 300
    assert schedule["refresh_latest_at"] - schedule["now"] == pytest.approx(2880, abs=2)
    assert schedule["refresh_earliest_at"] - schedule["now"] == pytest.approx(2580, abs=2)
    assert schedule["attempts"] >= 5
    assert any("= 720 s" in line for line in schedule["formula"])


def test_an_opaque_token_that_looks_like_a_credential_is_remarked_on():
    with FakeBackend(wrap=lambda _: {"token": AUTH_TOKEN, "expires_in": 600}) as backend:
        credential = run(backend.url)
    with FakeBackend(wrap=lambda _: {"token": "opaque-0123456789", "expires_in": 600}) as backend:
        other = run(backend.url)

    assert "Auth Tokens and API Key Secrets look like this" in credential.stdout
    assert AUTH_TOKEN not in credential.output
    assert "Auth Tokens" not in other.stdout


def test_an_opaque_token_without_expiry_is_warned_of():
    with FakeBackend(mint=lambda _: "opaque-0123456789") as backend:
        document = examined(backend.url)

    assert document["step"]["kind"]["details"]["profile"] == "opaque"
    assert statuses(document)["schedule"] == "warning"
    assert document["schedule"]["expires_at"] is None


def test_the_lifetime_beside_an_opaque_token_counts():
    with FakeBackend(wrap=lambda _: {"access_token": "opaque-0123456789", "expires_in": 600}) as backend:
        document = examined(backend.url)

    assert document["schedule"]["remaining"] == pytest.approx(600, abs=1)
    assert document["schedule"]["lifetime"] is None


def test_a_twilio_token_is_recognized_and_judged_for_each_product():
    with FakeBackend(mint=for_twilio(CHAT, VIDEO)) as backend:
        document = examined(backend.url)

    assert document["step"]["kind"]["details"]["profile"] == "twilio"
    assert 'profile="twilio"' in document["step"]["kind"]["summary"]
    assert {name: verdict["verdict"] for name, verdict in document["products"].items()} == {
        "chat": "ok",
        "sync": "not_granted",
        "voice": "not_granted",
        "video": "ok",
    }
    assert statuses(document)["products"] == "ok"


def test_a_product_is_refused_for_its_own_grant_only():
    with FakeBackend(mint=for_twilio(CHAT, VoiceGrant(), identity="bob smith")) as backend:
        document = examined(backend.url)
    voice = document["products"]["voice"]

    assert document["products"]["chat"]["verdict"] == "ok"
    assert voice["verdict"] == "refused"
    assert {reason["code"] for reason in voice["reasons"]} == {
        *("grant-field-missing", "identity-voice-characters"),
    }
    assert statuses(document)["products"] == "failed"


def test_a_product_that_was_asked_for_has_to_be_granted():
    with FakeBackend(mint=for_twilio(CHAT)) as backend:
        document = examined(backend.url, "--for", "video")

    assert document["products"]["video"]["verdict"] == "not_granted"
    assert statuses(document)["products"] == "failed"
    assert "VideoGrant" in document["step"]["products"]["remedy"]


def test_an_expected_service_concerns_only_products_that_have_one():
    with FakeBackend(mint=for_twilio(CHAT, VOICE)) as backend:
        good = examined(backend.url, "--expect", f"service_sid={SERVICE}")
        bad = examined(backend.url, "--expect", "service_sid=IS" + "0" * 32)

    assert (good["products"]["chat"]["verdict"], good["products"]["voice"]["verdict"]) == ("ok", "ok")
    assert (bad["products"]["chat"]["verdict"], bad["products"]["voice"]["verdict"]) == ("refused", "ok")


def test_the_account_that_is_expected_concerns_every_product():
    with FakeBackend(mint=for_twilio(VOICE)) as backend:
        document = examined(backend.url, "--expect", "account_sid=AC" + "0" * 32)

    assert document["products"]["voice"]["reasons"][0]["code"] == "account-mismatch"
    assert ACCOUNT in document["products"]["voice"]["reasons"][0]["message"]


def test_the_secret_checks_the_signature(tmp_path):
    (tmp_path / "right").write_text(SECRET)
    (tmp_path / "wrong").write_text(SECRET[::-1])
    with FakeBackend(mint=for_twilio()) as backend:
        right = examined(backend.url, "--secret-file", str(tmp_path / "right"))
        wrong = examined(backend.url, "--secret-file", str(tmp_path / "wrong"))

    assert right["step"]["findings"]["details"]["findings"] == []
    assert wrong["step"]["findings"]["details"]["findings"][0]["code"] == "signature-invalid"
    assert (wrong["products"]["chat"]["verdict"], wrong["schedule"]) == ("refused", None)


def test_another_profile_can_be_asked_for():
    with FakeBackend(mint=for_twilio()) as backend:
        document = examined(backend.url, "--profile", "jwt")

    assert (document["step"]["kind"]["details"]["profile"], document["products"]) == ("jwt", None)


def test_a_plain_jwt_is_no_token_for_twilio_when_that_was_asked_for(backend):
    document = examined(backend.url, "--profile", "twilio")

    assert statuses(document)["findings"] == "failed"
    assert statuses(document)["products"] == "failed"


def test_what_only_twilios_rules_check_is_checked_by_them(backend):
    document = examined(backend.url, "--for", "chat")

    assert document["step"]["kind"]["details"]["profile"] == "twilio"
    assert "--for" in document["step"]["kind"]["summary"]


def test_a_host_that_cannot_be_a_name_fails_at_dns():
    step = examined(f"https://{'a' * 70}.example/")["step"]["dns"]

    assert (step["status"], step["remedy"]) == ("failed", "Correct the URL.")


def test_a_body_in_a_file_that_is_no_text_exits_66(tmp_path):
    (tmp_path / "body").write_bytes(b"\xff\xfe")

    assert run("https://backend.example/", "--json-body", f"@{tmp_path / 'body'}").exit_code == 66


def test_a_proxy_of_the_environment_stands_for_the_way(backend):
    document = examined(
        "http://nothing.invalid/token", "--allow-http", env={"http_proxy": backend.url.removesuffix("/token")}
    )

    assert [statuses(document)[name] for name in ALL_STEPS[:4]] == ["skipped", "skipped", "skipped", "ok"]
    assert "proxy" in document["step"]["dns"]["summary"]


def test_the_page_has_a_line_for_each_step_a_timeline_and_a_verdict(backend):
    page = run(backend.url).stdout

    for name in ALL_STEPS:
        assert f"  {name}" in page
    assert "Timeline" in page
    assert "refresh = expiry - lead - jitter" in page
    assert page.endswith("All is well.\n")
    assert "\x1b" not in page


def test_the_page_ends_with_the_first_failure(backend):
    backend.answer(status=503)
    result = run(backend.url)

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("Failed: http: the backend answered 503")


def test_a_page_of_findings_shows_each_with_its_hint():
    with FakeBackend(mint=for_twilio(VOICE, identity="bob smith")) as backend:
        page = run(backend.url).stdout

    assert "identity-voice-characters: the identity holds characters that Voice does not take" in page
    assert "-> Use only A-Z a-z 0-9 and the underscore" in page
    assert "voice     will be refused because the identity" in page
    assert APPLICATION not in page


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("https://backend.example/", "--url", "https://backend.example/"),
        ("ftp://backend.example/canary",),
        ("https://user:canary@backend.example/",),
        ("http://canary.example/token",),
        ("https://backend.example/", "--header", "canary"),
        ("https://backend.example/", "--header", "bad name: canary"),
        ("https://backend.example/", "--header", "X: ${env:CANARY_IS_NOT_SET}"),
        ("https://backend.example/", "--header", "X: ${canary}"),
        ("https://backend.example/", "--header", "X: canary\r\nY: z"),
        ("https://backend.example/", "--json-body", '{"canary"'),
        ("https://backend.example/", "--token-path", "canary["),
        ("https://backend.example/", "--token-path", mint(exp=1)),
        ("https://backend.example/", "--method", "canary"),
        ("https://backend.example/", "--timeout", "31"),
        ("https://backend.example/", "--timeout", "canary"),
        ("https://backend.example/", "--expect", "canary"),
        ("https://backend.example/", "--profile", "jwt", "--for", "chat"),
        ("https://backend.example/", "--canary"),
    ],
)
def test_wrong_usage_exits_64_and_repeats_no_argument(args):
    result = run(*args)

    assert (result.exit_code, result.stdout) == (64, "")
    assert "canary" not in result.stderr.lower()
    assert not [arg for arg in args if len(arg) > 40 and arg in result.stderr]


@pytest.mark.parametrize(
    "args",
    [
        ("--header", "X-Key: ${file:/nowhere/canary}"),
        ("--json-body", "@/nowhere/canary"),
        ("--secret-file", "/nowhere/canary"),
        ("--ca-file", "/nowhere/canary"),
    ],
)
def test_a_file_that_cannot_be_read_exits_66(args):
    result = run("https://backend.example/", *args)

    assert (result.exit_code, result.stdout) == (66, "")
    assert "canary" not in result.stderr


def test_a_port_where_nobody_answers_in_time_fails_at_tcp():
    # A queue of one that is full: further connections are neither taken nor refused.
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        step = examined(f"http://127.0.0.1:{port}/", "--timeout", "0.3")["step"]["tcp"]

    assert step["status"] == "failed"
    assert "nobody answered" in step["summary"]
