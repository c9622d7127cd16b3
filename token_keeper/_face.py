"""What both keepers share: everything that does not wait.

The two keepers differ only in how they wait: one awaits, the other blocks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from token_keeper import _fork as fork
from token_keeper import _questions as questions
from token_keeper._clock import Clock, SystemClock
from token_keeper._errors import ConfigError, InvalidToken
from token_keeper._home import Home
from token_keeper._inputs import TokenAccepted
from token_keeper._kept import KeptToken
from token_keeper._listeners import Listener, Listeners
from token_keeper._model import NAME, DenialClass, EventKind, Secret, Snapshot, Token, Verdict
from token_keeper._policy import DEFAULT_POLICY, RefreshPolicy
from token_keeper._receive import clock_skew, supplied
from token_keeper._scheduler import Charge
from token_keeper._telling import Teller
from token_keeper._waiting import check_wait
from token_keeper.inspection import Expectations, Profile
from token_keeper.logs import keeper_logger
from token_keeper.profiles import profile_named
from token_keeper.sources import Retiring, Source

if TYPE_CHECKING:
    from token_keeper.sessions import Session, SessionHandle
    from token_keeper.sessions._circle import Circle
    from token_keeper.sessions._connections import Connections

ListenerT = TypeVar("ListenerT", bound=Listener)
TextT = TypeVar("TextT", int | str | None, str | None)

DRAIN_S = 5.0
"""How long listeners may take at the end for what is still queued."""
CLOSE_S = 2.0
"""How long a source may take to give its tokens back, and again to let go of its connections."""
MAX_REPORTER = 256
"""Characters in the name of a reporter."""
MAX_CODE = 64
"""Characters of a server's code that count."""


