"""The sidecar with sources of every type: what is served, what survives its end, what a reload does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from authorization_server import CLIENT_ID, CLIENT_SECRET, AuthorizationServer, Fault
from sidecar import Sidecar, a_directory, eventually, running, started

from token_keeper.testing import FakeBackend, mint

POLICY = '[tokens.{name}.policy]\nbackoff_min = "100ms"\nmin_interval = "100ms"\nsplay = false\n'


@pytest.fixture
def directory():
    with a_directory() as made:
        yield made


def a_store(directory):
    return f'[store]\ndirectory = "{directory}/store"\n'


def a_grant(server, secret_file, refresh_token="", name="user", more=""):
    """Return the table of a token that is kept by a rotating refresh token."""
    seed = f'refresh_token = "{refresh_token}"\n' if refresh_token else ""
    return (
        f'[tokens.{name}.source]\ntype = "oauth2"\ntoken_url = "{server.endpoint()}"\n'
        f'client_id = "{CLIENT_ID}"\nclient_secret = "${{file:{secret_file}}}"\n'
        f'grant = "refresh_token"\n{seed}{more}{POLICY.format(name=name)}'
    )


def secret_in(directory):
    path = directory / "secret"
    path.write_text(CLIENT_SECRET)
    return path


def token_of(sidecar: Sidecar, name: str) -> str:
    return str(sidecar.until_token(name).json["token"])


def row_of(sidecar: Sidecar, name: str) -> dict[str, object]:
    rows = sidecar.ask("GET", "/v1/tokens").json["tokens"]
    return next(row for row in rows if row["name"] == name)


def refreshed(sidecar: Sidecar, name: str = "user") -> str:
    """Have the token refreshed, and return the new one."""
    answer = sidecar.ask("POST", f"/v1/tokens/{name}/refresh?wait=10", json_body={})
    assert answer.status == 200, (answer.body, sidecar.log_text)
    return str(answer.json["token"])


def replaced(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def test_a_command_is_run_and_its_secret_is_not_among_its_arguments(directory):
    secret = directory / "secret"
    secret.write_text("canary-of-the-command")
    program = directory / "print-token"
    program.write_text(
        f'#!/bin/sh\ntr "\\0" " " < /proc/$$/cmdline > {directory}/cmdline\n'
        'printf \'{"access_token": "token-for-%s", "expires_in": 600}\' "$SECRET"\n'
    )
    program.chmod(0o755)
    config = (
        f'[tokens.cloud.source]\ntype = "command"\nrun = ["{program}", "--quiet"]\n'
        f'env = {{ SECRET = "${{file:{secret}}}" }}\n'
    )
    with running(config, directory=directory) as sidecar:
        assert token_of(sidecar, "cloud") == "token-for-canary-of-the-command"
        assert 590 <= sidecar.until_token("cloud").json["expires_in"] <= 600
        shown = sidecar.ask("GET", "/v1/tokens").raw + sidecar.ask("GET", "/metrics").raw

    assert "--quiet" in (directory / "cmdline").read_text()
    for text in (shown.decode(), sidecar.log_text, (directory / "cmdline").read_text()):
        assert "canary" not in text


def test_a_file_that_is_swapped_below_a_link_is_served_two_seconds_later(directory):
    """As Kubernetes does it: the link to the directory is renamed. A look a second takes a second or two."""
    for name in ("one", "two"):
        (directory / name).mkdir()
        (directory / name / "token").write_text(f"{mint(lifetime=600, jti=name)}\n")
    (directory / "data").symlink_to("one")
    (directory / "token").symlink_to("data/token")
    config = f'[tokens.pod.source]\ntype = "file"\npath = "{directory}/token"\n'
    with running(config, directory=directory) as sidecar:
        first = sidecar.until_token("pod").json
        (directory / "next").symlink_to("two")
        (directory / "next").rename(directory / "data")
        began = time.monotonic()
        answer = sidecar.ask("GET", f"/v1/tokens/pod?after_generation={first['generation']}&wait=8")
        took = time.monotonic() - began

    assert answer.status == 200
    assert answer.json["token"] == (directory / "two" / "token").read_text().strip()
    assert took < 4


def test_a_chain_says_whose_token_is_served(directory):
    agent = directory / "agent"
    with FakeBackend() as backend:
        config = (
            '[tokens.chat.source]\ntype = "chain"\n'
            f'[tokens.chat.source.sources.agent]\ntype = "file"\npath = "{agent}"\n'
            f'[tokens.chat.source.sources.backend]\ntype = "http"\nurl = "{backend.url}"\n'
            f'[tokens.plain.source]\ntype = "http"\nurl = "{backend.url}"\n'
        )
        with running(config, directory=directory) as sidecar:
            sidecar.until_token("plain")
            assert token_of(sidecar, "chat") in backend.issued
            rows = [row_of(sidecar, name)["source"] for name in ("chat", "plain")]
            agent.write_text(mint(lifetime=900))
            eventually(lambda: row_of(sidecar, "chat")["source"] == "agent", what="the agent's token")

    assert rows == ["backend", None]


def test_a_stateless_grant_is_asked_again_and_one_that_is_kept_survives_a_restart(directory):
    with AuthorizationServer() as server:
        table = (
            f'type = "oauth2"\ntoken_url = "{server.endpoint()}"\nclient_id = "{CLIENT_ID}"\n'
            f'client_secret = "{CLIENT_SECRET}"\nauth_method = "post"\nscope = ["read", "write"]\n'
        )
        config = (
            f"{a_store(directory)}[tokens.asked.source]\n{table}[tokens.kept.source]\n{table}keep = true\n"
        )
        tokens = []
        for _ in range(2):
            with running(config, directory=directory) as sidecar:
                tokens.append((token_of(sidecar, "asked"), token_of(sidecar, "kept")))
                assert sidecar.stop() == 0
        posted = server.posted()

    assert tokens[0][0] != tokens[1][0]
    assert tokens[0][1] == tokens[1][1]
    assert [asked["scope"] for asked in posted] == ["read write"] * 3


def test_a_rotating_grant_goes_on_after_a_restart_though_the_configured_token_is_used_up(directory):
    with AuthorizationServer(rotate=True) as server:
        seed = server.login()
        config = a_store(directory) + a_grant(server, secret_in(directory), seed)
        with running(config, directory=directory) as sidecar:
            served = [token_of(sidecar, "user"), refreshed(sidecar)]
            assert sidecar.stop() == 0
        with running(config, directory=directory) as sidecar:
            served += [token_of(sidecar, "user"), refreshed(sidecar)]
            assert sidecar.stop() == 0

        assert served[1] == served[2]
        assert len(set(served)) == 3
        assert server.counts["reuses"] == 0
        assert server.is_alive(seed)


def test_a_grant_survives_that_the_sidecar_is_killed_while_it_renews(directory):
    """Three times in a row, which this server forgives, and the file says so. Four starts take seconds."""
    with AuthorizationServer(rotate=True, reuse_window_s=60, reuse_limit=3) as server:
        seed = server.login()
        config = a_store(directory) + a_grant(server, secret_in(directory), seed, more="replay_limit = 3\n")
        for _ in range(3):
            server.arrived.clear()
            server.release.clear()
            server.fail(Fault.SLOW)
            with started(directory, config) as sidecar:
                eventually(server.arrived.is_set, what="a renewal")
                sidecar.signal(signal.SIGKILL)
                sidecar.process.wait()
                # The server acts on what it got, and nobody hears its answer.
                issued = server.counts["issued"]
                server.release.set()
                eventually(lambda before=issued: server.counts["issued"] > before)
        with running(config, directory=directory) as sidecar:
            served = [token_of(sidecar, "user"), refreshed(sidecar)]

        assert all(server.is_active(token) for token in served)
        assert (server.counts["replays"], server.counts["reuses"]) == (3, 0)
        assert server.is_alive(seed)


def test_a_refresh_token_that_is_sent_again_is_an_event_of_its_own_in_the_log(directory):
    with AuthorizationServer(rotate=True, reuse_window_s=60) as server:
        config = a_store(directory) + a_grant(server, secret_in(directory), server.login())
        with running(config, directory=directory) as sidecar:
            sidecar.until_token("user")
            server.fail(Fault.DROPPED_AFTER)
            refreshed(sidecar)
            (line,) = sidecar.logged("refreshTokenSentAgain")

            assert (line["level"], line["keeper"], line["why"]) == ("warning", "user", "replay")
            assert not sidecar.logged("libraryMessage")


def test_a_reload_changes_the_source_and_keeps_the_grant_and_revokes_nothing(directory):
    with AuthorizationServer(rotate=True) as server:
        secret, seed = secret_in(directory), server.login()
        more = f'revoke = "refresh_token"\nrevocation_url = "{server.endpoint("revocation")}"\n'
        config = a_store(directory) + a_grant(server, secret, seed, more=more)
        with running(config, directory=directory) as sidecar:
            first = token_of(sidecar, "user")
            changed = config.replace(more, f'{more}extra = {{ tenant = "t" }}\ntimeout = "9s"\n')
            sidecar.config_path.write_text(changed)
            answer = sidecar.ask("POST", "/v1/reload", json_body={}).json
            second = refreshed(sidecar)
            asked = server.posted()[-1]
            revoked = server.posted("revocation")
            assert server.is_alive(seed)
            assert sidecar.stop() == 0

        assert (answer["changed"], answer["restart_needed"]) == (["user"], [])
        assert first != second
        assert asked["tenant"] == "t"
        assert revoked == []
        # At the end it is given back, as the configuration asks for.
        assert not server.is_alive(seed)
        assert not list((directory / "store").glob("*.grant"))


def test_a_reload_in_the_middle_of_a_renewal_loses_nothing(directory):
    """The new source waits for the old one's answer."""
    with AuthorizationServer(rotate=True) as server:
        seed = server.login()
        config = a_store(directory) + a_grant(server, secret_in(directory), seed)
        with running(config, directory=directory) as sidecar:
            first = sidecar.until_token("user").json
            server.arrived.clear()
            server.fail(Fault.SLOW)
            sidecar.ask("POST", "/v1/tokens/user/refresh", json_body={})
            assert server.arrived.wait(10)
            sidecar.config_path.write_text(f"{config}lead = '1m'\n")
            assert sidecar.ask("POST", "/v1/reload", json_body={}).json["changed"] == ["user"]
            server.release.set()
            path = f"/v1/tokens/user?after_generation={first['generation']}&wait=10"
            answer = sidecar.ask("GET", path).json
            last = refreshed(sidecar)

        assert answer["generation"] == first["generation"] + 1
        assert server.is_active(last)
        assert server.counts["reuses"] == 0
        assert server.is_alive(seed)


