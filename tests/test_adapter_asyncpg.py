"""The adapter for asyncpg, against a real PostgreSQL."""

import asyncio
from contextlib import contextmanager

import asyncpg
import pytest
from postgres import LoginChecks, in_a_loop, needs_postgres, running_postgres

from token_keeper import AsyncTokenKeeper, ConfigError, HttpSource
from token_keeper.adapters.asyncpg import KeeperConnect

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def database():
    with running_postgres() as database:
        yield database


def where(database, dbname="postgres"):
    return {"host": database.host, "port": database.port, "user": "app", "database": dbname, "ssl": False}


class TestAsyncpg(LoginChecks):
    refusal = asyncpg.InvalidPasswordError

    @contextmanager
    def connecting(self, keeper, database, *, dbname="postgres", **options):
        connected = KeeperConnect(keeper, **options)

        async def connect():
            connection = await connected(**where(database, dbname))
            assert await connection.fetchval("SELECT current_user") == "app"
            await connection.close()

        with in_a_loop() as run:
            yield lambda: run(connect())

    def test_a_pool_takes_each_new_token_and_recovers_from_a_refused_one(self, database, backend):
        async def main():
            async with (
                AsyncTokenKeeper(HttpSource(backend.url)) as keeper,
                asyncpg.create_pool(**where(database), connect=KeeperConnect(keeper), min_size=2) as pool,
            ):
                await keeper.refresh()
                await pool.expire_connections()
                assert await pool.fetchval("SELECT 1") == 1
                database.accept("something else")
                await pool.expire_connections()
                assert await pool.fetchval("SELECT 1") == 1

        asyncio.run(main())

        assert len(backend.issued) == 3

    def test_without_the_adapter_the_keeper_serves_as_the_password(self, database, backend):
        async def main():
            async with AsyncTokenKeeper(HttpSource(backend.url)) as keeper:
                connection = await asyncpg.connect(**where(database), password=keeper.get)
                await connection.close()

        asyncio.run(main())

    def test_nothing_shows_the_token(self, keeper, database, caplog):
        database.accept("something else")
        database.is_locked = True
        token, connected = keeper.token, KeeperConnect(keeper)

        with pytest.raises(asyncpg.InvalidPasswordError) as refused:
            asyncio.run(connected(**where(database)))

        assert token not in f"{refused.value} {caplog.text} {connected!r}"

    def test_wrong_arguments_are_named(self, keeper):
        with pytest.raises(ConfigError, match="keeper"):
            KeeperConnect("a-token")
        with pytest.raises(ConfigError, match="timeout"):
            KeeperConnect(keeper, timeout=-1)
