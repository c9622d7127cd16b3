"""What the adapters share: challenges, origins, the guard, and one reporter's share."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from guarding import CHALLENGE, keeping, until
from hypothesis import example, given
from hypothesis import strategies as st

from token_keeper import AsyncTokenKeeper, ConfigError, KeeperClosed, TokenKeeper, Verdict
from token_keeper._share import Share
from token_keeper.adapters._challenge import MAX_HEADER, bearer_error
from token_keeper.adapters._guard import Guard, bearer, borne, refused
from token_keeper.adapters._origins import Origins, origin_at, origin_of
from token_keeper.testing import FakeBackend, ScriptedSource, mint

CHALLENGES = [
    (CHALLENGE, ("invalid_token", "The access token expired")),
    ("Bearer", (None, None)),
    ("bearer ERROR=invalid_token", ("invalid_token", None)),
    ('Basic realm="x", Bearer error="insufficient_scope"', ("insufficient_scope", None)),
    ('Bearer error="invalid_token", Basic realm="x"', ("invalid_token", None)),
    ('Basic realm="Bearer error=invalid_token"', (None, None)),
    ('Bearer realm="a \\"quoted\\" word, yes", error="invalid_token"', ("invalid_token", None)),
    ('Bearer error="invalid_token", error="insufficient_scope"', ("invalid_token", None)),
    ("Negotiate YIIB", (None, None)),
    ('Digest nonce="1", qop="auth" , Bearer  error = "invalid_request"', ("invalid_request", None)),
    ("", (None, None)),
    (None, (None, None)),
]


@pytest.mark.parametrize(("header", "said"), CHALLENGES, ids=range(len(CHALLENGES)))
def test_the_challenge_of_bearer_is_read_among_others(header, said):
    assert bearer_error(header) == said


PIECES = [
    "Bearer",
    "Basic",
    " ",
    ",",
    "=",
    '"',
    "\\",
    "error",
    "error_description",
    "invalid_token",
    "a",
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=400).map("".join) | st.text(max_size=2_000))
@example('Bearer error="' + "\\" * MAX_HEADER)
@example("Bearer " + "a=" * MAX_HEADER)
@example("Bearer" + " " * MAX_HEADER + "x")
@example("Bearer " + 'a="b",' * MAX_HEADER)
@example('"' * MAX_HEADER)
@example("," * MAX_HEADER)
@example("a " * MAX_HEADER)
def test_no_header_makes_the_reader_raise_or_take_long(header):
    begin = time.process_time()

    for said in bearer_error(header):
        assert said is None or len(said) <= MAX_HEADER

    assert time.process_time() - begin < 0.5


WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20)
QUOTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60)


@given(error=WORDS, realm=QUOTABLE, description=QUOTABLE, before=st.sampled_from(["", 'Basic realm="x", ']))
def test_what_a_server_writes_by_the_rules_is_read_as_it_was_meant(error, realm, description, before):
    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = (
        f"{before}Bearer realm={quoted(realm)}, error={error}, error_description={quoted(description)}, x=y"
    )

    assert bearer_error(header) == (error, description)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.example/v1?x=1", "https://api.example:443"),
        ("HTTPS://API.Example:443", "https://api.example:443"),
        ("http://api.example", "http://api.example:80"),
        ("wss://api.example/feed", "https://api.example:443"),
        ("ws://user:secret@[::1]:8080/", "http://[::1]:8080"),
        ("https://bücher.example/", "https://xn--bcher-kva.example:443"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url, origin):
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url", ["", "api.example", "//api.example", "ftp://api.example", "https://", "http://a:b"]
)
def test_what_has_no_origin_is_said_to_have_none(url):
    with pytest.raises(ValueError, match=r".+"):
        origin_of(url)


@given(st.text())
def test_no_url_makes_the_reader_raise_anything_else(url):
    try:
        origin_of(url)
    except ValueError:
        return


def test_ports_that_are_said_and_ports_that_are_meant_are_one():
    assert origin_at("wss", "API.example", None) == origin_at("https", "api.example", 443)


def test_other_ports_schemes_and_hosts_are_other_origins():
    origins = Origins("https://api.example")

    assert origins.allows("https://api.example:443")
    for other in ("http://api.example:80", "https://api.example:8443", "https://www.api.example:443"):
        assert not origins.allows(other)


def test_of_many_first_calls_at_once_one_origin_is_taken():
    for _ in range(50):
        origins, together = Origins(), Barrier(4)

        def ask(number, origins=origins, together=together):
            together.wait()
            return origins.allows(f"https://api.example:{number}")

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(ask, range(4))) == 1


@pytest.mark.parametrize(
    "names", [[], "api.example", ["https://api.example", 3], 3, "user:pass-word@api.example"]
)
def test_what_is_no_origin_is_shown_without_secrets(names):
    with pytest.raises(ConfigError, match="origins") as caught:
        Origins(names)
    assert "pass-word" not in str(caught.value)


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def keeper(backend):
    with keeping(backend) as keeper:
        yield keeper


@pytest.mark.parametrize(
    ("status", "challenge"),
    [
        (200, None),
        (307, None),
        (403, 'Bearer error="invalid_token"'),
        (500, CHALLENGE),
        (401, 'Bearer error="insufficient_scope"'),
        (401, 'Bearer error="invalid_request"'),
    ],
)
def test_an_answer_that_another_token_would_meet_as_well_is_no_denial(keeper, status, challenge):
    share = Share(keeper, "api")

    assert not refused(share, share.token, status, challenge)
    assert keeper.snapshot.denied_by == ()


@pytest.mark.parametrize(
    "challenge",
    [CHALLENGE, "Bearer", None, "\x00é,=", f'Bearer error="{"x" * 5_000}"'],
    ids=["by the book", "bare", "none", "garbage", "long"],
)
def test_a_401_is_a_denial_by_that_reporter_whatever_else_is_said(backend, keeper, challenge):
    backend.down()
    share = Share(keeper, "api")

    assert refused(share, share.token, 401, challenge)
    assert keeper.snapshot.denied_by == ("api",)


def test_a_refusal_of_a_token_that_was_replaced_meanwhile_is_worth_the_current_one(keeper):
    share, sent = Share(keeper, "api"), keeper.token
    keeper.refresh()

    assert refused(share, sent, 401, None)
    assert share.another(sent) == keeper.token
    assert keeper.snapshot.denied_by == ()


def test_a_server_that_quotes_the_token_gets_it_into_no_log(keeper, caplog):
    share, sent = Share(keeper, "api"), keeper.token

    refused(share, sent, 401, f'Bearer error="invalid_token", error_description="{sent} has expired"')

    until(lambda: "tokenDenied" in caplog.text)
    assert sent not in caplog.text


def test_each_origin_is_a_reporter_of_its_own_unless_one_is_named(keeper):
    named = Guard(keeper, by="api", origins=["https://a.example", "https://b.example"])
    guard = Guard(keeper, origins=["https://a.example", "https://b.example"])

    shares = [guard.of(f"https://{host}.example/") for host in "ab"]
    assert [share.by for share in shares] == ["https://a.example:443", "https://b.example:443"]
    assert guard.at("https", "a.example", None) is shares[0]
    assert guard.at("https", "c.example", 443) is guard.of("https://c.example") is guard.of("/no-url") is None
    assert {named.of(f"https://{host}.example/").by for host in "ab"} == {"api"}


@pytest.mark.parametrize("header", [None, "", b"", "Basic x", "Bearer", b"Token x"])
def test_a_header_without_a_token_bears_none(header):
    assert borne(header) is None


def test_a_header_bears_what_was_put_into_it():
    assert borne(bearer("abc")) == borne(bearer("abc").encode()) == "abc"


@pytest.mark.parametrize("keeper", [TokenKeeper, "no keeper", None], ids=str)
def test_what_is_no_keeper_is_said_to_be_none(keeper):
    with pytest.raises(ConfigError, match="keeper"):
        Guard(keeper)


def test_whoever_passes_the_class_is_told_to_make_a_keeper():
    with pytest.raises(ConfigError, match=r"keeper: is a class: make one, such as TokenKeeper\(\.\.\.\)"):
        Share(TokenKeeper, "api")


def test_a_share_of_a_closed_keeper_takes_late_answers_and_gives_nothing(keeper):
    share, sent = Share(keeper, "api"), keeper.token
    keeper.close()

    share.accepted(sent)
    assert share.denied(sent, code=401) is Verdict.GAVE_UP
    assert share.another(sent) is None
    assert asyncio.run(share.another_awaited(sent)) is None
    with pytest.raises(KeeperClosed):
        share.wait()


def test_a_share_blocks_no_event_loop(backend, keeper):
    share, sent = Share(keeper, "api"), keeper.token
    backend.down()
    share.denied(sent)

    async def in_a_loop():
        begin = time.monotonic()
        assert share.another(sent) is None
        with pytest.raises(RuntimeError, match="block"):
            share.wait()
        assert time.monotonic() - begin < 1

    asyncio.run(in_a_loop())


def test_a_share_of_an_async_keeper_is_read_in_other_loops_and_threads():
    tokens = iter([mint(jti="1"), mint(jti="2")])

    async def main():
        async with AsyncTokenKeeper(ScriptedSource(lambda: next(tokens))) as keeper:
            share = Share(keeper, "api")
            sent = share.token
            share.denied(sent)
            blocked = asyncio.to_thread(share.another, sent)
            awaited = asyncio.to_thread(lambda: asyncio.run(share.another_awaited(sent)))
            return sent, await asyncio.gather(blocked, awaited, share.another_awaited(sent))

    sent, others = asyncio.run(main())
    assert len({sent, *others}) == 2


def test_an_acceptance_is_reported_once_for_each_token(keeper):
    heard = []
    share, sent = Share(keeper, "api"), keeper.token
    share.denied(sent)
    other = share.another(sent)
    keeper.on("recovered")(heard.append)

    for _ in range(3):
        refused(share, other, 200, None)

    until(lambda: heard)
    assert len(heard) == 1
