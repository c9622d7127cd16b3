"""What the API says when it does not do as asked, and what the operators' requests are answered with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Asking, fresh, opened, parts_of, serving

from token_keeper import ConfigError
from token_keeper._clock import SystemClock
from token_keeper.sidecar._access import Access, Caller, Keys
from token_keeper.sidecar._household import Changes, Household
from token_keeper.sidecar.api import make_app
from token_keeper.sidecar.api._reads import ROWS_AT_ONCE, status_document
from token_keeper.sidecar.config import BadConfig
from token_keeper.testing import ScriptedSource

PAGE = "http://127.0.0.1:8750/"
SAFE = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def problem_of(answer: httpx.Response) -> str:
    """Return the name of the problem that *answer* is, which is complete."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    return str(document["type"]).removeprefix("urn:token-keeper:problem:")


def test_every_answer_carries_the_headers_that_keep_it_where_it_belongs(tmp_path: Path):
    with serving(tmp_path, parts_of(), page=PAGE) as sidecar:
        answers = [
            *(sidecar.get(path) for path in ("/v1/tokens", "/v1/tokens/chat", "/metrics", "/openapi.json")),
            *(
                sidecar.get(path)
                for path in ("/healthz", "/readyz", "/nothing", "/v1/tokens/x", "/v1/tokens?a=1")
            ),
            sidecar.get("/v1/tokens/chat", headers={"if-none-match": "*"}),
            sidecar.client.head("/v1/events"),
            sidecar.client.delete("/v1/tokens"),
            sidecar.post("/v1/tokens/chat/accepted", {"generation": 1}),
            sidecar.post("/v1/tokens/chat/denied", ["x"]),
            sidecar.post("/v1/dashboard/codes"),
            sidecar.post("/v1/reload"),
        ]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in SAFE} == SAFE, answer.url
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/tokens/", "/v1/tokens/chat/", "/v1/tokens/chat/x"])
def test_there_is_nothing_at_other_paths_and_no_redirect(tmp_path: Path, path: str):
    with serving(tmp_path, parts_of()) as sidecar:
        answer = sidecar.get(path)
    assert (answer.status_code, problem_of(answer)) == (404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/tokens", "GET, HEAD"),
        ("DELETE", "/v1/tokens/chat", "GET, HEAD"),
        ("GET", "/v1/tokens/chat/denied", "POST"),
        ("OPTIONS", "/v1/tokens/chat/accepted", "POST"),
        ("TRACE", "/v1/events", "GET, HEAD"),
        ("HEAD", "/v1/reload", "POST"),
        ("PUT", "/", "GET, HEAD"),
    ],
)
def test_another_method_is_405_and_says_which_are_allowed(tmp_path: Path, method: str, path: str, allow: str):
    with serving(tmp_path, parts_of()) as sidecar:
        answer = sidecar.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    if method != "HEAD":
        assert problem_of(answer) == "method-not-allowed"


def test_a_mistake_of_ours_is_a_problem_without_a_word_of_what_went_wrong():
    class Broken(Keys):
        def redeem(self, code: str) -> str | None:
            raise RuntimeError(f"the secret is {code}")

    async def main() -> None:
        async with Household(()) as household:
            app = make_app(household, keys=Broken(), reload=household.close)  # type: ignore[arg-type]
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                answer = await client.post("/v1/dashboard/keys", json={"code": "canary"})
        assert (answer.status_code, problem_of(answer)) == (500, "internal-error")
        assert "canary" not in answer.text
        assert {name: answer.headers.get(name) for name in SAFE} == SAFE

    asyncio.run(main())


def test_a_token_that_a_reload_just_added_is_not_there_yet():
    async def main() -> None:
        async with opened(clock=SystemClock()) as (household, asking):
            household.tokens = {"chat": household._opened(parts_of())}
            read = await asking.get("/v1/tokens/chat")
            assert (read.status_code, problem_of(read)) == (503, "unavailable")
            asked = await asking.post("/v1/tokens/chat/refresh")
            assert (asked.status_code, problem_of(asked)) == (503, "starting")

    asyncio.run(main())


# The reload.


@dataclass(frozen=True)
class Reloaded:
    """What a reload of the server reports."""

    added: tuple[str, ...] = ("video",)
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ("voice",)
    unchanged: tuple[str, ...] = ("chat",)
    restart_needed: tuple[str, ...] = ("server.listen",)


def reloading(outcome: Any) -> httpx.Response:
    """Return the answer to a reload that returns or raises *outcome*."""

    async def reload() -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def main() -> httpx.Response:
        parts = parts_of(source=ScriptedSource(fresh()))
        async with opened(parts, clock=SystemClock(), reload=reload) as (_, asking):
            return await asking.post("/v1/reload")

    return asyncio.run(main())


