"""The metrics: their names and labels are a contract, their values move as they should."""

from __future__ import annotations

import asyncio
import math
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from helpers import HOUR, PLAIN, T0
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as families
from serving import Asking, fresh, opened, parts_of, serving

import token_keeper
from token_keeper import Verdict
from token_keeper._errors import RefusedError, ResponseError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper.sidecar._household import Household
from token_keeper.sidecar._metrics import exposition
from token_keeper.sidecar._served import OUTCOMES
from token_keeper.sidecar.config._model import FileSinkConfig, TokenConfig
from token_keeper.testing import ScriptedSource, VirtualClock, run_virtual

NAME = frozenset({"name"})
CONTRACT = {
    "token_keeper_expires_at_seconds": ("gauge", NAME),
    "token_keeper_last_success_seconds": ("gauge", NAME),
    "token_keeper_generation": ("gauge", NAME),
    "token_keeper_fetches_total": ("counter", NAME | {"outcome"}),
    "token_keeper_fetch_seconds_sum": ("summary", NAME),
    "token_keeper_fetch_seconds_count": ("summary", NAME),
    "token_keeper_denials_total": ("counter", NAME | {"verdict"}),
    "token_keeper_waiters": ("gauge", NAME),
    "token_keeper_attempts_left": ("gauge", NAME),
    "token_keeper_usable_seconds": ("gauge", NAME),
    "token_keeper_clock_jumps_total": ("counter", frozenset()),
    "token_keeper_listener_failures_total": ("counter", NAME),
    "token_keeper_hook_failures_total": ("counter", NAME),
    "token_keeper_sink_generation": ("gauge", NAME | {"path"}),
    "token_keeper_ready": ("gauge", frozenset()),
}
Story = Callable[[Household, Asking, VirtualClock], Awaitable[None]]


def play(story: Story, source: ScriptedSource, clock: VirtualClock) -> None:
    """Run *story* on virtual time, 5 s after the household was opened."""

    async def main() -> None:
        async with opened(parts_of(source=source, policy=PLAIN), clock=clock) as (household, asking):
            await asyncio.sleep(5)
            await story(household, asking, clock)

    run_virtual(main, clock)


async def values(asking: Asking) -> dict[tuple[str, ...], float]:
    """Return the value of each sample, by its name and the values of its labels but `name`."""
    text = (await asking.get("/metrics")).text
    return {
        (sample.name.removeprefix("token_keeper_"), *(v for n, v in sample.labels.items() if n != "name")): (
            sample.value
        )
        for family in families(text)
        for sample in family.samples
    }


def test_names_types_and_labels_are_those_of_the_contract(tmp_path: Path):
    parts = parts_of()
    sinks = (FileSinkConfig(path=str(tmp_path / 'a "b" \\ c')),)
    object.__setattr__(parts, "config", TokenConfig(source=parts.config.source, sinks=sinks))
    with serving(tmp_path, parts) as sidecar:
        answer = sidecar.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {
        sample.name: (family.type, frozenset(sample.labels))
        for family in families(answer.text)
        for sample in family.samples
    }
    assert found == CONTRACT
    labels = [sample.labels for family in families(answer.text) for sample in family.samples]
    assert {label["outcome"] for label in labels if "outcome" in label} == set(OUTCOMES)
    assert {label["verdict"] for label in labels if "verdict" in label} == set(Verdict)
    assert {label["path"] for label in labels if "path" in label} == {sinks[0].path}


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "Application/OpenMetrics-Text"]
)
def test_openmetrics_is_given_to_who_asks_for_it(tmp_path: Path, accept: str):
    with serving(tmp_path, parts_of()) as sidecar:
        answer = sidecar.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    found = {sample.name for family in openmetrics_families(answer.text) for sample in family.samples}
    assert found == set(CONTRACT) - {"token_keeper_sink_generation"}


@pytest.mark.parametrize("accept", ["text/plain;version=x.y", "application/openmetrics-texts", "\xff", ",;="])
def test_a_strange_accept_gets_the_usual_text(tmp_path: Path, accept: str):
    with serving(tmp_path, parts_of()) as sidecar:
        answer = sidecar.get("/metrics", headers={"accept": accept.encode("latin-1")})
    assert (answer.status_code, answer.headers["content-type"][:29]) == (200, "text/plain; version=0.0.4; ch")


