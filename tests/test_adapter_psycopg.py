"""The adapter for psycopg and psycopg_pool, against a real PostgreSQL."""

import asyncio
from contextlib import contextmanager

import psycopg
import psycopg_pool
import pytest
from postgres import LoginChecks, in_a_loop, needs_postgres, running_postgres

from token_keeper import ConfigError
from token_keeper.adapters.psycopg import async_connection_class, connection_class

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def database():
    with running_postgres() as database:
        yield database


class TestPsycopg(LoginChecks):
    refusal = psycopg.OperationalError

    @contextmanager
    def connecting(self, keeper, database, *, dbname="postgres", **options):
        kept = connection_class(keeper, **options)

        def connect():
            with kept.connect(database.conninfo, dbname=dbname) as connection:
                assert connection.execute("SELECT current_user").fetchone() == ("app",)

        yield connect

    def test_a_pool_takes_each_new_token(self, keeper, database):
        kept = connection_class(keeper)
        with psycopg_pool.ConnectionPool(database.conninfo, connection_class=kept, min_size=2) as pool:
            pool.wait(10)
            keeper.refresh()
            database.disconnect_all()
            pool.check()
            pool.wait(10)

            with pool.connection(timeout=10) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)

    def test_a_pool_recovers_when_its_token_is_refused(self, keeper, database, backend):
        kept = connection_class(keeper)
        database.accept("something else")

        with (
            psycopg_pool.ConnectionPool(database.conninfo, connection_class=kept, min_size=2) as pool,
            pool.connection(timeout=10) as connection,
        ):
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert len(backend.issued) == 2

    def test_a_class_of_ones_own_stays_what_it_is(self, keeper, database):
        class Mine(psycopg.Connection):
            mine = True

        with connection_class(keeper, of=Mine).connect(database.conninfo) as connection:
            assert isinstance(connection, Mine)

    def test_nothing_shows_the_token(self, keeper, database, caplog):
        database.accept("something else")
        database.is_locked = True
        token = keeper.token

        with pytest.raises(psycopg.OperationalError) as refused:
            connection_class(keeper).connect(database.conninfo)

        assert token not in f"{refused.value} {caplog.text} {connection_class(keeper)!r}"

    @pytest.mark.parametrize("make", [connection_class, async_connection_class])
    def test_wrong_arguments_are_named(self, make, keeper):
        with pytest.raises(ConfigError, match="keeper"):
            make("a-token")
        with pytest.raises(ConfigError, match="timeout"):
            make(keeper, timeout=-1)


class TestAsyncPsycopg(LoginChecks):
    refusal = psycopg.OperationalError

    @contextmanager
    def connecting(self, keeper, database, *, dbname="postgres", **options):
        kept = async_connection_class(keeper, **options)

        async def connect():
            async with await kept.connect(database.conninfo, dbname=dbname) as connection:
                cursor = await connection.execute("SELECT current_user")
                assert await cursor.fetchone() == ("app",)

        with in_a_loop() as run:
            yield lambda: run(connect())

    def test_a_pool_takes_each_new_token(self, keeper, database):
        async def main():
            kept = async_connection_class(keeper)
            async with psycopg_pool.AsyncConnectionPool(
                database.conninfo, connection_class=kept, min_size=2, open=False
            ) as pool:
                await pool.wait(10)
                await asyncio.to_thread(keeper.refresh)
                database.disconnect_all()
                await pool.check()
                async with pool.connection(timeout=10) as connection:
                    await connection.execute("SELECT 1")

        asyncio.run(main())
