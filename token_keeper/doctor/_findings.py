"""Judges what was fetched: the answer, the token, its kind, its findings, and the clocks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from token_keeper._errors import FetchError, RefusedError, ResponseError
from token_keeper._model import Finding, Issued, Secret, Severity, Token
from token_keeper._receive import LEAST_SKEW_S, LEEWAY_S, MAX_SKEW_S, clock_skew, receive
from token_keeper._telling import SKEW_WARN_S
from token_keeper.doctor._fetch import Observed
from token_keeper.doctor._report import Status, Step, finding_dict, worst
from token_keeper.doctor._words import length, listed
from token_keeper.inspection import Expectations, Inspection, Profile

_STAYS: Final = "; a valid token stays. "
_PLACES: Final = {
    "": "the answer is the token, as plain text",
    "@": "the answer is the token, as a JSON string",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What inspection says of a fetched token.

    Args:
        secret: The raw token.
        inspection: By its profile, at the issuer's time.
        findings: All of them, also about what was said beside the token; the worst first.
        token: As a keeper would publish it; None if it would not.
        now: The issuer's time, Unix seconds.
        skew_s: The issuer's clock less ours, as a keeper corrects it.
    """

    secret: Secret
    inspection: Inspection
    findings: tuple[Finding, ...]
    token: Token | None
    now: float
    skew_s: float


def http_step(observed: Observed, *, takes_options: bool = True) -> Step:
    """Say how the backend answered. As `token_step`."""
    details = {
        "status": observed.status,
        "seconds": round(observed.seconds, 3),
        "content_type": observed.content_type,
        "http_version": observed.http_version or None,
        "requests": observed.requests,
    }
    took = length(observed.seconds)
    if observed.status is None or _is_http_failure(observed):
        found, remedy = told(observed.error, status=observed.status, takes_options=takes_options)
        is_told = observed.status is None or (observed.error is not None and observed.error.timed_out)
        seen = "" if is_told else f", in {took}"
        return Step(name="http", status=Status.FAILED, summary=found + seen, details=details, remedy=remedy)
    kind = observed.content_type or "no content type"
    redirects = f", after {observed.requests - 1} redirects" if observed.requests > 1 else ""
    return Step(
        name="http",
        status=Status.OK,
        summary=f"{observed.http_version} {observed.status}, {kind}, in {took}{redirects}".lstrip(),
        details=details,
    )


def _is_http_failure(observed: Observed) -> bool:
    is_success = observed.status is not None and 200 <= observed.status < 300
    return observed.error is not None and not (is_success and isinstance(observed.error, ResponseError))


def token_step(observed: Observed, *, takes_options: bool = True) -> Step:
    """Say where in the answer the token stood.

    Args:
        observed: The fetch.
        takes_options: Whether the user gave options, not the words of a source.
    """
    if observed.issued is None:
        return unfound_step(observed.error, takes_options=takes_options)
    path = observed.path
    place = _PLACES.get(path or "", f"found at {path}") if path is not None else "found"
    return found_step(observed.issued, place, path=path)


def unfound_step(error: FetchError | None, *, takes_options: bool = False) -> Step:
    """Say why there is no token. As `token_step`."""
    found, remedy = told(error, takes_options=takes_options)
    return Step(name="token", status=Status.FAILED, summary=found, remedy=remedy)


def found_step(issued: Issued, place: str, *, path: str | None = None) -> Step:
    """Say what was found, without showing it.

    Args:
        issued: The token, with what was said beside it.
        place: Where it was, for people.
        path: Where in a JSON document, if it is known.
    """
    count = len(issued.secret.reveal())
    return Step(
        name="token",
        status=Status.OK,
        summary=f"{place}: {count} characters, fingerprint {issued.secret.fingerprint}",
        details={
            "path": path,
            "fingerprint": issued.secret.fingerprint,
            "length": count,
            "expires_in": issued.expires_in,
            "expires_at": issued.expires_at,
        },
    )


def told(
    error: FetchError | None, *, status: int | None = None, takes_options: bool = True
) -> tuple[str, str]:
    """Return what a failed fetch says, and its remedy, without what only keepers need to hear."""
    if error is None:
        return "there was no answer", "Look at the backend's log."
    if isinstance(error, RefusedError):
        remedy = _UNAUTHORIZED if takes_options else _UNAUTHORIZED_WORDS
        reason = error.reason if error.is_certain or status is None else None
        said = ", ".join(str(part) for part in (status, reason) if part is not None)
        return f"the backend refused to issue a token: {said}", remedy
    found, _, remedy = str(error).partition(_STAYS)
    if takes_options:
        for keeper_word, option in _OPTIONS.items():
            remedy = remedy.replace(keeper_word, option)
    return found, remedy and f"{remedy.rstrip('.')}."


