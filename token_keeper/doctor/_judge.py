"""The steps that all kinds of sources have in common: what becomes of the token that was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from token_keeper._model import Issued, Secret
from token_keeper._policy import RefreshPolicy
from token_keeper.doctor import _connect as twilsock
from token_keeper.doctor import _findings as findings
from token_keeper.doctor import _kind as kinds
from token_keeper.doctor._forecast import Forecast, forecast, schedule_step
from token_keeper.doctor._report import Report, Step, skipped
from token_keeper.doctor._seen import TOKEN_STEPS, Seen
from token_keeper.doctor._timeline import Mark
from token_keeper.inspection import Expectations


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what a token is judged.

    Args:
        profile: By whose rules; ``auto`` goes by its look.
        expect: What it must be good for.
        key: What to check its signature with.
        policy: When a keeper would refresh it.
        connect: Whom else to show it to; None is nobody.
    """

    profile: str = "auto"
    expect: Expectations = field(default_factory=Expectations)
    key: Secret | None = None
    policy: RefreshPolicy = field(default_factory=RefreshPolicy)
    connect: twilsock.Connect | None = None


async def judged(seen: Seen, rules: Rules) -> Report:
    """Return the report on a source: its own steps, and what becomes of its token."""
    if seen.issued is not None:
        return await _with_token(seen, seen.issued, rules)
    steps = (
        *seen.steps,
        seen.token,
        *skipped(TOKEN_STEPS[1:], seen.missing),
        seen.clock,
        *skipped(("schedule",), "there is no token"),
        *twilsock.not_connected(rules.connect, "there is no token"),
    )
    return Report(url=seen.place, steps=steps)


async def _with_token(seen: Seen, issued: Issued, rules: Rules) -> Report:
    kind = kinds.kind_of(
        issued.secret, asked=rules.profile, expects=bool(rules.expect.names), now=seen.received_at
    )
    examined = findings.examine_token(
        issued, profile=kind.profile, expect=rules.expect, key=rules.key, wall=seen.received_at
    )
    foreseen = _forecast(seen, examined, rules.policy)
    verdicts = kinds.product_verdicts(examined, expect=rules.expect, key=rules.key)
    steps: Sequence[Step] = (
        *seen.steps,
        seen.token,
        kinds.kind_step(kind, examined),
        findings.findings_step(examined),
        seen.clock,
        _schedule(foreseen, is_new=seen.is_new),
        *((kinds.products_step(verdicts, rules.expect.grants),) if verdicts is not None else ()),
        *(await twilsock.connected(rules.connect, examined, expect=rules.expect, key=rules.key)),
    )
    return Report(
        url=seen.place,
        steps=tuple(steps),
        findings=examined.findings,
        forecast=foreseen,
        products=verdicts,
        marks=_marks(examined, foreseen),
    )


def _schedule(foreseen: Forecast | None, *, is_new: bool) -> Step:
    if foreseen is None:
        return skipped(("schedule",), "a keeper would not use this token")[0]
    return schedule_step(foreseen, is_new=is_new)


def _forecast(seen: Seen, examined: findings.Examined, policy: RefreshPolicy) -> Forecast | None:
    if examined.token is None:
        return None
    splayed = replace(policy, splay=policy.splay and seen.splay)
    return forecast(examined.token, now=seen.received_at, skew_s=examined.skew_s, policy=splayed)


def _marks(examined: findings.Examined, seen: Forecast | None) -> tuple[Mark, ...]:
    """Return the token's times, relative to the issuer's present."""
    inspection, token = examined.inspection, examined.token
    expires_at = token.expires_at if token is not None else inspection.expires_at
    times = {"iat": inspection.issued_at, "nbf": inspection.not_before, "exp": expires_at}
    marks = [Mark(name=name, at=at - examined.now) for name, at in times.items() if at is not None]
    if seen is not None:
        marks.append(Mark(name="refresh", at=seen.earliest - seen.now, until=seen.latest - seen.now))
    return (*marks, Mark(name="now", at=0.0))
