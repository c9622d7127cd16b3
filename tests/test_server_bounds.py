"""How much, how many, how slow: every bound of the server, with the clock in the test's hands."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest
from letting_in import COLD, HOT, problem_of, serving
from sidecar import a_request

from token_keeper.sidecar.server._bounded import LINGER_MAX, PIPELINE_MAX, WIRE_MAX
from token_keeper.sidecar.server._crowd import (
    BLOCKED_S,
    BODY_S,
    FIRST_S,
    HEAD_S,
    IDLE_S,
    LINGER_S,
    RESERVED,
    RESERVED_S,
)
from token_keeper.sidecar.server._guards import BODY_MAX, HEAD_MAX, HEADERS_MAX, URL_MAX

BOTH = pytest.mark.parametrize("path", [HOT, COLD], ids=["hot", "api"])
REFRESH = "/v1/tokens/chat/refresh"
DENIED = "/v1/tokens/chat/denied"


def padded(request, size):
    """Return *request* with one more header, so that its header lines have *size* bytes."""
    head = request.split(b"\r\n", 1)[1].removesuffix(b"\r\n")
    missing = size - len(head)
    return request[:-2] + b"X: " + b"x" * (missing - 5) + b"\r\n\r\n"


@BOTH
def test_headers_may_have_16_kib_and_not_a_byte_more(path):
    async def test(site):
        await site.ask()
        line = await site.unix()
        fitting = padded(a_request("GET", path), HEAD_MAX)
        line.send(fitting)
        assert (await line.answer()).status == 200
        line.send(fitting.replace(b"X: ", b"X: x"))
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (431, "too-large")

    serving(test)


@BOTH
def test_there_may_be_64_headers(path):
    async def test(site):
        await site.ask()
        line = await site.unix()
        fitting = {f"X-{number}": "x" for number in range(HEADERS_MAX - 1)}
        assert (await line.ask("GET", path, headers=fitting)).status == 200
        assert (await line.ask("GET", path, headers={**fitting, "X": "x"})).status == 431

    serving(test)


def test_an_address_may_have_2_kib():
    async def test(site):
        line = await site.unix()
        start = f"{COLD}&x="
        whole = start + "x" * (URL_MAX - len(start))
        assert (await line.ask("GET", whole)).status == 400
        assert (await line.ask("GET", whole + "x")).status == 414

    serving(test)


def test_a_body_may_have_64_kib_and_a_longer_one_is_refused_before_it_is_sent():
    async def test(site):
        line = await site.unix()
        whole = b'{"generation":1,"reason":"' + b"x" * (BODY_MAX - 28) + b'"}'
        assert (await line.ask("POST", DENIED, body=whole)).status != 413
        line.send(
            a_request("POST", DENIED, headers={"Content-Length": str(BODY_MAX + 1), "Expect": "100-continue"})
        )
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (413, "too-large")

    serving(test)


@pytest.mark.parametrize("length", [str(BODY_MAX + 1), "9" * 30, "99999999999999999999999999"])
def test_a_length_that_no_body_may_have_is_refused_at_once(length):
    async def test(site):
        line = await site.unix()
        line.send(a_request("POST", REFRESH, headers={"Content-Length": length}))
        assert (await line.answer()).status in {400, 413}

    serving(test)


def test_chunks_count_too():
    async def test(site):
        line = await site.unix()
        line.send(a_request("POST", DENIED, headers={"Transfer-Encoding": "chunked"}))
        for _ in range(BODY_MAX // 4096 + 1):
            line.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (413, "too-large")
        assert await line.rest() == b""

    serving(test)


def test_a_body_of_nothing_but_wrapping_is_refused():
    async def test(site):
        line = await site.unix()
        line.send(a_request("POST", DENIED, headers={"Transfer-Encoding": "chunked"}))
        line.send(b"1;" + b"x" * (WIRE_MAX + 20_000))
        assert (await line.answer()).status == 413

    serving(test)


@pytest.mark.parametrize("part", [b"GET /" + b"x" * 100_000, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000])
def test_a_head_that_never_ends_is_refused_long_before_it_fills_the_memory(part):
    async def test(site):
        line = await site.unix()
        line.send(part)
        assert (await line.answer()).status in {414, 431}

    serving(test)


def test_a_refused_client_can_read_why_although_it_still_sends():
    async def test(site):
        line = await site.tcp()
        line.send(
            a_request("POST", DENIED, **site.meant(headers={"Content-Length": "900000"})) + b"x" * 900_000
        )
        answer = await line.answer()
        assert answer.status == 413
        site.passes(LINGER_S)
        assert await line.rest() == b""

    serving(test)


def test_a_refused_client_that_never_stops_sending_is_dropped():
    async def test(site):
        line = await site.unix()
        line.send(a_request("POST", DENIED, headers={"Content-Length": "900000000"}))
        await line.answer()
        for _ in range(100):
            if line.writer.is_closing():
                return
            line.send(b"x" * (LINGER_MAX // 4))
            with suppress(ConnectionError):
                await line.writer.drain()
        pytest.fail("it may send for ever")

    serving(test)


# Slow clients.


def test_a_connection_that_says_nothing_is_closed_after_10_s():
    async def test(site):
        line = await site.unix()
        await site.until(lambda: site.server.crowd.guests)
        site.passes(FIRST_S - 0.1)
        assert site.server.crowd.guests
        site.passes(0.1)
        assert await line.rest() == b""

    serving(test)


def test_a_head_has_10_s_however_its_bytes_trickle():
    async def test(site):
        line = await site.unix()
        for byte in b"GET /v1/":
            line.send(bytes([byte]))
            await asyncio.sleep(0.005)
            site.passes(HEAD_S / 8)
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (408, "too-slow")

    serving(test)


def test_a_body_has_10_s_however_its_bytes_trickle():
    async def test(site):
        line = await site.unix()
        line.send(a_request("POST", DENIED, headers={"Content-Length": "1000"}))
        for _ in range(8):
            line.send(b"x")
            await asyncio.sleep(0.005)
            site.passes(BODY_S / 8)
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (408, "too-slow")
        assert await line.rest() == b""

    serving(test)


@BOTH
def test_a_connection_may_rest_for_75_s_between_requests(path):
    async def test(site):
        line = await site.unix()
        for _ in range(3):
            assert (await line.ask("GET", path)).status == 200
            site.passes(IDLE_S - 1)
        assert (await line.ask("GET", path)).status == 200
        site.passes(IDLE_S)
        assert await line.rest() == b""

    serving(test)


def test_line_ends_between_requests_keep_no_connection_open():
    async def test(site):
        line = await site.unix()
        await line.ask()
        for _ in range(5):
            line.send(b"\r\n")
            await asyncio.sleep(0.005)
            site.passes(IDLE_S / 5)
        assert await line.rest() == b""

    serving(test)


def test_a_request_that_is_being_answered_has_all_the_time_that_it_asked_for():
    async def test(site):
        line = await site.unix()
        line.send(a_request("GET", f"{HOT}?after_generation=1&wait=60"))
        await site.until(lambda: site.server.crowd.streams)
        for _ in range(30):
            site.passes(10)
        assert site.server.crowd.streams == 1

    serving(test, lifetime_s=1e6)


@pytest.mark.parametrize("path", [HOT, COLD, "/v1/events?history=3600"])
def test_a_client_that_does_not_read_is_dropped(path):
    def talkative(app):
        async def chatting(scope, receive, send):
            if scope["path"] != "/v1/events":
                await app(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(1000):
                await send({"type": "http.response.body", "body": b"x" * 4096, "more_body": True})

        return chatting

    async def test(site):
        await site.ask()
        deaf = await site.unix()
        await site.until(lambda: len(site.server.crowd.guests) == 2)
        guest = list(site.server.crowd.guests)[1]
        deaf.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.reader._transport.pause_reading()
        for _ in range(200):
            deaf.send(a_request("GET", path) * 8)
            await asyncio.sleep(0.001)
            if guest.due() - site.server.crowd.now <= BLOCKED_S:
                break
        buffered = guest.transport.get_write_buffer_size()
        assert buffered < 1_000_000
        site.passes(BLOCKED_S + 1)
        await site.until(lambda: guest not in site.server.crowd.guests)
        assert (await site.ask()).status == 200

    serving(test, wrap=talkative)


# Many clients.


def test_requests_may_be_sent_ahead_and_are_answered_in_order():
    async def test(site):
        await site.ask()
        line = await site.unix()
        paths = [HOT, COLD, "/healthz", HOT, "/v1/unknown", HOT]
        line.send(b"".join(a_request("GET", path) for path in paths))
        answers = [await line.answer() for _ in paths]
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 200]
        assert answers[0].body == answers[1].body == answers[3].body

    serving(test)


def test_a_request_that_could_be_answered_from_memory_waits_its_turn():
    async def test(site):
        await site.ask()
        line = await site.unix()
        line.send(a_request("GET", f"{HOT}?after_generation=1&wait=1"))
        await site.until(lambda: site.server.crowd.streams)
        line.send(a_request("GET", HOT))
        line.send(a_request("GET", HOT))
        assert [(await line.answer()).status for _ in range(3)] == [304, 200, 200]

    serving(test)


@BOTH
def test_not_more_than_64_requests_may_be_sent_ahead(path):
    async def test(site):
        await site.ask()
        line = await site.unix()
        line.send(a_request("GET", path) * (PIPELINE_MAX + 10))
        answers = [await line.answer() for _ in range(PIPELINE_MAX + 1)]
        assert {answer.status for answer in answers[:-1]} == {200}
        assert problem_of(answers[-1]) == "bad-request"
        assert await line.rest() == b""

    serving(test)


def test_half_of_the_connections_may_wait():
    async def test(site):
        await site.ask()
        streams = site.server.crowd.streams_max
        paths = ["/v1/events", f"{HOT}?after_generation=1&w%61it=9"]
        for number in range(streams):
            line = await site.unix()
            line.send(a_request("GET", paths[number % 2]))
        await site.until(lambda: site.server.crowd.streams == streams)
        for path in paths:
            answer = await site.ask("GET", path)
            assert (answer.status, problem_of(answer)) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"
        assert (await site.ask()).status == 200
        site.lines[1].close()
        await site.until(lambda: site.server.crowd.streams < streams)
        line = await site.unix()
        line.send(a_request("GET", "/v1/events"))
        await site.until(lambda: site.server.crowd.streams == streams)

    serving(test, limit=16)


async def filled(site, count):
    """Open *count* connections that are in the middle of a request."""
    for _ in range(count):
        line = await site.unix()
        line.send(b"GET /v1/")
    await site.until(lambda: sum(one._in_head for one in site.server.crowd.guests) == count)


@BOTH
def test_the_last_connections_are_kept_for_health(path):
    async def test(site):
        await site.ask()
        site.lines.pop().close()
        await site.until(lambda: not site.server.crowd.guests)
        await filled(site, 16 - RESERVED)
        for ask in (site.ask, site.ask_tcp):
            answer = await ask("GET", path)
            assert (answer.status, problem_of(answer)) == (503, "overloaded")
            assert answer.headers["retry-after"] == "1"
        for probe in ("/healthz", "/readyz"):
            answer = await site.ask("GET", probe)
            assert (answer.status, answer.headers["connection"]) == (200, "close")

    serving(test, limit=16)


def test_a_kept_connection_that_says_nothing_is_closed_soon():
    async def test(site):
        await filled(site, 12)
        line = await site.unix()
        await site.until(lambda: len(site.server.crowd.guests) == 13)
        site.passes(RESERVED_S)
        assert await line.rest() == b""

    serving(test, limit=16)


def test_more_connections_than_there_may_be_are_told_so():
    async def test(site):
        await filled(site, 16)
        line = await site.unix()
        answer = await line.answer()
        assert (answer.status, problem_of(answer)) == (503, "overloaded")

    serving(test, limit=16)


def test_who_rests_longest_makes_room_for_others():
    async def test(site):
        resting = [await site.unix() for _ in range(12)]
        for line in resting:
            assert (await line.ask()).status == 200
            site.passes(0.5)
        assert (await resting[0].ask()).status == 200
        for oldest in resting[1:3]:
            assert (await site.ask()).status == 200
            assert await oldest.rest() == b""

    serving(test, limit=16)


def test_strangers_over_tcp_cannot_shut_out_those_with_a_key():
    async def test(site):
        strangers = [await site.tcp() for _ in range(100)]
        for line in strangers:
            line.send(b"GET / HTTP/1.1\r\n")
        await site.until(lambda: len(site.server.crowd.guests) <= site.server.crowd.strangers_max)
        assert (await site.ask()).status == 200
        assert (await site.ask_tcp()).status == 200
        assert await strangers[0].rest() == b""

    serving(test, limit=64)


def test_64_slow_clients_keep_nobody_waiting():
    async def test(site):
        await filled(site, 64)
        for path in (HOT, COLD, "/healthz", "/readyz", "/v1/tokens"):
            assert (await site.ask("GET", path)).status == 200
        site.passes(HEAD_S)
        assert [(await line.answer()).status for line in site.lines[:64]] == [408] * 64

    serving(test)
