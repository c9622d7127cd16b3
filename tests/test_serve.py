"""`token-keeper serve` as a process: how it starts, reloads and ends. Real files, sockets and signals."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sidecar import COMMAND, a_config, a_directory, a_request, eventually, running, started

from token_keeper.testing import FakeBackend

OK, NO_INPUT, UNAVAILABLE, CANNOT_CREATE, NOT_ALLOWED, BAD_CONFIG = 0, 66, 69, 73, 77, 78
STOP_S = 5.0


def ended(directory, config, *options, **more):
    """Run `serve` until it ends by itself; return its exit code and what it said."""
    with started(directory, config, *options, **more) as sidecar:
        return sidecar.process.wait(10), sidecar.log_text


def proc(sidecar, name):
    """Return what the kernel says of the process."""
    return Path(f"/proc/{sidecar.process.pid}/{name}").read_text()


# Starting.


def test_it_says_in_one_line_where_it_is_and_nothing_on_standard_output():
    with FakeBackend() as backend, a_directory() as directory:
        with running(
            a_config(backend.url, "chat", "voice"), directory=directory, stdout=subprocess.PIPE
        ) as sidecar:
            sidecar.until_token()
            (line,) = sidecar.logged("sidecarStarted")
            assert line["socket"] == str(sidecar.socket_path)
            assert (line["tokens"], line["pid"]) == (2, sidecar.process.pid)
            assert "listen" not in line
            assert sidecar.stop() == OK
            assert sidecar.process.stdout.read() == b""
        assert [line["event"] for line in sidecar.log][-2:] == ["sidecarStopping", "sidecarStopped"]


def test_the_first_token_is_there_soon(capsys):
    with FakeBackend() as backend:
        begun = time.monotonic()
        with running(a_config(backend.url)) as sidecar:
            answers = time.monotonic() - begun
            sidecar.until_token()
            has_token = time.monotonic() - begun
            resident = proc(sidecar, "status").partition("VmRSS:")[2].split()[0]
    with capsys.disabled():
        print(
            f"[cold start: answers after {answers:.3f} s, token after {has_token:.3f} s, {resident} kB] ",
            end="",
        )


def test_options_win_over_the_file():
    with FakeBackend() as backend, a_directory() as directory:
        config = a_config(backend.url, socket_path=directory / "file.sock", server='log_format = "console"')
        with running(config, "--socket", str(directory / "option.sock"), directory=directory) as sidecar:
            assert sidecar.ask("GET", "/healthz").status == 200
            assert not (directory / "file.sock").exists()
            assert sidecar.logged("sidecarStarted")


def test_every_problem_of_the_configuration_is_printed():
    with a_directory() as directory:
        config = '[server]\nsokcet = "/x"\n[tokens.chat.source]\ntype = "http"\nurl = 7\n'
        code, said = ended(directory, config)
        assert code == BAD_CONFIG
        assert "server.sokcet" in said
        assert "tokens.chat.source.url" in said


def test_a_file_that_is_not_there_is_another_error():
    with a_directory() as directory:
        done = subprocess.run(
            [*COMMAND, "--config", str(directory / "none.toml")], capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (NO_INPUT, b"")


@pytest.mark.parametrize("package", ["uvicorn", "starlette", "msgspec", "httptools"])
def test_without_the_extra_it_says_which_line_installs_it(package):
    program = (
        f"import sys; sys.modules[{package!r}] = None; from token_keeper.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "serve", "--config", "x.toml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == UNAVAILABLE
    assert "pip install 'token-keeper[sidecar]'" in done.stderr


def test_a_second_server_leaves_the_first_alone():
    with FakeBackend() as backend, running(a_config(backend.url)) as first, a_directory() as directory:
        code, said = ended(directory, a_config(backend.url, socket_path=first.socket_path))
        assert code == CANNOT_CREATE
        assert f"process {first.process.pid}" in said
        first.until_token()


def test_a_place_that_others_can_write_is_refused():
    with FakeBackend() as backend, a_directory() as directory:
        place = directory / "open"
        place.mkdir()
        place.chmod(0o777)
        code, said = ended(directory, a_config(backend.url, socket_path=place / "api.sock"))
        assert code == NOT_ALLOWED
        assert "others can write" in said


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "192.168.0.1:80", ":8750", "8750", "127.0.0.1:x", "[::]:0"])
def test_tcp_elsewhere_than_on_loopback_is_refused(listen):
    with FakeBackend() as backend, a_directory() as directory:
        code, _ = ended(directory, a_config(backend.url), "--listen", listen)
        assert code == BAD_CONFIG
        assert not (directory / "run" / "token-keeper" / "api.sock").exists()


def test_after_kill_9_the_next_one_takes_over():
    with FakeBackend() as backend, a_directory() as directory:
        with running(a_config(backend.url), directory=directory) as sidecar:
            first = sidecar.until_token().json
            sidecar.process.kill()
            sidecar.process.wait()
            assert sidecar.socket_path.is_socket()
        with running(a_config(backend.url), directory=directory) as sidecar:
            second = sidecar.until_token().json
            assert second["start"] != first["start"]


def test_the_process_writes_no_core_and_lets_nobody_look_into_it():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        limits = proc(sidecar, "limits").splitlines()
        (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
        assert core[4:6] == ["0", "0"]
        token = sidecar.until_token().json["token"]
        for name in ("cmdline", "environ"):
            assert token not in proc(sidecar, name)
    program = (
        "import ctypes; from token_keeper.sidecar._hardening import keep_memory_private as keep; keep();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_too_few_files_for_all_connections_are_said_at_the_start():
    import resource

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    with FakeBackend() as backend, running(a_config(backend.url), preexec_fn=few) as sidecar:
        (line,) = sidecar.logged("openFilesLimit")
        assert (line["limit"], line["needed"]) == (200, 384)


def test_the_limit_of_files_is_raised_where_that_is_allowed():
    import resource

    def some():
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 4096))

    with FakeBackend() as backend, running(a_config(backend.url), preexec_fn=some) as sidecar:
        assert not sidecar.logged("openFilesLimit")
        limits = proc(sidecar, "limits").splitlines()
        assert [line.split()[3] for line in limits if line.startswith("Max open files")] == ["384"]


# Keys.


def test_the_key_for_tcp_is_made_for_us_alone_and_kept():
    with FakeBackend() as backend, a_directory() as directory:
        keys = set()
        for _ in range(2):
            with running(a_config(backend.url), "--listen", "127.0.0.1:0", directory=directory) as sidecar:
                file = sidecar.socket_path.parent / "access-key"
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
                assert sidecar.ask_tcp("GET", "/v1/tokens", key=sidecar.access_key).status == 200
                assert sidecar.access_key not in sidecar.log_text
                keys.add(sidecar.access_key)
        assert len(keys) == 1


def test_a_key_file_that_others_can_read_ends_the_start():
    with FakeBackend() as backend, a_directory() as directory:
        file = directory / "key"
        file.write_text("A" * 43 + "\n")
        file.chmod(0o644)
        server = f'listen = "127.0.0.1:0"\naccess_key_file = "{file}"'
        code, said = ended(directory, a_config(backend.url, server=server))
        assert code == BAD_CONFIG
        assert "0644" in said
        assert "AAAA" not in said


# Reloading.


def reloaded(sidecar, config, event):
    sidecar.config_path.write_text(config)
    before = len(sidecar.logged(event))
    sidecar.signal(signal.SIGHUP)
    eventually(lambda: len(sidecar.logged(event)) > before, what=event)
    return sidecar.logged(event)[-1]


def test_sighup_reads_the_configuration_again():
    with FakeBackend() as backend, running(a_config(backend.url, "chat", "voice")) as sidecar:
        chat = sidecar.until_token("chat").json
        line = reloaded(sidecar, a_config(backend.url, "chat", "video"), "configReloaded")
        assert (line["added"], line["changed"], line["removed"]) == (["video"], [], ["voice"])
        sidecar.until_token("video")
        assert sidecar.ask("GET", "/v1/tokens/voice").status == 404
        assert sidecar.ask("GET", "/v1/tokens/chat").json["token"] == chat["token"]


@pytest.mark.parametrize(
    "broken", ["[tokens.chat", "[tokens.chat]\nprofile = 7", '[server]\nlisten = "0.0.0.0:1"\n']
)
def test_sighup_with_a_broken_file_changes_nothing(broken):
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        token = sidecar.until_token().json["token"]
        eventually(lambda: sidecar.ask("GET", "/readyz").status == 200)
        line = reloaded(sidecar, broken, "reloadFailed")
        assert line["level"] == "error"
        assert sidecar.logged("configProblem")
        assert sidecar.ask("GET", "/readyz").status == 200
        assert sidecar.until_token().json["token"] == token
        reloaded(sidecar, a_config(backend.url), "configReloaded")


def test_a_file_that_is_gone_changes_nothing():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        sidecar.until_token()
        sidecar.config_path.unlink()
        sidecar.signal(signal.SIGHUP)
        (line,) = eventually(lambda: sidecar.logged("reloadFailed"))
        assert line["reason"] == "No such file or directory"
        assert sidecar.until_token().status == 200


def test_a_reload_over_the_socket_says_what_it_did():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        sidecar.until_token()
        changed = a_config(backend.url, "chat", "voice", server="max_connections = 99")
        sidecar.config_path.write_text(changed)
        answer = sidecar.ask("POST", "/v1/reload", json_body={})
        assert answer.status == 200
        assert answer.json["added"] == ["voice"]
        assert answer.json["restart_needed"] == ["server.max_connections"]
        assert sidecar.logged("restartNeeded")[0]["keys"] == ["server.max_connections"]
        sidecar.config_path.write_text("[tokens.chat]\nprofile = 7\nfoo = 1")
        answer = sidecar.ask("POST", "/v1/reload", json_body={})
        assert answer.status == 422
        assert {error["key"] for error in answer.json["errors"]} >= {"tokens.chat.profile", "tokens.chat.foo"}


def test_options_of_the_command_line_are_no_change_of_the_file():
    with FakeBackend() as backend, running(a_config(backend.url), "--listen", "127.0.0.1:0") as sidecar:
        assert sidecar.ask("POST", "/v1/reload", json_body={}).json["restart_needed"] == []


def test_keys_are_read_again_with_the_configuration():
    with FakeBackend() as backend, running(a_config(backend.url), "--listen", "127.0.0.1:0") as sidecar:
        file = sidecar.socket_path.parent / "access-key"
        former, new = sidecar.access_key, "B" * 43
        file.write_text("not a key\n")
        answer = sidecar.ask("POST", "/v1/reload", json_body={})
        assert (answer.status, answer.json["errors"][0]["key"]) == (422, "server")
        assert sidecar.ask_tcp("GET", "/v1/tokens", key=former).status == 200
        file.write_text(new + "\n")
        assert sidecar.ask("POST", "/v1/reload", json_body={}).status == 200
        assert sidecar.ask_tcp("GET", "/v1/tokens", key=new).status == 200
        assert sidecar.ask_tcp("GET", "/v1/tokens", key=former).status == 401


def test_many_reloads_at_once_are_done_one_after_the_other():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        sidecar.until_token()
        talks = [sidecar.connect() for _ in range(10)]
        for talk in talks:
            talk.send(a_request("POST", "/v1/reload", json_body={}))
            sidecar.signal(signal.SIGHUP)
        assert [talk.answer().status for talk in talks] == [200] * 10
        for talk in talks:
            talk.close()


# Ending.


def test_it_ends_within_5_s_with_waits_streams_and_silent_clients():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        sidecar.until_token()
        stream, wait, idle, slow = (sidecar.connect() for _ in range(4))
        stream.send(a_request("GET", "/v1/events"))
        assert stream.head().status == 200
        wait.send(a_request("GET", "/v1/tokens/chat?after_generation=1&wait=60"))
        slow.send(b"GET /v1/tok")
        idle.ask("GET", "/healthz")
        begun = time.monotonic()
        assert sidecar.stop(within_s=STOP_S) == OK
        took_s = time.monotonic() - begun
        assert wait.answer().status == 503
        assert stream.rest().endswith(b"0\r\n\r\n")
        assert (idle.rest(), slow.rest()) == (b"", b"")
        assert not sidecar.socket_path.exists()
        assert took_s < STOP_S
        for talk in (stream, wait, idle, slow):
            talk.close()


def test_a_client_that_does_not_read_its_stream_delays_no_end():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar, sidecar.connect() as deaf:
        # Nothing of it is read.
        deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.send(a_request("GET", "/openapi.json") * 50 + a_request("GET", "/v1/events"))
        assert sidecar.stop(within_s=STOP_S) == OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_hanging_backend_delays_no_end(number):
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        sidecar.until_token()
        backend.delay = 60
        assert sidecar.ask("POST", "/v1/tokens/chat/refresh").status == 202
        sidecar.signal(number)
        assert sidecar.process.wait(STOP_S) == OK
        assert not sidecar.socket_path.exists()


def test_a_hanging_hook_delays_no_end():
    hook = 'hooks = [{ run = ["/bin/sh", "-c", "trap \'\' TERM; echo $$ > PID; sleep 60"] }]'
    with FakeBackend() as backend, a_directory() as directory:
        pid = directory / "pid"
        config = a_config(backend.url, extra=hook.replace("PID", str(pid)))
        with running(config, directory=directory) as sidecar:
            eventually(lambda: pid.exists() and pid.read_text().strip())
            try:
                assert sidecar.stop(within_s=STOP_S) == OK
                assert not sidecar.socket_path.exists()
            finally:
                subprocess.run(["kill", "-9", pid.read_text().strip()], check=False, capture_output=True)


def test_the_second_signal_ends_it_at_once():
    with FakeBackend() as backend, a_directory() as directory:
        config = a_config(
            backend.url, extra='hooks = [{ run = ["/bin/sh", "-c", "trap \'\' TERM; sleep 3"] }]'
        )
        with running(config, directory=directory) as sidecar:
            sidecar.until_token()
            with sidecar.connect() as wait:
                wait.send(a_request("GET", "/v1/tokens/chat?after_generation=1&wait=60"))
                sidecar.signal(signal.SIGTERM)
                eventually(lambda: sidecar.logged("sidecarStopping"))
                sidecar.signal(signal.SIGTERM)
                code = sidecar.process.wait(1)
            assert code in {OK, 128 + signal.SIGTERM}
            assert not sidecar.socket_path.exists()


def test_a_backend_that_is_down_from_the_start_does_not_keep_us_from_serving():
    with FakeBackend() as backend:
        backend.down()
        with running(a_config(backend.url)) as sidecar:
            assert sidecar.ask("GET", "/healthz").status == 200
            assert sidecar.ask("GET", "/readyz").status == 503
            answer = sidecar.ask("GET", "/v1/tokens/chat")
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            backend.up()
            sidecar.until_token()


# Logging.


def test_console_lines_are_for_people_and_hold_no_token():
    with FakeBackend() as backend, running(a_config(backend.url), log_format="console") as sidecar:
        token = sidecar.until_token().json["token"]
        eventually(lambda: "tokenUpdated" in sidecar.log_text)
        text = sidecar.log_text
        assert f"info    sidecarStarted socket={sidecar.socket_path}" in text
        assert "\x1b" not in text
        assert token not in text


def test_debug_lines_name_each_request_and_no_client():
    with FakeBackend() as backend, running(a_config(backend.url), "--log-level", "debug") as sidecar:
        sidecar.until_token()
        for _ in range(3):
            sidecar.ask("GET", "/v1/tokens/chat")
        with sidecar.connect() as talk:
            talk.ask("GET", "/v1/tokens/chat?by=%0a%7b%22injected%22", headers={"X-Evil": '{"a":1}'})
        lines = eventually(lambda: sidecar.logged("request"))
        assert {line["path"] for line in lines} <= {"/v1/tokens/{name}", "/healthz"}
        assert "injected" not in sidecar.log_text
        assert all(json.loads(line) for line in sidecar.log_text.splitlines())


def test_nothing_that_is_only_for_terminals_is_loaded():
    program = (
        "import sys; from token_keeper.sidecar._lean import import_leanly; import_leanly();"
        "import token_keeper.sidecar._serve, httpx, structlog;"
        "print(sys.modules.keys() & {'rich', 'pygments', 'prometheus_client', 'websockets'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
