"""What goes wrong around the sidecar: backends, disks, logs, clocks, its own death. The real process."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from commanding import command
from delivering import mounted, needs_root
from serving import parts_of
from sidecar import a_config, a_directory, a_request, eventually, running, started

from token_keeper import TransientFetchError
from token_keeper.sidecar._household import Household
from token_keeper.testing import BackendFault, FakeBackend, ScriptedSource, VirtualClock, VirtualLoop

QUICK = 'policy = { min_interval = "100ms", backoff_min = "100ms", backoff_max = "1s", splay = false }'
NOWHERE = "http://127.0.0.1:9/token"
HOUR = 3_600


def spent_s(sidecar) -> float:
    """Return the CPU time that the process has used, in seconds."""
    fields = Path(f"/proc/{sidecar.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def refreshed(sidecar, name="chat"):
    """Have the token of *name* fetched, and return the answer."""
    return sidecar.ask("POST", f"/v1/tokens/{name}/refresh?wait=5")


def row_of(sidecar):
    """Return what the status says of the only token."""
    (row,) = sidecar.ask("GET", "/v1/tokens").json["tokens"]
    return row


def a_sink(path) -> str:
    return f'[[tokens.chat.sinks]]\ntype = "file"\npath = "{path}"\n'


# Its own death.


def test_kill_9_leaves_nothing_that_confuses_the_next_one_or_its_clients():
    with FakeBackend() as backend, a_directory() as directory:
        out = directory / "out"
        out.mkdir()
        config = a_config(backend.url, extra=QUICK) + a_sink(out / "token")
        with running(config, directory=directory) as sidecar:
            sidecar.until_token()
            for _ in range(3):
                refreshed(sidecar)
            with sidecar.connect() as stream:
                stream.send(a_request("GET", "/v1/events?history=60"))
                stream.head()
                last_id = re.search(rb"id: (\S+)", stream.until(b"tokenUpdated"))[1].decode()
            etag = sidecar.until_token().headers["etag"]
            before = sidecar.until_token().json
            assert before["generation"] == 4
            sidecar.process.kill()
            sidecar.process.wait()
        assert sidecar.socket_path.is_socket()
        (out / ".token-keeper.0123456789abcdef").write_text("half of a tok")
        with running(config, directory=directory) as sidecar:
            again = sidecar.until_token()
            assert (again.json["generation"], again.json["start"] != before["start"]) == (1, True)
            assert again.headers["etag"] != etag
            conditional = {"If-None-Match": etag}
            assert sidecar.ask("GET", "/v1/tokens/chat", headers=conditional).status == 200
            assert sidecar.ask("GET", "/v1/tokens/chat?after_generation=4&wait=30").json["generation"] == 1
            denial = {"generation": 1, "start": before["start"]}
            assert (
                sidecar.ask("POST", "/v1/tokens/chat/denied", json_body=denial).json["verdict"]
                == "superseded"
            )
            with sidecar.connect() as stream:
                stream.send(a_request("GET", "/v1/events", headers={"Last-Event-ID": last_id}))
                stream.head()
                assert b"event: snapshot" in stream.until(b"data:")
            eventually(
                lambda: [path.name for path in out.iterdir()] == ["token"], what="what was left is swept"
            )


def test_of_five_that_start_at_once_on_one_socket_one_lives():
    with FakeBackend() as backend, a_directory() as directory, a_directory() as place:
        config = a_config(backend.url, socket_path=place / "run" / "api.sock")
        beginnings = []
        try:
            for number in range(5):
                (directory / str(number)).mkdir()
                beginning = started(directory / str(number), config)
                beginnings.append((beginning, beginning.__enter__()))
            processes = [sidecar.process for _, sidecar in beginnings]
            eventually(lambda: [process.poll() for process in processes].count(73) == 4, what="four give up")
            (living,) = [sidecar for _, sidecar in beginnings if sidecar.process.poll() is None]
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(place / "run" / "api.sock"))
            living.process.terminate()
            assert living.process.wait(5) == 0
            assert not (place / "run" / "api.sock").exists()
        finally:
            for beginning, _ in beginnings:
                beginning.__exit__(None, None, None)


def test_what_a_stopped_process_wakes_up_with_is_judged_before_it_is_given_out():
    with FakeBackend(lifetime=1.5) as backend, running(a_config(backend.url, extra=QUICK)) as sidecar:
        sidecar.until_token()
        backend.down()
        sidecar.signal(signal.SIGSTOP)
        waiting = sidecar.connect()
        waiting.send(a_request("GET", "/v1/tokens/chat"))
        # The token's lifetime passes in real time: a stopped process has no clock that could be moved.
        time.sleep(2.0)
        sidecar.signal(signal.SIGCONT)
        assert waiting.answer().status == 503
        waiting.close()
        backend.up()
        sidecar.until_token()
        assert sidecar.ask("GET", "/healthz").status == 200
        assert len(sidecar.log) < 40


# Disks.


@needs_root
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_sink_that_cannot_be_written_is_told_once_and_written_when_it_can(trouble):
    with (
        FakeBackend() as backend,
        a_directory() as directory,
        mounted(directory / "disk", "size=64k") as disk,
    ):
        config = a_config(backend.url, extra=QUICK) + a_sink(disk / "token")
        with running(config, directory=directory) as sidecar:
            eventually((disk / "token").exists, what="the file is written")
            eventually(lambda: sidecar.ask("GET", "/readyz").status == 200, what="it is ready")
            before = (disk / "token").read_text()
            if trouble == "full":
                fill(disk / "filler")
            else:
                subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            assert refreshed(sidecar).status == 200
            reasons = eventually(lambda: not_ready(sidecar), what="it is not ready")
            assert str(disk / "token") in reasons
            assert (disk / "token").read_text() == before
            assert command("status", "--quiet", at=sidecar.socket_path).returncode == 1
            if trouble == "full":
                (disk / "filler").unlink()
            else:
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            eventually(lambda: sidecar.ask("GET", "/readyz").status == 200, what="it is ready again")
            assert (disk / "token").read_text() == sidecar.until_token().json["token"]
            assert [path.name for path in disk.iterdir()] == ["token"]
            (line,) = sidecar.logged("sinkFailed")
            assert ("make room" in line["error"]) or ("writable" in line["error"])
            assert len(sidecar.logged("sinkRecovered")) == 1


def fill(path) -> None:
    """Write into *path* until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def not_ready(sidecar) -> str:
    """Return why it is not ready; empty if it is."""
    answer = sidecar.ask("GET", "/readyz")
    return answer.body.decode() if answer.status == 503 else ""


