"""One reporter's share in a keeper: what adapters and sessions do with it, in any thread and any loop.

Both keepers are read and waited for alike: an adapter of a blocking client
takes an `AsyncTokenKeeper`, one of an async client a `TokenKeeper`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from token_keeper import _questions as questions
from token_keeper._errors import ConfigError, KeeperClosed, TokenUnavailable
from token_keeper._face import Face, check_reporter
from token_keeper._model import EventKind, TokenEvent, Verdict
from token_keeper._waiting import answer, block_for_answer

WAIT_S = 30.0
"""How long a share waits for a token unless told otherwise, in seconds."""
WORTH_ANOTHER = frozenset({Verdict.DENIED, Verdict.SUPERSEDED})
"""Verdicts after which there is, or soon will be, another token."""


class Share:
    """Reads and reports of one reporter.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter: a token that is denied to it is withheld from it alone.

    Raises:
        ConfigError: If an argument cannot work.
    """

    __slots__ = ("_accepted", "_keeper", "_kept", "by")

    def __init__(self, keeper: Face, by: str) -> None:
        if isinstance(keeper, type):
            raise ConfigError("keeper", f"is a class: make one, such as {keeper.__name__}(...)")
        if not isinstance(keeper, Face):
            kind = type(keeper).__name__
            raise ConfigError(
                "keeper", f"must be a TokenKeeper or an AsyncTokenKeeper, but is of type {kind}"
            )
        check_reporter(by)
        self.by = by
        self._keeper = keeper
        self._kept = keeper._kept  # noqa: SLF001 - a share is of one piece with its keeper
        # The hash, not the token: nothing here outlives what the keeper holds.
        self._accepted = 0

    def __repr__(self) -> str:
        return f"<share of {self.by!r} in {self._kept.name!r}>"

    @property
    def keeper(self) -> Face:
        """The keeper that it is a share of."""
        return self._keeper

    @property
    def token(self) -> str:
        """The raw token. Never blocks; raises as the keeper's does, also if it was denied here."""
        return questions.read(self._kept, self.by)

    @property
    def generation(self) -> int:
        """Of the token that may be read now; 0 if there is none."""
        current = self._kept.state.usable_by(self.by, self._kept.boot())
        return current.generation if current is not None else 0

    @property
    def expires_at(self) -> float | None:
        """When the current token expires, Unix seconds by our own clock; None if that is not known."""
        current = self._kept.state.current
        return current.expires_at if current is not None else None

    def wait(self, timeout: float = WAIT_S) -> str:
        """Return the token; block for at most *timeout* seconds until there is one.

        Raises:
            TokenUnavailable: If none came in time.
            KeeperClosed: Before the start, after the end, or in a forked child.
            RuntimeError: If it would have to block an event loop or a listener.
        """
        raw = self._now()
        if raw is not None:
            return raw
        if questions.usable(self._kept, self.by, 0.0) is None:
            self._check_may_block()
        return block_for_answer(self._kept, self._question(), timeout=timeout, by=self.by)

    async def awaited(self, timeout: float = WAIT_S) -> str:  # noqa: ASYNC109 - as the keeper's get()
        """Return the token; wait for at most *timeout* seconds until there is one. In any event loop.

        Raises:
            TokenUnavailable: If none came in time.
            KeeperClosed: Before the start, after the end, or in a forked child.
        """
        raw = self._now()
        if raw is not None:
            return raw
        return await answer(self._kept, self._question(), timeout=timeout, by=self.by)

    def another(self, sent: str, timeout: float = WAIT_S) -> str | None:
        """Block for a token other than *sent*, for at most *timeout* seconds; None if there is none.

        It never blocks an event loop or a listener: there it returns what is there now. None also
        after the end of the keeper: the caller holds a server's refusal, which says more.
        """
        # Not the token: whoever interrupts this gets a traceback, and that shows locals.
        known, sent = hash(sent), ""
        try:
            raw = self.wait(timeout) if self._may_block() else self.token
        except (TokenUnavailable, KeeperClosed):
            return None
        return raw if hash(raw) != known else None

    async def another_awaited(self, sent: str, timeout: float = WAIT_S) -> str | None:  # noqa: ASYNC109 - as above
        """Await a token other than *sent*, for at most *timeout* seconds; None as by `another`."""
        known, sent = hash(sent), ""
        try:
            raw = await self.awaited(timeout)
        except (TokenUnavailable, KeeperClosed):
            return None
        return raw if hash(raw) != known else None

    async def other_than(self, sent: str) -> str:
        """Await a token other than *sent*, for as long as it takes.

        Raises:
            KeeperClosed: After the end.
        """
        usable = self._question()
        known, sent = hash(sent), ""

        def question() -> str | None:
            raw = usable()
            return raw if raw is not None and hash(raw) != known else None

        return await answer(self._kept, question, timeout=math.inf, by=self.by)

    def denied(self, sent: str, code: int | str | None = None, reason: str | None = None) -> Verdict:
        """Report that the token that was *sent* was refused. Never blocks; from any thread.

        After the end of the keeper the verdict is `gave_up`: there will be no other token.
        """
        try:
            return self._keeper.report_denied(sent, by=self.by, code=code, reason=reason)
        except KeeperClosed:
            return Verdict.GAVE_UP

    def accepted(self, sent: str) -> None:
        """Report that the token that was *sent* was accepted; once for each token. Never blocks."""
        # Hashes of strings are cached: this costs nothing for the thousandth request.
        if hash(sent) != self._accepted:
            self._accepted = hash(sent)
            # An answer may come after the end of the keeper; it is none the worse.
            with suppress(KeeperClosed):
                self._keeper.report_accepted(sent, by=self.by)

    def on_renewal(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Call *tell* after each new token, as a listener of `tokenUpdated`. Returns what ends that."""

        def renewed(_: TokenEvent) -> None:
            tell()

        listeners = self._keeper._listeners  # noqa: SLF001 - as above
        listeners.add((EventKind.TOKEN_UPDATED,), renewed)
        return partial(listeners.remove, renewed)

    def _now(self) -> str | None:
        """As `questions.usable`, which says why there is none; for each request, so without detours."""
        kept, state = self._kept, self._kept.state
        current = state.usable_by(self.by, kept.boot())
        if current is None or kept.gone is not None or not state.started:
            return None
        return current.token.secret.reveal()

    def _question(self) -> Callable[[], str | None]:
        return partial(questions.usable, self._kept, self.by, 0.0)

    def _may_block(self) -> bool:
        # The public one raises where there is no loop, and costs more than the read.
        in_loop = asyncio._get_running_loop() is not None  # noqa: SLF001 - exported for such as us
        return not in_loop and not self._keeper._listeners.in_listener()  # noqa: SLF001 - as above

    def _check_may_block(self) -> None:
        if self._may_block():
            return
        in_listener = self._keeper._listeners.in_listener()  # noqa: SLF001 - as above
        raise RuntimeError(
            f"{self._kept.name}: there is no usable token now, and waiting for one would block "
            f"{'a listener' if in_listener else 'the event loop of this thread'}: use the async client, "
            "or call it in a thread"
        )
