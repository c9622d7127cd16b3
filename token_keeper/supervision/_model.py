"""What the supervisor of one session knows, what happens to it, and what it orders.

All points in time are seconds of the boot clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from token_keeper._model import Secret, Verdict

NEVER = math.inf


class Link(StrEnum):
    """The connection, as the SDK tells it."""

    UNKNOWN = "unknown"
    """The SDK has said nothing yet."""
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSING = "closing"
    DENIED = "denied"
    DISCONNECTED = "disconnected"


SETTLED = frozenset({Link.UNKNOWN, Link.CONNECTED, Link.DENIED, Link.DISCONNECTED})
"""States in which an SDK takes an update; in the others it is lost or never answered."""
BROKEN = frozenset({Link.DENIED, Link.DISCONNECTED})


class Phase(StrEnum):
    """What the supervisor is doing."""

    IDLE = "idle"
    """The session has its token."""
    CALLING = "calling"
    """A call to the session is under way."""
    JUDGING = "judging"
    """The call returned; the state that follows decides."""
    AWAITING_TOKEN = "awaiting_token"
    """The session needs another token than the one it has."""
    PAUSED = "paused"
    """The next attempt has to wait."""
    GAVE_UP = "gave_up"
    """Nothing is left to try with this token. The next one starts anew."""
    DETACHED = "detached"


class Rung(IntEnum):
    """The ways to make a session use a token, the gentlest first."""

    UPDATE = 1
    RECONNECT = 2
    RECREATE = 3


class SessionEventKind(StrEnum):
    """What a session's listeners are told."""

    UPDATED = "sessionUpdated"
    """It took a token."""
    DENIED = "sessionDenied"
    """Its server refused the token, or let it run out, or ended the connection."""
    RECOVERED = "sessionRecovered"
    """It is connected again, with another token or another connection."""
    GAVE_UP = "sessionGaveUp"
    """Nothing helped; the diagnosis says what was tried. The next token starts anew."""
    TOKEN_KEPT_BACK = "sessionTokenKeptBack"
    """A new token would have broken the session: it was not handed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A token that the keeper has for the session.

    Args:
        secret: The raw token.
        generation: Of the keeper; 0 if it is not from this keeper.
        received: When the keeper got it.
        expires: When it expires; `NEVER` if that is not known.
        flaws: Why it would break the session; empty if nothing speaks against it.
    """

    secret: Secret
    generation: int
    received: float = 0.0
    expires: float = NEVER
    flaws: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to the session.

    Args:
        call_id: 1, 2, 3 ...
        rung: What was called.
        was: The connection when it was called.
        judged: When its outcome is decided at the latest.
        ended: It returned.
        reached: The session was connected anew since.
        problem: How it failed, if it did.
        moot: Its outcome does not matter any more; only its return is waited for.
    """

    call_id: int
    rung: Rung
    was: Link
    judged: float
    ended: bool = False
    reached: bool = False
    problem: str = ""
    moot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """All that is known of one session.

    Args:
        rungs: What the session can do.
        deadline_s: How long a call and what follows it may take.
        phase: What the supervisor is doing.
        link: The connection.
        link_since: Since when.
        closing_to: What the connection counts as if `CLOSING` does not end.
        held: The token that was handed over last.
        offer: The token that the keeper has for it, or None.
        dead: The held token is of no use any more.
        call: The call in flight, or under judgement.
        calls: Calls ever; the last one's id.
        stuck: Updates that never returned, by id: a client that has one gets no other.
        rung: What was tried last with the held token.
        again: The same token is worth another connection.
        until: When the pause, or the patience, ends.
        tried: What was tried in vain with the held token.
        taken: Generation of the last token that it took.
        trouble: The session was broken, and has not recovered yet.
        told_gave_up: `sessionGaveUp` was told of the held token.
        kept_back: Generation of the last token that was not handed over.
        chances: How often it began anew after it gave up, since the last success.
        rounds: Connections in vain with a good token, since the last success.
        diagnosis: Why it gave up.
    """

    rungs: frozenset[Rung] = frozenset({Rung.UPDATE})
    deadline_s: float = 30.0
    phase: Phase = Phase.IDLE
    link: Link = Link.UNKNOWN
    link_since: float = 0.0
    closing_to: Link = Link.DISCONNECTED
    held: Offer | None = None
    offer: Offer | None = None
    dead: bool = False
    call: Call | None = None
    calls: int = 0
    stuck: frozenset[int] = frozenset()
    rung: Rung = Rung.UPDATE
    again: bool = False
    until: float = NEVER
    tried: tuple[str, ...] = ()
    taken: int = 0
    trouble: bool = False
    told_gave_up: bool = False
    kept_back: int = 0
    chances: int = 0
    rounds: int = 0
    diagnosis: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happens.

    Args:
        boot: Seconds of the boot clock.
        clear: From when on the account may make another connection.
    """

    boot: float
    clear: float = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """The session is supervised from now on; *made_with* is the token that it has already."""

    made_with: Offer | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """The keeper has *offer* for the session; None if it has nothing usable."""

    offer: Offer | None


@dataclass(frozen=True, slots=True)
class Said:
    """The SDK told its connection state.

    Args:
        link: The state.
        code: The server's code.
        reason: The server's words.
        ran_out: The token ran out, says the SDK; *link* is then what it is expected to become.
    """

    link: Link
    code: int | str | None = None
    reason: str | None = None
    ran_out: bool = False


@dataclass(frozen=True, slots=True)
class Warned:
    """The SDK says that its token is about to expire."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the keeper made of the denial of *generation*, and what it knows of the reasons."""

    generation: int
    verdict: Verdict
    diagnosis: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call returned; *problem* says how it failed, empty if it did not."""

    call_id: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Detached:
    """The session is left alone from now on."""


Input = Start | Offered | Said | Warned | Judged | CallEnded | Tick | Detached


@dataclass(frozen=True, slots=True)
class Attempted:
    """Call the session; report back exactly once, with this id.

    *connects*: it makes a new connection, which the account's pace counts.
    """

    call_id: int
    rung: Rung
    offer: Offer
    connects: bool


@dataclass(frozen=True, slots=True)
class Abandon:
    """Wait for this call no longer, and cancel it if that is possible."""

    call_id: int


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the keeper that *offer* was denied, and post what it makes of it."""

    offer: Offer
    code: int | str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ReportAccepted:
    """Tell the keeper that *offer* was accepted."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class SlowDown:
    """An attempt was in vain, or the server asks for patience: the whole account backs off."""


@dataclass(frozen=True, slots=True)
class AskRefresh:
    """Ask the keeper for a token newer than *generation*."""

    generation: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Log it, and tell the session's listeners."""

    kind: SessionEventKind
    generation: int
    code: int | str | None = None
    diagnosis: tuple[str, ...] = ()


Effect = Attempted | Abandon | Report | ReportAccepted | SlowDown | AskRefresh | Tell
Effects = tuple[Effect, ...]
