"""What the steps of one kind of source come to, for the steps that all kinds have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from token_keeper._model import Issued
from token_keeper.doctor._report import Status, Step, skipped

TOKEN_STEPS = ("token", "kind", "findings")
"""What is said of a token, before the clock and the schedule."""

NO_DATE = Step(
    name="clock",
    status=Status.SKIPPED,
    summary="skipped: nobody was asked who would say what time it is",
    details={"ahead": None},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the steps of one kind of source came to.

    Args:
        place: What was asked, as it may be shown.
        steps: In the order in which they ran, up to the token.
        received_at: When the token came, or the last step ended: Unix seconds of our clock.
        issued: The token, if there is one.
        token: How it was found, or why not.
        missing: Why there is none, for the steps that are skipped then.
        clock: How the issuer's clock stands against ours.
        is_new: Whether the token was issued for this examination.
        splay: Whether a keeper may spread the first refresh over the token's life.
    """

    place: str
    steps: tuple[Step, ...]
    received_at: float
    issued: Issued | None = None
    token: Step = field(default_factory=lambda: skipped(("token",), "there is none")[0])
    missing: str = "there is no token"
    clock: Step = NO_DATE
    is_new: bool = True
    splay: bool = True


def unseen(place: str, steps: tuple[Step, ...], why: str, *, at: float) -> Seen:
    """Return what it comes to if *steps* did not lead to anybody who could be asked.

    Args:
        place: What should have been asked.
        steps: What ran, and what was skipped.
        why: Said of the steps that are skipped now.
        at: When that was clear, Unix seconds.
    """
    token, clock = skipped(("token", "clock"), why)
    return Seen(place=place, steps=steps, received_at=at, token=token, missing=why, clock=clock)