def test_a_file_that_is_read_at_a_load_only_is_read_again_at_a_reload(directory):
    with AuthorizationServer() as server, AuthorizationServer() as other:
        url, secret = directory / "url", secret_in(directory)
        url.write_text(server.endpoint())
        config = (
            f'[tokens.chat.source]\ntype = "oauth2"\ntoken_url = "${{file:{url}}}"\n'
            f'client_id = "{CLIENT_ID}"\nclient_secret = "${{file:{secret}}}"\n'
        )
        with running(config, directory=directory) as sidecar:
            first = sidecar.until_token("chat").json
            same = sidecar.ask("POST", "/v1/reload", json_body={}).json
            url.write_text(other.endpoint())
            changed = sidecar.ask("POST", "/v1/reload", json_body={}).json
            answer = sidecar.ask("GET", f"/v1/tokens/chat?after_generation={first['generation']}&wait=8")

        assert (same["unchanged"], changed["changed"]) == (["chat"], ["chat"])
        assert other.is_active(answer.json["token"])


def test_another_store_needs_a_restart_and_until_then_grants_stay_where_they_are(directory):
    with AuthorizationServer(rotate=True) as server:
        secret = secret_in(directory)
        config = a_store(directory) + a_grant(server, secret, server.login())
        with running(config, directory=directory) as sidecar:
            token_of(sidecar, "user")
            another = config.replace(f"{directory}/store", f"{directory}/other")
            sidecar.config_path.write_text(another + a_grant(server, secret, server.login(), name="added"))
            answer = sidecar.ask("POST", "/v1/reload", json_body={}).json
            token_of(sidecar, "added")
            refreshed(sidecar)

        assert (answer["added"], answer["restart_needed"]) == (["added"], ["store.directory"])
        assert sorted(path.name for path in (directory / "store").glob("*.grant")) == [
            "added.grant",
            "user.grant",
        ]
        assert not (directory / "other").exists()
        assert sidecar.logged("restartNeeded")[0]["keys"] == ["store.directory"]


