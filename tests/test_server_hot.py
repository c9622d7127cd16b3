"""Answers from memory: to the byte what the API would answer, in every state, at every moment."""

from __future__ import annotations

import asyncio
import random

import pytest
from letting_in import COLD, HOT, PATIENCE_S, serving
from serving import parts_of
from sidecar import a_request

from token_keeper import TransientFetchError
from token_keeper.testing import ScriptedSource, mint

ACCEPTS = [None, "application/json", "text/plain", "*/*"]


class Counted:
    """The API, with a count of what reaches it."""

    def __init__(self):
        self.asked = 0

    def __call__(self, app):
        async def counting(scope, receive, send):
            self.asked += 1
            await app(scope, receive, send)

        return counting


def dateless(answer):
    """Return an answer's bytes without the header `Date`."""
    return b"\r\n".join(line for line in answer.raw.split(b"\r\n") if not line.startswith(b"date:"))


async def same_on_both_ways(line, accept=None):
    """Check that memory and API say the same now, and return what they say."""
    headers = {"Accept": accept} if accept else {}
    api = await line.ask("GET", COLD, headers=headers)
    # At first from the API, which fills the memory, then parsed, then recognized.
    answers = [await line.ask("GET", HOT, headers=headers) for _ in range(4)]
    assert {dateless(answer) for answer in answers} == {dateless(api)}
    return api


async def settled(kept):
    """Wait until nothing happens to a token: its clock stands still, so that is soon."""
    changes = -1
    while kept.changes != changes:
        changes = kept.changes
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("accept", ACCEPTS)
def test_what_is_asked_again_is_not_asked_of_the_api(accept):
    counted = Counted()

    async def test(site):
        line = await site.unix()
        headers = {"Accept": accept} if accept else {}
        first = await line.ask("GET", HOT, headers=headers)
        asked = counted.asked
        for _ in range(10):
            assert (await line.ask("GET", HOT, headers=headers)).raw == first.raw
        other = await site.tcp()
        for _ in range(3):
            answer = await other.ask("GET", HOT, **site.meant(headers=headers))
            assert answer.raw == first.raw
        assert counted.asked == asked

    serving(test, wrap=counted)


@pytest.mark.parametrize("accept", ACCEPTS)
def test_memory_and_api_agree_at_every_moment_of_a_tokens_life(accept):
    async def test(site):
        line = await site.unix()
        served = site.household.tokens["chat"]
        served._source._source._script = (TransientFetchError("down"),)
        current = served.kept.state.current
        moments = [current.expires - left for left in (60.0, 59.999999, 30.0, 1.0, 0.5, 1e-6, 0.0, -1.0)]
        moments += [current.stale + after for after in (-1e-6, 0.0, 1e-6)]
        draw = random.Random(4)
        moments += [draw.uniform(site.clock.boot(), current.expires) for _ in range(30)]
        statuses = set()
        for moment in sorted(moment for moment in moments if moment >= site.clock.boot()):
            site.clock.advance_to(moment)
            if moment >= current.expires:
                # Whoever finds no usable token wakes the scheduler, whose fetches fail.
                await line.ask("GET", COLD)
                await settled(served.kept)
            answer = await same_on_both_ways(line, accept)
            statuses.add((answer.status, served.snapshot.status))
        assert statuses == {(200, "fresh"), (200, "stale"), (503, "expired")}

    serving(test, lifetime_s=61.0)


def test_memory_and_api_agree_after_whatever_happens_to_a_token():
    async def test(site):
        line = await site.unix()
        served = site.household.tokens["chat"]

        async def told(happening):
            before = await same_on_both_ways(line)
            happening()
            after = await same_on_both_ways(line)
            return before, after

        before, after = await told(lambda: served.update(mint(expires_at=site.clock.wall() + 900)))
        assert (before.json["generation"], after.json["generation"]) == (1, 2)
        before, after = await told(lambda: served.report_denied(served.token, by="another", code=401))
        assert after.status == 200
        await told(lambda: served.update(mint(expires_at=site.clock.wall() + 800)))
        before, after = await told(lambda: served.report_denied(served.token, code=401))
        assert (before.status, after.status) == (200, 503)
        await told(lambda: served.update("opaque-token", expires_at=None))
        assert (await same_on_both_ways(line)).json["expires_in"] is None

    serving(test)


@pytest.mark.parametrize("step_s", [0.04, 0.06, -1.0, 1.9, 2.5, -3600.0])
def test_memory_and_api_agree_when_the_clock_is_set(step_s):
    async def test(site):
        line = await site.unix()
        before = await same_on_both_ways(line)
        site.clock.step_wall(step_s)
        after = await same_on_both_ways(line)
        assert before.json["expires_in"] == after.json["expires_in"]

    serving(test)


def test_a_suspend_counts():
    async def test(site):
        line = await site.unix()
        before = await same_on_both_ways(line)
        site.clock.suspend(10.0)
        after = await same_on_both_ways(line)
        assert before.json["expires_in"] - after.json["expires_in"] == 10

    serving(test)