def test_a_reload_is_answered_with_what_changed():
    answer = reloading(Reloaded())
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "added": ["video"],
            "changed": [],
            "removed": ["voice"],
            "unchanged": ["chat"],
            "restart_needed": ["server.listen"],
        },
    )
    assert reloading(Changes(unchanged=("chat",))).json()["restart_needed"] == []


def test_a_reload_of_a_bad_configuration_is_422_with_every_error():
    problems = (
        ConfigError("tokens.chat.source.url", "must be https"),
        ConfigError("server.lisen", "unknown key"),
    )
    answer = reloading(BadConfig(problems))
    assert (answer.status_code, problem_of(answer)) == (422, "bad-configuration")
    assert answer.json()["errors"] == [
        {"key": "tokens.chat.source.url", "problem": "must be https"},
        {"key": "server.lisen", "problem": "unknown key"},
    ]


def test_a_reload_of_a_file_that_cannot_be_read_is_422_too():
    answer = reloading(PermissionError(13, "Permission denied", "/etc/keeper.toml"))
    assert (answer.status_code, problem_of(answer)) == (422, "bad-configuration")
    assert answer.json()["errors"] == [
        {"key": "/etc/keeper.toml", "problem": "cannot be read (Permission denied); make it readable"}
    ]


# The dashboard's codes and keys.


def test_a_code_is_traded_once_for_a_key(tmp_path: Path):
    keys = Keys()
    with serving(tmp_path, parts_of(), page=PAGE, keys=keys) as sidecar:
        given = sidecar.post("/v1/dashboard/codes", {}).json()
        assert given == {"code": given["code"], "url": f"{PAGE}#{given['code']}"}
        traded = sidecar.post("/v1/dashboard/keys", {"code": given["code"]}).json()
        assert traded["start"] == sidecar.household.start
        assert keys.access_of(traded["key"].encode()) is Access.STATUS
        again = sidecar.post("/v1/dashboard/keys", {"code": given["code"]})
    assert (again.status_code, problem_of(again)) == (403, "bad-code")
    assert given["code"] not in again.text


def test_without_a_tcp_listener_there_is_no_code(tmp_path: Path):
    with serving(tmp_path, parts_of()) as sidecar:
        answer = sidecar.post("/v1/dashboard/codes")
    assert (answer.status_code, problem_of(answer)) == (409, "no-listener")
    assert 'listen = "127.0.0.1:8750"' in answer.json()["detail"]


def test_over_tcp_there_is_no_code():
    async def main() -> None:
        async with opened(parts_of(), clock=SystemClock(), page=PAGE) as (_, asking):
            caller = Caller(access=Access.TOKENS, uid=None, over="tcp")
            answer = await asking.called_by(caller).post("/v1/dashboard/codes")
        assert (answer.status_code, problem_of(answer)) == (403, "forbidden")

    asyncio.run(main())


@pytest.mark.parametrize(
    "body", [{}, {"code": 1}, {"code": ""}, {"code": "x" * 129}, {"code": "x", "key": 1}]
)
def test_a_trade_without_a_code_is_400(tmp_path: Path, body: object):
    with serving(tmp_path, parts_of()) as sidecar:
        answer = sidecar.post("/v1/dashboard/keys", body)
    assert (answer.status_code, problem_of(answer)) == (400, "bad-request")


def test_the_dashboards_page_is_served_with_its_own_headers(tmp_path: Path):
    with serving(tmp_path, parts_of()) as sidecar:
        answer = sidecar.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


# Many tokens.


def test_a_long_status_lets_others_have_their_turn():
    async def main() -> None:
        parts = [parts_of(f"t{index}") for index in range(10 * ROWS_AT_ONCE)]
        async with Household(tuple(parts)) as household:
            building = asyncio.ensure_future(status_document(household))
            turns = 0
            while not building.done():
                turns += 1
                await asyncio.sleep(0)
            assert turns >= len(parts) // ROWS_AT_ONCE
            assert (await building).count(b'"fingerprint"') == len(parts)

    asyncio.run(main())


def test_a_scrape_does_not_hold_up_the_loop():
    async def main() -> None:
        parts = [parts_of(f"t{index}") for index in range(1_500)]
        async with opened(*parts, clock=SystemClock()) as (_, asking):
            assert isinstance(asking, Asking)
            scraping = asyncio.ensure_future(asking.get("/metrics"))
            turns = 0
            while not scraping.done():
                turns += 1
                await asyncio.sleep(0)
            # Without a thread it would be about as many as a request has steps, some ten.
            assert turns > 50
            assert (await scraping).text.count("token_keeper_fetches_total{") == 6 * len(parts)

    asyncio.run(main())
