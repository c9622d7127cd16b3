"""What the supervisor of one session knows. All points in time are seconds of the boot clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from token_keeper._model import Secret

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


WAITING = frozenset({Phase.PAUSED, Phase.AWAITING_TOKEN, Phase.GAVE_UP})
"""Phases that end at `until`."""


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