_UNAUTHORIZED: Final = (
    "Check what authorizes the request: --header, --json-body, and the account at the backend."
)
_UNAUTHORIZED_WORDS: Final = (
    "Check what authorizes the request: the credentials of the source, and the account at the backend."
)


_OPTIONS: Final = {
    "The keeper tries again by itself": "Look into the backend's log. A keeper tries again by itself",
    "The keeper slows down": "Wait a while before you try again. A keeper slows down by itself",
    "token_path": "--token-path",
    "ca_file": "--ca-file",
    "json or data make it POST": "--json-body makes it POST, or set --method",
    "raise timeout": "raise --timeout",
    "headers, params and body": "--header, the query of the URL and --json-body",
}


def examine_token(
    issued: Issued, *, profile: Profile, expect: Expectations | None, key: Secret | None, wall: float
) -> Examined:
    """Inspect a fetched token as a keeper would.

    Args:
        issued: What was fetched.
        profile: By whose rules.
        expect: What it must be good for.
        key: What to check its signature with.
        wall: Our clock at receipt, Unix seconds.
    """
    first = profile.inspect(issued.secret, now=wall, leeway=LEEWAY_S, exp_leeway=0.0)
    skew_s = clock_skew(
        wall=wall,
        server_time=issued.server_time,
        issued_at=first.issued_at,
        not_before=first.not_before,
    )
    now = wall + skew_s
    inspection = profile.inspect(
        issued.secret, now=now, expectations=expect, secret=key, leeway=LEEWAY_S, exp_leeway=0.0
    )
    token: Token | None = None
    try:
        received = receive(issued, profile=profile, expect=expect, wall=wall, key=key)
        token, findings = received.token, received.findings
    except ResponseError as refusal:
        findings = refusal.findings
    return Examined(
        secret=issued.secret,
        inspection=inspection,
        findings=tuple(sorted(findings, key=lambda each: list(Severity).index(each.severity))),
        token=token,
        now=now,
        skew_s=skew_s,
    )


def findings_step(examined: Examined) -> Step:
    """Say what inspection has found."""
    findings = examined.findings
    details = {"findings": [finding_dict(finding) for finding in findings]}
    if not findings:
        return Step(name="findings", status=Status.OK, summary="nothing to complain of", details=details)
    first = findings[0]
    status = worst(findings)
    return Step(
        name="findings",
        status=status,
        summary=_counted(findings),
        details=details,
        remedy=first.hint if status is not Status.OK else "",
    )


def _counted(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(finding.severity is severity for finding in findings) for severity in Severity}
    words = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "remark"}
    said = [f"{count} {words[severity]}{'s' * (count != 1)}" for severity, count in counts.items() if count]
    errors = [finding.code for finding in findings if finding.severity is Severity.ERROR]
    return f"it cannot work: {listed(errors)}" if errors else ", ".join(said)


def clock_step(ahead_s: float | None) -> Step:
    """Compare the backend's clock with ours.

    Args:
        ahead_s: The backend's clock less ours, in seconds; None if it did not say.
    """
    if ahead_s is None:
        return Step(
            name="clock",
            status=Status.SKIPPED,
            summary="skipped: the answer does not say when it was made (Date), or comes from a cache",
            details={"ahead": None},
        )
    # A Date has whole seconds, the rest is cut off: half a second on average.
    ahead_s += 0.5
    details = {"ahead": round(ahead_s, 1)}
    if abs(ahead_s) <= LEAST_SKEW_S:
        return Step(
            name="clock", status=Status.OK, summary="ours and the backend's agree within 2 s", details=details
        )
    found = f"the backend's is {length(round(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} ours"
    if abs(ahead_s) <= SKEW_WARN_S:
        return Step(
            name="clock", status=Status.OK, summary=f"{found}; a keeper corrects that", details=details
        )
    is_corrected = abs(ahead_s) <= MAX_SKEW_S
    consequence = "a keeper corrects that, other clients do not" if is_corrected else "too far to correct"
    return Step(
        name="clock",
        status=Status.WARNING,
        summary=f"{found}; {consequence}",
        details=details,
        remedy="Set the clocks of both machines by NTP; chronyc tracking or timedatectl shows which is off.",
    )
