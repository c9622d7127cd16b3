"""What an examination found: steps, and what is said of the future. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from token_keeper._model import Finding, Severity

if TYPE_CHECKING:
    from token_keeper.doctor._forecast import Forecast
    from token_keeper.doctor._timeline import Mark


class Status(StrEnum):
    """How a step went."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It could not run, or there is nothing to do for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was looked at. Holds no secret.

    Args:
        name: What it is called in the output.
        status: How it went.
        summary: What was seen, in a sentence.
        details: The same for programs: what JSON can hold.
        remedy: What to do about it; empty if there is nothing to do.
        notes: More lines for people, under the summary.
    """

    name: str
    status: Status
    summary: str
    details: Mapping[str, object] = field(default_factory=dict)
    remedy: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the form that programs read."""
        return {
            "step": self.name,
            "status": self.status.value,
            "summary": self.summary,
            "details": dict(self.details),
            "remedy": self.remedy,
        }


class ProductStatus(StrEnum):
    """Whether a product will take the token, as far as the token shows it."""

    OK = "ok"
    NOT_GRANTED = "not_granted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductVerdict:
    """Whether one product will take the token, and why not."""

    status: ProductStatus
    reasons: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the form that programs read."""
        return {"verdict": self.status.value, "reasons": [finding_dict(reason) for reason in self.reasons]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that an examination found. Holds no secret.

    Args:
        url: What was asked, without its query.
        steps: In the order in which they ran.
        findings: What inspection says of the token, the worst first.
        forecast: When a keeper would refresh the token, if it would keep it.
        products: What each product will make of it, if it is a token for products.
        marks: The token's times, for a picture.
        links: The reports on the sources of a chain, by name; the rest is about the token that is used.
    """

    url: str
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...] = ()
    forecast: Forecast | None = None
    products: Mapping[str, ProductVerdict] | None = None
    marks: tuple[Mark, ...] = ()
    links: Mapping[str, Report] | None = None

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return all(step.status is not Status.FAILED for step in self.steps)

    def as_dict(self) -> dict[str, object]:
        """Return the form that programs read."""
        document: dict[str, object] = {
            "url": self.url,
            "ok": self.ok,
            "steps": [step.as_dict() for step in self.steps],
            "schedule": self.forecast.as_dict() if self.forecast else None,
            "products": (
                {name: verdict.as_dict() for name, verdict in self.products.items()}
                if self.products is not None
                else None
            ),
        }
        if self.links is not None:
            document["links"] = {name: link.as_dict() for name, link in self.links.items()}
        return document


def skipped(names: Sequence[str], why: str) -> tuple[Step, ...]:
    """Return the steps *names* as skipped."""
    return tuple(Step(name=name, status=Status.SKIPPED, summary=f"skipped: {why}") for name in names)


def finding_dict(finding: Finding) -> dict[str, str]:
    """Return a finding in the form that programs read."""
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "message": finding.message,
        "hint": finding.hint,
    }


def worst(findings: Sequence[Finding]) -> Status:
    """Return how a step with these *findings* went."""
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        return Status.FAILED
    return Status.WARNING if Severity.WARNING in severities else Status.OK
