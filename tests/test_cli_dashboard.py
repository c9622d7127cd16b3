"""`dashboard` against the real sidecar. No real browser: it would stay."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest
from commanding import command, environ, json_answer, speaking
from sidecar import a_config, a_directory, running

from token_keeper.testing import FakeBackend


@pytest.fixture(scope="module")
def sidecar():
    with FakeBackend() as backend, running(a_config(backend.url, server='listen = "127.0.0.1:0"')) as sidecar:
        yield sidecar


def code_in(url):
    return re.split(r"[#=]", url.strip())[-1]


def redeemed(sidecar, url):
    return sidecar.ask("POST", "/v1/dashboard/keys", json_body={"code": code_in(url)})


@pytest.mark.parametrize("option", ["--print", "--no-browser"])
def test_the_address_can_be_printed(sidecar, option):
    done = command("dashboard", option, at=sidecar.socket_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"http://127.0.0.1:{sidecar.port}/#")
    assert done.stdout.count("\n") == 1


def test_the_code_in_the_address_works_once(sidecar):
    url = command("dashboard", "--print", at=sidecar.socket_path).stdout

    assert (redeemed(sidecar, url).status, redeemed(sidecar, url).status) == (200, 403)


def test_the_browser_of_the_user_is_opened(sidecar, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    done = command("dashboard", env=environ(sidecar.socket_path, BROWSER=f"{browser} %s"))

    assert (done.returncode, done.stdout) == (0, "")
    assert redeemed(sidecar, (tmp_path / "opened").read_text()).status == 200


def test_without_a_browser_the_address_is_printed(sidecar):
    settings = {"PATH": "/nowhere", "BROWSER": "/nowhere/browser %s", "DISPLAY": ""}
    done = command("dashboard", env=environ(sidecar.socket_path, **settings))

    assert done.returncode == 0
    assert redeemed(sidecar, done.stdout).status == 200
    assert "open this address within 60 s" in done.stderr


def test_without_a_port_it_exits_78_with_the_line_to_add():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        done = command("dashboard", at=sidecar.socket_path)

    assert (done.returncode, done.stdout) == (os.EX_CONFIG, "")
    assert 'listen = "127.0.0.1:8750"' in done.stderr


def test_without_a_sidecar_it_exits_69():
    assert command("dashboard", at="/nowhere/api.sock").returncode == os.EX_UNAVAILABLE


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://evil.example/#abcdefghijklmnopqrstuvwxyz",
        "http://127.0.0.1:80/?x=1#abcdefghijklmnopqrstuvwxyz",
        "http://127.0.0.1:80@evil.example/#abcdefghijklmnopqrstuvwxyz",
        "--new-window",
        5,
    ],
)
def test_no_other_address_is_ever_opened(tmp_path, url):
    answer = json_answer(json.dumps({"code": "x", "url": url}))
    settings = {"BROWSER": f"touch {tmp_path}/opened %s"}
    with a_directory() as directory, speaking(directory / "s", answer):
        done = command("dashboard", env=environ(directory / "s", **settings))

    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (76, "", [])