@pytest.mark.parametrize("stderr", ["full", "gone", "unread", "closed"])
def test_a_log_that_cannot_be_written_costs_lines_and_no_token(stderr):
    with FakeBackend() as backend, a_directory() as directory:
        ours, theirs = os.pipe()
        full = os.open("/dev/full", os.O_WRONLY)
        how = {
            "full": lambda: os.dup2(full, 2),
            "gone": lambda: os.dup2(theirs, 2),
            "unread": lambda: os.dup2(theirs, 2),
            "closed": lambda: os.close(2),
        }[stderr]
        if stderr == "gone":
            os.close(ours)
        config = a_config(backend.url, extra=QUICK)
        with running(config, "--log-level", "debug", directory=directory, preexec_fn=how) as sidecar:
            sidecar.until_token()
            for _ in range(600 if stderr == "unread" else 10):
                assert sidecar.ask("GET", "/healthz").status == 200
            if stderr == "unread":
                # A pipe holds 64 KiB; what came after that is counted, and said once there is room again.
                assert os.read(ours, 1 << 20).count(b"\n") > 100
                eventually(
                    lambda: sidecar.ask("GET", "/healthz") and b"logLinesLost" in os.read(ours, 1 << 20)
                )
            assert sidecar.stop() == 0
        for descriptor in {theirs, full, *([] if stderr == "gone" else [ours])}:
            os.close(descriptor)


