"""Holds the causes of a refusal against what the token shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from token_keeper.inspection._entries import GENERAL, UNREADABLE, Cause, Entry

if TYPE_CHECKING:
    from token_keeper.inspection._profile import Inspection


class Certainty(StrEnum):
    """What the token says of a cause."""

    CONFIRMED = "confirmed"
    UNKNOWN = "unknown"
    EXCLUDED = "excluded"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCause:
    """A cause, what the token says of it, and why.

    Args:
        cause: What may be so.
        certainty: Whether it is.
        evidence: What the token shows, or where to look if it shows nothing.
    """

    cause: Cause
    certainty: Certainty
    evidence: str


def judge(entry: Entry, inspection: Inspection | None) -> tuple[JudgedCause, ...]:
    """Return the causes of *entry*: confirmed ones first, excluded ones last."""
    judged = [_judge(cause, inspection) for cause in entry.causes]
    order = list(Certainty)
    return tuple(sorted(judged, key=lambda each: order.index(each.certainty)))


def _judge(cause: Cause, inspection: Inspection | None) -> JudgedCause:
    if inspection is not None:
        shown = [finding for finding in inspection.findings if finding.code in cause.shown_by]
        if shown:
            evidence = "; ".join(f"{finding.code}: {finding.message}" for finding in shown)
            return JudgedCause(cause=cause, certainty=Certainty.CONFIRMED, evidence=evidence)
        if cause.ruled_out and (_is_visible(cause, inspection) or cause.excluded_by(inspection)):
            return JudgedCause(cause=cause, certainty=Certainty.EXCLUDED, evidence=cause.ruled_out)
    return JudgedCause(cause=cause, certainty=Certainty.UNKNOWN, evidence=cause.look)


def _is_visible(cause: Cause, inspection: Inspection) -> bool:
    if inspection.claims is None and cause.hidden_by >= UNREADABLE:
        # An opaque token says nothing of itself, though nothing is wrong with it.
        return False
    if not inspection.has_vendor_rules and not cause.shown_by <= GENERAL:
        return False
    return not cause.hidden_by & inspection.codes and cause.needs <= inspection.checked


def diagnosis(entry: Entry | None, inspection: Inspection | None) -> tuple[str, ...]:
    """Say what the token itself shows, then what is left to check. Holds no token."""
    said: list[str] = []
    if inspection is not None:
        said += [_sentence(f"{each.code}: {each.message}", each.hint) for each in inspection.errors]
        if not said:
            said.append("The token itself shows no fault.")
    judged = judge(entry, inspection) if entry else ()
    said += [
        _sentence(f"To check: {each.cause.text}", each.evidence)
        for each in judged
        if each.certainty is Certainty.UNKNOWN
    ]
    if entry and inspection and entry.profile != "auto" and not inspection.has_vendor_rules:
        said.append(
            f'With profile="{entry.profile}" the token would be judged by all that this code is about.'
        )
    said.append(entry.where if entry else "The code is not known here: look into the log of whoever refused.")
    return tuple(said)


def _sentence(said: str, then: str) -> str:
    return f"{said}. {then}" if then else f"{said}."
