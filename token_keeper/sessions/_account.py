"""What the sessions of one reporter share: the token they are offered, the pace, and the reports."""

from __future__ import annotations

import random

from token_keeper._face import Face
from token_keeper._model import Secret, Verdict
from token_keeper._share import Share
from token_keeper._state import Current
from token_keeper.supervision import Offer, Pace, flaws_of


class Account:
    """One reporter's sessions and their keeper.

    Args:
        keeper: The keeper.
        by: The reporter.
    """

    def __init__(self, keeper: Face, by: str) -> None:
        self.by = by
        self.log = keeper._log  # noqa: SLF001 - sessions are of one piece with their keeper
        self.pace = Pace()
        self._slow_until = 0.0
        self._kept = keeper._kept  # noqa: SLF001 - as above
        self._clock = keeper._clock  # noqa: SLF001 - as above
        self._profile = keeper._profile  # noqa: SLF001 - as above
        self._expect = keeper._expect  # noqa: SLF001 - as above
        self._share = Share(keeper, by)
        self._offer: Offer | None = None

    def boot(self) -> float:
        """Return the boot clock's seconds."""
        return self._clock.boot()

    def wall(self) -> float:
        """Return Unix seconds."""
        return self._clock.wall()

    def offer(self) -> Offer | None:
        """Return the token that the reporter's sessions may have now: the same object until it changes."""
        current = self._kept.state.usable_by(self.by, self.boot())
        if current is None:
            return None
        if self._offer is None or self._offer.generation != current.generation:
            self._offer = _offer(current)
        return self._offer

    def offer_of(self, made_with: Secret | None) -> Offer | None:
        """Return what is known of a token that a session was made with."""
        current = self._kept.state.current
        if made_with is None:
            return None
        if current is not None and current.token.secret == made_with:
            return _offer(current)
        return Offer(secret=made_with, generation=0)

    def flaws(self, offer: Offer, first: Secret | None) -> tuple[str, ...]:
        """Return what speaks against handing *offer* to a session that began with *first*."""
        wall = self._issuer_wall()
        return flaws_of(offer.secret, first, profile=self._profile, expect=self._expect, wall=wall)

    def denied(
        self, offer: Offer, code: int | str | None, reason: str | None
    ) -> tuple[Verdict, tuple[str, ...]]:
        """Report that *offer* was denied; return the verdict, and what is known of the reasons."""
        verdict = self._share.denied(offer.secret.reveal(), code=code, reason=reason)
        if verdict is Verdict.GAVE_UP and self._kept.gone is not None:
            # The keeper's end is no failure of the session, which is about to be let go.
            return Verdict.SUPERSEDED, ()
        if verdict not in {Verdict.GAVE_UP, Verdict.FORBIDDEN}:
            return verdict, ()
        inspection = self._profile.inspect(offer.secret, now=self._issuer_wall(), expectations=self._expect)
        return verdict, self._profile.diagnose(inspection, code, reason)

    def _issuer_wall(self) -> float:
        current = self._kept.state.current
        return self.wall() + (current.skew_s if current is not None else 0.0)

    def accepted(self, offer: Offer) -> None:
        """Report that *offer* was accepted, and that connecting works."""
        self.pace = self.pace.succeeded()
        self._share.accepted(offer.secret.reveal())

    def ask(self, generation: int) -> None:
        """Ask for a token newer than that of *generation*, once for all sessions."""
        if self._kept.state.sourced and self._kept.gone is None:
            self._kept.ask_once(generation)

    def attempted(self) -> None:
        """Count an attempt to connect."""
        self.pace = self.pace.attempted(self.boot())

    def slow_down(self) -> None:
        """Let all sessions of the account wait before they connect again."""
        boot = self.boot()
        if boot < self._slow_until:
            return  # What befalls many sessions at once is one failure, not many.
        self.pace = self.pace.failed(boot, random.random())  # noqa: S311 - it spreads load
        self._slow_until = self.pace.clear


def _offer(current: Current) -> Offer:
    return Offer(
        secret=current.token.secret,
        generation=current.generation,
        received=current.received,
        expires=current.expires,
    )