# Backends.


def test_a_backend_that_is_down_is_said_everywhere_and_costs_next_to_nothing():
    with FakeBackend() as backend, a_directory() as directory:
        backend.down()
        with running(a_config(backend.url), directory=directory) as sidecar:
            eventually(lambda: row_of(sidecar)["failures"], what="the first fetch failed")
            before = spent_s(sidecar)
            begun = time.monotonic()
            answer = sidecar.ask("GET", "/v1/tokens/chat")
            assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (503, True)
            assert "chat" in not_ready(sidecar)
            got = command("get", "chat", at=sidecar.socket_path)
            assert (got.returncode, got.stdout) == (75, "")
            shown = command("status", at=sidecar.socket_path)
            assert shown.returncode == 1
            for said in (got.stderr, shown.stdout, row_of(sidecar)["last_error"]):
                assert "refused" in said or "connect" in said, said
            assert command("status", "--live", "--quiet", at=sidecar.socket_path).returncode == 0
            assert (
                command("run", "chat", "--wait", "200ms", "--", "true", at=sidecar.socket_path).returncode
                == 75
            )
            # Two seconds of an outage stand for a long one: what spins, spins at once.
            time.sleep(max(0.0, 2.0 - (time.monotonic() - begun)))
            took_s = time.monotonic() - begun
            assert spent_s(sidecar) - before < 0.1 * took_s + 0.05
            assert len(sidecar.log) < 12
            backend.up()
            sidecar.until_token()
            eventually(lambda: sidecar.ask("GET", "/readyz").status == 200, what="it is ready")


def test_a_day_without_a_backend_is_a_few_hundred_fetches_with_a_line_each():
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record)

    async def day(clock) -> int:
        logger = logging.Logger("test", logging.INFO)  # noqa: LOG001 - in no tree, so that none else hears it
        logger.addHandler(Lines())
        source = ScriptedSource(TransientFetchError("nobody is there"))
        async with Household((parts_of("chat", source),), clock=clock, logger=logger) as household:
            await asyncio.sleep(24 * HOUR)
            assert household.is_live
            assert household.tokens["chat"].snapshot.last_error
            return household.tokens["chat"].tally.fetches["transient"]

    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        fetches = runner.run(day(clock))
    # One in five minutes; with the most jitter two.
    assert 24 * 12 <= fetches <= 24 * 24 + 20
    assert len(lines) == fetches


GARBAGE = {
    "html": BackendFault.HTML,
    "empty": BackendFault.EMPTY,
    "cut": BackendFault.NOT_JSON,
    "huge": BackendFault.HUGE,
    "bomb": BackendFault.GZIP_BOMB,
    "endless": BackendFault.ENDLESS,
    "reset": BackendFault.RESET,
    "hanging": BackendFault.STALL_BODY,
    "null": b"null",
    "nul bytes": b"\0" * 5_000,
    "not utf-8": b'{"token": "\xff\xfe"}',
    "log lines": b'{"token": "a\\n{\\"event\\":\\"forged\\"}"}',
    "deep": b"[" * 100_000,
    "a number": b'{"token": 7}',
}


def test_whatever_a_backend_answers_the_token_in_hand_is_served_and_the_reason_is_shown():
    with FakeBackend() as backend:
        config = a_config(backend.url, extra=QUICK).replace('/token"', '/token"\ntimeout = "200ms"')
        with running(config) as sidecar:
            sidecar.until_token()
            for what, fault in GARBAGE.items():
                token = sidecar.until_token().json["token"]
                if isinstance(fault, BackendFault):
                    backend.fail(fault, times=None)
                else:
                    backend.answer(body=fault, times=None)
                assert refreshed(sidecar).status == 503, what
                assert "; a valid token stays. " in row_of(sidecar)["last_error"], what
                assert sidecar.until_token().json["token"] == token
                assert not not_ready(sidecar), what
                backend.recover()
                eventually(lambda: not row_of(sidecar)["failures"], what=f"it recovers from {what}")
            assert not sidecar.logged("forged")
            assert "Traceback" not in sidecar.log_text


