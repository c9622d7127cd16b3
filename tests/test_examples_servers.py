"""The examples for servers: real uvicorn, gunicorn and Celery workers, their backend and their API."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from celery import Celery
from programs import EXAMPLES, TIMEOUT_S, following, read_until, shown_to, stopped
from sidecar import eventually

from token_keeper.testing import FakeBackend

Program = subprocess.Popen[str]
ASGI_APPS = ["fastapi_app.py", "starlette_app.py"]


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api() -> Iterator[FakeBackend]:
    with FakeBackend() as api:
        api.answer(body={"things": []}, times=None)
        yield api


@pytest.fixture
def environment(backend: FakeBackend, api: FakeBackend, tmp_path: Path) -> dict[str, str]:
    return {
        "TOKEN_URL": backend.url,
        "API_URL": api.url,
        "PYTHONPATH": str(EXAMPLES),
        # Some servers leave files at home.
        "HOME": str(tmp_path),
    }


# FastAPI and Starlette.


@contextmanager
def uvicorn(name: str, environment: dict[str, str]) -> Iterator[tuple[Program, httpx.Client]]:
    """Serve the application of the example *name*; yield a client for it."""
    command = ("uvicorn", "--port", "0", f"{Path(name).stem}:app")
    with following(*command, environment=environment) as server:
        url = _url_in(read_until(server.stdout, "Uvicorn running on")[-1])
        with httpx.Client(base_url=url, trust_env=False, timeout=TIMEOUT_S) as client:
            yield server, client


def _url_in(line: str) -> str:
    found = re.search(r"http://[\d.:]+", line)
    assert found is not None, line
    return found[0]


@pytest.mark.parametrize("name", ASGI_APPS)
def test_an_asgi_application_calls_the_api_with_its_keepers_token(
    name: str, backend: FakeBackend, api: FakeBackend, environment: dict[str, str]
) -> None:
    with uvicorn(name, environment) as (_, client):
        answers = [client.get("/things") for _ in range(3)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"things": []})] * 3
    assert shown_to(api) == [backend.issued[0]] * 3


@pytest.mark.parametrize("name", ASGI_APPS)
def test_an_asgi_application_answers_a_401_of_the_api_with_another_token(
    name: str, backend: FakeBackend, api: FakeBackend, environment: dict[str, str]
) -> None:
    api.recover()
    api.answer(status=401)
    api.answer(body={"things": []}, times=None)
    with uvicorn(name, environment) as (_, client):
        assert client.get("/things").status_code == 200
    assert shown_to(api) == list(backend.issued)[:2]


@pytest.mark.parametrize("name", ASGI_APPS)
def test_an_asgi_application_starts_in_an_outage_and_is_ready_when_it_ends(
    name: str, backend: FakeBackend, environment: dict[str, str]
) -> None:
    backend.down()
    with uvicorn(name, environment) as (_, client):
        assert client.get("/readyz").status_code == 503
        backend.up()
        eventually(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/things").status_code == 200


def test_the_fastapi_application_says_why_it_cannot_answer(
    backend: FakeBackend, environment: dict[str, str]
) -> None:
    backend.down()
    with uvicorn("fastapi_app.py", environment | {"WAIT_S": "0.1"}) as (_, client):
        answer = client.get("/things")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "no usable token" in answer.json()["detail"]


@pytest.mark.parametrize("name", ASGI_APPS)
def test_an_asgi_application_ends_when_told(name: str, environment: dict[str, str]) -> None:
    with uvicorn(name, environment) as (server, client):
        client.get("/things")
        server.send_signal(signal.SIGTERM)
        said, _ = server.communicate(timeout=TIMEOUT_S)
    assert "Application shutdown complete." in said
    assert "Traceback" not in said


# gunicorn.


@contextmanager
def gunicorn(environment: dict[str, str]) -> Iterator[tuple[Program, httpx.Client, list[str]]]:
    """Serve; yield the server, a client, and what it said until both workers had started their keepers."""
    options = ("--bind", "127.0.0.1:0", "--config", str(EXAMPLES / "gunicorn_conf.py"))
    with following("gunicorn", *options, "wsgi_app:app", environment=environment) as server:
        said = read_until(server.stdout, "keeps a token")
        said += read_until(server.stdout, "keeps a token")
        url = next(_url_in(line) for line in said if "Listening at" in line)
        with httpx.Client(base_url=url, trust_env=False, timeout=TIMEOUT_S) as client:
            yield server, client, said


def test_each_worker_of_gunicorn_has_a_token_of_its_own(
    backend: FakeBackend, api: FakeBackend, environment: dict[str, str]
) -> None:
    with gunicorn(environment) as (_, client, said):
        backend.wait_for_requests(2)
        assert client.get("/").json() == {"things": []}
    assert len({line.split()[-4] for line in said if "keeps a token" in line}) == 2
    assert len(set(backend.issued)) == 2
    assert set(shown_to(api)) <= set(backend.issued)


def test_gunicorn_closes_the_keepers_when_told_to_end(environment: dict[str, str]) -> None:
    with gunicorn(environment) as (server, _, _):
        said = stopped(server)
    assert said.count("closed its keeper") == 2
    assert "Traceback" not in said


def test_a_worker_of_gunicorn_answers_503_in_an_outage_and_then_calls(
    backend: FakeBackend, environment: dict[str, str]
) -> None:
    backend.down()
    with gunicorn(environment | {"WAIT_S": "0.1"}) as (_, client, _):
        answer = client.get("/")
        assert answer.status_code == 503
        assert "no usable token" in answer.text
        backend.up()
        eventually(lambda: client.get("/").status_code == 200)


# Celery, with directories for a broker.


@pytest.fixture
def tasks(tmp_path: Path, environment: dict[str, str]) -> Iterator[Celery]:
    """A client of the queue; *environment* leads the worker to it."""
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    queue = {"data_folder_in": str(tmp_path / "queue"), "data_folder_out": str(tmp_path / "queue")}
    settings = {
        "broker_url": "filesystem://",
        "broker_transport_options": queue | {"control_folder": str(tmp_path / "control")},
        "result_backend": f"file://{tmp_path / 'results'}",
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (tmp_path / "celeryconfig.py").write_text("\n".join(lines))
    environment["PYTHONPATH"] += f":{tmp_path}"
    environment["CELERY_CONFIG_MODULE"] = "celeryconfig"
    with Celery("test", set_as_current=False) as client:
        client.conf.update(settings)
        yield client


@contextmanager
def celery(environment: dict[str, str], tmp_path: Path) -> Iterator[Program]:
    """Run a worker with two processes."""
    options = (
        "--pool",
        "prefork",
        "--concurrency",
        "2",
        "--loglevel",
        "INFO",
        "--without-mingle",
        "--without-gossip",
    )
    command = ("celery", "--app", "celery_app", "worker", *options)
    with following(*command, cwd=tmp_path, environment=environment) as worker:
        read_until(worker.stdout, " ready.")
        yield worker


# The warm shutdown of a pool takes Celery 4 to 5 s, also without keepers.
def test_each_process_of_celery_has_a_token_of_its_own(
    backend: FakeBackend, api: FakeBackend, environment: dict[str, str], tasks: Celery, tmp_path: Path
) -> None:
    api.answer(status=401)
    with celery(environment, tmp_path) as worker:
        backend.wait_for_requests(2, timeout=TIMEOUT_S)
        answers = [tasks.send_task("celery_app.call_api") for _ in range(4)]
        assert [answer.get(timeout=TIMEOUT_S, interval=0.02) for answer in answers] == [200] * 4
        said = stopped(worker)
    assert set(shown_to(api)) <= set(backend.issued)
    assert said.count("closed its keeper") == 2
    assert "Traceback" not in said
