"""Predicts what a keeper would do with a token, by asking the keeper's own machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from token_keeper import _schedule as schedule
from token_keeper._inputs import Fetched, Moment, Started
from token_keeper._machine import step
from token_keeper._model import Snapshot, Token
from token_keeper._policy import RefreshPolicy
from token_keeper._state import State
from token_keeper._view import snapshot_of
from token_keeper.doctor._report import Status, Step
from token_keeper.doctor._words import length, whole

ENOUGH_ATTEMPTS: Final = 3
"""With fewer, one hiccup of the backend is a gap."""
CACHED_SHARE: Final = 0.5
"""A token of which more is used up at receipt was not made for this request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When a keeper would refresh a token that it received just now.

    Args:
        now: Unix seconds of our clock, to which all times here refer.
        remaining_s: Validity that is left; None if its end is not known.
        lifetime_s: From `iat` or `nbf` to the expiry; None if they do not say.
        used: Share of *lifetime_s* that has passed, 0 to 1, or None.
        lead_s: How long before its expiry it is refreshed at the latest.
        jitter_max_s: By how much earlier at most.
        earliest: First possible time of the scheduled refresh.
        latest: Last possible time of it.
        splayed_earliest: First possible time for the first token after a start.
        budget_s: From the latest refresh to the expiry: for so long the backend may be down.
        attempts: Fetches that fit in there.
        formula: How all that follows from this token's numbers, in sentences.
    """

    now: float
    remaining_s: float | None
    lifetime_s: float | None
    used: float | None
    lead_s: float | None
    jitter_max_s: float | None
    earliest: float
    latest: float
    splayed_earliest: float
    budget_s: float | None
    attempts: int | None
    formula: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the form that programs read. Times are Unix seconds of our clock."""
        return {
            "now": round(self.now, 3),
            "expires_at": None if self.remaining_s is None else round(self.now + self.remaining_s, 3),
            "remaining": _rounded(self.remaining_s),
            "lifetime": _rounded(self.lifetime_s),
            "used": _rounded(self.used),
            "lead": _rounded(self.lead_s),
            "jitter_max": _rounded(self.jitter_max_s),
            "refresh_earliest_at": round(self.earliest, 3),
            "refresh_latest_at": round(self.latest, 3),
            "first_refresh_earliest_at": round(self.splayed_earliest, 3),
            "attempts": self.attempts,
            "outage_budget": _rounded(self.budget_s),
            "formula": list(self.formula),
        }


def forecast(token: Token, *, now: float, skew_s: float, policy: RefreshPolicy) -> Forecast:
    """Predict the schedule of *token*, received at *now* by our clock.

    Args:
        token: A token that passed inspection.
        now: Unix seconds of our clock.
        skew_s: By how much the issuer's clock is ahead of it.
        policy: The numbers of the schedule.
    """
    late = _received(token, Moment(wall=now, boot=0.0, jitter=0.0, splay=1.0), skew_s, policy)
    early = _received(token, Moment(wall=now, boot=0.0, jitter=1.0, splay=1.0), skew_s, policy)
    splayed = _received(token, Moment(wall=now, boot=0.0, jitter=1.0, splay=0.0), skew_s, policy)
    issuer_now = now + skew_s
    remaining = None if token.expires_at is None else token.expires_at - issuer_now
    lifetime = token.nominal_lifetime_s
    dues = [snapshot.refresh_at or now for snapshot in (early, late)]
    return Forecast(
        now=now,
        remaining_s=remaining,
        lifetime_s=lifetime,
        used=_used(lifetime, remaining),
        lead_s=None if remaining is None else schedule.lead_s(remaining, policy),
        jitter_max_s=None if remaining is None else schedule.jitter_s(remaining, 1.0, policy),
        earliest=min(dues),
        latest=max(dues),
        splayed_earliest=splayed.refresh_at or now,
        budget_s=None if remaining is None else remaining - (max(dues) - now),
        attempts=late.attempts_left,
        formula=_formula(remaining, policy),
    )


