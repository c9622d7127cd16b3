"""How `token-keeper doctor` shows its report to people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from token_keeper._model import Finding
from token_keeper.cli._output import Row, Section
from token_keeper.doctor import ProductStatus, ProductVerdict, Report, Status, Step, timeline

STYLES = {Status.OK: "good", Status.WARNING: "warning", Status.FAILED: "error", Status.SKIPPED: "quiet"}
TOLD = {"token", "kind", "findings"}
"""Steps that are shown with the source of a chain whose token is used, not once more below."""
UNSEEN = (
    " Not seen: whether the server still takes the refresh token. "
    "What it said last, a sidecar knows: token-keeper status"
)


def as_page(report: Report, *, width: int) -> Iterator[Section]:
    """Yield the form that people read."""
    yield Section(heading=report.url)
    for name, link in (report.links or {}).items():
        rows = [row for step in link.steps for row in _rows(step, link)]
        yield Section(heading=f"{name}: {link.url}", rows=rows)
    # What was said above, of the source whose token is used, is not said again.
    told = set() if report.links is None else TOLD
    yield Section(rows=[row for step in report.steps if step.name not in told for row in _rows(step, report)])
    picture = timeline(report.marks, width)
    if picture:
        yield Section(heading="Timeline", rows=[Row(label="", text=line) for line in picture])
    yield _verdict(report)


def _rows(step: Step, report: Report) -> Iterator[Row]:
    yield Row(
        label=f"{step.status:<7}  {step.name}",
        text=step.summary.removeprefix("skipped: "),
        notes=step.notes,
        style=STYLES[step.status],
    )
    if step.name == "findings":
        yield from (_finding_row(finding) for finding in report.findings)
        return
    if step.name == "products":
        yield from (_product_row(name, verdict) for name, verdict in (report.products or {}).items())
    if step.remedy:
        yield Row(label="", text=f"-> {step.remedy}")


def _finding_row(finding: Finding) -> Row:
    notes = (f"-> {finding.hint}",) if finding.hint else ()
    text = f"{finding.code}: {finding.message}"
    return Row(label=f"{'':9}{finding.severity}", text=text, notes=notes, style=finding.severity.value)


def _product_row(name: str, verdict: ProductVerdict) -> Row:
    reasons = "; ".join(reason.message for reason in verdict.reasons)
    words = {
        ProductStatus.OK: ("ok", "good"),
        ProductStatus.NOT_GRANTED: ("not granted", "quiet"),
        ProductStatus.REFUSED: (f"will be refused because {reasons}", "error"),
    }
    text, style = words[verdict.status]
    return Row(label=f"{'':9}{name}", text=text, style=style)


def _verdict(report: Report) -> Section:
    counts: Mapping[Status, int] = {
        status: sum(step.status is status for step in report.steps) for status in Status
    }
    failed, warned = counts[Status.FAILED], counts[Status.WARNING]
    if failed:
        first = next(step for step in report.steps if step.status is Status.FAILED)
        return Section(heading=f"Failed: {first.name}: {first.summary}", style="error")
    if warned:
        heading = f"It works, with {warned} warning{'s' * (warned != 1)}."
        return Section(heading=heading + _unseen(report), style="warning")
    return Section(heading="All is well." + _unseen(report), style="good")


def _unseen(report: Report) -> str:
    # Only a refresh token keeps the server from being asked once nothing has failed.
    spared = any(step.name == "http" and step.status is Status.SKIPPED for step in report.steps)
    return UNSEEN if spared else ""
