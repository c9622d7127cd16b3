"""What is told about a session. Without secrets."""

from __future__ import annotations

from dataclasses import dataclass

from token_keeper.supervision import Link, Phase, SessionEventKind


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent:
    """Something that happened to a session. Holds no secret.

    Args:
        kind: What happened.
        session: The session's name.
        by: The reporter's name, which several sessions may share.
        at: Unix seconds.
        generation: Of the token that it is about; 0 if it is not from this keeper.
        code: What the server said.
        diagnosis: What was tried, what speaks against a token, what is left to check.
    """

    kind: SessionEventKind
    session: str
    by: str
    at: float
    generation: int
    code: int | str | None = None
    diagnosis: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSnapshot:
    """How a session stands. Holds no secret.

    Args:
        phase: What the supervisor is doing.
        link: The connection, as the SDK told it.
        generation: Of the token that was handed over last; 0 if there is none.
        diagnosis: Why it gave up, if it did.
    """

    phase: Phase
    link: Link
    generation: int
    diagnosis: tuple[str, ...] = ()
