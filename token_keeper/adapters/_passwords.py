"""What adapters of databases share: the token is the password, and one login more with another one.

They hand in how to connect, and how to tell a refused password from any other failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait

ConnectionT = TypeVar("ConnectionT")

INVALID_PASSWORD = "28P01"
"""PostgreSQL's code for a password that it refuses."""
PSYCOPG_SAYS = "password authentication failed"
"""What libpq shows of the same: at a login it drops the code."""


def invalid_password(error: BaseException) -> bool:
    """Whether PostgreSQL refused the password, by what any of its drivers raises."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return PSYCOPG_SAYS in str(error) if state is None else state == INVALID_PASSWORD


class Login:
    """Logs in with the token, reports what comes of it, and tries another one once.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter.
        timeout: Seconds to wait for a token, if there is none.
        is_denial: Whether an error means that the password was refused.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def __init__(
        self,
        keeper: Face,
        *,
        by: str,
        timeout: float,
        is_denial: Callable[[BaseException], bool] = invalid_password,
    ) -> None:
        check_wait("timeout", timeout)
        self._share = Share(keeper, by)
        self._timeout = timeout
        self._is_denial = is_denial

    def blocking(self, connect: Callable[[Secret], ConnectionT]) -> ConnectionT:
        """Return what *connect* made of the token.

        Raises:
            TokenUnavailable: If there was no token in time.
            Exception: The last that *connect* raised.
        """
        sent = Secret(self._share.wait(self._timeout))
        try:
            connection = connect(sent)
        except Exception as error:
            found = None
            if self._denied(sent, error):
                found = self._share.another(sent.reveal(), self._timeout)
            if found is None:
                raise
            sent, found = Secret(found), None
        else:
            self._share.accepted(sent.reveal())
            return connection
        try:
            connection = connect(sent)
        except Exception as error:
            self._denied(sent, error)
            raise
        self._share.accepted(sent.reveal())
        return connection

    async def awaiting(self, connect: Callable[[Secret], Awaitable[ConnectionT]]) -> ConnectionT:
        """Return what *connect* made of the token, as `blocking` does."""
        sent = Secret(await self._share.awaited(self._timeout))
        try:
            connection = await connect(sent)
        except Exception as error:
            found = None
            if self._denied(sent, error):
                found = await self._share.another_awaited(sent.reveal(), self._timeout)
            if found is None:
                raise
            sent, found = Secret(found), None
        else:
            self._share.accepted(sent.reveal())
            return connection
        try:
            connection = await connect(sent)
        except Exception as error:
            self._denied(sent, error)
            raise
        self._share.accepted(sent.reveal())
        return connection

    def __repr__(self) -> str:
        return f"<login by {self._share.by!r}>"

    def _denied(self, sent: Secret, error: Exception) -> bool:
        """Report *error* if it is about the token; return whether to try another."""
        if not self._is_denial(error):
            return False
        return self._share.denied(sent.reveal(), reason=str(error)) in WORTH_ANOTHER
