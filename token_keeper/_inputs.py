"""What can happen to a kept token, and what the machine orders.

Inputs are facts, effects are orders; both are values without behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass

from token_keeper._errors import FetchError, RefusedError
from token_keeper._model import DenialClass, EventKind, Token, TokenEvent, Verdict


@dataclass(frozen=True, slots=True)
class Moment:
    """When an input arrived, and the luck that came with it.

    Args:
        wall: Unix seconds of the local clock.
        boot: Seconds of the boot clock.
        jitter: A draw from 0 to 1, for waits.
        splay: Another one, for the first refresh of a token.
    """

    wall: float
    boot: float
    jitter: float = 0.5
    splay: float = 0.5


@dataclass(frozen=True, slots=True)
class Started:
    """Somebody wants the token kept from now on."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The fetch of *fetch_id* brought a token that passed inspection.

    *skew_s* is what to add to the local wall clock to get the issuer's.
    """

    fetch_id: int
    token: Token
    skew_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a fetch failed, as far as the machine cares.

    Args:
        message: For people.
        refused: The backend will not issue a token.
        certain: One such answer is enough to believe it.
        retry_after_s: The backend asked to wait, if it did.
        retry_within_s: Another try is worthwhile at the latest then, if known.
    """

    message: str
    refused: bool = False
    certain: bool = False
    retry_after_s: float | None = None
    retry_within_s: float | None = None

    @classmethod
    def of(cls, error: FetchError) -> Failure:
        """Return what the machine needs to know of *error*."""
        refused = isinstance(error, RefusedError)
        return cls(
            message=str(error),
            refused=refused,
            certain=isinstance(error, RefusedError) and error.is_certain,
            retry_after_s=error.retry_after,
            retry_within_s=error.retry_within,
        )


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """The fetch of *fetch_id* brought none."""

    fetch_id: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class TokenDenied:
    """A server refused the token of *generation* when *by* showed it; 0 is no token of ours."""

    generation: int
    by: str = ""
    meaning: DenialClass = DenialClass.DENIED


@dataclass(frozen=True, slots=True)
class TokenAccepted:
    """A server accepted the token of *generation* from *by*."""

    generation: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class RefreshRequested:
    """Somebody wants a newer token now."""


@dataclass(frozen=True, slots=True)
class CredentialsChanged:
    """What the source shows to the backend is new: its former answers say nothing any more.

    *keeps*: the current token serves until its successor comes. Else it is not what is wanted
    any more, and is withdrawn.
    """

    keeps: bool = True


@dataclass(frozen=True, slots=True)
class TokenSupplied:
    """Somebody handed in a token that passed inspection."""

    token: Token
    skew_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ClockJumped:
    """The clocks disagree on how much time has passed.

    Args:
        wall_s: By how much the wall clock moved against the boot clock.
        asleep_s: For how long the machine was suspended.
    """

    wall_s: float
    asleep_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Closed:
    """Nobody wants the token any more."""


Input = (
    Started
    | Tick
    | Fetched
    | FetchFailed
    | TokenDenied
    | TokenAccepted
    | RefreshRequested
    | CredentialsChanged
    | TokenSupplied
    | ClockJumped
    | Closed
)


@dataclass(frozen=True, slots=True)
class StartFetch:
    """Fetch a token with at most *tries* tries; report back exactly once, with this id."""

    fetch_id: int
    timeout_s: float
    tries: int


@dataclass(frozen=True, slots=True)
class CancelFetch:
    """Nobody waits for this fetch any more; its outcome is ignored."""

    fetch_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Tell the listeners. The driver adds the keeper's name and the time."""

    kind: EventKind
    generation: int = 0
    fingerprint: str | None = None
    expires_at: float | None = None
    failures: int = 0
    error: str | None = None
    verdict: Verdict | None = None
    by: str = ""

    def event(self, *, name: str, at: float, diagnosis: tuple[str, ...] = ()) -> TokenEvent:
        """Return it as listeners of the keeper *name* get it, at *at* in Unix seconds."""
        return TokenEvent(
            kind=self.kind,
            name=name,
            at=at,
            generation=self.generation,
            fingerprint=self.fingerprint,
            expires_at=self.expires_at,
            failures=self.failures,
            error=self.error,
            verdict=self.verdict,
            diagnosis=diagnosis,
        )


Effect = StartFetch | CancelFetch | Announce
Effects = tuple[Effect, ...]
