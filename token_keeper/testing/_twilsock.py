"""A Twilsock server on loopback that judges tokens as Twilio does, and misbehaves on command."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from token_keeper._model import Secret
from token_keeper.testing._loopback import ServerThread, bound_socket
from token_keeper.testing._mint import KEY, mint
from token_keeper.testing._twilsock_hub import Decision, Hub, Rules, TwilsockFault
from token_keeper.testing._twilsock_judge import (
    THROTTLED,
    TOKEN_EXPIRED,
    UNAUTHORIZED,
    Bearer,
    On,
    TwilsockMessage,
    failure,
    judge,
)

_KEPT: Final = 10_000
_ACCOUNT: Final = "AC" + "0" * 32
_API_KEY: Final = "SK" + "0" * 32
_SERVICE: Final = "IS" + "0" * 32


class FakeTwilsock:
    """A real WebSocket server on loopback that speaks Twilsock. Needs the extra `[twilio]`.

        with FakeTwilsock() as server:
            server.deny(51215)
            result = asyncio.run(probe(Secret(server.mint()), url=server.url))

    A token is accepted if Twilio would accept it, as far as that is known: by
    its form, its signature, its times and its grants; an update also only for
    the same account, user and services. It runs in a daemon thread; every
    method may be called from any thread and takes effect at once.

    Args:
        key: The API Key Secret with which tokens must be signed.
        products: For which they must have a grant: ``chat``, ``sync``, ``voice``, ``video``.
        warn_before: Seconds before a token's expiry at which its client is told.
        clock: Unix time, read when a token arrives; `clock_offset`, in seconds, is
            added to it. Under one that stands still a lifetime starts on arrival.
        ssl_context: Serves wss with this certificate.

    Attributes:
        received: The last 10 000 messages, once they were answered.
    """

    def __init__(  # noqa: PLR0913 - Each is a property of a server, and all have a default.
        self,
        *,
        key: str = KEY,
        products: Sequence[str] = (),
        warn_before: float = 240.0,
        clock: Callable[[], float] = time.time,
        clock_offset: float = 0.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.warn_before = warn_before
        self.clock_offset = clock_offset
        self.received: deque[TwilsockMessage] = deque(maxlen=_KEPT)
        self._key = Secret(key)
        self._products = tuple(products)
        self._clock = clock
        self._tls = ssl_context
        self._serial = 0
        self._script: dict[On, deque[Decision]] = {"init": deque(), "update": deque()}
        self._for_good: dict[On, Decision] = {}
        self._news = threading.Condition()
        self._counts: dict[str, int] = {}
        self._live = 0
        self._thread = ServerThread("fake-twilsock")
        self._hub: Hub | None = None
        self._hold: socket.socket | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FakeTwilsock {self.url}>"

    @property
    def url(self) -> str:
        """Where it listens. The port is the same for the whole life."""
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._port}/v3/wsconnect"

    @property
    def now(self) -> float:
        """Its own time, Unix seconds: its clock may be off."""
        return self._clock() + self.clock_offset

    @property
    def live(self) -> int:
        """How many connections have an accepted token."""
        return self._live

    def start(self) -> None:
        """Start serving. `with` does it."""
        # Bound but not listening, for life: nobody else gets the port while the server is down.
        self._hold = bound_socket(0)
        self._port = self._hold.getsockname()[1]
        self._hub = Hub(self._rules(), self._port, self._tls)
        self._thread.start()
        self.up()

    def close(self) -> None:
        """Stop serving and drop every connection. Called again, it does nothing."""
        if self._thread.is_running:
            self.down()
            self._thread.stop()
        if self._hold is not None:
            self._hold.close()

    def down(self) -> None:
        """Refuse connections, and drop the open ones. The port stays its own."""
        self._thread.call(self._running.refuse())

    def up(self) -> None:
        """Serve again after `down`."""
        self._thread.call(self._running.listen())

    def mint(
        self,
        now: float | None = None,
        *,
        lifetime: float = 3600.0,
        identity: str = "alice",
        grants: Mapping[str, object] | None = None,
    ) -> str:
        """Return a token that it accepts, unlike all before. `FakeBackend(mint=server.mint)` issues them.

        Args:
            now: Unix seconds; None is its own time.
            lifetime: In seconds.
            identity: The user.
            grants: By product; None is a chat service.
        """
        self._serial += 1
        start = self.now if now is None else now
        products = {"chat": {"service_sid": _SERVICE}} if grants is None else dict(grants)
        return mint(
            key=self._key.reveal(),
            headers={"cty": "twilio-fpa;v=1"},
            jti=f"{_API_KEY}-{self._serial}",
            iss=_API_KEY,
            sub=_ACCOUNT,
            nbf=int(start),
            exp=round(start + lifetime, 3),
            grants={"identity": identity, **products},
        )

    def answer(  # noqa: PLR0913 - All but the first are keywords.
        self,
        status: int,
        *,
        code: int | None = None,
        description: str = "",
        payload: object = None,
        on: On = "init",
        times: int | None = 1,
    ) -> None:
        """Answer so, after what was ordered before, whatever the token.

        Args:
            status: As of HTTP.
            code: Of Twilio's error dictionary.
            description: A sentence; empty is the title of *code*.
            payload: JSON beside it.
            on: Which message is answered so.
            times: How often; None until `recover`.
        """
        self._order(Decision(status=failure(status, code, description), payload=payload), on, times)

    def deny(self, code: int = UNAUTHORIZED, *, on: On = "init", times: int | None = 1) -> None:
        """Refuse the next token with 401 and *code*."""
        self.answer(401, code=code, on=on, times=times)

    def throttle(self, retry_after: float = 1.0, *, on: On = "init", times: int | None = 1) -> None:
        """Refuse the next token with 429, 51202 and *retry_after* seconds to wait."""
        policy = {"backoff_policy": {"reconnect_min_ms": round(retry_after * 1000)}}
        self.answer(429, code=THROTTLED, payload=policy, on=on, times=times)

    def fail(self, fault: TwilsockFault | str, *, on: On = "init", times: int | None = 1) -> None:
        """Misbehave, after what was ordered before."""
        self._order(Decision(fault=TwilsockFault(fault)), on, times)

    def recover(self) -> None:
        """Forget what was ordered: judge every token from now on."""
        with self._news:
            self._for_good.clear()
            for orders in self._script.values():
                orders.clear()

    def warn(self) -> None:
        """Tell every live client now that its token is about to expire."""
        self._thread.call(self._running.warn_live())

    def close_live(self, status: int = 410, *, code: int | None = None) -> None:
        """Close every live connection with *status*.

        Args:
            status: 410 the token ran out, 401 it is refused, 406 and 417 the client is not understood.
            code: Of Twilio's error dictionary. None is 51207 for 410, none for the others.
        """
        usual = TOKEN_EXPIRED if status == 410 else None
        reason = failure(status, usual if code is None else code)
        self._thread.call(self._running.end_live(reason))

    def drop_live(self) -> None:
        """Drop every live connection, as a broken network does."""
        self._thread.call(self._running.drop_live())

    def wait_for(self, method: str, count: int = 1, *, timeout: float = 5.0) -> None:
        """Wait until *count* messages of this *method* were answered since the start.

        Raises:
            TimeoutError: If they were not, after *timeout* seconds.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._counts.get(method, 0) >= count, timeout):
                seen = self._counts.get(method, 0)
                raise TimeoutError(f"{seen} of {count} messages {method!r} arrived in {timeout:g} s")

    def wait_for_live(self, count: int, *, timeout: float = 5.0) -> None:
        """Wait until exactly *count* connections have an accepted token.

        Raises:
            TimeoutError: If they do not, after *timeout* seconds.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._live == count, timeout):
                raise TimeoutError(f"{self._live} connections are live after {timeout:g} s, not {count}")

    @property
    def _running(self) -> Hub:
        if self._hub is None:
            raise RuntimeError("the fake Twilsock is not running: use it in a `with` statement")
        return self._hub

    def _order(self, order: Decision, on: On, times: int | None) -> None:
        with self._news:
            if times is None:
                self._for_good[on] = order
            else:
                self._script[on].extend([order] * times)

    def _next_order(self, on: On) -> Decision | None:
        with self._news:
            return self._script[on].popleft() if self._script[on] else self._for_good.get(on)

    def _rules(self) -> Rules:
        return Rules(
            now=lambda: self.now,
            warn_before=lambda: self.warn_before,
            decide=self._decide,
            note=self._note,
            note_live=self._note_live,
        )

    def _decide(self, on: On, token: Secret, before: Bearer | None) -> Decision:
        ordered = self._next_order(on)
        if ordered is not None:
            return ordered
        if on == "init":
            before = None
        elif before is None:
            return Decision(status=failure(401, UNAUTHORIZED))
        status, bearer = judge(token, key=self._key, now=self.now, products=self._products, before=before)
        return Decision(status=status, bearer=bearer)

    def _note(self, message: TwilsockMessage) -> None:
        with self._news:
            self.received.append(message)
            self._counts[message.method] = self._counts.get(message.method, 0) + 1
            self._news.notify_all()

    def _note_live(self, count: int) -> None:
        with self._news:
            self._live = count
            self._news.notify_all()
