"""psycopg 3 and psycopg_pool: the token is the password of each new connection.

    pool = ConnectionPool("host=db user=app", connection_class=connection_class(keeper))
    pool = AsyncConnectionPool("host=db user=app", connection_class=async_connection_class(keeper))
    connection = connection_class(keeper).connect("host=db user=app")

A password that the server refuses is reported, and the connection tried once more with another
token. Connections that are open stay: PostgreSQL asks for the password once. If yours ends them
when the token expires, let the pool's `max_lifetime` be shorter than its life.

libpq drops the code of a refused login (28P01), so the refusal is known by its English text: a
server with another `lc_messages` is not understood, and nothing is reported.
"""

from __future__ import annotations

from typing import Any

import psycopg

from token_keeper._face import Face
from token_keeper._share import WAIT_S
from token_keeper.adapters._passwords import Login


def connection_class(
    keeper: Face,
    *,
    of: type[psycopg.Connection[Any]] = psycopg.Connection,
    by: str = "psycopg",
    timeout: float = WAIT_S,
) -> type[psycopg.Connection[Any]]:
    """Return a class of connections that log in with the token.

    Whatever server it is told to connect to gets the token.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        of: What the connections are otherwise.
        by: Names the reporter: a token that is denied to it is withheld from it alone. Servers that may
            disagree need one each.
        timeout: Seconds that a new connection waits for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """
    login = Login(keeper, by=by, timeout=timeout)

    class KeeperConnection(of):  # type: ignore[misc, valid-type]  # A class that is an argument.
        @classmethod
        def connect(cls, conninfo: str = "", **options: Any) -> Any:
            plain: Any = super()
            return login.blocking(
                lambda token: plain.connect(conninfo, **{**options, "password": token.reveal()})
            )

    return KeeperConnection


def async_connection_class(
    keeper: Face,
    *,
    of: type[psycopg.AsyncConnection[Any]] = psycopg.AsyncConnection,
    by: str = "psycopg",
    timeout: float = WAIT_S,
) -> type[psycopg.AsyncConnection[Any]]:
    """Return a class of asyncio connections that log in with the token; see `connection_class`."""
    login = Login(keeper, by=by, timeout=timeout)

    class KeeperAsyncConnection(of):  # type: ignore[misc, valid-type]  # As above.
        @classmethod
        async def connect(cls, conninfo: str = "", **options: Any) -> Any:
            plain: Any = super()
            return await login.awaiting(
                lambda token: plain.connect(conninfo, **{**options, "password": token.reveal()})
            )

    return KeeperAsyncConnection
