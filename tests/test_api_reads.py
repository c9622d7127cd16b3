"""Reading tokens and how they stand, over a real Unix socket and on virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import HOUR, T0
from serving import Asking, Served, fresh, opened, parts_of, serving

from token_keeper._errors import RefusedError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper.sidecar._household import Household
from token_keeper.testing import ScriptedSource, VirtualClock, run_virtual

DOWN = TransientFetchError("the backend is down")
CHAT = "/v1/tokens/chat"


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A sidecar with one fresh token, for tests that change nothing."""
    with serving(tmp_path_factory.mktemp("chat"), parts_of()) as sidecar:
        yield sidecar


def problem_of(answer: httpx.Response) -> str:
    """Return the name of the problem that *answer* is."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    return str(document["type"]).removeprefix("urn:token-keeper:problem:")


def test_the_token_is_answered_with_all_that_is_known_of_it(chat: Served):
    answer = chat.get(CHAT)
    served = chat.household.tokens["chat"]
    document = answer.json()
    assert list(document) == [
        *("token", "token_type", "expires_at", "expires_in", "generation", "start", "status")
    ]
    assert document["token"] == chat.call(lambda: served.token)
    assert document["token_type"] == "Bearer"
    assert document["expires_at"] == served.snapshot.expires_at
    assert document["expires_in"] in {3598, 3599}
    assert (document["generation"], document["status"]) == (1, "fresh")
    assert document["start"] == chat.household.start
    assert answer.headers["etag"] == f'"{chat.household.start}-1"'
    assert answer.headers["cache-control"] == "no-store"


def test_plain_text_is_the_raw_token_and_nothing_else(chat: Served):
    answer = chat.get(CHAT, headers={"accept": "text/plain"})
    assert answer.content.decode() == chat.get(CHAT).json()["token"]
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/*", "text/plain"),
        ("text/plain;q=0.5, application/json;q=0.4", "text/plain"),
        ("text/plain;q=0.5, */*;q=0.6", "application/json"),
        ("application/json;q=0, */*", "text/plain"),
        ("text/html, text/plain;q=0.1", "text/plain"),
        ("TEXT/PLAIN ; Q=1.000", "text/plain"),
        ("text/plain, application/json", "application/json"),
        ("text/html", None),
        ("text/plain;q=0", None),
        ("text/plain;q=high", None),
        ("application/json;q=0.0001", None),
        (";;,,==", None),
    ],
)
def test_the_form_is_the_one_that_is_liked_best(chat: Served, accept: str, kind: str | None):
    answer = chat.get(CHAT, headers={"accept": accept})
    if kind is None:
        assert (answer.status_code, problem_of(answer)) == (406, "not-acceptable")
    else:
        assert answer.headers["content-type"].partition(";")[0] == kind
        assert answer.headers["vary"] == "accept"


def test_who_has_the_token_already_gets_304(chat: Served):
    etag = chat.get(CHAT).headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        answer = chat.get(CHAT, headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert chat.get(CHAT, headers={"if-none-match": '"ffffffff-1"'}).status_code == 200


def test_head_is_get_without_a_body(chat: Served):
    for path in (CHAT, "/v1/tokens", "/v1/events", "/healthz", "/readyz", "/metrics", "/openapi.json"):
        answer = chat.client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path


def test_a_token_without_a_known_expiry_has_null_for_it(tmp_path: Path):
    source = ScriptedSource(Issued(secret=Secret("opaque-and-without-end")))
    with serving(tmp_path, parts_of(source=source)) as sidecar:
        document = sidecar.get(CHAT).json()
        row = sidecar.get("/v1/tokens").json()["tokens"][0]
    assert (document["expires_at"], document["expires_in"]) == (None, None)
    assert (row["expires_at"], row["expires_in"], row["usable_for"]) == (None, None, None)


def test_the_status_shows_every_token_and_no_secret(tmp_path: Path):
    with serving(tmp_path, parts_of(), parts_of("video", ScriptedSource(DOWN))) as sidecar:
        answer = sidecar.get("/v1/tokens")
        token = sidecar.get(CHAT).json()["token"]
    document = answer.json()
    assert list(document) == ["start", "started_at", "ready", "live", "version", "tokens"]
    assert (document["ready"], document["live"]) == (False, True)
    chat, video = document["tokens"]
    assert set(chat) >= {
        *("name", "profile", "status", "phase", "generation", "fingerprint", "expires_at", "expires_in"),
        *("refresh_at", "next_attempt_at", "failures", "last_error", "usable_for", "attempts_left", "sinks"),
    }
    assert (chat["name"], chat["profile"], chat["status"], chat["phase"]) == (
        "chat",
        "auto",
        "fresh",
        "waiting",
    )
    assert (video["status"], video["phase"], video["generation"]) == ("absent", "backing_off", 0)
    assert (video["failures"], video["last_error"]) == (1, str(DOWN))
    assert token not in answer.text


def test_an_unknown_token_is_404_and_its_name_is_not_repeated(chat: Served):
    for name in ("nobody", "chat%00", "..%2fchat", "%F0%9F%8E%89", "a" * 5000):
        answer = chat.get(f"/v1/tokens/{name}")
        assert answer.status_code == 404
        assert problem_of(answer) in {"unknown-token", "not-found"}
        assert name not in answer.text


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("wait=61", "wait"),
        ("wait=-1", "wait"),
        ("wait=nan", "wait"),
        ("wait=inf", "wait"),
        ("wait=1e3", "wait"),
        ("wait=%D9%A3", "wait"),
        ("wait=", "wait"),
        ("wait", "wait"),
        ("wait=1&wait=1", "wait"),
        ("min_validity=x", "min_validity"),
        ("min_validity=1e999", "min_validity"),
        ("after_generation=1.5", "after_generation"),
        ("after_generation=-1", "after_generation"),
        ("after_generation=99999999999999999999", "after_generation"),
        ("by=a%0Ab", "by"),
        ("by=" + "a" * 65, "by"),
        ("token=chat", "unknown parameter"),
        ("Wait=1", "unknown parameter"),
        ("%FF=1", "The query"),
        ("&".join(f"x{i}=1" for i in range(99)), "The query"),
    ],
)
def test_a_query_that_cannot_be_read_is_400_and_names_the_parameter(chat: Served, query: str, parameter: str):
    answer = chat.get(f"{CHAT}?{query}")
    assert (answer.status_code, problem_of(answer)) == (400, "bad-request")
    assert parameter in answer.json()["detail"]


def test_an_empty_reporter_is_the_default_one(chat: Served):
    assert chat.get(f"{CHAT}?by=&wait=0.0&min_validity=1e1&after_generation=0").status_code == 200


# Waiting, on virtual time.


def elapsed(clock: VirtualClock) -> float:
    return clock.monotonic() - 1000.0


Story = Callable[[Household, Asking, VirtualClock, ScriptedSource], Awaitable[None]]


def play(story: Story, *script: Any, takes_s: float = 0.0) -> None:
    """Run *story* on virtual time, with a household of one token whose source follows *script*."""
    clock = VirtualClock(T0)

    async def main() -> None:
        source = ScriptedSource(*(script or (fresh(clock=clock),)), takes_s=takes_s)
        async with opened(parts_of(source=source), clock=clock) as (household, asking):
            await story(household, asking, clock, source)

    run_virtual(main, clock)


def test_without_a_wait_the_answer_is_503_at_once_and_says_when_to_come_back():
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        answer = await asking.get(CHAT)
        assert (answer.status_code, problem_of(answer)) == (503, "unavailable")
        # It is just being fetched.
        assert answer.headers["retry-after"] == "1"
        await asyncio.sleep(200)
        answer = await asking.get(CHAT)
        due = answer.json()["retry_after"]
        assert answer.headers["retry-after"] == str(due)
        row = (await asking.get("/v1/tokens")).json()["tokens"][0]
        assert due == math.ceil(row["next_attempt_at"] - clock.wall())
        assert due > 1
        assert str(DOWN) in answer.json()["detail"]

    play(story, DOWN, takes_s=2.0)


def test_a_wait_ends_with_the_first_token():
    async def story(household: Household, asking: Asking, clock: VirtualClock, _: ScriptedSource) -> None:
        answer = await asking.get(f"{CHAT}?wait=30")
        assert answer.status_code == 200
        assert elapsed(clock) == pytest.approx(7)
        assert household.tokens["chat"].tally.waiters == 0

    play(story, takes_s=7.0)


def test_a_wait_in_vain_is_503_when_its_time_is_over():
    async def story(household: Household, asking: Asking, clock: VirtualClock, _: ScriptedSource) -> None:
        asked = asyncio.ensure_future(asking.get(f"{CHAT}?wait=20"))
        await asyncio.sleep(10)
        assert household.tokens["chat"].tally.waiters == 1
        assert (await asked).status_code == 503
        assert elapsed(clock) == pytest.approx(20)

    play(story, DOWN)


def test_a_valid_token_is_answered_at_once_also_while_its_successor_is_fetched():
    async def story(
        household: Household, asking: Asking, clock: VirtualClock, source: ScriptedSource
    ) -> None:
        await asking.get(f"{CHAT}?wait=5")
        source.hold()
        assert (await asking.post(f"{CHAT}/refresh")).status_code == 202
        at = elapsed(clock)
        assert (await asking.get(f"{CHAT}?wait=30")).json()["generation"] == 1
        assert elapsed(clock) == at
        source.release()
        del household

    play(story)


def test_more_validity_than_there_is_starts_one_fetch_and_waits_for_it():
    async def story(_: Household, asking: Asking, clock: VirtualClock, source: ScriptedSource) -> None:
        await asking.get(f"{CHAT}?wait=5")
        await asyncio.sleep(HOUR / 2)
        before = await asking.get(f"{CHAT}?min_validity=3000")
        assert (before.status_code, before.headers["retry-after"]) == (503, "1")
        answers = await asyncio.gather(*(asking.get(f"{CHAT}?min_validity=3000&wait=10") for _ in range(3)))
        assert [answer.json()["generation"] for answer in answers] == [2, 2, 2]
        assert len(source.calls) == 2
        assert (await asking.get(CHAT)).status_code == 200
        del clock

    play(story, takes_s=1.0)


def test_more_validity_than_the_sources_tokens_ever_have_is_refused_at_once():
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        await asking.get(f"{CHAT}?wait=5")
        at = elapsed(clock)
        answer = await asking.get(f"{CHAT}?min_validity=7200&wait=60")
        assert (answer.status_code, problem_of(answer)) == (503, "too-short")
        assert "3600 s" in answer.json()["detail"]
        assert elapsed(clock) == at

    play(story)


def test_a_newer_generation_is_waited_for_and_304_if_there_is_none():
    async def story(household: Household, asking: Asking, clock: VirtualClock, _: ScriptedSource) -> None:
        first = await asking.get(f"{CHAT}?wait=5")
        none = await asking.get(f"{CHAT}?after_generation=1&wait=30")
        assert (none.status_code, none.content, none.headers["etag"]) == (304, b"", first.headers["etag"])
        assert elapsed(clock) == pytest.approx(30)
        asked = asyncio.ensure_future(asking.get(f"{CHAT}?after_generation=1&wait=30"))
        await asyncio.sleep(3)
        household.tokens["chat"].kept.ask()
        assert (await asked).json()["generation"] == 2
        assert elapsed(clock) == pytest.approx(33, abs=0.1)

    play(story)


def test_a_generation_of_another_start_is_answered_at_once():
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        await asking.get(f"{CHAT}?wait=5")
        at = elapsed(clock)
        assert (await asking.get(f"{CHAT}?after_generation=40&wait=60")).json()["generation"] == 1
        assert elapsed(clock) == at

    play(story)


def test_who_waits_for_a_newer_token_hears_when_the_current_one_is_gone():
    async def story(_: Household, asking: Asking, clock: VirtualClock, source: ScriptedSource) -> None:
        await asking.get(f"{CHAT}?wait=5")
        source.hold()
        await asyncio.sleep(HOUR)
        answer = await asking.get(f"{CHAT}?after_generation=1&wait=5")
        assert answer.status_code == 503
        source.release()
        del clock

    play(story)


def test_a_token_is_withheld_from_the_reporter_that_was_refused_and_from_nobody_else():
    async def story(household: Household, asking: Asking, _: VirtualClock, source: ScriptedSource) -> None:
        await asking.get(f"{CHAT}?wait=5")
        source.hold()
        await asking.post(f"{CHAT}/denied", {"generation": 1, "by": "video"})
        assert (await asking.get(f"{CHAT}?by=video")).status_code == 503
        assert (await asking.get(CHAT)).status_code == 200
        asked = asyncio.ensure_future(asking.get(f"{CHAT}?by=video&wait=30"))
        await asyncio.sleep(1)
        source.release()
        assert (await asked).json()["generation"] == 2
        del household

    play(story)


def test_a_refused_token_that_is_valid_is_served_and_the_status_says_so():
    async def story(_: Household, asking: Asking, clock: VirtualClock, __: ScriptedSource) -> None:
        await asking.get(f"{CHAT}?wait=5")
        await asyncio.sleep(0.9 * HOUR)
        row = (await asking.get("/v1/tokens")).json()["tokens"][0]
        assert (row["status"], row["phase"]) == ("stale", "refused")
        assert (await asking.get(CHAT)).json()["status"] == "stale"
        del clock

    play(story, fresh(clock=VirtualClock(T0)), RefusedError("invalid_grant"))


def test_the_end_of_the_sidecar_ends_waits():
    async def story(household: Household, asking: Asking, clock: VirtualClock, _: ScriptedSource) -> None:
        asked = asyncio.ensure_future(asking.get(f"{CHAT}?wait=60"))
        await asyncio.sleep(1)
        await household.close()
        answer = await asked
        assert (answer.status_code, problem_of(answer)) == (503, "shutting-down")
        assert elapsed(clock) < 5

    play(story, DOWN)


def test_a_reload_that_removes_the_token_ends_waits_with_404():
    async def story(household: Household, asking: Asking, clock: VirtualClock, _: ScriptedSource) -> None:
        asked = asyncio.ensure_future(asking.get(f"{CHAT}?wait=60"))
        await asyncio.sleep(1)
        await household.apply((parts_of("video"),))
        answer = await asked
        assert (answer.status_code, problem_of(answer)) == (404, "unknown-token")
        assert elapsed(clock) < 5

    play(story, DOWN)


def test_a_client_that_goes_away_waits_no_more(tmp_path: Path):
    with serving(tmp_path, parts_of(source=ScriptedSource(DOWN))) as sidecar:
        tally = sidecar.household.tokens["chat"].tally
        with sidecar.connect() as connection:
            connection.sendall(b"GET /v1/tokens/chat?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            sidecar.until(lambda: tally.waiters == 1)
        sidecar.until(lambda: tally.waiters == 0)
