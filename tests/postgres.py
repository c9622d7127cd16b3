"""A real PostgreSQL on loopback, whose users have tokens for passwords."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from guarding import keeping, until
from psycopg import sql

from token_keeper import TokenKeeper, TokenUnavailable
from token_keeper.testing import FakeBackend, mint

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin")) + [
    Path(found).parent for found in [shutil.which("initdb")] if found
]
needs_postgres = pytest.mark.skipif(not BINARIES, reason="postgresql is not installed: no initdb")

USER = "app"
DEADLINE_S = 30.0
QUICK = ["fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=60"]
"""Nothing here is worth keeping, and a start is to be quick."""


class Postgres:
    """A server in processes of its own, and what its superuser does to it.

    Attributes:
        host: Where it listens.
        port: As above.
        is_locked: Whether `accept` does nothing.
    """

    host = "127.0.0.1"
    is_locked = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def conninfo(self) -> str:
        return f"host={self.host} port={self.port} user={USER} dbname=postgres sslmode=disable"

    def start(self) -> None:
        folder, password = self._folder / "cluster", self._folder / "password"
        password.write_text("superuser\n")
        _give_away(self._folder)
        _run("initdb", "-D", folder, "-U", "root", "-A", "scram-sha-256", "--no-sync", f"--pwfile={password}")
        with socket.create_server((self.host, 0)) as taken:
            self.port = taken.getsockname()[1]
        options = [part for setting in QUICK for part in ("-c", setting)]
        where = ["-h", self.host, "-p", str(self.port), "-k", str(self._folder)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                _command("postgres", "-D", folder, *where, *options),
                stdout=subprocess.DEVNULL,
                stderr=log,
                **_unprivileged(),
            )
        self._connect_until_it_answers()
        self._admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(USER)))

    def stop(self) -> None:
        if self._process is not None:
            self._admin.close()
            self._process.send_signal(signal.SIGINT)  # SIGTERM waits for those who are connected.
            self._process.wait(DEADLINE_S)

    def accept(self, token: str) -> None:
        """Accept *token* from now on, and no other."""
        with self._lock:
            if self.is_locked:
                return
            self._admin.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(USER), sql.Literal(token))
            )

    def disconnect_all(self) -> None:
        """End every connection but the superuser's."""
        with self._lock:
            self._admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
            )

    def refusals(self) -> int:
        """How many passwords were refused until now."""
        return (self._folder / "log").read_text(errors="replace").count("password authentication failed")

    def _connect_until_it_answers(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                self._admin = psycopg.connect(
                    host=self.host,
                    port=self.port,
                    user="root",
                    password="superuser",
                    dbname="postgres",
                    autocommit=True,
                )
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.02)
            else:
                return


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server in a directory of its own, and end it."""
    # Not pytest's: the server's user must be able to enter it.
    with tempfile.TemporaryDirectory(prefix="token-keeper-postgres-") as folder:
        server = Postgres(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _command(program: str, *arguments: object) -> list[str]:
    return [str(BINARIES[-1] / program), *map(str, arguments)]


def _run(program: str, *arguments: object) -> None:
    subprocess.run(_command(program, *arguments), check=True, capture_output=True, **_unprivileged())


def _unprivileged() -> dict[str, object]:
    # It refuses to run as root.
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": "nogroup", "extra_groups": [], "cwd": "/"}


def _give_away(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "nobody", "nogroup")


class LoginChecks:
    """What every adapter of PostgreSQL must do. Inherit, and say how to connect.

    The module has a fixture `database`. `connecting` yields a function, safe to
    call from many threads, that logs in anew, and logs out.
    """

    refusal: type[Exception] | tuple[type[Exception], ...]
    """What the driver raises for a refused password."""

    def connecting(
        self, keeper: TokenKeeper, database: Postgres, **options: Any
    ) -> AbstractContextManager[Callable[[], None]]:
        raise NotImplementedError

    @pytest.fixture
    def backend(self, database: Postgres) -> Iterator[FakeBackend]:
        numbers = itertools.count(1)
        database.is_locked = False

        def issue(now: float) -> str:
            token = mint(expires_at=now + 3600, jti=str(next(numbers)))
            database.accept(token)
            return token

        with FakeBackend(mint=issue) as backend:
            yield backend

    @pytest.fixture
    def keeper(self, backend: FakeBackend) -> Iterator[TokenKeeper]:
        with keeping(backend) as keeper:
            yield keeper

    def test_the_token_is_the_password(self, keeper, database):
        with self.connecting(keeper, database) as connect:
            connect()

        assert keeper.snapshot.denied_by == ()

    def test_it_is_renewed_under_load_without_a_failed_login(self, keeper, database):
        done = threading.Event()
        logins: list[None] = []

        def load(connect: Callable[[], None]) -> None:
            while not done.is_set():
                logins.append(connect())

        with self.connecting(keeper, database) as connect, ThreadPoolExecutor(3) as threads:
            loads = [threads.submit(load, connect) for _ in range(3)]
            try:
                for _ in range(4):
                    keeper.refresh()
                    before = len(logins)
                    until(lambda before=before: len(logins) > before + 3)
            finally:
                done.set()
            for each in loads:
                each.result()

    def test_twenty_concurrent_refusals_cause_one_refresh_and_all_logins_succeed(
        self, keeper, database, backend
    ):
        database.accept("something else")

        with self.connecting(keeper, database) as connect, ThreadPoolExecutor(20) as threads:
            for each in [threads.submit(connect) for _ in range(20)]:
                each.result()

        assert len(backend.issued) == 2

    def test_while_the_backend_is_down_logins_go_on_with_the_valid_token(self, keeper, database, backend):
        backend.down()
        with pytest.raises(Exception, match="token"):
            keeper.refresh(timeout=1)

        with self.connecting(keeper, database) as connect:
            connect()

    def test_a_database_that_refuses_everything_gets_one_more_login(self, keeper, database):
        with self.connecting(keeper, database) as connect:
            database.accept("something else")
            database.is_locked = True
            refused = database.refusals()

            with pytest.raises(self.refusal):
                connect()

            assert database.refusals() == refused + 2

    def test_the_databases_refusal_stands_if_no_other_token_comes_in_time(self, keeper, database, backend):
        backend.down()
        database.accept("something else")

        with self.connecting(keeper, database, timeout=0.2) as connect, pytest.raises(self.refusal):
            connect()

        assert len(backend.issued) == 1

    def test_another_failure_is_no_denial(self, keeper, database, backend):
        with (
            self.connecting(keeper, database, dbname="missing") as connect,
            pytest.raises(Exception, match="does not exist"),
        ):
            connect()

        assert keeper.snapshot.denied_by == ()
        assert len(backend.issued) == 1

    def test_without_a_token_the_login_says_so_in_time(self, database):
        with (
            TokenKeeper() as keeper,
            self.connecting(keeper, database, timeout=0.05) as connect,
            pytest.raises(TokenUnavailable, match="hand one in"),
        ):
            connect()


@contextmanager
def in_a_loop() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Yield what runs a coroutine in one event loop, from any thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(20)
    finally:
        asyncio.run_coroutine_threadsafe(_others_cancelled(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        # A thread may have started one just before the loop stopped.
        loop.run_until_complete(_others_cancelled())
        loop.close()


async def _others_cancelled() -> None:
    """As `asyncio.run()` does at its end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