def test_what_a_fetch_ends_with_is_counted_and_timed():
    clock = VirtualClock(T0)
    token = fresh(clock=clock)
    script = (
        *(token, TransientFetchError("down"), RefusedError("invalid_grant"), ResponseError("no token")),
        *(Issued(secret=Secret("a b")), token),
    )

    async def story(_: Household, asking: Asking, __: VirtualClock) -> None:
        for _ in range(5):
            await asking.post("/v1/tokens/chat/refresh?wait=60")
        found = await values(asking)
        counts = {key[1]: value for key, value in found.items() if key[0] == "fetches_total"}
        assert counts == {
            "issued": 2,
            "unchanged": 0,
            "invalid": 2,
            "transient": 1,
            "refused": 1,
            "cancelled": 0,
        }
        assert found["fetch_seconds_count",] == 6
        assert found["generation",] == 2

    play(story, ScriptedSource(*script), clock)


def test_times_are_timestamps_so_that_an_alert_can_compare_them():
    clock = VirtualClock(T0)

    async def story(household: Household, asking: Asking, _: VirtualClock) -> None:
        found = await values(asking)
        assert found["expires_at_seconds",] == household.tokens["chat"].snapshot.expires_at == T0 + HOUR
        assert found["last_success_seconds",] == pytest.approx(T0)
        assert found["usable_seconds",] == pytest.approx(HOUR - 5)
        assert found["attempts_left",] >= 5
        await asyncio.sleep(HOUR)
        found = await values(asking)
        assert found["last_success_seconds",] == pytest.approx(T0)
        assert (found["usable_seconds",], found["attempts_left",], found["ready",]) == (0, 0, 0)

    play(story, ScriptedSource(fresh(clock=clock), TransientFetchError("down")), clock)


def test_before_the_first_token_there_are_no_timestamps():
    clock = VirtualClock(T0)

    async def story(_: Household, asking: Asking, __: VirtualClock) -> None:
        found = await values(asking)
        assert ("expires_at_seconds",) not in found
        assert ("last_success_seconds",) not in found
        assert (found["generation",], found["usable_seconds",], found["ready",]) == (0, 0, 0)

    play(story, ScriptedSource(TransientFetchError("down")), clock)


def test_a_token_without_a_known_expiry_is_usable_for_ever():
    clock = VirtualClock(T0)

    async def story(_: Household, asking: Asking, __: VirtualClock) -> None:
        found = await values(asking)
        assert found["usable_seconds",] == math.inf
        assert ("expires_at_seconds",) not in found
        assert ("attempts_left",) not in found

    play(story, ScriptedSource(Issued(secret=Secret("opaque"))), clock)


def test_denials_waiters_and_jumps_are_counted():
    clock = VirtualClock(T0)

    async def story(_: Household, asking: Asking, clock: VirtualClock) -> None:
        await asking.post("/v1/tokens/chat/denied", {"generation": 1, "code": 429})
        await asking.post("/v1/tokens/chat/denied", {"generation": 9})
        waiting = [
            asyncio.ensure_future(asking.get("/v1/tokens/chat?after_generation=1&wait=20")) for _ in range(3)
        ]
        await asyncio.sleep(1)
        found = await values(asking)
        assert (found["denials_total", "throttled"], found["denials_total", "superseded"]) == (1, 1)
        assert (found["waiters",], found["clock_jumps_total",]) == (3, 0)
        await asyncio.gather(*waiting)
        clock.suspend(60)
        await asyncio.sleep(10)
        found = await values(asking)
        assert (found["waiters",], found["clock_jumps_total",], found["ready",]) == (0, 1, 1)

    play(story, ScriptedSource(fresh(clock=clock)), clock)


def test_the_exposition_is_ready_for_a_scraper_that_names_no_form():
    async def main() -> None:
        async with Household(()) as household:
            body, media_type = exposition(household)
        assert b"token_keeper_ready 0.0\n" in body
        assert media_type == "text/plain; version=0.0.4; charset=utf-8"

    asyncio.run(main())


def test_nothing_of_prometheus_is_loaded_before_the_first_scrape():
    program = (
        "import sys, token_keeper.sidecar.api; "
        "print([name for name in sys.modules if name.startswith('prometheus') or name.endswith('_openapi')])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_the_page_about_metrics_names_every_metric_and_every_label():
    page = (Path(token_keeper.__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name, (_, labels) in CONTRACT.items():
        shown = ", ".join(f"`{label}`" for label in sorted(labels)) or " "
        metric = name.removesuffix("_sum").removesuffix("_count")
        assert re.search(rf"^\| `{metric}` \| \w+ \| ?{shown} ?\|", page, re.MULTILINE), name
    assert [word for word in (*OUTCOMES,) if f"`{word}`" not in page] == []