def test_a_reload_is_seen_at_once_on_an_open_connection():
    async def test(site):
        line = await site.unix()
        await same_on_both_ways(line)
        source = ScriptedSource(lambda: mint(expires_at=site.clock.wall() + 50, jti="new"))
        site.clock.advance(60)
        await site.household.apply((parts_of("chat", source, url="https://new.example"), parts_of("other")))
        await site.until(lambda: site.household.tokens["chat"].snapshot.generation == 2)
        assert (await same_on_both_ways(line)).json["generation"] == 2
        await site.household.apply((parts_of("other"),))
        assert (await same_on_both_ways(line)).status == 404

    serving(test)


@pytest.mark.parametrize(
    "request_bytes",
    [
        a_request("GET", HOT, headers={"If-None-Match": '"x"'}),
        a_request("GET", HOT, headers={"If-Modified-Since": "Sun, 22 Nov 2026 16:22:04 GMT"}),
        a_request("GET", HOT, headers={"Range": "bytes=0-1"}),
        a_request("GET", HOT, headers={"Expect": "100-continue"}),
        a_request("GET", HOT, headers={"Accept": "text/html"}),
        a_request("GET", HOT, headers={"Accept": "text/plain;q=0.5, application/json;q=0.1"}),
        a_request("GET", HOT, headers={"Accept": "application/json", "accept": "text/plain"}),
        a_request("GET", HOT, headers={"Connection": "close"}),
        a_request("GET", f"{HOT}?"),
        a_request("GET", f"{HOT}?by=x"),
        a_request("GET", f"{HOT}/"),
        a_request("GET", HOT, body=b"{}"),
        a_request("GET", HOT, body=b""),
        a_request("GET", HOT, version="1.0"),
        a_request("HEAD", HOT),
        a_request("POST", HOT),
        a_request("GET", "/v1/tokens/unknown"),
        a_request("GET", "/v1/tokens/chat/accepted"),
    ],
    ids=lambda data: data.decode().replace("\r\n", " ")[:70],
)
def test_whatever_else_is_asked_goes_to_the_api(request_bytes):
    counted = Counted()

    async def test(site):
        for _ in range(2):
            await site.ask()
        asked = counted.asked
        for _ in range(2):
            line = await site.unix()
            line.send(request_bytes)
            await line.answer(head_only=request_bytes.startswith(b"HEAD"))
        assert counted.asked == asked + 2

    serving(test, wrap=counted)


def test_escapes_in_the_address_name_the_same_token():
    async def test(site):
        await site.ask()
        plain, escaped = await site.ask(), await site.ask("GET", "/v1/tokens/ch%61t")
        assert plain.raw == escaped.raw

    serving(test)


def test_an_answer_of_one_token_is_never_given_for_another():
    async def test(site):
        line = await site.unix()
        tokens = {name: site.household.tokens[name].token for name in ("chat", "voice")}
        draw = random.Random(1)
        for _ in range(60):
            name = draw.choice(list(tokens))
            accept = draw.choice(ACCEPTS)
            headers = {"Accept": accept} if accept else {}
            answer = await line.ask("GET", f"/v1/tokens/{name}", headers=headers)
            text = accept == "text/plain"
            assert (answer.body.decode() if text else answer.json["token"]) == tokens[name]

    serving(test, names=("chat", "voice"))


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_a_request_in_pieces_is_the_same_request(size):
    async def test(site):
        line = await site.unix()
        whole = await line.ask()
        request = a_request("GET", HOT)
        for _ in range(2):
            for start in range(0, len(request), size):
                line.send(request[start : start + size])
                await line.writer.drain()
            assert (await line.answer()).raw == whole.raw

    serving(test)


def test_what_follows_the_same_request_in_one_piece_is_answered_too():
    async def test(site):
        line = await site.unix()
        request = a_request("GET", HOT)
        for _ in range(3):
            await line.ask()
        line.send(request + request[:20])
        assert (await line.answer()).status == 200
        line.send(request[20:])
        assert (await line.answer()).status == 200
        line.send(request[:-2])
        line.send(b"Content-Length: 100000\r\n\r\n")
        assert (await line.answer()).status == 413

    serving(test)


def test_an_api_that_streams_its_answer_is_not_kept():
    def streaming(app):
        async def streamed(scope, receive, send):
            if scope["path"] != HOT:
                await app(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await send({"type": "http.response.body", "body": b"b"})

        return streamed

    async def test(site):
        assert [(await site.ask()).body for _ in range(3)] == [b"ab"] * 3

    serving(test, wrap=streaming)


def test_the_date_is_that_of_the_answer():
    async def test(site):
        line = await site.unix()
        first = [await line.ask() for _ in range(3)][-1]
        # The server looks at the clock once a second.
        site.clock.advance(0.9)
        before = await line.ask()
        site.clock.advance(60)
        async with asyncio.timeout(PATIENCE_S):
            while (later := await line.ask()).headers["date"] == first.headers["date"]:  # noqa: ASYNC110 - As a client.
                await asyncio.sleep(0.01)
        assert before.headers["date"] == first.headers["date"] != later.headers["date"]
        assert dateless(await line.ask("GET", COLD)) == dateless(later)

    serving(test)
