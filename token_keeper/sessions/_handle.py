"""What a session's owner holds: where the SDK's news go in, and a session's news come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

from token_keeper._errors import ConfigError
from token_keeper.sessions._events import SessionSnapshot
from token_keeper.supervision import Detached, Input, Link, Said, SessionEventKind, Warned, link_of

ListenerT = TypeVar("ListenerT", bound=Callable[..., object])

MAX_TEXT = 16_384
"""Characters of what an SDK says that are looked at. Few are kept, once the tokens among them are gone."""


class Supervisor(Protocol):
    """Who keeps the session; see `_supervisor.py`."""

    name: str

    def post(self, what: Input) -> None:
        """Let *what* happen soon. From any thread; never blocks."""
        ...

    def snapshot(self) -> SessionSnapshot:
        """Return how the session stands."""
        ...

    def listen(self, kinds: frozenset[SessionEventKind], listener: Callable[..., object]) -> None:
        """Call *listener* with events of these *kinds*."""
        ...

    def word_unknown(self, word: str) -> None:
        """Log that the SDK has a *word* for its state that means nothing here."""
        ...


class SessionHandle:
    """Tells the keeper what an SDK says of its connection. Returned by `keeper.attach(session)`.

        sdk.on("stateChanged", handle.state_changed)
        sdk.on("tokenAboutToExpire", handle.about_to_expire)

    Every method may be called from any thread and never blocks. Arguments that
    an SDK passes beside those named here are ignored. A session whose SDK says
    nothing is judged by whether `update_token` raises.
    """

    __slots__ = ("_supervisor",)

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def connected(self, *_: object) -> None:
        """Say that the session is connected, and that its token was accepted."""
        self._supervisor.post(Said(Link.CONNECTED))

    def denied(self, *_: object, code: int | str | None = None, reason: str | None = None) -> None:
        """Say that the server refused the session's token."""
        self._say(Link.DENIED, code, reason)

    def disconnected(self, *_: object, code: int | str | None = None, reason: str | None = None) -> None:
        """Say that the connection ended, and that the SDK does not try again by itself.

        Out of the blue that is how many servers refuse a token. If the SDK goes
        on trying, it is ``state_changed("connecting")``.
        """
        self._say(Link.DISCONNECTED, code, reason)

    def about_to_expire(self, *_: object) -> None:
        """Say that the server warned of the token's end. The keeper owns the clock: this only hurries it."""
        self._supervisor.post(Warned())

    def expired(self, *_: object, code: int | str | None = None, reason: str | None = None) -> None:
        """Say that the server let the token run out."""
        self._say(Link.DISCONNECTED, code, reason, ran_out=True)

    def state_changed(
        self, state: str, *_: object, code: int | str | None = None, reason: str | None = None
    ) -> None:
        """Say the connection's state in the SDK's own word, such as ``"denied"`` or ``"connecting"``.

        A word that means nothing here is logged once and changes nothing.
        """
        word = _word(state)
        link = link_of(word)
        if link is not None:
            self._say(link, code, reason)
        elif word != Link.UNKNOWN:
            self._supervisor.word_unknown(word)

    def on(self, *kinds: str) -> Callable[[ListenerT], ListenerT]:
        """Call the decorated function with each `SessionEvent` of these *kinds*; of all if none is given.

        Raises:
            ConfigError: If there is no such event.
        """
        known = [str(kind) for kind in SessionEventKind]
        for kind in kinds:
            if callable(kind):
                raise ConfigError("on", 'write handle.on()(listener), or @handle.on("sessionDenied")')
            if kind not in known:
                shown = str(kind)[:64]
                raise ConfigError("on", f"there is no event {shown!r}; known are {', '.join(known)}")
        wanted = frozenset(SessionEventKind(kind) for kind in kinds or known)

        def register(listener: ListenerT) -> ListenerT:
            if not callable(listener):
                kind = type(listener).__name__
                raise ConfigError("on", f"a listener must be a function of one event, but this is a {kind}")
            self._supervisor.listen(wanted, listener)
            return listener

        return register

    @property
    def snapshot(self) -> SessionSnapshot:
        """How the session stands: immutable, without secrets."""
        return self._supervisor.snapshot()

    def detach(self) -> None:
        """Leave the session alone from now on. Does nothing the second time."""
        self._supervisor.post(Detached())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        now = self.snapshot
        return f"<SessionHandle {self._supervisor.name!r} {now.phase} {now.link} generation={now.generation}>"

    def _say(self, link: Link, code: Any, reason: Any, *, ran_out: bool = False) -> None:
        # Whatever an SDK passes: a callback that raises would end in the SDK's own thread, unseen.
        if not isinstance(code, int | None) or isinstance(code, bool):
            code = _text(code)
        reason = None if reason is None else _text(reason)
        self._supervisor.post(Said(link, code, reason, ran_out))


def _word(state: object) -> str:
    """Return an SDK's word for its state, which may be a member of an enumeration."""
    value = getattr(state, "value", state)
    # The members of some have numbers, and names that are words.
    return _text(value if isinstance(value, str) else getattr(state, "name", state))


def _text(said: object) -> str:
    try:
        return str(said)[:MAX_TEXT]
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return f"<unprintable {type(said).__name__}>"
