"""Explains a code: what it means, what a given token says of each cause, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

from token_keeper._errors import ConfigError
from token_keeper._finding import DenialClass
from token_keeper._secret import Secret
from token_keeper.inspection._entries import Cause, Entry
from token_keeper.inspection._expect import Expectations
from token_keeper.inspection._judge import Certainty, JudgedCause, judge
from token_keeper.inspection._profile import Inspection, Key, Profile
from token_keeper.profiles._names import profile_named

_INSPECT = (
    "Inspect the very token that was refused, by the time of the refusal (--now): "
    "token-keeper inspect < token"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a code means, and what is behind it.

    Args:
        code: As the catalogue spells it.
        title: What its inventor calls it.
        denial_class: What to do about it.
        causes: Confirmed ones first, excluded ones last.
        actions: One remedy for each cause that is not excluded, then where to look.
        inspection: Of the token, if one was given.
    """

    code: int | str
    title: str
    denial_class: DenialClass
    causes: tuple[JudgedCause, ...]
    actions: tuple[str, ...]
    inspection: Inspection | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the form that programs read."""
        return {
            "code": self.code,
            "title": self.title,
            "class": self.denial_class.value,
            "causes": [
                {"cause": each.cause.text, "certainty": each.certainty.value, "evidence": each.evidence}
                for each in self.causes
            ],
            "actions": list(self.actions),
        }


def explain(  # noqa: PLR0913 # All but the first two are keywords.
    code: int | str,
    raw: str | Secret | None = None,
    *,
    now: float = 0.0,
    profile: Profile | str | None = None,
    expectations: Expectations | Mapping[str, object] | None = None,
    secret: str | Key | None = None,
    leeway: float = 0.0,
) -> Explanation:
    """Explain *code*, and hold its causes against the token *raw*.

        explain(51215, token, now=time.time()).causes[0].evidence

    Args:
        code: With which a server refused a token.
        raw: The token; without one nothing is certain.
        now: Unix seconds; needed with a token.
        profile: By which the token is inspected; ``twilio`` for Twilio's
            codes, else ``auto``.
        expectations: What the token must be good for.
        secret: What to check the signature with.
        leeway: Tolerance for clocks that differ, in seconds.

    Raises:
        ConfigError: If *code* is not known; the message names those that are.
    """
    given, raw = (Secret(raw) if isinstance(raw, str) else raw), None
    key, secret = (Secret(secret) if isinstance(secret, str) else secret), None
    catalogue = profile_named("auto") if not isinstance(profile, Profile) else profile
    entry = catalogue.entry(code)
    if entry is None:
        raise ConfigError(
            "code", f"unknown; known are {', '.join(str(each) for each in catalogue.catalogue())}"
        )
    if profile is None:
        profile = entry.profile
    rules = profile_named(profile) if isinstance(profile, str) else profile
    inspection = (
        None
        if given is None
        else rules.inspect(
            given,
            now=now,
            expectations=_with_products(rules.expectations(expectations), entry, rules),
            secret=key,
            leeway=leeway,
        )
    )
    causes = _with_other_faults(judge(entry, inspection), entry, inspection)
    remedies = tuple(each.cause.remedy for each in causes if each.certainty is not Certainty.EXCLUDED)
    return Explanation(
        code=entry.code,
        title=entry.title,
        denial_class=catalogue.classify(entry.code, inspection),
        causes=causes,
        actions=(*remedies, _INSPECT, entry.where),
        inspection=inspection,
    )


def _with_products(expect: Expectations, entry: Entry, rules: Profile) -> Expectations:
    """Expect what the code's products need, if nothing else was said."""
    is_open = "grants" in rules.expects and not expect.grants and not expect.service_sid
    return replace(expect, grants=entry.products) if is_open and entry.products else expect


def _with_other_faults(
    judged: tuple[JudgedCause, ...], entry: Entry, inspection: Inspection | None
) -> tuple[JudgedCause, ...]:
    """Put first, after what was confirmed, the token's faults that the code is not known for."""
    if inspection is None or entry.denial_class in {DenialClass.THROTTLED, DenialClass.FORBIDDEN}:
        return judged
    known = frozenset(chain.from_iterable(cause.shown_by for cause in entry.causes))
    others = tuple(
        JudgedCause(
            cause=Cause(text=f"Another fault of the token: {finding.code}", remedy=finding.hint, look=""),
            certainty=Certainty.CONFIRMED,
            evidence=f"{finding.code}: {finding.message}",
        )
        for finding in inspection.errors
        if finding.code not in known
    )
    return tuple(sorted((*judged, *others), key=lambda each: list(Certainty).index(each.certainty)))
