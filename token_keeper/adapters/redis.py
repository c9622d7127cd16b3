"""redis-py, blocking and asyncio clients: live connections get each new token.

    shown = KeeperCredentialProvider(keeper, username="app")
    client = redis.Redis(credential_provider=shown, redis_connect_func=shown.connect)
    client = redis.asyncio.Redis(credential_provider=shown, redis_connect_func=shown.connect_async)

One provider for each client. Each new token is sent (AUTH) on idle connections at once. Busy ones
get it when they are free; those of asyncio then connect anew, for redis-py would mix up answers. A
pub/sub connection keeps the session that it began, for redis-py would lose messages: should the
server end it, redis-py subscribes again with the current token.
If a server hears of tokens later than you, set `RefreshPolicy(settle_s=...)`.

`redis_connect_func` is what reports a refusal (WRONGPASS) and logs in once more with another token.
redis-py 8 then retries by itself, as its `retry` says. A cluster client has a use of its own for it:
leave it out there; refusals are not reported then, and live connections of asyncio get no new token.
On Unix sockets asyncio clients log in without asking it (redis-py 8.1): no refusal is reported.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from redis.auth.token import SimpleToken
from redis.credentials import StreamingCredentialProvider
from redis.event import RegisterReAuthForPubSub
from redis.exceptions import AuthenticationError, RedisError

from token_keeper._errors import ConfigError, KeeperClosed, TokenKeeperError, TokenUnavailable
from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._redis_receivers import Receiver

DEFAULT_USER = "default"
"""Redis's name for who logs in without one."""
PATIENCE = 2
"""Refusals of a connection after which it waits for no further token."""

_log = logging.getLogger("token_keeper.adapters.redis")


class NoToken(TokenUnavailable, RedisError):
    """There is no usable token now. To redis-py it is a failed login, so it lets go of the connection."""


class NoKeeper(KeeperClosed, RedisError):
    """The keeper is closed, or not started. To redis-py it is a failed login, as above."""


@dataclass(slots=True)
class _Attempt:
    """What a connection showed while it logs in, and how often it was refused in a row."""

    sent: Secret | None = None
    refused: Secret | None = None
    refusals: int = 0
    refusal: str = ""

    def note_refusal(self, refusal: str, *, is_worth_another: bool) -> None:
        """Note that what was sent is refused. Only the first is worth another try."""
        self.refusal = refusal
        self.refusals = self.refusals + 1 if is_worth_another else PATIENCE
        self.refused = self.sent if self.refusals < PATIENCE else None

    def taken(self) -> Secret | None:
        """Return what was refused and is worth another try; here it is forgotten."""
        refused, self.refused = self.refused, None
        return refused


_ATTEMPT: ContextVar[_Attempt | None] = ContextVar("token_keeper_redis_attempt", default=None)


