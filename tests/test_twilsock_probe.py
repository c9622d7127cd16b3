import asyncio
import logging
import ssl
import subprocess
import sys
import traceback

import pytest
import trustme
from websockets.asyncio.server import serve

from token_keeper import ConfigError
from token_keeper._model import Secret
from token_keeper.testing import FakeBackend, FakeTwilsock, TwilsockFault
from token_keeper.twilsock import Status, about_to_expire, close, decode, endpoint_of, probe, reply


@pytest.fixture
def server():
    with FakeTwilsock() as server:
        yield server


def probed(raw, url, **options):
    return asyncio.run(probe(Secret(raw), url=url, **options))


def probed_by(answer, raw="the-token-that-was-shown", **options):
    """Probe a server that sends what *answer* makes of the `init` frame."""

    async def talk(socket):
        for message in answer(decode(await socket.recv())):
            await socket.send(message)
        await socket.wait_closed()

    async def meet():
        async with serve(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await probe(Secret(raw), url=f"ws://127.0.0.1:{port}/", **options)

    return asyncio.run(meet())


def test_a_good_token_is_accepted(server):
    result = probed(server.mint(), server.url)

    assert (result.connected, result.answered, result.status, result.code) == (True, True, 200, None)
    assert result.capabilities == ("client_update",)
    assert result.endpoint == server.url
    assert result.took_s > 0


def test_an_expired_token_is_refused_with_the_servers_code(server):
    result = probed(server.mint(lifetime=-10), server.url)

    assert (result.connected, result.answered, result.status, result.code) == (False, True, 401, 20104)
    assert "Expired" in result.description


def test_what_is_no_token_is_sent_all_the_same(server):
    assert probed("not-a-token", server.url).code == 20101


def test_a_text_that_no_token_can_be_is_sent_all_the_same(server):
    assert probed("\ud800 \x00", server.url).code == 20101


def test_a_throttled_probe_says_how_long_to_wait(server):
    server.throttle(retry_after=2.5)

    result = probed(server.mint(), server.url)

    assert (result.connected, result.status, result.code) == (False, 429, 51202)
    assert result.retry_after_s == 2.5


def test_it_asks_once_and_says_goodbye(server):
    server.deny(51215, times=None)

    result = probed(server.mint(), server.url)

    assert result.code == 51215
    server.wait_for("close")
    assert [message.method for message in server.received] == ["init", "close"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (TwilsockFault.SILENT, "no answer within 0.2 s"),
        (TwilsockFault.DROP, "closed the WebSocket without an answer"),
        (TwilsockFault.GARBAGE, "does not speak Twilsock"),
        (TwilsockFault.HUGE, "too large"),
    ],
)
def test_a_server_that_does_not_answer_is_described(server, fault, said):
    server.fail(fault)

    result = probed(server.mint(), server.url, timeout=0.2 if fault is TwilsockFault.SILENT else 10)

    assert not result.connected
    assert not result.answered
    assert said in result.description


def test_nobody_listening_is_described(server):
    server.down()

    assert probed("x", server.url).description == "the host refused the connection"


def test_a_host_without_an_address_is_described(monkeypatch):
    # A proxy would look for the host in our place.
    monkeypatch.setenv("no_proxy", "*")

    assert "DNS" in probed("x", "wss://twilsock.invalid/").description


def test_an_http_server_is_described_with_its_status():
    with FakeBackend() as backend:
        backend.answer(status=403, body="no")
        result = probed("x", backend.url.replace("http", "ws"))

    assert (result.connected, result.answered, result.status) == (False, False, 403)
    assert "HTTP 403" in result.description


def test_a_redirect_is_not_followed(server):
    with FakeBackend() as backend:
        backend.redirect(server.url)
        result = probed(server.mint(), backend.url.replace("http", "ws"))

    assert result.status == 302
    assert not server.received


def test_a_close_instead_of_a_reply_is_an_answer():
    gone = Status(code=410, status="GONE", error_code=51207, description="ran out")

    result = probed_by(lambda _: [close("TM1", gone)])

    assert (result.connected, result.answered, result.status, result.code) == (False, True, 410, 51207)
    assert result.description == "ran out"


def test_a_close_with_success_is_no_connection():
    assert not probed_by(lambda _: [close("TM1", Status(code=200))]).connected


def test_other_messages_are_passed_over():
    result = probed_by(lambda init: [about_to_expire("TM1"), reply("another"), reply(init.id)])

    assert result.connected


def test_a_server_that_never_comes_to_the_point_is_left():
    result = probed_by(lambda _: [about_to_expire("TM1")] * 200)

    assert result.description == "no answer among 100 messages"


