"""`token-keeper login`: a person approves elsewhere, and the grant is in the store.

Each login takes over a second: no device may ask the server more often (RFC 8628 section 3.5).
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from authorization_server import AuthorizationServer, Client
from commanding import InTerminal, begun, command, environ, line_of
from configuring import written
from sidecar import eventually

from token_keeper.cli.login._browser import OPENED, open_page
from token_keeper.cli.login._letters import large
from token_keeper.store import DirectoryStore

CANARY = "canary-51d8a2f09c"
UNCHANGED = "nothing was changed"
SCREENLESS = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "SSH_CONNECTION": "", "BROWSER": ""}


@pytest.fixture
def lifetime_s():
    """Of a code."""
    return 60.0


@pytest.fixture
def server(lifetime_s):
    client = Client("tv", CANARY, scope="read offline_access")
    with AuthorizationServer(clients=[client], device_lifetime_s=lifetime_s, rotate=True) as server:
        yield server


def grant(server, *, name="chat", at="source", more=""):
    return (
        f'[tokens.{name}.{at}]\ntype = "oauth2"\ngrant = "device_code"\nissuer = "{server.issuer}"\n'
        f'client_id = "tv"\nclient_secret = "{CANARY}"\nscope = "read"\n{more}\n'
    )


def config(tmp_path, *tables):
    where = f'[server]\nsocket = "{tmp_path}/api.sock"\n[store]\ndirectory = "{tmp_path}/state"\n'
    return str(written(tmp_path, where + "".join(tables)))


def stored(tmp_path, name="chat"):
    return DirectoryStore(tmp_path / "state").slot(name).read()


@contextmanager
def logging_in(server, *args):
    """Begin a login, and go on when its code was asked for."""
    with begun("login", *args, env=environ(**SCREENLESS)) as process:
        eventually(lambda: server.logins, within_s=20.0, what="the code")
        yield process


def finished(process):
    stdout, stderr = process.communicate(timeout=20)
    return process.returncode, stdout, stderr


def test_an_approved_login_is_in_the_store_and_says_what_was_granted(tmp_path, server):
    with logging_in(server, "chat", "--config", config(tmp_path, grant(server))) as process:
        server.decide(approve=True)
        code, stdout, stderr = finished(process)

    [login] = server.logins.values()
    record = stored(tmp_path)
    assert code == 0
    assert stdout.startswith(f"logged in for chat: the grant is kept in {tmp_path}/state/chat.grant; ")
    assert re.search("granted: read; the access token expires in (1 h|59 min 5. s)\n$", stdout)
    assert f"enter the code {login.user_code}" in stderr
    assert "no sidecar answers" in stderr
    assert server.is_alive(record.refresh_token.reveal())
    assert server.is_active(record.access_token.reveal())


def test_no_secret_is_shown(tmp_path, server):
    with logging_in(server, "chat", "--json", "--config", config(tmp_path, grant(server))) as process:
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text()
        server.decide(approve=True)
        _, stdout, stderr = finished(process)

    record = stored(tmp_path)
    secrets = [CANARY, record.refresh_token.reveal(), record.access_token.reveal(), *server.logins]
    shown = stdout + stderr + arguments
    assert [secret for secret in secrets if secret in shown] == []


def test_the_outcome_is_one_json_object(tmp_path, server):
    with logging_in(server, "chat", "--json", "--config", config(tmp_path, grant(server))) as process:
        server.decide(approve=True)
        _, stdout, _ = finished(process)

    document = json.loads(stdout)
    assert list(document) == ["name", "link", "stored_in", "scope", "expires_at", "expires_in", "sidecar"]
    assert (document["name"], document["link"], document["scope"]) == ("chat", None, "read")
    assert document["expires_at"] == pytest.approx(time.time() + 3600, abs=30)
    assert document["sidecar"]["socket"] == f"{tmp_path}/api.sock"
    assert not document["sidecar"]["running"]


def test_a_denied_login_exits_77_and_keeps_what_was_stored(tmp_path, server):
    path = config(tmp_path, grant(server))
    with logging_in(server, "chat", "--config", path) as process:
        server.decide(approve=True)
        finished(process)
    before = stored(tmp_path)
    server.logins.clear()
    with logging_in(server, "chat", "--config", path) as process:
        server.decide(approve=False)
        code, stdout, stderr = finished(process)

    assert (code, stdout) == (os.EX_NOPERM, "")
    assert "denied" in stderr
    assert UNCHANGED in stderr
    assert stored(tmp_path) == before


@pytest.mark.parametrize("lifetime_s", [2.0])
def test_a_code_that_nobody_approves_expires_with_75(tmp_path, server):
    result = command("login", "chat", "--config", config(tmp_path, grant(server)), env=environ(**SCREENLESS))

    assert result.returncode == os.EX_TEMPFAIL
    assert "nobody approved" in result.stderr
    assert UNCHANGED in result.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_login_says_that_nothing_was_changed(tmp_path, server, number, code):
    with logging_in(server, "chat", "--config", config(tmp_path, grant(server))) as process:
        waiting = line_of(process.stderr, containing="waiting")
        process.send_signal(number)
        ended, _, stderr = finished(process)

    assert "the code is good for" in waiting
    assert ended == code
    assert f"interrupted; {UNCHANGED}" in stderr
    assert stored(tmp_path) is None


def test_a_server_that_is_not_there_exits_75(tmp_path):
    with AuthorizationServer() as server:
        text = grant(server)
    result = command("login", "chat", "--config", config(tmp_path, text))

    assert result.returncode == os.EX_TEMPFAIL
    assert "refused the connection" in result.stderr


def test_a_client_that_the_server_does_not_know_exits_78(tmp_path, server):
    text = grant(server).replace('"tv"', '"stranger"')
    result = command("login", "chat", "--config", config(tmp_path, text))

    assert result.returncode == os.EX_CONFIG
    assert "client_id" in result.stderr


def test_a_server_that_issues_no_refresh_token_exits_76(tmp_path, server):
    server.client("tv").grants = tuple(one for one in server.client("tv").grants if one != "refresh_token")
    with logging_in(server, "chat", "--config", config(tmp_path, grant(server))) as process:
        server.decide(approve=True)
        code, _, stderr = finished(process)

    assert code == 76
    assert "offline_access" in stderr


def test_nobody_is_asked_to_approve_what_cannot_be_stored(tmp_path, server):
    path = config(tmp_path, grant(server))
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "chat.grant").write_text("{}")
    (tmp_path / "state" / "chat.grant").chmod(0o600)
    result = command("login", "chat", "--config", path)

    assert result.returncode == os.EX_CANTCREAT
    assert f"{tmp_path}/state/chat.grant" in result.stderr
    assert not server.logins


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), os.EX_USAGE, "NAME is missing"),
        (("nobody",), os.EX_DATAERR, "no such token; known are chat, file, both, two"),
        (("file",), os.EX_DATAERR, "file needs no login: its source is file; those that do: chat, both, two"),
        (("two",), os.EX_USAGE, "say with --link which source of two: a, b"),
        (("both", "--link", "plain"), os.EX_DATAERR, "those that do: first"),
        (("chat", "--link", "first"), os.EX_DATAERR, "none does"),
    ],
)
def test_whatever_needs_no_login_is_told_with_what_does(tmp_path, server, args, code, words):
    plain = 'type = "file"\npath = "/dev/null"\n'
    path = config(
        tmp_path,
        grant(server),
        f"[tokens.file.source]\n{plain}",
        f'[tokens.both.source]\ntype = "chain"\n[tokens.both.source.sources.plain]\n{plain}',
        grant(server, name="both", at="source.sources.first"),
        '[tokens.two.source]\ntype = "chain"\n',
        grant(server, name="two", at="source.sources.a"),
        grant(server, name="two", at="source.sources.b"),
    )
    result = command("login", *args, "--config", path)

    assert result.returncode == code
    assert words in result.stderr
    assert not server.requests


def test_the_only_link_that_needs_a_login_gets_it(tmp_path, server):
    chain = '[tokens.chat.source]\ntype = "chain"\n'
    plain = '[tokens.chat.source.sources.plain]\ntype = "file"\npath = "/dev/null"\n'
    path = config(tmp_path, chain, plain, grant(server, at="source.sources.tv"))
    with logging_in(server, "chat", "--json", "--config", path) as process:
        server.decide(approve=True)
        _, stdout, _ = finished(process)

    assert json.loads(stdout)["link"] == "tv"
    assert stored(tmp_path, "chat.tv").refresh_token is not None


def test_a_sidecar_that_runs_has_the_token_at_once(tmp_path, server):
    path = config(tmp_path, grant(server))
    with begun("serve", "--config", path) as sidecar:
        line_of(sidecar.stderr, containing="refreshRefused")
        with logging_in(server, "chat", "--json", "--config", path) as process:
            server.decide(approve=True)
            code, stdout, stderr = finished(process)
        shown = command("get", "chat", at=tmp_path / "api.sock").stdout.strip()
        sidecar.terminate()
        sidecar.communicate(timeout=20)

    assert code == 0, stderr
    assert json.loads(stdout)["sidecar"]["refreshed"]
    assert shown == stored(tmp_path).access_token.reveal()
    # What the login brought is used; nothing was spent for the sidecar.
    assert server.counts["issued"] == 1


def test_a_sidecar_that_looks_in_another_store_is_not_said_to_have_the_login(tmp_path, server):
    table = grant(server).replace("device_code", "refresh_token")
    path = config(tmp_path, table, f'refresh_token = "{server.login("tv")}"')
    with begun("serve", "--config", path) as sidecar:
        line_of(sidecar.stderr, containing="tokenUpdated")
        elsewhere = tmp_path / "elsewhere.toml"
        elsewhere.write_text(Path(config(tmp_path, grant(server))).read_text().replace("/state", "/other"))
        with logging_in(server, "chat", "--json", "--config", str(elsewhere)) as process:
            server.decide(approve=True)
            _, stdout, _ = finished(process)
        sidecar.terminate()
        sidecar.communicate(timeout=20)

    said = json.loads(stdout)["sidecar"]
    assert (said["running"], said["refreshed"]) == (True, False)
    assert "write directory under [store]" in said["message"]


def test_in_a_terminal_the_code_is_large_and_the_time_runs(tmp_path, server):
    path = config(tmp_path, grant(server))
    with InTerminal("login", "chat", "--config", path, columns=80, **SCREENLESS) as shown:
        end = shown.until("waiting for your approval")
        shown.until("left", after=end)
        [login] = server.logins.values()
        page = shown.raw
        server.decide(approve=True)
        code = shown.ended()
        rest = shown.raw[len(page) :]

    assert code == 0
    assert all(line.strip() in page for line in large(login.user_code, 70))
    assert login.user_code in page
    assert "logged in for chat" in rest
    # The cursor, which is hidden while it waits, is shown again.
    assert rest.rfind("\x1b[?25h") > rest.rfind("\x1b[?25l")


def test_ctrl_c_in_a_terminal_gives_it_back(tmp_path, server):
    path = config(tmp_path, grant(server))
    with InTerminal("login", "chat", "--config", path, columns=60, NO_COLOR="1", **SCREENLESS) as shown:
        shown.until("waiting for your approval")
        shown.type("\x03")
        code = shown.ended()
        raw = shown.raw

    assert code == 130
    assert UNCHANGED in " ".join(raw.split())
    assert raw.rfind("\x1b[?25h") > raw.rfind("\x1b[?25l")
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", raw) is None


def test_without_a_screen_no_browser_is_opened():
    said = {
        "asked": open_page("https://a.example/", is_wanted=False, environ={"DISPLAY": ":0"}),
        "ssh": open_page(
            "https://a.example/", is_wanted=True, environ={"SSH_CONNECTION": "x", "DISPLAY": ":0"}
        ),
        "none": open_page("https://a.example/", is_wanted=True, environ={}),
    }

    assert OPENED not in said.values()
    assert "as you asked" in said["asked"]
    assert "SSH" in said["ssh"]
    assert "$DISPLAY" in said["none"]


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "javascript:alert(1)", "-flag", "http://other.example/", "https://[", "ftp://a"],
)
def test_only_pages_are_opened_whatever_the_server_says(url):
    assert "not an https:// one" in open_page(url, is_wanted=True, environ={"DISPLAY": ":0"})


def test_a_browser_opens_the_page_that_holds_the_code(tmp_path, server):
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}.new && mv {seen}.new {seen}\n')
    browser.chmod(0o700)
    path = config(tmp_path, grant(server))
    variables = SCREENLESS | {"BROWSER": f"{browser} %s"}
    with begun("login", "chat", "--config", path, env=environ(**variables)) as process:
        eventually(seen.exists, within_s=20.0)
        server.decide(approve=True)
        _, _, stderr = finished(process)

    [login] = server.logins.values()
    assert seen.read_text().endswith(f"user_code={login.user_code}")
    assert "the page was opened in a browser here" in stderr


@pytest.mark.parametrize("text", ["", "abc", "WDJB MJHT", "WDJB-MJHT-TOO-LONG-FOR-THE-LINE", "ÄÖ"])
def test_what_has_no_letters_or_does_not_fit_is_not_drawn(text):
    assert large(text, 60) == ()


def test_each_sign_of_a_code_has_a_picture_of_its_own():
    signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
    pictures = {large(sign, 10) for sign in signs}

    assert len(pictures) == len(signs)
    assert all(len(line) <= 5 for picture in pictures for line in picture)
