"""What a service manager hears from us, and the sockets that it passes. Real sockets play its side."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from sidecar import COMMAND, a_config, a_directory, eventually, running, started

from token_keeper.sidecar._systemd import Notifier, _opened, passed_sockets
from token_keeper.sidecar.server._sockets import CannotListenError
from token_keeper.testing import FakeBackend

BAD_CONFIG = 78


class Manager:
    """The other end of the notification socket."""

    def __init__(self, sock, address):
        self.sock = sock
        self.address = address

    def hears(self, timeout=10.0):
        """Return the next message, as a mapping."""
        self.sock.settimeout(timeout)
        return dict(line.split("=", 1) for line in self.sock.recv(4096).decode().splitlines())

    def hears_until(self, key):
        """Return the next message that has *key*."""
        while key not in (message := self.hears()):
            continue
        return message


@contextmanager
def a_manager(directory, *, is_abstract=False):
    address = (
        f"@token-keeper-test-{os.getpid()}-{time.monotonic_ns()}"
        if is_abstract
        else str(directory / "notify")
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1) if is_abstract else address)
        yield Manager(sock, address)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_it_says_when_it_serves_reloads_and_stops(is_abstract):
    with (
        FakeBackend() as backend,
        a_directory() as directory,
        a_manager(directory, is_abstract=is_abstract) as manager,
    ):
        env = {"NOTIFY_SOCKET": manager.address}
        with started(directory, a_config(backend.url, "chat", "voice"), env=env) as sidecar:
            message = manager.hears()
            assert (message["READY"], message["STATUS"]) == ("1", "Keeping 2 tokens")
            # It serves already when it says so.
            assert sidecar.ask("GET", "/healthz").status == 200
            sidecar.config_path.write_text(a_config(backend.url))
            asked_at = time.monotonic_ns() // 1000
            sidecar.signal(signal.SIGHUP)
            message = manager.hears()
            assert message["RELOADING"] == "1"
            assert asked_at <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert manager.hears() == {"READY": "1", "STATUS": "Keeping 1 tokens"}
            sidecar.config_path.write_text("broken")
            sidecar.signal(signal.SIGHUP)
            assert "RELOADING" in manager.hears()
            assert manager.hears()["READY"] == "1"
            assert sidecar.stop() == 0
            assert manager.hears()["STOPPING"] == "1"


def test_it_gives_signs_of_life_twice_as_often_as_it_has_to():
    with FakeBackend() as backend, a_directory() as directory, a_manager(directory) as manager:
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
        with started(directory, a_config(backend.url), env=env):
            manager.hears_until("WATCHDOG")
            begun = time.monotonic()
            for _ in range(4):
                assert manager.hears() == {"WATCHDOG": "1"}
            assert 0.6 < time.monotonic() - begun < 3.0


def test_a_watchdog_for_another_process_is_none_for_us():
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier.of(environ).watchdog_s is None
    assert environ == {}


@pytest.mark.parametrize("usec", ["", "0", "-1", "x", "1e6", "\u0661"])
def test_an_interval_that_is_none_is_no_watchdog(usec):
    assert Notifier.of({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": usec}).watchdog_s is None


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@nobody-listens", "relative", "vsock:2:1"])
def test_a_manager_that_is_not_there_is_no_error(address):
    notifier = Notifier.of({"NOTIFY_SOCKET": address})
    notifier.ready("x")
    notifier.stopping()


def test_a_manager_that_does_not_listen_delays_nothing():
    with a_directory() as directory, a_manager(directory) as manager:
        notifier = Notifier(manager.address)
        begun = time.monotonic()
        for _ in range(10_000):
            notifier.alive()
        assert time.monotonic() - begun < 5.0


def test_programs_that_we_start_inherit_nothing_of_it():
    with FakeBackend() as backend, a_directory() as directory, a_manager(directory) as manager:
        seen = directory / "seen"
        hook = f'hooks = [{{ run = ["/bin/sh", "-c", "env > {seen}; echo done >> {seen}"] }}]'
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"}
        with running(a_config(backend.url, extra=hook), directory=directory, env=env):
            eventually(lambda: seen.exists() and "done" in seen.read_text())
        text = seen.read_text()
        assert "NOTIFY" not in text
        assert "WATCHDOG" not in text


# Socket activation.

PASSING = """
import os, sys
for place, inherited in enumerate(sys.argv[1].split(",")):
    os.dup2(int(inherited) + 100, 3 + place)
