"""A real mosquitto that lets in one user, whose password changes."""

from __future__ import annotations

import base64
import hashlib
import itertools
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from token_keeper.testing import FakeBackend

PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin") or ""
needs_mosquitto = pytest.mark.skipif(not PROGRAM, reason="mosquitto is not installed")

USER = "app"
CONFIGURATION = """\
listener 0 {folder}/mqtt
allow_anonymous false
password_file {folder}/passwords
log_dest file {folder}/log
log_type all
{user}
"""
ROUNDS = 101
CONNACK_5 = bytes([0x20, 3, 0, 0, 0])
NOT_AUTHORIZED_5 = bytes([0xE0, 7, 0x87, 5, 0x1F, 0, 2]) + b"no"
"""With a reason: paho 2.1 does not read the code without one."""
DEADLINE_S = 10.0


class Broker:
    """A broker in a process of its own, at a Unix socket, with the token that it wants.

    Args:
        folder: Where its files are kept. Its path is short: it begins that of a socket.
        token: The first password of the user `app`.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self._folder = folder
        self._reloads = 0
        (folder / "log").touch()
        self._write(token)
        # Started by root it would become a user who may not read its files.
        user = "user root" if folder.owner() == "root" else ""
        (folder / "conf").write_text(CONFIGURATION.format(folder=folder, user=user))
        self._process = subprocess.Popen([PROGRAM, "-c", folder / "conf"], stderr=subprocess.DEVNULL)
        _await(self._listens)

    @property
    def path(self) -> str:
        """Where clients connect to: `transport="unix"`."""
        return str(self._folder / "mqtt")

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def wants(self, token: str) -> None:
        """Let in who shows *token*, and throw out who is there with another one."""
        self._write(token)
        self._reloads += 1
        self._process.send_signal(signal.SIGHUP)
        _await(lambda: self.log.count("Reloading config") == self._reloads)

    def _write(self, token: str) -> None:
        salt = b"twelve bytes"
        password = hashlib.pbkdf2_hmac("sha512", token.encode(), salt, ROUNDS)
        hashed = "$".join(base64.b64encode(part).decode() for part in (salt, password))
        fresh = self._folder / "passwords.new"
        fresh.write_text(f"{USER}:$7${ROUNDS}${hashed}\n")
        fresh.chmod(0o600)
        fresh.replace(self._folder / "passwords")

    def _listens(self) -> bool:
        assert self._process.poll() is None, f"mosquitto ended: {self.log}"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path) == 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def broker(token: str) -> Iterator[Broker]:
    # Not pytest's own folder: its path is too long for a socket's.
    with (
        tempfile.TemporaryDirectory(prefix="mqtt-") as folder,
        closing(Broker(Path(folder), token)) as started,
    ):
        yield started


@contextmanager
def numbered_backend() -> Iterator[FakeBackend]:
    """Yield a backend that issues `secret-1`, `secret-2` and so on."""
    serials = itertools.count(1)
    with FakeBackend(mint=lambda _: f"secret-{next(serials)}") as backend:
        yield backend


def _await(holds):
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "mosquitto did not do it in time"
        time.sleep(0.005)


class ThrowingBroker:
    """Lets everybody in, and throws out the first who says something more.

    It sends the DISCONNECT of MQTT 5 that says "not authorized"; mosquitto closes
    the connection without a word. It speaks no more MQTT than that.

    Attributes:
        logins: The CONNECT packets that came.
    """

    def __init__(self) -> None:
        self.logins: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._talks: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                talk, _ = self._listener.accept()
                self._talks.append(talk)
                self.logins.append(talk.recv(4096))
                talk.sendall(CONNACK_5)
                if len(self.logins) == 1:
                    talk.recv(4096)
                    talk.sendall(NOT_AUTHORIZED_5)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for talk in self._talks:
            talk.close()
