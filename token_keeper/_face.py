"""What both keepers share: everything that does not wait.

The two keepers differ only in how they wait: one awaits, the other blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from token_keeper._clock import Clock, SystemClock
from token_keeper._errors import ConfigError
from token_keeper._home import Home
from token_keeper._kept import KeptToken
from token_keeper._listeners import Listener, Listeners
from token_keeper._model import DenialClass, EventKind, Secret, Snapshot, Token, Verdict
from token_keeper._policy import RefreshPolicy
from token_keeper._receive import supplied
from token_keeper._scheduler import Charge
from token_keeper._state import TokenAccepted
from token_keeper._telling import Teller
from token_keeper.inspection import Expectations, Profile
from token_keeper.logs import keeper_logger
from token_keeper.profiles import profile_named
from token_keeper.sources import Source

ListenerT = TypeVar("ListenerT", bound=Listener)

DRAIN_S = 5.0
"""How long listeners may take at the end for what is still queued."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Face:
    """The part of a keeper that never waits; see the two keepers for how to use it."""

    def __init__(  # noqa: PLR0913 - the contract's constructor
        self,
        source: Source | None,
        *,
        policy: RefreshPolicy,
        profile: str | Profile,
        expect: Mapping[str, object] | Expectations | None,
        name: str,
        start_timeout: float,
        clock: Clock | None,
        logger: Any,
        sync_in_thread: bool,
    ) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError("name", "must be 1 to 64 letters, digits, dots, hyphens or underscores")
        if not start_timeout >= 0:
            raise ConfigError("start_timeout", "must be 0 or more seconds")
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
        self._listeners = Listeners(log=self._log, sync_in_thread=sync_in_thread)
        self._kept = KeptToken(name, policy=policy, clock=self._clock, sourced=source is not None)
        self._teller = Teller(self._kept, self._profile, self._expect, self._log, self._listeners)

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
        return self._kept.read("")

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
        given, raw = Secret(raw), ""
        self._kept.check_alive()
        current = self._kept.state.usable_by("", self._boot())
        if current is not None and current.token.secret == given:
            return
        token = supplied(
            given,
            expires_at=expires_at,
            profile=self._profile,
            expect=self._expect,
            wall=self._clock.wall(),
        )
        self._kept.supply(token)

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
            reason: What else the server said; only logged.

        Raises:
            KeeperClosed: After the end.
        """

        def meaning(current: Token | None) -> DenialClass:
            return self._teller.meaning_of(code, reason, current)

        given, token = Secret(token), ""
        verdict, snapshot = self._kept.deny(given, by, meaning)
        self._teller.denial(verdict, snapshot, by=by, code=code, reason=reason)
        return verdict

    def report_accepted(self, token: str, *, by: str = "") -> None:
        """Say that a server accepted *token* from *by*. Never blocks.

        Raises:
            KeeperClosed: After the end.
        """
        given, token = Secret(token), ""
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
            if kind not in known:
                raise ConfigError("on", f"there is no event {str(kind)[:64]!r}; known are {', '.join(known)}")
        wanted = frozenset(EventKind(kind) for kind in kinds or known)

        def register(listener: ListenerT) -> ListenerT:
            self._listeners.add(wanted, listener)
            return listener

        return register

    async def _end(self, home: Home) -> None:
        """Stop what was started, tell the listeners what is still queued, close the source."""
        await home.end()
        await self._listeners.drain(DRAIN_S)
        if self._source is not None:
            await self._source.aclose()

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
