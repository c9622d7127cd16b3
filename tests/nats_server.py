"""A real nats-server: with one secret token, which a reload changes, or with JWTs of users."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import subprocess
import time
from binascii import crc_hqx
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PROGRAM = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin") or ""
needs_nats = pytest.mark.skipif(not PROGRAM, reason="nats-server is not installed")

OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3
"""The kinds of keys, the first five bits of their names."""
DEADLINE_S = 10.0


class NatsServer:
    """A server in a process of its own, with the token that it wants.

    Args:
        folder: Where its files are kept.
        rules: The part of its configuration about who may connect.
    """

    def __init__(self, folder: Path, rules: str) -> None:
        self._folder = folder
        self._reloads = 0
        self._port = -1
        self._start(rules)

    def _start(self, rules: str) -> None:
        self._configure(rules)
        self._process = subprocess.Popen(
            [PROGRAM, "-c", self._folder / "nats.conf", "-l", self._log, "--ports_file_dir", self._folder]
        )
        ports = self._folder / f"{Path(PROGRAM).name}_{self._process.pid}.ports"
        self.url = _awaited(lambda: ports.exists() and json.loads(ports.read_text() or "{}").get("nats"))[0]
        self._port = int(self.url.rpartition(":")[2])

    @property
    def _log(self) -> Path:
        return self._folder / "nats.log"

    def reload(self, rules: str) -> None:
        """Change who may connect. Whoever may not any more is thrown out."""
        self._configure(rules)
        self._reloads += 1
        self._process.send_signal(signal.SIGHUP)
        _awaited(lambda: self._log.read_text().count("Reloaded server configuration") == self._reloads)

    def restart(self, rules: str) -> None:
        """Break all connections, and serve at the same port whoever may connect by these rules."""
        self.close()
        self._start(rules)

    def _configure(self, rules: str) -> None:
        conf = self._folder / "nats.conf"
        fresh = self._folder / "nats.conf.new"
        fresh.write_text(f'host: "127.0.0.1"\nport: {self._port}\n{rules}\n')
        fresh.replace(conf)

    def close(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def wants(token: str) -> str:
    """Return the rule: who shows *token* may connect."""
    return f'authorization {{ token: "{token}" }}'


@contextmanager
def nats_server(folder: Path, rules: str) -> Iterator[NatsServer]:
    server = NatsServer(folder, rules)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def dead_port() -> Iterator[int]:
    """Yield a port that is bound, but where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class Accounts:
    """An operator with one account, whose users have JWTs that expire: what a NATS backend issues.

    Attributes:
        rules: The server's rule: who has a valid JWT of these may connect.
    """

    def __init__(self) -> None:
        operator, self._account, self._user = (Ed25519PrivateKey.generate() for _ in range(3))
        self._serial = 0
        account = _named(ACCOUNT, self._account)
        limits = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1}
        granted = {"limits": {**limits, "wildcards": True}, "type": "account", "version": 2}
        trusted = _signed(operator, OPERATOR, _named(OPERATOR, operator), {"type": "operator", "version": 2})
        known = _signed(operator, OPERATOR, account, granted)
        self.rules = f"operator: {trusted}\nresolver: MEMORY\nresolver_preload: {{ {account}: {known} }}"

    def issue(self, now: float, lifetime: float = 3600) -> str:
        """Return a JWT for the user, unlike all before."""
        self._serial += 1
        times = {"exp": int(now + lifetime), "iat": int(now), "jti": str(self._serial)}
        allowed = {"subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
        return _signed(self._account, ACCOUNT, _named(USER, self._user), allowed, **times)

    def sign(self, nonce: str) -> bytes:
        """Return the user's answer to the server's challenge."""
        return base64.b64encode(self._user.sign(nonce.encode()))


def _signed(key: Ed25519PrivateKey, kind: int, about: str, nats: dict[str, object], **claims: object) -> str:
    said = {"iss": _named(kind, key), "sub": about, "name": "test", "iat": int(time.time()), "nats": nats}
    parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, {**said, **claims}]
    signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{_base64(key.sign(signed.encode()))}"


def _named(kind: int, key: Ed25519PrivateKey) -> str:
    plain = bytes([kind]) + key.public_key().public_bytes_raw()
    return base64.b32encode(plain + crc_hqx(plain, 0).to_bytes(2, "little")).decode().rstrip("=")


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _awaited(found):
    deadline = time.monotonic() + DEADLINE_S
    while not (result := found()):
        assert time.monotonic() < deadline, "nats-server did not do it in time"
        time.sleep(0.005)
    return result