def test_two_sidecars_on_one_store_take_turns(directory):
    """Each waits for the other now and then: it takes seconds."""
    with AuthorizationServer(rotate=True) as server, a_directory() as elsewhere:
        seed = server.login()
        config = a_store(directory) + a_grant(server, secret_in(directory), seed)
        with running(config, directory=directory) as one, running(config, directory=elsewhere) as two:
            for _ in range(5):
                served = [token_of(sidecar, "user") for sidecar in (one, two)]
                served += [refreshed(sidecar) for sidecar in (one, two)]
                assert all(server.is_active(token) for token in served)

        assert server.counts["reuses"] == 0
        assert server.is_alive(seed)


def test_nothing_secret_of_any_source_is_shown_or_left_behind(directory):
    """Fetches that work and fail, a reload, metrics, logs, arguments, a sealed store. It takes seconds."""
    key = directory / "key"
    key.touch(mode=0o600)
    key.write_bytes(
        subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, check=True).stdout
    )
    with AuthorizationServer(rotate=True) as server:
        secret, seed = secret_in(directory), server.login()
        more = 'extra = { password = "canary-of-a-field" }\n'
        config = (
            f'[server]\nlog_level = "debug"\n[store]\ndirectory = "{directory}/store"\nkey_file = "{key}"\n'
            f"{a_grant(server, secret, seed, more=more)}"
            '[tokens.cloud.source]\ntype = "command"\nrun = ["sh", "-c", "echo $T; echo $T >&2; exit $C"]\n'
            'env = { T = "canary-of-a-program", C = "0" }\nformat = "raw"\ndefault_lifetime = "1h"\n'
        )
        with running(config, directory=directory) as sidecar:
            token_of(sidecar, "user")
            token_of(sidecar, "cloud")
            shown = [arguments_of(sidecar.process.pid)]
            server.fail(Fault.GARBAGE, Fault.CUT, Fault.BROKEN_AFTER)
            for name in ("user", "cloud"):
                sidecar.ask("POST", f"/v1/tokens/{name}/refresh?wait=3", json_body={})
            sidecar.config_path.write_text(config.replace('C = "0"', 'C = "3"'))
            shown.append(sidecar.ask("POST", "/v1/reload", json_body={}).raw.decode())
            shown += [sidecar.ask("GET", path).raw.decode() for path in ("/v1/tokens", "/metrics", "/readyz")]
            assert sidecar.stop() == 0
        issued = [token for one in server.tokens for token in (one.access_token, one.refresh_token) if token]
        secrets = [
            *issued,
            CLIENT_SECRET,
            "canary-of-a-field",
            "canary-of-a-program",
            key.read_text().strip(),
        ]
        stored = "".join(path.read_text() for path in (directory / "store").iterdir())

    assert len(issued) >= 4
    for text in (*shown, sidecar.log_text, stored):
        assert not [one for one in secrets if one in text], text[:2_000]


def arguments_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_check_names_what_is_wrong_with_a_store_before_anything_is_served(directory):
    program = str(Path(sys.executable).with_name("token-keeper"))
    (directory / "keeper.toml").write_text(
        f'[store]\ndirectory = "{directory}/no/store"\n'
        '[tokens.device.source]\ntype = "oauth2"\nissuer = "https://login.example"\n'
        'grant = "device_code"\nclient_id = "tv"\n'
    )
    done = subprocess.run(
        [program, "check", "--json", "--config", str(directory / "keeper.toml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert done.returncode == os.EX_CONFIG
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["key"] == "store.directory"
    assert f"mkdir -p {directory}/no" in problem["problem"]
