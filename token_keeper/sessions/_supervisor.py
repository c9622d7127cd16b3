"""Carries out, for one session, what its machine orders."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from token_keeper._listeners import Listeners
from token_keeper._model import Secret
from token_keeper._redact import describe, redact_text
from token_keeper.sessions._account import Account
from token_keeper.sessions._calling import Caller
from token_keeper.sessions._events import SessionEvent, SessionSnapshot
from token_keeper.sessions._protocol import METHODS, rungs_of, takes_token
from token_keeper.supervision import (
    Abandon,
    AskRefresh,
    Attempted,
    CallEnded,
    Effect,
    Input,
    Judged,
    Moment,
    Offer,
    Offered,
    Phase,
    Report,
    ReportAccepted,
    Rung,
    Said,
    SessionEventKind,
    SessionState,
    SlowDown,
    Start,
    Tell,
    Warned,
    next_wakeup,
    step,
)

SaidT = TypeVar("SaidT", int | str | None, str | None, str)

MAX_HEARD = 64
"""Of what an SDK said since the last turn, the latest that counts."""
MAX_WORDS = 16
"""Unknown words that are logged once each."""
MAX_SAID = 400
"""Characters of what an SDK says, or raises, that are kept."""
MAX_HANDED = 4
"""The last tokens, which are struck out of what an SDK says."""
_WORD = re.compile(r"[A-Za-z][A-Za-z _-]{0,31}")

_LEVELS = {
    SessionEventKind.UPDATED: "info",
    SessionEventKind.RECOVERED: "info",
    SessionEventKind.DENIED: "warning",
    SessionEventKind.TOKEN_KEPT_BACK: "error",
    SessionEventKind.GAVE_UP: "error",
}


class SessionSupervisor:
    """One attached session.

    Args:
        name: Names it in events and logs.
        session: The session.
        account: What it shares with the keeper's other sessions.
        caller: How it is called.
        listeners: Whom to tell.
        deadline_s: How long a call and what follows it may take.
        made_with: The token that it has already.
        poke: Wakes whoever calls `turn()`. From any thread.
    """

    def __init__(  # noqa: PLR0913 - all but the first two are keywords
        self,
        name: str,
        session: object,
        *,
        account: Account,
        caller: Caller,
        listeners: Listeners,
        deadline_s: float,
        made_with: Secret | None,
        poke: Callable[[SessionSupervisor], None],
    ) -> None:
        self.name = name
        self.state = SessionState(rungs=rungs_of(session), deadline_s=deadline_s)
        self._session = session
        self._account = account
        self._caller = caller
        self.listeners = listeners
        self._poke = poke
        self._first = made_with
        self._inbox: deque[Input] = deque([Start(account.offer_of(made_with))])
        self._is_poked = False
        self._seen: Offer | None = None
        self._handed: deque[Secret] = deque([made_with] if made_with else [], maxlen=MAX_HANDED)
        self._call: asyncio.Task[None] | None = None
        # All of them, also those that hang: a loop holds its tasks only weakly.
        self._calls: set[asyncio.Task[None]] = set()
        self._words: set[str] = set()

    # From any thread.

    def post(self, what: Input) -> None:
        """Let *what* happen soon. After the end nothing does, and nothing is kept."""
        if self.is_done:
            return
        self._inbox.append(what)
        if not self._is_poked:
            self._is_poked = True
            self._poke(self)

    def snapshot(self) -> SessionSnapshot:
        """Return how the session stands."""
        state = self.state
        generation = state.held.generation if state.held is not None else 0
        return SessionSnapshot(
            phase=state.phase, link=state.link, generation=generation, diagnosis=state.diagnosis
        )

    def listen(self, kinds: frozenset[SessionEventKind], listener: Callable[..., object]) -> None:
        """Call *listener* with events of these *kinds*."""
        self.listeners.add(kinds, listener)

    def word_unknown(self, word: str) -> None:
        """Log once that the SDK has a *word* for its state that means nothing here."""
        # Whoever connects the wrong callback has tokens here, and worse.
        shown = word if _WORD.fullmatch(word) else f"<{len(word)} characters>"
        if shown not in self._words and len(self._words) < MAX_WORDS:
            self._words.add(shown)
            self._account.log.warning("sessionWordUnknown", session=self.name, word=shown)

    # In the keeper's loop.

    @property
    def is_done(self) -> bool:
        """Whether the session was detached."""
        return self.state.phase is Phase.DETACHED

    def wakeup(self) -> float:
        """Return the boot time at which the machine wants a turn."""
        return next_wakeup(self.state)

    def turn(self, what: Input) -> None:
        """Let everything happen that was posted before, and then *what*."""
        self._is_poked = False
        # No more than there is now: an SDK that never stops talking must not keep the loop for itself.
        for posted in _heard([self._inbox.popleft() for _ in range(len(self._inbox))]):
            self._step(posted)
        self._look_at_offer()
        self._step(what)

    def end(self) -> set[asyncio.Task[None]]:
        """Cancel the calls under way, and return them."""
        for call in self._calls:
            call.cancel()
        return set(self._calls)

    def _look_at_offer(self) -> None:
        offer = self._account.offer()
        if offer is self._seen:
            return
        self._seen = offer
        if offer is not None:
            offer = replace(offer, flaws=self._account.flaws(offer, self._first))
        self._step(Offered(offer))

    def _step(self, what: Input) -> None:
        if isinstance(what, Said):
            code, reason = self._without_tokens(what.code), self._without_tokens(what.reason)
            what = replace(what, code=code, reason=reason)
        now = Moment(self._account.boot(), self._account.pace.clear)
        self.state, effects = step(self.state, what, now)
        for effect in effects:
            self._obey(effect)

    def _obey(self, effect: Effect) -> None:
        match effect:
            case Attempted():
                if effect.connects:
                    self._account.attempted()
                self._first = self._first or effect.offer.secret
                self._start(effect)
            case Abandon():
                if self._call is not None:
                    self._call.cancel()
            case Report(offer, code, reason):
                verdict, diagnosis = self._account.denied(offer, code, reason)
                # Before whatever else was posted: the verdict belongs to what was reported.
                self._step(Judged(offer.generation, verdict, diagnosis))
            case ReportAccepted(offer):
                self._account.accepted(offer)
            case SlowDown():
                self._account.slow_down()
            case AskRefresh(generation):
                self._account.ask(generation)
            case Tell():
                self._tell(effect)

    def _start(self, order: Attempted) -> None:
        if order.offer.secret not in self._handed:
            self._handed.append(order.offer.secret)
        name = f"token_keeper {self.name}"
        self._call = asyncio.get_running_loop().create_task(self._run(order), name=name)
        self._calls.add(self._call)
        self._call.add_done_callback(self._calls.discard)

    async def _run(self, order: Attempted) -> None:
        problem = "it was cancelled"
        try:
            problem = await self._called(order)
        finally:
            self.post(CallEnded(order.call_id, problem))

    async def _called(self, order: Attempted) -> str:
        """Call the session; return how that failed, empty if it did not."""
        try:
            method = getattr(self._session, METHODS[order.rung])
            with_token = order.rung is Rung.UPDATE or takes_token(method)
            result = await self._caller.call(_handing(method, order.offer.secret) if with_token else method)
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises, the machine decides
            return self._without_tokens(describe(error))
        if order.rung is Rung.RECREATE and callable(getattr(result, METHODS[Rung.UPDATE], None)):
            self._session = result
        return ""

    def _tell(self, told: Tell) -> None:
        account = self._account
        event = SessionEvent(
            kind=told.kind,
            session=self.name,
            by=account.by,
            at=account.wall(),
            generation=told.generation,
            code=told.code,
            diagnosis=told.diagnosis,
        )
        said: dict[str, Any] = {"session": self.name, "generation": told.generation, "code": told.code}
        said["diagnosis"] = "; ".join(told.diagnosis) or None
        log = getattr(account.log, _LEVELS[told.kind])
        log(str(told.kind), **{key: value for key, value in said.items() if value is not None})
        self.listeners.post(event)

    def _without_tokens(self, said: SaidT) -> SaidT:
        """Return what an SDK *said*: servers like to quote the token that they refuse."""
        if not isinstance(said, str):
            return said
        text = redact_text(said)
        for secret in filter(Secret.reveal, self._handed):
            text = text.replace(secret.reveal(), f"<token {secret.fingerprint}>")
        return text[:MAX_SAID]


def _handing(method: Callable[[str], object], secret: Secret) -> Callable[[], object]:
    """Return a call of *method* with the token, which no frame but the last one holds."""

    def handed() -> object:
        return method(secret.reveal())

    async def handed_async() -> object:
        return await method(secret.reveal())  # type: ignore[misc]  # It is used for coroutine functions.

    return handed_async if inspect.iscoroutinefunction(method) else handed


def _heard(posted: list[Input]) -> list[Input]:
    """Return *posted* without the oldest sayings of an SDK, if those are more than anybody can heed."""
    spared = len(posted) - MAX_HEARD
    return [one for at, one in enumerate(posted) if at >= spared or not isinstance(one, Said | Warned)]
