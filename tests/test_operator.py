"""What an operator asks of the sidecar who trusts nothing: each row of its API, and each way to start it wrongly."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sidecar import COMMAND, a_config, a_directory, eventually, running, started

from token_keeper.testing import FakeBackend

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY = 65_534
NEXT_TO = str(Path(__file__).parent)

# Each row of the API, by every way in.

TOKEN = "/v1/tokens/chat"
PLAIN = {"Accept": "text/plain"}
WAYS = ("unix", "access", "metrics", "none")
"""Over the Unix socket as its owner; over TCP with the access key, with the metrics key, without a key."""

# method, path, headers, body, and what each of WAYS gets.
WALK = [
    ("GET", TOKEN, {}, None, (200, 200, 403, 401)),
    ("GET", TOKEN, PLAIN, None, (200, 200, 403, 401)),
    ("HEAD", TOKEN, {}, None, (200, 200, 403, 401)),
    ("GET", TOKEN, {"If-None-Match": "ETAG"}, None, (304, 304, 403, 401)),
    ("GET", f"{TOKEN}?min_validity=60", {}, None, (200, 200, 403, 401)),
    ("GET", f"{TOKEN}?after_generation=1", {}, None, (304, 304, 403, 401)),
    ("GET", f"{TOKEN}?after_generation=7", {}, None, (200, 200, 403, 401)),
    ("GET", f"{TOKEN}?wait=61", {}, None, (400, 400, 403, 401)),
    ("GET", "/v1/tokens/none", {}, None, (404, 404, 403, 401)),
    ("GET", "/v1/tokens", {}, None, (200, 200, 200, 401)),
    ("GET", "/v1/events", {}, None, (200, 200, 200, 401)),
    ("GET", "/metrics", {}, None, (200, 200, 200, 401)),
    ("GET", "/openapi.json", {}, None, (200, 200, 200, 401)),
    ("GET", "/healthz", {}, None, (200, 200, 200, 200)),
    ("GET", "/readyz", {}, None, (200, 200, 200, 200)),
    ("GET", "/", {}, None, (200, 200, 200, 200)),
    ("GET", "/static/app.js", {}, None, (200, 200, 200, 200)),
    ("GET", "/v1/nothing", {}, None, (404, 404, 403, 401)),
    ("DELETE", TOKEN, {}, None, (405, 405, 403, 401)),
    ("POST", f"{TOKEN}/accepted", {}, {"generation": 1}, (204, 204, 403, 401)),
    ("POST", f"{TOKEN}/denied", {}, {"generation": 1, "code": 429}, (200, 200, 403, 401)),
    ("POST", f"{TOKEN}/denied", {}, {"generation": 9}, (200, 200, 403, 401)),
    ("POST", f"{TOKEN}/denied", {}, {}, (400, 400, 403, 401)),
    ("POST", "/v1/dashboard/codes", {}, {}, (200, 403, 403, 401)),
    ("POST", "/v1/dashboard/keys", {}, {"code": "x" * 43}, (403, 403, 403, 403)),
    ("POST", "/v1/reload", {}, {}, (200, 403, 403, 401)),
    ("POST", f"{TOKEN}/refresh", {}, None, (202, 202, 403, 401)),
]


@pytest.fixture(scope="module")
def walked():
    with FakeBackend() as backend, a_directory() as directory:
        server = f'metrics_key_file = "{directory}/metrics-key"'
        config = a_config(backend.url, server=server)
        with running(config, "--listen", "127.0.0.1:0", directory=directory) as sidecar:
            sidecar.until_token()
            yield sidecar


def asked(sidecar, way, method, path, headers, body):
    """Ask in one of WAYS, and return the answer; of a stream only its head."""
    if "If-None-Match" in headers:
        headers = {"If-None-Match": sidecar.until_token().headers["etag"]}
    if way != "unix":
        metrics_key = (sidecar.directory / "metrics-key").read_text().strip()
        key = {"access": sidecar.access_key, "metrics": metrics_key, "none": None}[way]
        headers = {**headers, **({"Authorization": f"Bearer {key}"} if key else {})}
    more = {"headers": headers, "json_body": body, "host": "localhost" if way == "unix" else f"127.0.0.1:{sidecar.port}"}
    with sidecar.connect() if way == "unix" else sidecar.connect_tcp() as talk:
        if path == "/v1/events":
            from sidecar import a_request

            talk.send(a_request(method, path, **more))
            return talk.head()
        return talk.ask(method, path, **more)


@pytest.mark.parametrize("way", WAYS)
def test_each_row_of_the_api_answers_as_promised_by_each_way_in(walked, way):
    wrong = {}
    for method, path, headers, body, statuses in WALK:
        answer = asked(walked, way, method, path, headers, body)
        wanted = statuses[WAYS.index(way)]
        if answer.status != wanted:
            wrong[method, path, str(headers)] = (answer.status, wanted, answer.raw)
        print(way, method, path, answer.status, answer.headers.get("content-type"))
    assert not wrong