class Face:
    """The part of a keeper that never waits; see the two keepers for how to use it."""

    _sync_in_thread: ClassVar[bool]
    """Whether sync listeners run in a thread of their own, not in the event loop."""

    def __init__(  # noqa: PLR0913 - the contract's constructor
        self,
        source: Source | None = None,
        *,
        policy: RefreshPolicy = DEFAULT_POLICY,
        profile: str | Profile = "auto",
        expect: Mapping[str, object] | Expectations | None = None,
        name: str = "token",
        start_timeout: float = 30.0,
        clock: Clock | None = None,
        logger: Any = None,
    ) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError("name", "must be 1 to 64 letters, digits, dots, hyphens or underscores")
        check_wait("start_timeout", start_timeout)
        _check_source(source)
        _check_parts(policy, profile, expect, clock)
        if source is not None and not source.splay:
            policy = replace(policy, splay=False)
        self.name = name
        self._clock = clock or SystemClock()
        self._boot = self._clock.boot
        self._source = source
        self._start_timeout = start_timeout
        self._profile = profile_named(profile) if isinstance(profile, str) else profile
        self._expect = self._profile.expectations(expect)
        self._log = keeper_logger(logger, name=name)
        self._listeners = Listeners(log=self._log, sync_in_thread=self._sync_in_thread)
        self._kept = KeptToken(name, policy=policy, clock=self._clock, sourced=source is not None)
        self._teller = Teller(self._kept, self._profile, self._expect, self._log, self._listeners)
        self._home: Home | None = None
        self._circle: Circle | None = None
        # For starts and ends in threads. Reentrant: a signal handler may close what its thread just starts.
        self._turn = threading.RLock()
        fork.watch(self)

    def _after_fork(self) -> None:
        """Leave to the parent process what runs there."""
        self._home = None
        self._circle = None

    @property
    def token(self) -> str:
        """The raw token. Never blocks, takes no lock.

        Raises:
            TokenUnavailable: If none is usable now; chained to the last failure.
            KeeperClosed: Before the start, after the end, or in a forked child.
        """
        held = self._kept.held
        if held is not None and self._boot() < held.until:
            return held.raw
        return questions.read(self._kept, "")

    @property
    def snapshot(self) -> Snapshot:
        """How the token stands now: immutable, without secrets."""
        return self._kept.snapshot()

    def update(self, raw: str, *, expires_at: float | None = None) -> None:
        """Hand in a token from elsewhere. The current one again is a no-op.

        May be called from any thread, also before the start. A fetch in flight is cancelled.

        Args:
            raw: The raw token.
            expires_at: Unix seconds, for tokens that do not say it themselves.

        Raises:
            InvalidToken: If it cannot work, or if a server had refused it; nothing was changed.
            KeeperClosed: After the end.
        """
        # From here on the token is in no local variable, so that no traceback can show it.
        given, raw = _taken(raw), ""
        self._kept.check_alive()
        if isinstance(given, str):
            raise InvalidToken(f"a token is a string, but this is of type {given}; nothing was changed")
        current = self._kept.state.usable_by("", self._boot())
        if current is not None and current.token.secret == given:
            return
        # Its issuer is that of the source, whose clock is known. But *expires_at* is by the caller's clock.
        known = self._kept.state.current if expires_at is None else None
        skew_s = known.skew_s if known is not None else 0.0
        wall = self._clock.wall() + skew_s
        token = supplied(given, expires_at=expires_at, profile=self._profile, expect=self._expect, wall=wall)
        skew_s += clock_skew(wall=wall, issued_at=token.issued_at, not_before=token.not_before)
        self._kept.supply(token, skew_s)

    def report_denied(
        self, token: str, *, by: str = "", code: int | str | None = None, reason: str | None = None
    ) -> Verdict:
        """Say that a server refused *token*. Never blocks; safe from any thread, any number of times.

            if keeper.report_denied(token, code=51215) is Verdict.DENIED:
                token = keeper.get()  # another one

        Args:
            token: The raw token that was sent.
            by: Who was refused: a session, an origin. It alone is withheld the token.
            code: The server's code, such as 51215, 401 or ``"invalid_token"``.
            reason: What else the server said. Logged, and looked up if there is no code.

        Raises:
            KeeperClosed: After the end.
            ConfigError: If an argument cannot work.
        """

        def meaning(current: Token | None) -> DenialClass:
            return self._teller.meaning_of(code, reason, current)

        given, token = _taken(token), ""
        if isinstance(given, str):
            raise ConfigError("token", f"must be the token as it was sent, a string, but is of type {given}")
        check_reporter(by)
        if isinstance(code, bool) or not isinstance(code, int | str | None):
            raise ConfigError("code", f"must be a number or a string, but is of type {type(code).__name__}")
        if not isinstance(reason, str | None):
            raise ConfigError("reason", f"must be a string, but is of type {type(reason).__name__}")
        # Servers like to quote the token that they refuse.
        code, reason = _without(given, code), _without(given, reason)
        code = code[:MAX_CODE] if isinstance(code, str) else code
        verdict, snapshot = self._kept.deny(given, by, meaning)
        self._teller.denial(verdict, snapshot, by=by, code=code, reason=reason)
        return verdict

    def report_accepted(self, token: str, *, by: str = "") -> None:
        """Say that a server accepted *token* from *by*. Never blocks.

        Raises:
            KeeperClosed: After the end.
        """
        given, token = _taken(token), ""
        if isinstance(given, str):
            raise ConfigError("token", f"must be the token as it was sent, a string, but is of type {given}")
        check_reporter(by)
        self._kept.check_alive()
        generation = self._kept.generation_of(given)
        if generation:
            self._kept.post(TokenAccepted(generation, by))

    def on(self, *kinds: str) -> Callable[[ListenerT], ListenerT]:
        """Call the decorated function with each `TokenEvent` of these *kinds*; of all if none is given.

            @keeper.on("tokenExpired")
            def warn(event): ...

        Listeners are called in order, each for at most 10 s; what they raise is logged.

        Raises:
            ConfigError: If there is no such event.
        """
        known = [str(kind) for kind in EventKind]
        for kind in kinds:
            if callable(kind):
                raise ConfigError("on", 'write keeper.on()(listener), or @keeper.on("tokenUpdated")')
            if kind not in known:
                raise ConfigError("on", f"there is no event {str(kind)[:64]!r}; known are {', '.join(known)}")
        wanted = frozenset(EventKind(kind) for kind in kinds or known)

        def register(listener: ListenerT) -> ListenerT:
            if not callable(listener):
                kind = type(listener).__name__
                raise ConfigError("on", f"a listener must be a function of one event, but this is a {kind}")
            self._listeners.add(wanted, listener)
            return listener

        return register

    def attach(
        self,
        session: Session,
        *,
        token: str | None = None,
        by: str = "sessions",
        name: str | None = None,
        deadline: float = 30.0,
    ) -> SessionHandle:
        """Keep a live *session* supplied with tokens, and bring it back when it is denied.

            handle = keeper.attach(client)
            client.on("stateChanged", handle.state_changed)

        The session is given the current token at once, and each new one in time.
        Many may share a keeper: one that fails does not hold up the others.
        From any thread; in an event loop the session is called in that loop.

        Args:
            session: Has `update_token(token)`, perhaps `reconnect()` and `recreate()`.
            token: The raw token that it was made with, if it was: that one is not handed to it again.
            by: The reporter. Sessions with one server share one, and its pace of connecting.
            name: Names the session in events and logs.
            deadline: Seconds for a call and for the connection state that follows it.

        Raises:
            ConfigError: If an argument cannot work.
            KeeperClosed: Before the start, after the end, or in a forked child.
        """
        from token_keeper.sessions._attaching import attach  # noqa: PLC0415 - who has no session needs none of it

        given, token = _taken(token) if token is not None else None, None
        if isinstance(given, str):
            raise ConfigError("token", f"must be the raw token, a string, but is of type {given}")
        return attach(self, session, made_with=given, by=by, name=name, deadline=deadline)

    def connections(
        self,
        connect: Callable[[str], Any],
        *,
        by: str = "connections",
        swap: bool = True,
        timeout: float = 30.0,
        retry_on: tuple[type[BaseException], ...] = (),
    ) -> Connections[Any]:
        """Connect again and again, each time with a token that is valid then.

            async for connection in keeper.connections(connect):
                with suppress(ConnectionClosed):  # what the SDK raises when it ends
                    async for message in connection: ...

        For clients that take a token only when they connect. A connection that
        is refused with 401, or ends with a code that says so, is followed by one
        with another token; attempts in vain are spaced by 1 s to 2 min. When the
        keeper has a new token, the next connection is made before the old one is
        closed, so that whatever reads from that comes to its end.

        Args:
            connect: Takes the raw token; returns an async context manager, or a connection to await.
            by: The reporter.
            swap: Whether to replace a connection that lives when there is a new token.
            timeout: Seconds that one attempt may take.
            retry_on: Exceptions of `connect` after which to try again, beside those of the
                network and statuses 401, 408, 425, 429 and 5xx. Others end the loop.

        Raises:
            ConfigError: If an argument cannot work.
        """
        from token_keeper.sessions._connections import Connections  # noqa: PLC0415 - as in `attach`

        return Connections(self, connect, by=by, swap=swap, timeout=timeout, retry_on=retry_on)

    async def _end(self, home: Home) -> None:
        """Stop what was started, tell the listeners what is still queued, close the source."""
        # Each step also if the one before was cancelled: nobody gets a second chance to close.
        try:
            if self._circle is not None:
                await self._circle.end()
        finally:
            await self._end_home(home)

    async def _end_home(self, home: Home) -> None:
        try:
            await home.end()
        finally:
            try:
                await self._listeners.drain(DRAIN_S)
            finally:
                await self._close_source()

    async def _close_source(self) -> None:
        source = self._source
        if isinstance(source, Retiring):
            await self._let_go(source.retire)
        if source is not None:
            await self._let_go(source.aclose)

    async def _let_go(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await step()
        except Exception:  # noqa: BLE001 - whatever a source raises, the keeper is closed
            self._log.warning("sourceNotClosed", exc_info=True)

    def _charge(self) -> Charge:
        return Charge(self._kept, self._source, self._teller.receive, self._teller.tell)

    def _check_sourced(self) -> None:
        if self._source is None:
            raise ConfigError(
                "source",
                "this keeper has none to refresh from: hand in a token with update(), or give it one",
            )

    def __repr__(self) -> str:
        state = self._kept.snapshot()
        kind = type(self).__name__
        return (
            f"<{kind} {self.name!r} {state.status} generation={state.generation} {state.fingerprint or ''}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: make one in each process, "
            "or share the token through the sidecar"
        )


def check_reporter(by: object) -> None:
    """Check that *by* can name a reporter.

    Raises:
        ConfigError: If it cannot.
    """
    if not isinstance(by, str):
        raise ConfigError("by", f"must be a string, but is of type {type(by).__name__}")
    if len(by) > MAX_REPORTER:
        raise ConfigError("by", f"must have at most {MAX_REPORTER} characters, but has {len(by)}")


def _taken(raw: object) -> Secret | str:
    """Return *raw* as a secret; if it is no string, the name of its type. A raised error would show it."""
    return Secret(raw) if isinstance(raw, str) else type(raw).__name__


def _without(token: Secret, said: TextT) -> TextT:
    """Return what a server *said* without the token in it."""
    if not isinstance(said, str) or not token.reveal():
        return said
    return said.replace(token.reveal(), f"<token {token.fingerprint}>")


def _check_source(source: object) -> None:
    problem = None
    if isinstance(source, type):
        problem = f"is a class: make one, such as {source.__name__}(...)"
    elif isinstance(source, str):
        problem = "is a string: for a URL pass HttpSource(url); a token goes to update()"
    elif source is not None and any(not hasattr(source, name) for name in _SOURCE_PARTS):
        function = "for a function pass CallableSource(function); " if callable(source) else ""
        problem = f"is of type {type(source).__name__}: {function}a source has {', '.join(_SOURCE_PARTS)}"
    del source  # Whatever it was meant to be: a traceback shows the locals of its frames.
    if problem is not None:
        raise ConfigError("source", problem)


def _check_parts(policy: object, profile: object, expect: object, clock: object) -> None:
    if not isinstance(policy, RefreshPolicy):
        raise ConfigError("policy", f"must be a RefreshPolicy(...), but is of type {type(policy).__name__}")
    if not isinstance(profile, str | Profile):
        raise ConfigError("profile", f"must be a name or a Profile, but is of type {type(profile).__name__}")
    if not isinstance(expect, Mapping | Expectations | None):
        raise ConfigError("expect", f"must be a mapping, but is of type {type(expect).__name__}")
    readings = [getattr(clock, name, None) for name in ("wall", "boot", "monotonic")]
    if clock is not None and (isinstance(clock, type) or not all(map(callable, readings))):
        raise ConfigError("clock", "must have wall(), boot() and monotonic(), such as a VirtualClock()")


_SOURCE_PARTS = ("fetch", "aclose", "origin", "splay")