def _received(token: Token, at: Moment, skew_s: float, policy: RefreshPolicy) -> Snapshot:
    """Return how a keeper stands that got *token* as the answer to its first fetch."""
    state, _ = step(State(), Started(), at, policy)
    state, _ = step(state, Fetched(fetch_id=state.fetches, token=token, skew_s=skew_s), at, policy)
    return snapshot_of(state, at, policy)


def _used(lifetime_s: float | None, remaining_s: float | None) -> float | None:
    if lifetime_s is None or remaining_s is None or lifetime_s <= 0:
        return None
    return min(max(1.0 - remaining_s / lifetime_s, 0.0), 1.0)


def _formula(remaining_s: float | None, policy: RefreshPolicy) -> tuple[str, ...]:
    if remaining_s is None:
        return ("refresh every hour, up to half an hour earlier at random: the token has no known expiry",)
    share = policy.lead_ratio * remaining_s
    lead = schedule.lead_s(remaining_s, policy)
    bound = ""
    if lead == remaining_s / 2 < max(share, policy.lead_min_s):
        bound = ", cut to half of what is left"
    elif lead > share:
        bound = f", raised to {whole(policy.lead_min_s)}"
    elif lead < share:
        bound = f", cut to {length(policy.lead_max_s)}"
    jitter = whole(schedule.jitter_s(remaining_s, 1.0, policy))
    often = remaining_s - lead > policy.max_refresh_interval_s
    return (
        f"refresh = expiry - lead - jitter{f', but every {length(policy.max_refresh_interval_s)}' * often}",
        f"lead = {policy.lead_ratio:.0%} of the {whole(remaining_s)} that are left = {whole(share)}{bound}",
        f"jitter = 0 s to {jitter}: up to {policy.jitter_ratio:.0%}, at most {whole(policy.jitter_max_s)}",
    )


def schedule_step(found: Forecast, *, is_new: bool = True) -> Step:
    """Say when the token will be refreshed, and what the backend may do meanwhile.

    Args:
        found: The forecast.
        is_new: Whether the token was issued just now: if not, nobody wonders that it is half used.
    """
    if found.remaining_s is None:
        return Step(
            name="schedule",
            status=Status.WARNING,
            summary="nothing says when the token expires: it is refreshed hourly, and may end unannounced",
            remedy="Let the backend set exp or say expires_in; else give the source a default_lifetime.",
            notes=found.formula,
        )
    early, late = found.earliest - found.now, found.latest - found.now
    when = f"in {length(late)}" if round(early) == round(late) else f"in {length(early)} to {length(late)}"
    status, remedy = _judged(found, is_new=is_new)
    budget = length(found.budget_s or 0)
    attempts, single = ("attempt", "s") if found.attempts == 1 else ("attempts", "")
    notes = (
        *found.formula,
        *_splay(found),
        f"outage budget: {budget} from the refresh to the expiry; {found.attempts} {attempts} fit{single}",
        *_share(found),
    )
    return Step(
        name="schedule",
        status=status,
        summary=f"the refresh is due {when}, the token expires in {length(found.remaining_s)}",
        remedy=remedy,
        notes=notes,
    )


def _splay(found: Forecast) -> tuple[str, ...]:
    if found.splayed_earliest >= found.earliest:
        return ()
    begin = _soon(found.splayed_earliest - found.now)
    return (f"after a start: from {begin} on, so that replicas spread out",)


def _judged(found: Forecast, *, is_new: bool) -> tuple[Status, str]:
    if is_new and found.used is not None and found.used >= CACHED_SHARE:
        remedy = "The backend caches tokens: let it make a new one for each request, or drop it much earlier."
        return Status.WARNING, remedy
    if found.attempts is not None and found.attempts < ENOUGH_ATTEMPTS:
        remedy = "The token lives too short to survive a hiccup of the backend: give it a minute or more."
        return Status.WARNING, remedy
    return Status.OK, ""


def _share(found: Forecast) -> tuple[str, ...]:
    if found.used is None or found.lifetime_s is None or found.used * found.lifetime_s < 1:
        return ()
    age = length(found.used * found.lifetime_s)
    return (f"{found.used:.0%} of its lifetime of {length(found.lifetime_s)} is used up: it is {age} old",)


def _soon(seconds: float) -> str:
    return "now" if seconds < 1 else length(seconds)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
