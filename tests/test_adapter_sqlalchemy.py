"""The adapter for SQLAlchemy, with engines of both kinds against a real PostgreSQL."""

import asyncio
from contextlib import contextmanager

import asyncpg
import pytest
from guarding import keeping
from postgres import LoginChecks, in_a_loop, needs_postgres, running_postgres
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from token_keeper import ConfigError
from token_keeper.adapters.sqlalchemy import keep_password
from token_keeper.testing import FakeBackend

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def database():
    with running_postgres() as database:
        yield database


def url_of(database, driver="psycopg", dbname="postgres"):
    return f"postgresql+{driver}://app@{database.host}:{database.port}/{dbname}"


class TestEngine(LoginChecks):
    refusal = DBAPIError

    @contextmanager
    def connecting(self, keeper, database, *, dbname="postgres", **options):
        engine = create_engine(url_of(database, dbname=dbname), poolclass=NullPool)
        keep_password(engine, keeper, **options)

        def connect():
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT current_user")) == "app"

        yield connect
        engine.dispose()

    def test_a_pooled_connection_that_the_server_ended_comes_back_with_the_new_token(self, keeper, database):
        engine = create_engine(url_of(database), pool_pre_ping=True)
        keep_password(engine, keeper)
        with engine.connect() as connection:
            connection.scalar(text("SELECT 1"))
        keeper.refresh()
        database.disconnect_all()

        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()

    def test_the_reporter_is_the_database(self, keeper, database, backend):
        backend.down()
        database.accept("something else")

        with self.connecting(keeper, database, timeout=0.05) as connect, pytest.raises(DBAPIError):
            connect()

        assert keeper.snapshot.denied_by == (f"postgresql://127.0.0.1:{database.port}",)

    def test_another_database_says_itself_what_a_refusal_is(self, keeper, database, backend):
        options = {"dbname": "missing", "is_denial": lambda error: "does not exist" in str(error)}

        with self.connecting(keeper, database, **options) as connect, pytest.raises(DBAPIError):
            connect()

        assert len(backend.issued) == 2

    def test_nothing_shows_the_token(self, keeper, database, caplog):
        database.accept("something else")
        database.is_locked = True
        token = keeper.token
        engine = create_engine(url_of(database), echo="debug", echo_pool="debug")
        keep_password(engine, keeper)

        with pytest.raises(DBAPIError) as refused:
            engine.connect()

        assert token not in f"{refused.value} {caplog.text} {engine!r} {engine.url}"

    def test_wrong_arguments_are_named(self, keeper):
        engine = create_engine("sqlite://")
        with pytest.raises(ConfigError, match="engine"):
            keep_password("postgresql://db", keeper)
        with pytest.raises(ConfigError, match="keeper"):
            keep_password(engine, "a-token")
        with pytest.raises(ConfigError, match="timeout"):
            keep_password(engine, keeper, timeout=-1)


class AsyncEngineChecks(LoginChecks):
    refusal = DBAPIError
    driver = ""

    @contextmanager
    def connecting(self, keeper, database, *, dbname="postgres", **options):
        engine = create_async_engine(url_of(database, self.driver, dbname), poolclass=NullPool)
        keep_password(engine, keeper, **options)

        async def connect():
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT current_user")) == "app"

        with in_a_loop() as run:
            yield lambda: run(connect())
            run(engine.dispose())

    def test_waiting_for_a_token_leaves_the_loop_free(self, database):
        async def main():
            engine = create_async_engine(url_of(database, self.driver))
            keep_password(engine, keeper)
            connecting = asyncio.ensure_future(engine.connect().start())
            turns = 0
            while not connecting.done():
                turns += 1
                if turns == 20:
                    backend.up()
                await asyncio.sleep(0.001)
            await (await connecting).close()
            await engine.dispose()
            return turns

        with FakeBackend(mint=lambda _: "token-of-the-app") as backend:
            database.is_locked = False
            database.accept("token-of-the-app")
            backend.down()
            with keeping(backend, start_timeout=0) as keeper:
                assert asyncio.run(main()) >= 20


class TestAsyncEngineOfAsyncpg(AsyncEngineChecks):
    driver = "asyncpg"
    # SQLAlchemy 2.0 hands out the driver's own.
    refusal = (DBAPIError, asyncpg.InvalidPasswordError)


class TestAsyncEngineOfPsycopg(AsyncEngineChecks):
    driver = "psycopg_async"
