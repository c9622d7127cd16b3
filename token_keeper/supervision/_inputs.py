"""What can happen to a session, and what its machine orders: values without behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from token_keeper._model import Verdict
from token_keeper.supervision._model import Link, Offer, Rung, SessionEventKind, SessionState


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

Turned = tuple[SessionState, Effects]
"""What follows from an input: the new state, and the orders."""