class KeeperCredentialProvider(StreamingCredentialProvider):
    """Shows the token to one client's connections, and sends each new one on those that are open.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        username: Of the ACL; without one the default user.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds that a new connection waits for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
        TokenUnavailable: By a command, if no token came in time.
    """

    def __init__(
        self, keeper: Face, *, username: str | None = None, by: str = "redis", timeout: float = WAIT_S
    ) -> None:
        check_wait("timeout", timeout)
        if not isinstance(username, str | None):
            raise ConfigError("username", f"must be a string, but is of type {type(username).__name__}")
        self._share = Share(keeper, by)
        self._username = username
        self._timeout = timeout
        self._attempts: weakref.WeakKeyDictionary[Any, _Attempt] = weakref.WeakKeyDictionary()
        self._receivers: list[Receiver] = []
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return what AUTH takes. Blocks while there is no token; asked by redis-py."""
        with self._asked():
            return self._shown(self._share.wait(self._timeout))

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return what AUTH takes, as `get_credentials` does."""
        for receiver in self._receivers:
            receiver.runs_in(asyncio.get_running_loop())
        with self._asked():
            return self._shown(await self._share.awaited(self._timeout))

    def connect(self, connection: Any) -> None:
        """Log in as redis-py does, and once more with another token: for `redis_connect_func`."""
        attempt = self._attempts.setdefault(connection, _Attempt())
        try:
            with self._judged(attempt):
                connection.on_connect()
        except BaseException:
            # redis-py would keep the connection, and not log in again, if the error is none of its own.
            connection.disconnect()
            refused = attempt.taken()
            if refused is None:
                raise
            if self._share.another(refused.reveal(), self._timeout) is None:
                attempt.refusals = PATIENCE
                raise
        else:
            return
        connection.connect_check_health(retry_socket_connect=False)

    async def connect_async(self, connection: Any) -> None:
        """Log in, as `connect` does: for `redis_connect_func` of `redis.asyncio`."""
        attempt = self._attempts.setdefault(connection, _Attempt())
        # The pool hands it out before it is connected, when `_take_back` does not know it yet.
        connection.set_re_auth_token(None)
        try:
            with self._judged(attempt):
                await connection.on_connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            refused = attempt.taken()
            if refused is None:
                raise
            if await self._share.another_awaited(refused.reveal(), self._timeout) is None:
                attempt.refusals = PATIENCE
                raise
        else:
            return
        await connection.connect_check_health(retry_socket_connect=False)

    def on_next(self, callback: Callable[[Any], Any]) -> None:
        """Call *callback* with each new token. Registered by redis-py, for each pool."""
        if isinstance(getattr(callback, "__self__", None), RegisterReAuthForPubSub):
            # It reads the reply to AUTH from under whoever reads messages: redis-py 8.1 loses some.
            return
        with self._lock:
            self._receivers = [known for known in self._receivers if known.is_alive()]
            if any(known.calls(callback) for known in self._receivers):
                return
            self._receivers.append(Receiver(callback, self._push, self._push_async))
            if self._stop is None:
                self._stop = self._share.on_renewal(self._renewed)

    def on_error(self, callback: Callable[[Exception], Any]) -> None:
        """Ignore *callback*: a failed renewal leaves the token that is valid."""

    def is_streaming(self) -> bool:
        """Return True: new tokens come by themselves."""
        return True

    def close(self) -> None:
        """Send no more tokens to live connections."""
        with self._lock:
            stop, self._stop, self._receivers = self._stop, None, []
        if stop is not None:
            stop()

    def __repr__(self) -> str:
        return f"<KeeperCredentialProvider by {self._share.by!r}>"

    def _renewed(self) -> None:
        for receiver in self._receivers:
            receiver.wake()

    def _shown(self, raw: str) -> tuple[str] | tuple[str, str]:
        attempt = _ATTEMPT.get()
        if attempt is not None:
            attempt.sent = Secret(raw)
        return (raw,) if self._username is None else (self._username, raw)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Raise what redis-py understands. Who waited in vain after a refusal gets that refusal."""
        attempt = _ATTEMPT.get() or _Attempt()
        if attempt.refusals >= PATIENCE and not self._share.generation:
            raise AuthenticationError(attempt.refusal)
        try:
            yield
        except TokenUnavailable as error:
            if not attempt.refusals:
                raise NoToken(str(error)) from error.__cause__
            attempt.refusals = PATIENCE
        except KeeperClosed as error:
            raise NoKeeper(str(error)) from None
        else:
            return
        raise AuthenticationError(attempt.refusal)

    @contextmanager
    def _judged(self, attempt: _Attempt) -> Iterator[None]:
        """Report what comes of a login."""
        restore = _ATTEMPT.set(attempt)
        try:
            yield
        except AuthenticationError as error:
            if attempt.sent is not None:
                verdict = self._share.denied(attempt.sent.reveal(), reason=str(error))
                attempt.note_refusal(str(error), is_worth_another=verdict in WORTH_ANOTHER)
            raise
        else:
            attempt.refusals = 0
            if attempt.sent is not None:
                self._share.accepted(attempt.sent.reveal())
        finally:
            attempt.sent = None
            _ATTEMPT.reset(restore)

    def _push(self, callback: Callable[[Any], Any]) -> None:
        """Hand the current token to *callback*; whatever it raises, connections log in anew by themselves."""
        with self._pushed() as token:
            if token is not None:
                callback(token)

    async def _push_async(self, callback: Callable[[Any], Any]) -> None:
        with self._pushed() as token:
            # Without `connect_async` we do not know the connections that need care.
            if token is not None and self._attempts:
                await callback(token)
                self._take_back(token)

    def _take_back(self, token: SimpleToken) -> None:
        """Let busy connections of asyncio connect anew instead of sending *token* when they are free.

        redis-py 8.1 sends it when others may have taken the connection already: answers get mixed up.
        """
        for connection in list(self._attempts):
            if getattr(connection, "_re_auth_token", None) is token:
                connection.set_re_auth_token(None)
                connection.mark_for_reconnect()

    @contextmanager
    def _pushed(self) -> Iterator[SimpleToken | None]:
        token = None
        with suppress(TokenKeeperError):
            token = SimpleToken(self._share.token, -1, 0, {"oid": self._username or DEFAULT_USER})
        try:
            yield token
        except Exception as error:  # noqa: BLE001 - redis-py raises also what is none of its own
            if isinstance(error, AuthenticationError) and token is not None:
                self._share.denied(token.get_value(), reason=str(error))
            _log.warning("a live connection did not take the new token: %s", type(error).__name__)
