"""asyncpg: the token is the password of each new connection.

    pool = await asyncpg.create_pool("postgres://app@db/orders", connect=KeeperConnect(keeper))
    connection = await KeeperConnect(keeper)("postgres://app@db/orders")

A password that the server refuses (28P01) is reported, and the connection tried once more with
another token. Connections that are open stay: PostgreSQL asks for the password once. If yours ends
them when the token expires, let `max_inactive_connection_lifetime` be shorter than its life.

Where only `password=` can be set, the keeper itself will do, if it lives in the same loop; then
refusals are not reported: `asyncpg.connect(..., password=keeper.get)`.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S
from token_keeper.adapters._passwords import Login


class KeeperConnect:
    """Connects as `asyncpg.connect()` does, with the token for a password.

    Whatever server it is told to connect to gets the token.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter: a token that is denied to it is withheld from it alone. Servers that may
            disagree need one each.
        timeout: Seconds that a new connection waits for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
        TokenUnavailable: By a call, if no token came in time.
    """

    def __init__(self, keeper: Face, *, by: str = "asyncpg", timeout: float = WAIT_S) -> None:
        self._login = Login(keeper, by=by, timeout=timeout)

    async def __call__(self, *args: Any, **options: Any) -> Any:
        """Return a connection; the arguments are those of `asyncpg.connect()`."""

        async def attempt(token: Secret) -> Any:
            return await asyncpg.connect(*args, **{**options, "password": token.reveal()})

        return await self._login.awaiting(attempt)

    def __repr__(self) -> str:
        return f"<KeeperConnect {self._login!r}>"
