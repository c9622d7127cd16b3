"""The steps of a chain: each of its sources in turn, then whose token a keeper would use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from token_keeper._errors import ResponseError
from token_keeper._receive import receive
from token_keeper.doctor._judge import Rules, judged
from token_keeper.doctor._report import Report, Status, Step, skipped
from token_keeper.doctor._seen import Seen
from token_keeper.profiles import profile_named

_OF_ONE: Final = "clock"
"""From this step on it is about the one token that is used."""


async def chained(
    links: Mapping[str, Callable[[], Awaitable[Seen]]], rules: Rules, *, clock: Callable[[], float]
) -> Report:
    """Return the report on a chain, with one on each of its sources.

    Args:
        links: Sees each source, by its name, in the order of the chain.
        rules: By what the token is judged.
        clock: Unix time.
    """
    reports: dict[str, Report] = {}
    all_seen: dict[str, Seen] = {}
    for name, see in links.items():
        seen = all_seen[name] = await see()
        reports[name] = _shortened(await judged(seen, replace(rules, connect=None)))
    whys = {name: _why_not(seen) for name, seen in all_seen.items()}
    chosen = next((name for name, why in whys.items() if why is None), None)
    step = _chain_step(whys, chosen)
    used = _nothing(clock()) if chosen is None else all_seen[chosen]
    report = await judged(replace(used, steps=(step,)), rules)
    return replace(report, url=f"the chain {', '.join(links)}", links=reports)


def _nothing(at: float) -> Seen:
    why = "no source of the chain works"
    token, clock = skipped(("token", "clock"), why)
    return Seen(place="", steps=(), received_at=at, token=token, missing=why, clock=clock)


def _shortened(report: Report) -> Report:
    """Return the report on a source, without what is said of the token that is used."""
    names = [step.name for step in report.steps]
    return replace(report, steps=report.steps[: names.index(_OF_ONE)], forecast=None, products=None, marks=())


def _why_not(seen: Seen) -> str | None:
    """Return why a chain would pass a source over, or None if it would not."""
    failed = next((step for step in (*seen.steps, seen.token) if step.status is Status.FAILED), None)
    if failed is not None:
        return f"{failed.name}: {failed.summary}"
    if seen.issued is None:
        # It was not asked, since that would spend its refresh token.
        return None
    try:
        receive(seen.issued, profile=profile_named("auto"), expect=None, wall=seen.received_at)
    except ResponseError as error:
        return f"its token cannot work: {', '.join(finding.code for finding in error.findings)}"
    return None


def _chain_step(whys: Mapping[str, str | None], chosen: str | None) -> Step:
    passed = [name for name, why in whys.items() if why is not None]
    details = {"used": chosen, "failed": {name: why for name, why in whys.items() if why is not None}}
    notes = tuple(f"{name} does not work: {why}" for name, why in whys.items() if why is not None)
    if chosen is None:
        return Step(
            name="chain",
            status=Status.FAILED,
            summary="none of its sources works",
            details=details,
            remedy=f"Mend one of them, best {passed[0]}.",
            notes=notes,
        )
    return Step(
        name="chain",
        status=Status.WARNING if passed else Status.OK,
        summary=f"the token of {chosen} would be used",
        details=details,
        remedy=f"Mend {passed[0]}, so that there is something to fall back on." if passed else "",
        notes=notes,
    )
