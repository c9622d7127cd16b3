"""SQLAlchemy, blocking and asyncio engines: the token is the password of each new connection.

    engine = create_engine("postgresql+psycopg://app@db/orders")
    keep_password(engine, keeper)

A password that PostgreSQL refuses (28P01) is reported, and the connection tried once more with
another token. Connections that are open stay: a database asks for the password once. If yours ends
them when the token expires, let `pool_recycle` be shorter than its life, or set `pool_pre_ping`.

For drivers that take `password=`. Other databases than PostgreSQL: say what a refusal looks like.

    keep_password(engine, keeper, is_denial=lambda error: error.args[0] == 1045)  # MySQL
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only, greenlet_spawn

from token_keeper._errors import ConfigError
from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S
from token_keeper.adapters._passwords import Login, invalid_password


def keep_password(
    engine: Engine | AsyncEngine,
    keeper: Face,
    *,
    by: str | None = None,
    timeout: float = WAIT_S,
    is_denial: Callable[[BaseException], bool] = invalid_password,
) -> None:
    """Log in to the database of *engine* with the token, from its next connection on.

    Other listeners for `do_connect` that change arguments must be registered before.

    Args:
        engine: From `create_engine()` or `create_async_engine()`.
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter; by default the database's host and port.
        timeout: Seconds that a new connection waits for a token, if there is none.
        is_denial: Whether an error of the driver means that the password was refused.

    Raises:
        ConfigError: If an argument cannot work.
    """
    if not isinstance(engine, Engine | AsyncEngine):
        raise ConfigError(
            "engine", f"must be an Engine or AsyncEngine, but is of type {type(engine).__name__}"
        )
    plain = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    login = Login(keeper, by=_server(plain.url) if by is None else by, timeout=timeout, is_denial=is_denial)

    def connect(dialect: Any, _: object, cargs: Any, cparams: dict[str, Any]) -> Any:
        def attempt(token: Secret) -> Any:
            return dialect.connect(*cargs, **{**cparams, "password": token.reveal()})

        if not dialect.is_async:
            return login.blocking(attempt)
        # The dialect awaits in a greenlet of its own.
        return await_only(login.awaiting(lambda token: greenlet_spawn(attempt, token)))

    event.listen(plain, "do_connect", connect)


def _server(url: URL) -> str:
    return f"{url.get_backend_name()}://{url.host or 'localhost'}:{url.port or ''}".rstrip(":")