os.environ["LISTEN_FDS"] = str(len(sys.argv[1].split(",")))
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDNAMES"] = "api"
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def passed(directory, config, *sockets, options=()):
    """Start `serve` as systemd does, with *sockets*."""
    config_path = directory / "keeper.toml"
    config_path.write_text(config)
    inherited = []
    for sock in sockets:
        os.dup2(sock.fileno(), sock.fileno() + 100)
        inherited.append(sock.fileno() + 100)
    listed = ",".join(str(sock.fileno()) for sock in sockets)
    runtime = directory / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PASSING,
                listed,
                *COMMAND,
                "--config",
                str(config_path),
                "--log-format=json",
                *options,
            ],
            pass_fds=inherited,
            stderr=log,
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        )
    try:
        yield process
    finally:
        for descriptor in inherited:
            os.close(descriptor)
        process.terminate()
        process.wait(10)


def answered(family, address):
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return client.recv(4096).split(b"\r\n")[0]


def test_a_passed_unix_socket_is_served_and_stays_at_the_end():
    with FakeBackend() as backend, a_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = directory / "passed.sock"
        listener.bind(str(path))
        listener.listen()
        with passed(directory, a_config(backend.url), listener) as process:
            # Who connects before we run waits, and is answered.
            assert answered(socket.AF_UNIX, str(path)) == b"HTTP/1.1 200 OK"
            assert f'"socket": "{path}"' in (directory / "log").read_text()
            assert not (directory / "run" / "token-keeper").exists()
            # Programs that we start do not inherit it.
            flags = Path(f"/proc/{process.pid}/fdinfo/3").read_text().partition("flags:")[2].split()[0]
            assert int(flags, 8) & os.O_CLOEXEC
        assert process.returncode == 0
        assert path.is_socket()


def test_a_passed_tcp_socket_asks_for_the_key():
    with FakeBackend() as backend, a_directory() as directory, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        with passed(directory, a_config(backend.url), listener):
            key = directory / "run" / "token-keeper" / "access-key"
            eventually(key.exists)
            assert answered(socket.AF_INET, address) == b"HTTP/1.1 421 Misdirected Request"


def test_sockets_that_are_for_everybody_end_the_start():
    with FakeBackend() as backend, a_directory() as directory, socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        with passed(directory, a_config(backend.url), listener) as process:
            assert process.wait(10) == BAD_CONFIG
        assert "neither a Unix socket nor TCP on loopback" in (directory / "log").read_text()


def of(kind):
    """Return a function that opens a socket of *kind* instead of a passed one."""

    def make(_):
        family, type_, address, is_listening = kind
        sock = socket.socket(family, type_)
        sock.bind(address)
        if is_listening:
            sock.listen()
        made.append(sock)
        return sock

    made = []
    make.made = made
    return make


@pytest.mark.parametrize(
    "kind",
    [
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0), False),
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), False),
        (socket.AF_UNIX, socket.SOCK_STREAM, "", False),
        (socket.AF_UNIX, socket.SOCK_SEQPACKET, "", True),
        (socket.AF_INET6, socket.SOCK_STREAM, ("::", 0), True),
    ],
    ids=["datagrams", "not listening", "unix, not listening", "packets", "everywhere"],
)
def test_a_passed_socket_of_another_kind_is_an_error(kind):
    make = of(kind)
    with pytest.raises(CannotListenError, match="socket activation") as caught:
        passed_sockets({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}, open_fd=make)
    assert caught.value.code == BAD_CONFIG
    for sock in make.made:
        sock.close()


@pytest.mark.parametrize(
    "environ",
    [
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_PID": str(os.getpid())},
        {},
    ],
)
def test_sockets_for_another_process_are_none_for_us(environ):
    given = {**environ, "PATH": "/bin"}
    assert passed_sockets(given) == passed_sockets({})
    assert given == {"PATH": "/bin"}


def test_a_descriptor_that_is_no_socket_is_an_error():
    ours, theirs = os.pipe()
    with pytest.raises(CannotListenError, match="is no socket"):
        passed_sockets({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}, open_fd=lambda _: _opened(ours))
    os.close(ours)
    os.close(theirs)


def test_more_sockets_than_anybody_needs_are_an_error():
    with pytest.raises(CannotListenError, match="17 sockets were passed"):
        passed_sockets({"LISTEN_FDS": "17", "LISTEN_PID": str(os.getpid())})
