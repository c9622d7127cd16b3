"""Reports of denials and acceptances, and asking for a new token: every verdict, with and without a wait."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import HOUR, PLAIN, T0
from serving import Asking, fresh, opened, parts_of, serving

from token_keeper._errors import RefusedError, TransientFetchError
from token_keeper.sidecar._household import Household
from token_keeper.testing import ScriptedSource, VirtualClock, mint, run_virtual

CHAT = "/v1/tokens/chat"
DENIED, ACCEPTED, REFRESH = f"{CHAT}/denied", f"{CHAT}/accepted", f"{CHAT}/refresh"
DOWN = TransientFetchError("the backend is down")

Story = Callable[[Household, Asking, VirtualClock, ScriptedSource], Awaitable[None]]


def play(story: Story, *script: Any, takes_s: float = 0.0) -> None:
    """Run *story* on virtual time, once the one token is there; its source follows *script*."""
    clock = VirtualClock(T0)

    async def main() -> None:
        source = ScriptedSource(*(script or (fresh(clock=clock),)), takes_s=takes_s)
        async with opened(parts_of(source=source, policy=PLAIN), clock=clock) as (household, asking):
            await asking.get(f"{CHAT}?wait=60")
            await story(household, asking, clock, source)

    run_virtual(main, clock)


def problem_of(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


def members(answer: httpx.Response) -> dict[str, Any]:
    """Return the members that every report is answered with."""
    return {name: answer.json().get(name) for name in ("verdict", "generation", "retry_after")}


@pytest.mark.parametrize("named_by", ["token", "generation", "fingerprint"])
def test_a_denial_names_the_token_in_one_of_three_ways(named_by: str):
    async def story(household: Household, asking: Asking, _: VirtualClock, source: ScriptedSource) -> None:
        document = (await asking.get(CHAT)).json()
        row = (await asking.get("/v1/tokens")).json()["tokens"][0]
        source.hold()
        answer = await asking.post(DENIED, {named_by: {**document, **row}[named_by], "code": 401})
        assert answer.json() == {"verdict": "denied", "generation": 1, "retry_after": 1}
        assert household.tokens["chat"].tally.denials["denied"] == 1
        source.release()

    play(story)


def test_a_denial_that_names_another_token_is_superseded():
    async def story(household: Household, asking: Asking, _: VirtualClock, source: ScriptedSource) -> None:
        token = (await asking.get(CHAT)).json()["token"]
        others = (
            {"token": f"{token}x"},
            {"generation": 2},
            {"fingerprint": "00000000"},
            {"generation": 1, "fingerprint": "00000000"},
            {"generation": 1, "start": "ffffffff"},
            {"token": token, "start": "ffffffff"},
        )
        for other in others:
            answer = await asking.post(DENIED, other)
            assert members(answer) == {"verdict": "superseded", "generation": 1, "retry_after": None}, other
        start = household.start
        assert members(await asking.post(DENIED, {"generation": 1.0, "start": start}))["verdict"] == "denied"
        del source

    play(story)


@pytest.mark.parametrize(
    ("code", "verdict"), [(429, "throttled"), (403, "forbidden"), ("insufficient_scope", "forbidden")]
)
def test_what_no_other_token_would_change_fetches_nothing(code: int | str, verdict: str):
    async def story(_: Household, asking: Asking, clock: VirtualClock, source: ScriptedSource) -> None:
        assert members(await asking.post(DENIED, {"generation": 1, "code": code}))["verdict"] == verdict
        waited = await asking.post(f"{DENIED}?wait=30", {"generation": 1, "code": code})
        assert (waited.status_code, waited.json()["verdict"], waited.json()["generation"]) == (
            200,
            verdict,
            1,
        )
        assert waited.json()["token"] == (await asking.get(CHAT)).json()["token"]
        assert len(source.calls) == 1
        del clock

    play(story)


def test_with_a_wait_a_denial_is_answered_with_the_next_token():
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        before = (await asking.get(CHAT)).json()
        at = clock.monotonic()
        answer = await asking.post(f"{DENIED}?wait=30", {"generation": 1, "by": "video"})
        document = answer.json()
        assert members(answer) == {"verdict": "denied", "generation": 2, "retry_after": None}
        assert document["token"] not in {None, before["token"]}
        assert set(document) == {*before, "verdict", "retry_after"}
        assert answer.headers["etag"].endswith('-2"')
        assert 3 <= clock.monotonic() - at <= 4

    play(story, takes_s=3.0)


def test_with_a_wait_a_denial_of_an_older_token_is_answered_at_once():
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        await asking.post(f"{REFRESH}?wait=30")
        at = clock.monotonic()
        answer = await asking.post(f"{DENIED}?wait=30", {"generation": 1})
        assert members(answer) == {"verdict": "superseded", "generation": 2, "retry_after": None}
        assert "token" in answer.json()
        assert clock.monotonic() == at

    play(story, takes_s=1.0)


def test_if_no_token_comes_in_time_the_answer_is_503_with_the_verdict():
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        at = clock.monotonic()
        answer = await asking.post(f"{DENIED}?wait=10", {"generation": 1})
        assert (answer.status_code, problem_of(answer)) == (503, "unavailable")
        assert answer.json()["verdict"] == "denied"
        assert int(answer.headers["retry-after"]) >= 1
        assert clock.monotonic() - at == pytest.approx(10)

    play(story, fresh(clock=VirtualClock(T0)), DOWN)


def test_too_many_denials_are_given_up_and_a_dispute_keeps_the_token():
    async def story(_: Household, asking: Asking, clock: VirtualClock, source: ScriptedSource) -> None:
        for generation in range(1, 6):
            waited = await asking.post(f"{DENIED}?wait=60", {"generation": generation, "by": "a"})
            assert waited.status_code == 200
        await asking.post(ACCEPTED, {"generation": 6, "by": "b"})
        disputed = await asking.post(f"{DENIED}?wait=60", {"generation": 6, "by": "b"})
        assert (disputed.status_code, disputed.json()["verdict"]) == (200, "disputed")
        assert "token" in disputed.json()
        at = clock.monotonic()
        plain = await asking.post(DENIED, {"generation": 6, "by": "a"})
        assert (plain.status_code, plain.json()["verdict"]) == (200, "gave_up")
        assert 1 < plain.json()["retry_after"] <= 300
        waited = await asking.post(f"{DENIED}?wait=60", {"generation": 6, "by": "a"})
        assert (waited.status_code, problem_of(waited)) == (503, "gave-up")
        assert waited.json()["verdict"] == "gave_up"
        assert int(waited.headers["retry-after"]) == plain.json()["retry_after"]
        assert clock.monotonic() == at
        assert len(source.calls) == 6

    play(story)


def test_an_acceptance_ends_the_recovery():
    async def story(household: Household, asking: Asking, _: VirtualClock, __: ScriptedSource) -> None:
        await asking.post(f"{DENIED}?wait=60", {"generation": 1, "by": "video"})
        other = await asking.post(ACCEPTED, {"generation": 1, "by": "video"})
        assert (other.status_code, other.content) == (204, b"")
        kinds = [event.kind for _, event in household.events.after(0) or ()]
        assert "recovered" not in kinds
        await asking.post(ACCEPTED, {"generation": 2, "by": "video", "code": 200, "reason": None})
        await asyncio.sleep(0.1)
        kinds = [event.kind for _, event in household.events.after(0) or ()]
        assert kinds[-1] == "recovered"

    play(story)


def test_a_refresh_is_asked_for_and_not_waited_for():
    async def story(_: Household, asking: Asking, clock: VirtualClock, source: ScriptedSource) -> None:
        await asyncio.sleep(2)
        at = clock.monotonic()
        answer = await asking.post(REFRESH)
        assert (answer.status_code, answer.json()) == (202, {"generation": 1})
        assert clock.monotonic() == at
        await asking.get(f"{CHAT}?after_generation=1&wait=60")
        assert len(source.calls) == 2

    play(story, takes_s=1.0)


def test_a_refresh_with_a_wait_is_answered_with_the_new_token():
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        answer = await asking.post(f"{REFRESH}?wait=60", {})
        assert (answer.status_code, answer.json()["generation"]) == (200, 2)
        assert "token" in answer.json()
        del clock

    play(story, takes_s=1.0)


@pytest.mark.parametrize("error", [DOWN, RefusedError("invalid_grant")])
def test_a_refresh_that_fails_is_answered_at_once_and_says_why(error: Exception):
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        answer = await asking.post(f"{REFRESH}?wait=60")
        assert (answer.status_code, problem_of(answer)) == (503, "refresh-failed")
        assert answer.json()["detail"] == str(error)
        assert clock.monotonic() < 1060
        assert (await asking.get(CHAT)).status_code == 200

    play(story, fresh(clock=VirtualClock(T0)), error)


def test_a_refresh_that_takes_too_long_goes_on():
    async def story(_: Household, asking: Asking, clock: VirtualClock, source: ScriptedSource) -> None:
        source.hold()
        answer = await asking.post(f"{REFRESH}?wait=5")
        assert (answer.status_code, problem_of(answer)) == (503, "refresh-pending")
        source.release()
        assert (await asking.get(f"{CHAT}?after_generation=1&wait=60")).status_code == 200
        del clock

    play(story)


def test_the_current_token_again_is_an_answer_to_a_refresh():
    token = mint(expires_at=T0 + HOUR)

    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        answer = await asking.post(f"{REFRESH}?wait=30")
        assert (answer.status_code, answer.json()["generation"]) == (200, 1)
        del clock

    play(story, token)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "token, generation or fingerprint"),
        (b"{}", "token, generation or fingerprint"),
        (b'{"by": "x"}', "token, generation or fingerprint"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b'"eyJ-canary"', "JSON object"),
        (b"{", "JSON object"),
        (b'{"generation": NaN}', "JSON object"),
        (b"\xff\xfe", "JSON object"),
        (b"[" * 50_000, "JSON object"),
        (b'{"eyJ-canary": 1}', "unknown member"),
        (b'{"token": ""}', "token:"),
        (b'{"token": null}', "token:"),
        (b'{"token": ["eyJ-canary"]}', "token:"),
        (b'{"token": "%b"}' % (b"x" * 16_385), "token:"),
        (b'{"generation": true}', "generation:"),
        (b'{"generation": 0}', "generation:"),
        (b'{"generation": 1.5}', "generation:"),
        (b'{"generation": "1"}', "generation:"),
        (b'{"generation": 1e400}', ""),
        (b'{"fingerprint": "0123"}', "fingerprint:"),
        (b'{"fingerprint": "0123456G"}', "fingerprint:"),
        (b'{"generation": 1, "by": "a b"}', "by:"),
        (b'{"generation": 1, "by": null}', "by:"),
        (b'{"generation": 1, "by": "a\\nb"}', "by:"),
        (b'{"generation": 1, "code": false}', "code:"),
        (b'{"generation": 1, "code": 1.5}', "code:"),
        (b'{"generation": 1, "code": []}', "code:"),
        (b'{"generation": 1, "reason": 1}', "reason:"),
        (b'{"generation": 1, "start": 1}', "start:"),
    ],
)
def test_a_body_that_cannot_be_read_is_400_names_the_part_and_repeats_nothing(body: bytes, part: str):
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        for path in (DENIED, ACCEPTED):
            answer = await asking.ask("POST", path, body)
            assert (answer.status_code, problem_of(answer)) == (400, "bad-request")
            assert part in answer.json()["detail"]
            assert "canary" not in answer.text
        del clock

    play(story)


def test_a_refresh_takes_no_members_and_an_acceptance_no_wait():
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        assert (await asking.post(REFRESH, {"generation": 1})).status_code == 400
        assert (await asking.post(f"{ACCEPTED}?wait=1", {"generation": 1})).status_code == 400
        assert (await asking.post(f"{REFRESH}?wait=61")).status_code == 400
        del clock

    play(story)


def test_only_json_is_taken(tmp_path: Path):
    with serving(tmp_path, parts_of()) as sidecar:
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "multipart/form-data",
        ):
            answer = sidecar.post(DENIED, content=b'{"generation": 9}', headers={"content-type": kind})
            assert (answer.status_code, problem_of(answer)) == (415, "unsupported-media-type")
        for headers in ({}, {"content-type": "application/JSON; charset=utf-8"}):
            answer = sidecar.post(DENIED, content=b'{"generation": 9}', headers=headers)
            assert answer.json()["verdict"] == "superseded"


def test_a_body_over_64_kib_is_413_also_without_a_length(tmp_path: Path):
    large = b'{"generation": 9, "reason": "%b"}' % (b"x" * 70_000)
    with serving(tmp_path, parts_of()) as sidecar:
        whole = sidecar.post(DENIED, content=large)
        chunked = sidecar.post(DENIED, content=iter([large[:40_000], large[40_000:]]))
        for answer in (whole, chunked):
            assert (answer.status_code, problem_of(answer)) == (413, "too-large")
            assert answer.headers["connection"] == "close"
        assert sidecar.get("/healthz").status_code == 200


def test_a_client_that_goes_away_in_the_middle_of_its_body_harms_nobody(tmp_path: Path):
    with serving(tmp_path, parts_of()) as sidecar:
        with sidecar.connect() as connection:
            connection.sendall(
                b"POST /v1/tokens/chat/denied HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
            )
        assert sidecar.get(CHAT).status_code == 200


def test_a_token_in_a_report_comes_out_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    canary = "canary-token-that-servers-like-to-quote"
    with caplog.at_level(logging.DEBUG), serving(tmp_path, parts_of()) as sidecar:
        current = sidecar.get(CHAT).json()["token"]
        shown = io.StringIO()
        for token in (canary, current):
            said = {"token": token, "code": f"bad {token}", "reason": f"I refuse {token}!", "start": token}
            for more in ({}, {"by": "video"}, {"start": sidecar.household.start}):
                for path in (DENIED, ACCEPTED, f"{DENIED}?wait=61", REFRESH):
                    shown.write(sidecar.post(path, {**said, **more}).text)
        sidecar.until(lambda: sidecar.household.tokens["chat"].kept.state.generation > 1)
        shown.write(sidecar.get("/metrics").text + sidecar.get("/v1/tokens").text)
        events = sidecar.call(lambda: list(sidecar.household.events.history(0.0)))
    everything = shown.getvalue() + caplog.text + repr(caplog.records) + repr(events)
    assert canary not in everything
    assert current not in everything
