"""Every example, run as its reader would run it: a program, a backend, an API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from token_keeper.testing import FakeBackend

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
TIMEOUT_S = 30


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend(lifetime=60) as backend:
        yield backend


@pytest.fixture
def api() -> Iterator[FakeBackend]:
    with FakeBackend() as api:
        api.answer(body={"things": []}, times=None)
        yield api


def _is_ours(name: str) -> bool:
    """Whether a variable of our own surroundings would change what an example does."""
    # Unbuffered, a line of `print` is two writes, between which the log may come.
    return name.lower().endswith("_proxy") or name == "PYTHONUNBUFFERED"


@contextmanager
def running(name: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    with subprocess.Popen(
        command,
        env={name: value for name, value in os.environ.items() if not _is_ours(name)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as program:
        # Reading what it says would wait for ever for a program that hangs.
        watchdog = threading.Timer(TIMEOUT_S, program.kill)
        watchdog.start()
        try:
            yield program
        finally:
            watchdog.cancel()
            program.kill()


def run(name: str, **environment: str) -> list[str]:
    """Run an example to its end and return the lines that it printed."""
    with running(name, **environment) as program:
        said, _ = program.communicate(timeout=TIMEOUT_S)
    assert program.returncode == 0, said
    return said.splitlines()


def read_until(stream: IO[str] | None, word: str) -> list[str]:
    assert stream is not None
    lines: list[str] = []
    for line in stream:
        lines.append(line.rstrip())
        if word in line:
            return lines
    said = "\n".join([*lines[:20], "...", *lines[-20:]])
    raise AssertionError(f"{word!r} was never printed, but:\n{said}")


def shown_to(api: FakeBackend) -> list[str]:
    return [request.headers["authorization"].removeprefix("Bearer ") for request in api.requests]


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in here] == []


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
        worker.send_signal(signal.SIGTERM)
        said, _ = worker.communicate(timeout=TIMEOUT_S)
    assert worker.returncode == 0
    assert said.endswith("stopped\n")
    assert sum("tokenDenied" in line for line in log) == 1
    assert shown_to(api)[:2] == list(backend.issued)[:2]


def test_the_worker_goes_on_after_a_round_without_a_token(backend: FakeBackend, api: FakeBackend) -> None:
    api.answer(status=401, times=2)
    with running("worker.py", TOKEN_URL=backend.url, API_URL=api.url, PAUSE_S="0.01") as worker:
        read_until(worker.stdout, "the API answered 401")
        read_until(worker.stdout, "the API answered 200")
    assert len(set(shown_to(api))) >= 3


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


def test_the_test_with_a_fake_clock_passes() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, str(EXAMPLES / "test_with_a_fake_clock.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert "3 passed" in ended.stdout