def without_network() -> None:
    """Give the process that is about to be the sidecar a network of its own, in which nobody lives."""
    import ctypes

    new_network = 0x40000000
    if ctypes.CDLL(None, use_errno=True).unshare(new_network):
        raise OSError(ctypes.get_errno(), "unshare")


@needs_root
def test_a_name_that_cannot_be_looked_up_is_a_failed_fetch_with_the_hosts_name():
    config = a_config("https://backend.example/token")
    with running(config, preexec_fn=without_network) as sidecar:
        row = eventually(lambda: (row := row_of(sidecar))["failures"] and row, what="the fetch failed")
        assert "backend.example" in row["last_error"]
        assert sidecar.ask("GET", "/healthz").status == 200
        assert sidecar.stop() == 0


# Clocks.


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """A library that, preloaded, moves a process's clocks."""
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("shim") / "clock_shim.so"
    source = Path(__file__).with_name("clock_shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return library


@contextmanager
def with_clocks(shim, config, directory):
    """Run a sidecar; the second value moves its wall and its boot clock by so many seconds."""
    offsets = directory / "offsets"
    offsets.write_bytes(bytes(16))

    def move(wall_s: int, boot_s: int) -> None:
        with offsets.open("r+b") as file:
            file.write(struct.pack("=qq", wall_s, boot_s))

    env = {"LD_PRELOAD": str(shim), "CLOCK_OFFSETS": str(offsets)}
    with running(config, directory=directory, env=env) as sidecar:
        yield sidecar, move


# Wall and boot clock, whether the backend is up, and the status of the token in the end.
JUMPS = [
    (HOUR, 0, True, "fresh"),
    (HOUR, 0, False, "expired"),
    (-HOUR, 0, True, "fresh"),
    (-HOUR, 0, False, "fresh"),
    (HOUR, HOUR, True, "fresh"),
    (HOUR, HOUR, False, "expired"),
]


def test_a_clock_that_jumps_causes_one_fetch_and_no_token_after_its_end(shim):
    # All at once: a jump is noticed within 5 s, and each case would take them.
    with ExitStack() as stack:
        cases = []
        for wall_s, boot_s, is_up, status in JUMPS:
            backend = stack.enter_context(FakeBackend(lifetime=600))
            directory = stack.enter_context(a_directory())
            sidecar, move = stack.enter_context(with_clocks(shim, a_config(backend.url), directory))
            first = sidecar.until_token().json
            assert abs(first["expires_at"] - time.time() - 600) < 5
            if not is_up:
                backend.down()
            move(wall_s, boot_s)
            if boot_s:
                # An hour has passed, and nobody had to notice first.
                assert sidecar.ask("GET", "/v1/tokens/chat").status == 503
            cases.append((sidecar, backend, first, is_up, status))
        for sidecar, backend, first, is_up, status in cases:
            eventually(lambda sidecar=sidecar: sidecar.logged("clockJumped"), what="the jump is seen")
            looks = row_of if is_up else failed_row
            eventually(
                lambda looks=looks, sidecar=sidecar, found=(status, 1 + is_up): (
                    (row := looks(sidecar)) and (row["status"], row["generation"]) == found and row
                ),
                what=status,
            )
            answer = sidecar.ask("GET", "/v1/tokens/chat")
            assert answer.status == (200 if status == "fresh" else 503)
            assert len(backend.requests) <= 2
            assert len(sidecar.logged("clockJumped")) == 1
            assert len(sidecar.log) < 12
            if answer.status == 200:
                assert answer.json["expires_in"] <= 600
                assert (answer.json["token"] == first["token"]) is not is_up


def failed_row(sidecar):
    """Return the token's row once a fetch failed."""
    row = row_of(sidecar)
    return row if row["failures"] else None
