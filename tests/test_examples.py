"""The examples of an embedded keeper, run as their reader would run them: a program, a backend, an API."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import EXAMPLES, ROOT, TIMEOUT_S, read_until, run, running, shown_to, stopped, surroundings

from token_keeper.testing import FakeBackend

HERE = Path(__file__).parent


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend(lifetime=60) as backend:
        yield backend


@pytest.fixture
def api() -> Iterator[FakeBackend]:
    with FakeBackend() as api:
        api.answer(body={"things": []}, times=None)
        yield api


def test_every_example_is_run_here() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_examples*.py"))
    run = set(re.findall(r'"(\w+)(?:\.py"|:app"|")', tests))
    assert {path.stem for path in EXAMPLES.glob("*.py")} - run == set()


def test_every_example_has_its_line_in_the_index() -> None:
    index = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    places = [*EXAMPLES.glob("*.*"), *(EXAMPLES / "sidecar").glob("*.*")]
    assert [path.name for path in places if f"({Path('..') / path.relative_to(ROOT)})" not in index] == []


@pytest.mark.parametrize("name", ["embed_sync.py", "embed_async.py"])
def test_an_embedded_keeper_gives_the_api_a_token(backend: FakeBackend, api: FakeBackend, name: str) -> None:
    assert run(name, TOKEN_URL=backend.url, API_URL=api.url) == ["200"] * 3
    assert shown_to(api) == [backend.issued[0]] * 3


def test_the_worker_shows_the_api_another_token_after_a_401_and_stops_when_told(
    backend: FakeBackend, api: FakeBackend
) -> None:
    api.answer(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
    with running("worker.py", TOKEN_URL=backend.url, API_URL=api.url, PAUSE_S="0.01") as worker:
        log = read_until(worker.stdout, "the API answered 200")
        assert stopped(worker).endswith("stopped\n")
    assert sum("tokenDenied" in line for line in log) == 1
    assert shown_to(api)[:2] == list(backend.issued)[:2]


def test_the_worker_goes_on_after_a_round_without_a_token(backend: FakeBackend, api: FakeBackend) -> None:
    api.answer(status=401, times=2)
    with running("worker.py", TOKEN_URL=backend.url, API_URL=api.url, PAUSE_S="0.01") as worker:
        read_until(worker.stdout, "the API answered 401")
        read_until(worker.stdout, "the API answered 200")
    assert len(set(shown_to(api))) >= 3


def test_the_worker_starts_in_an_outage_and_calls_when_it_ends(
    backend: FakeBackend, api: FakeBackend
) -> None:
    backend.down()
    times = {"PAUSE_S": "0.01", "WAIT_S": "0.1"}
    with running("worker.py", TOKEN_URL=backend.url, API_URL=api.url, **times) as worker:
        read_until(worker.stdout, "this round failed: worker: no usable token")
        backend.up()
        read_until(worker.stdout, "the API answered 200")
    assert shown_to(api)[0] == backend.issued[0]


def test_the_worker_calls_on_while_the_backend_is_down(backend: FakeBackend, api: FakeBackend) -> None:
    with running("worker.py", TOKEN_URL=backend.url, API_URL=api.url, PAUSE_S="0.01") as worker:
        read_until(worker.stdout, "the API answered 200")
        backend.down()
        before = len(api.requests)
        api.wait_for_requests(before + 3)
        assert "this round failed" not in stopped(worker)


def test_the_worker_stops_when_told_while_it_has_no_token(backend: FakeBackend, api: FakeBackend) -> None:
    backend.down()
    times = {"PAUSE_S": "3600", "WAIT_S": "0.1"}
    with running("worker.py", TOKEN_URL=backend.url, API_URL=api.url, **times) as worker:
        read_until(worker.stdout, "this round failed")
        assert stopped(worker).endswith("stopped\n")
    assert not api.requests


def test_the_listeners_hear_of_a_renewal(backend: FakeBackend) -> None:
    backend.lifetime = 2.5
    said = "\n".join(run("listeners.py", TOKEN_URL=backend.url, SECONDS="4"))
    assert "generation 2 is about to expire" in said
    assert "generation 3 (" in said
    assert "there is no valid token" not in said


def test_the_keeper_without_a_source_asks_for_the_next_token_in_time(backend: FakeBackend) -> None:
    backend.lifetime = 2.5
    said = run("no_source.py", TOKEN_URL=backend.url, SECONDS="2.3")
    assert said[:3] == [
        "client.updateToken(keeper.token)  # generation 1",
        "tokenAboutToExpire, generation 1",
        "client.updateToken(keeper.token)  # generation 2",
    ]


def test_a_program_that_starts_in_an_outage_serves_when_it_ends(backend: FakeBackend) -> None:
    backend.down()
    with running("start_in_an_outage.py", TOKEN_URL=backend.url) as program:
        read_until(program.stdout, "no token yet")
        said = read_until(program.stdout, "refreshFailed")
        backend.up()
        read_until(program.stdout, "ready with generation 1")
        assert program.wait(TIMEOUT_S) == 0
    assert "refused the connection" in said[-1]


def test_a_program_that_starts_with_a_backend_that_is_up_is_ready(backend: FakeBackend) -> None:
    assert run("start_in_an_outage.py", TOKEN_URL=backend.url)[-1] == "ready with generation 1"


def test_a_function_can_mint_the_tokens() -> None:
    said = run("own_source.py", SIGNING_KEY="a key for this test only, of 32 bytes or more")
    assert [line.split(" for ")[0] for line in said] == ["generation 1", "generation 2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_each_forked_child_has_a_token_of_its_own(backend: FakeBackend) -> None:
    said = run("prefork.py", TOKEN_URL=backend.url)
    assert sorted(line.split(" has ")[0] for line in said) == ["child 1", "child 2"]
    assert len(set(backend.issued)) == 2


@pytest.mark.parametrize("name", ["test_with_a_fake_clock.py", "test_with_fixtures.py"])
def test_the_tests_to_copy_pass_where_they_were_copied_to(name: str, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / name, tmp_path)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", name],
        cwd=tmp_path,
        env=surroundings(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert " passed" in ended.stdout
