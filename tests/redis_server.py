"""A real redis-server on loopback, whose user has tokens for passwords."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

PROGRAM = shutil.which("redis-server") or ""
needs_redis = pytest.mark.skipif(not PROGRAM, reason="redis-server is not installed")

USER = "app"
DEADLINE_S = 10.0


class RedisServer:
    """A server in a process of its own, and what its administrator does to it.

    Attributes:
        path: Of its socket.
        where: The host and port of its other one, as clients take them.
        is_locked: Whether `accept` does nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "socket")
        self.is_locked = False
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.where = {"host": "127.0.0.1", "port": taken.getsockname()[1]}
        arguments = ["--bind", "127.0.0.1", "--port", self.where["port"], "--unixsocket", self.path]
        arguments += ["--save", "", "--dir", folder]
        self._process = subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL)
        self._admin = redis.Redis(unix_socket_path=self.path, decode_responses=True, retry=None)
        self._connect_until_it_answers()
        self.revoke_all()

    def stop(self) -> None:
        self._admin.close()
        self._process.terminate()
        self._process.wait(DEADLINE_S)

    def accept(self, token: str) -> None:
        """Accept *token* as well, from now on."""
        if not self.is_locked:
            self._ask("ACL", "SETUSER", USER, f">{token}")

    def revoke_all(self) -> None:
        """Refuse every token that was accepted until now. Connections that are open stay."""
        self._ask("ACL", "SETUSER", USER, "reset", "on", "~*", "&*", "+@all")

    def count(self, command: str) -> int:
        """How often *command* was called by anybody. Logins by HELLO do not count as AUTH."""
        stats = self._admin.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))

    def refusals(self) -> int:
        """How many tokens were refused."""
        errors = self._admin.info("errorstats")
        return int(errors.get("errorstat_WRONGPASS", {}).get("count", 0))

    def publish(self, channel: str, message: str) -> int:
        return int(self._ask("PUBLISH", channel, message))

    def disconnect_all(self) -> None:
        """End every connection of the user."""
        self._ask("CLIENT", "KILL", "USER", USER)

    def _ask(self, *command: str) -> Any:
        return self._admin.execute_command(*command)

    def _connect_until_it_answers(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                self._admin.ping()
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                return


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Start a server in a directory of its own, and end it."""
    # Not pytest's: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="token-keeper-redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()
