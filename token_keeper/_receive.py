"""Turns what a source handed over into a token that may be published, or says why it may not.

It decides when the token expires, and by how much the clocks differ.
It does not know what time it is, nor what is done with the token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from token_keeper._errors import InvalidToken, ResponseError
from token_keeper._model import Finding, Issued, Secret, Severity, Token
from token_keeper.inspection import Expectations, Inspection, Key, Profile, error, warning
from token_keeper.inspection._findings import seconds
from token_keeper.inspection._rules import LEAST_MILLISECONDS, YEARS_AHEAD_S

LEEWAY_S = 5.0
"""Tolerance for `nbf`, in seconds. `exp` has none."""

LEAST_SKEW_S = 2.0
MAX_SKEW_S = 86_400.0
MAX_SKEW_BY_CLAIM_S = 600.0

Expected = Expectations | Mapping[str, object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A token that may be published, with what its receipt showed.

    Args:
        token: The token; its times are by the issuer's clock.
        skew_s: The issuer's clock less ours, in seconds; 0 if they agree.
        findings: Warnings and remarks; none is an error.
        remaining_s: Seconds until it expires, or None if that is not known.
    """

    token: Token
    skew_s: float
    findings: tuple[Finding, ...]
    remaining_s: float | None


def clock_skew(
    *,
    wall: float,
    server_time: float | None = None,
    issued_at: float | None = None,
    not_before: float | None = None,
) -> float:
    """Return by how many seconds the issuer's clock is ahead of ours; 0 if they agree.

    Args:
        wall: Our clock at receipt, Unix seconds.
        server_time: The issuer's clock at receipt, if it was said.
        issued_at: `iat` of the token.
        not_before: `nbf` of the token, which counts where there is no `iat`.
    """
    if server_time is not None:
        skew_s = server_time - wall
    else:
        stated = issued_at if issued_at is not None else not_before
        skew_s = max(0.0, stated - wall) if stated is not None else 0.0
    if not LEAST_SKEW_S < abs(skew_s) <= MAX_SKEW_S:
        return 0.0
    # A claim may lie in the future on purpose, so it moves the clock less far than a clock does.
    return skew_s if server_time is not None else min(skew_s, MAX_SKEW_BY_CLAIM_S)


def receive(
    issued: Issued, *, profile: Profile, expect: Expected, wall: float, key: Key | None = None
) -> Received:
    """Inspect what a source handed over, and decide when it expires.

    Args:
        issued: The raw token, and what its issuer said beside it.
        profile: By whose rules it is inspected.
        expect: What it must be good for.
        wall: Our clock at receipt, Unix seconds.
        key: What to check its signature with.

    Raises:
        ResponseError: If the token cannot work. It names the findings.
    """
    first = _inspect(issued.secret, profile, expect, wall)
    skew_s = clock_skew(
        wall=wall,
        server_time=issued.server_time,
        issued_at=first.issued_at,
        not_before=first.not_before,
    )
    now = wall + skew_s
    received = _judged(issued, _inspect(issued.secret, profile, expect, now, key), now=now)
    errors = received.errors
    if errors:
        only_early = all(finding.code == "not-yet-valid" for finding in errors)
        raise ResponseError(
            f"the backend's token cannot work and was not published ({_listed(errors)}); "
            f"a valid token stays. {errors[0].hint}",
            findings=received.findings,
            retry_within=received.not_before - now if only_early and received.not_before else None,
        )
    return Received(
        token=replace(_token(issued.secret, received), source=issued.source),
        skew_s=skew_s,
        findings=received.findings,
        remaining_s=None if received.expires_at is None else received.expires_at - now,
    )


def supplied(
    raw: str | Secret,
    *,
    expires_at: float | None = None,
    profile: Profile,
    expect: Expected = None,
    wall: float,
) -> Token:
    """Inspect a token that was handed in by hand.

    Args:
        raw: The token.
        expires_at: When it expires, Unix seconds; a JWT's own `exp` wins.
        profile: By whose rules it is inspected.
        expect: What it must be good for.
        wall: The time by the issuer's clock, Unix seconds.

    Raises:
        InvalidToken: If the token cannot work. It names the findings.
    """
    secret, raw = (raw if isinstance(raw, Secret) else Secret(raw)), ""
    issued = Issued(secret=secret, expires_at=expires_at)
    first = _inspect(secret, profile, expect, wall)
    now = wall + clock_skew(wall=wall, issued_at=first.issued_at, not_before=first.not_before)
    judged = _judged(issued, _inspect(secret, profile, expect, now), now=now)
    stated = () if expires_at is None else _stated_findings(_real(expires_at), now=now)
    findings = tuple(dict.fromkeys((*judged.findings, *(each for each in stated if _is_error(each)))))
    errors = tuple(finding for finding in findings if _is_error(finding))
    if errors:
        raise InvalidToken(
            f"this token cannot work, nothing was changed ({_listed(errors)}). {errors[0].hint}",
            findings=findings,
        )
    return _token(secret, judged)


def _inspect(
    secret: Secret, profile: Profile, expect: Expected, now: float, key: Key | None = None
) -> Inspection:
    return profile.inspect(secret, now=now, expectations=expect, secret=key, leeway=LEEWAY_S, exp_leeway=0.0)


def _judged(issued: Issued, inspection: Inspection, *, now: float) -> Inspection:
    """Add what was said beside the token, where the token itself does not say when it expires."""
    if inspection.claims is not None and "exp" in inspection.claims:
        return inspection
    expires_at = _stated_expiry(issued, now=now)
    if expires_at is None:
        return inspection
    said_beside = tuple(
        finding
        for finding in inspection.findings
        if finding.code != "exp-missing" or finding in inspection.errors
    )
    return replace(
        inspection,
        expires_at=expires_at if math.isfinite(expires_at) else None,
        findings=(*said_beside, *_stated_findings(expires_at, now=now)),
    )


def _stated_expiry(issued: Issued, *, now: float) -> float | None:
    if issued.expires_in is not None:
        return now + _real(issued.expires_in)
    if issued.expires_at is not None:
        return _real(issued.expires_at)
    return None if issued.default_lifetime_s is None else now + _real(issued.default_lifetime_s)


def _real(value: object) -> float:
    """Return *value* as a float: not a number if it is none, infinite if it is too large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _stated_findings(expires_at: float, *, now: float) -> tuple[Finding, ...]:
    hint = "Correct the expiry that comes with the token, in Unix seconds or seconds from now."
    if not math.isfinite(expires_at):
        return (error("exp-not-a-number", "the stated expiry is not a finite number", hint),)
    if expires_at >= LEAST_MILLISECONDS:
        return (error("exp-in-milliseconds", "the stated expiry is in milliseconds", hint),)
    if expires_at <= now:
        return (error("expired", f"the stated expiry passed {seconds(now - expires_at)} ago", hint),)
    if expires_at - now > YEARS_AHEAD_S:
        ahead = f"the stated expiry is {seconds(expires_at - now)} ahead: years"
        return (warning("lifetime-too-long", ahead, hint),)
    return ()


def _is_error(finding: Finding) -> bool:
    return finding.severity is Severity.ERROR


def _token(secret: Secret, inspection: Inspection) -> Token:
    return Token(
        secret=secret,
        expires_at=inspection.expires_at,
        issued_at=inspection.issued_at,
        not_before=inspection.not_before,
    )


def _listed(errors: tuple[Finding, ...]) -> str:
    return "; ".join(f"{finding.code}: {finding.message}" for finding in errors)