@pytest.mark.parametrize("wait", [None, True, "5", -1, 1e400, 10**12, [], {}])
def test_a_wait_that_makes_no_sense_is_none(wait):
    policy = {"backoff_policy": {"reconnect_min_ms": wait}}

    result = probed_by(lambda init: [reply(init.id, Status(code=429), payload=policy)])

    assert result.retry_after_s is None


@pytest.mark.parametrize("capabilities", [None, 1, "all", [1, None], {}])
def test_capabilities_that_make_no_sense_are_none(capabilities):
    assert probed_by(lambda init: [reply(init.id, capabilities=capabilities)]).capabilities == ()


def test_a_reply_without_a_reason_says_so():
    assert probed_by(lambda init: [reply(init.id, Status(code=None))]).description == "no reason given"


def test_the_servers_words_are_shown_on_one_line_and_bounded():
    words = "line\r\nbreak \x1b[31m" + "x" * 5_000

    result = probed_by(lambda init: [reply(init.id, Status(code=401, description=words))])

    assert result.description.startswith("line break [31mxxx")
    assert result.description.isprintable()
    assert len(result.description) <= 303


def test_a_server_that_repeats_the_token_does_not_get_it_shown(server):
    raw = server.mint()
    parts = [raw, *raw.split(".")]
    words = " and ".join(["bad token", *parts])

    result = probed_by(
        lambda init: [reply(init.id, Status(code=200, description=words), capabilities=parts)], raw
    )

    assert result.description == "bad token and <token> and <token> and <token> and <token>"
    assert not [part for part in parts if part in repr((result, result.capabilities))]


def test_a_debug_log_shows_nothing_of_the_token(server, caplog):
    raw = server.mint()
    caplog.set_level(logging.DEBUG)

    probed(raw, server.url)

    assert "websockets" not in {record.name.partition(".")[0] for record in caplog.records}
    assert not [record for record in caplog.records if raw[:12] in record.getMessage()]


def test_a_cancelled_probe_leaves_no_connection_and_no_token_in_its_traceback(server):
    server.fail("silent")
    raw = server.mint()
    token = Secret(raw)

    async def cancel():
        task = asyncio.create_task(probe(token, url=server.url))
        await asyncio.to_thread(server.wait_for, "init")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            return traceback.TracebackException.from_exception(error, capture_locals=True)

    shown = "".join(asyncio.run(cancel()).format())

    # The test's own frame is where the token is allowed to be.
    assert "probe" in shown
    assert raw[-20:] not in shown
    server.wait_for("close")


def test_a_server_of_a_private_authority_is_trusted_if_its_authority_is():
    authority = trustme.CA()
    ours, theirs = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    authority.issue_cert("127.0.0.1").configure_cert(ours)
    authority.configure_trust(theirs)

    with FakeTwilsock(ssl_context=ours) as server:
        trusted = probed(server.mint(), server.url, ssl_context=theirs)
        untrusted = probed(server.mint(), server.url)

    assert trusted.connected
    assert untrusted.description.startswith("the server's certificate is not trusted")


@pytest.mark.parametrize(
    ("url", "region", "asked"),
    [
        (None, "us1", "wss://tsock.us1.twilio.com/v3/wsconnect"),
        (None, "ie1", "wss://tsock.ie1.twilio.com/v3/wsconnect"),
        ("wss://example.com/x?secret=1", "us1", "wss://example.com/x"),
        ("ws://[::1]:80/x", "us1", "ws://[::1]:80/x"),
        ("ws://localhost:1", "us1", "ws://localhost:1"),
    ],
)
def test_the_endpoint_is_shown_without_its_query(url, region, asked):
    assert endpoint_of(url, region=region).shown == asked


@pytest.mark.parametrize(
    "url",
    [
        *("", "https://example.com", "wss://", "example.com", "wss://a b", "wss://exa\\mple.com"),
        *("wss://user:secret@example.com", "wss://example.com/#x", "wss://example.com:99999", "wss://[::1"),
        *("ws://example.com", "ws://192.0.2.1/", "wss://ex\nample.com"),
    ],
)
def test_a_url_that_must_not_get_a_token_is_a_mistake_of_configuration(url):
    with pytest.raises(ConfigError, match=r"^url: ") as caught:
        endpoint_of(url)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("region", ["", "US1", "us1.example.com", "us1/", "a" * 40, "us1@example"])
def test_a_region_that_is_no_name_is_a_mistake_of_configuration(region):
    with pytest.raises(ConfigError, match=r"^region: "):
        endpoint_of(region=region)


def test_without_the_extra_it_says_which_line_installs_it():
    program = (
        "import asyncio, sys; sys.modules['websockets'] = None\n"
        "from token_keeper._model import Secret\n"
        "from token_keeper.twilsock import probe\n"
        "asyncio.run(probe(Secret('x')))"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    assert "ConfigError: twilsock: needs the package websockets" in run.stderr
    assert "pip install 'token-keeper[twilio]'" in run.stderr
