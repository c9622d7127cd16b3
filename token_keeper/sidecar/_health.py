"""Whether every service gets what it needs. It reads states and clocks, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from token_keeper.sidecar._household import Household
from token_keeper.sidecar._served import ServedToken
from token_keeper.sidecar.deliveries._deliveries import SinkState

MARGIN_S = 10.0
"""A token has to be usable for so much longer ..."""
MARGIN_RATIO = 0.1
"""... or for this share of its lifetime, if that is less."""
BEHIND_S = 5.0
"""So long may a sink lack the current token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why the sidecar is not ready.

    Args:
        problem: What is missing, in words.
        token: The name of the token that it is about, or None.
        sink: The path of the sink that it is about, or None.
    """

    problem: str
    token: str | None = None
    sink: str | None = None


def is_ready(household: Household) -> bool:
    """Whether every token is usable for long enough and every sink was written with it."""
    return next(reasons(household), None) is None


def reasons(household: Household) -> Iterator[Reason]:
    """Yield what is missing to be ready, token by token."""
    tokens = household.tokens
    if not tokens:
        yield Reason(problem="no token is configured: add [tokens.NAME] and reload")
    boot, monotonic = household.clock.boot(), household.clock.monotonic()
    for served in tokens.values():
        if (problem := _problem(served, boot)) is not None:
            yield Reason(problem=problem, token=served.name)
        yield from _sinks(household, served.name, monotonic)


def sinks_of(household: Household, name: str) -> tuple[SinkState, ...]:
    """Return how the sinks of the token *name* stand; none if it was just removed."""
    try:
        return household.deliveries(name).sinks
    except KeyError:
        return ()


def _problem(served: ServedToken, boot: float) -> str | None:
    current = served.kept.state.usable_by("", boot)
    if current is None:
        return "no usable token"
    margin = min(MARGIN_S, MARGIN_RATIO * current.lifetime_s)
    remaining = current.remaining_s(boot)
    if remaining >= margin:
        return None
    return f"the token expires in {remaining:.1f} s, its successor is not there yet"


def _sinks(household: Household, name: str, monotonic: float) -> Iterator[Reason]:
    for sink in sinks_of(household, name):
        if sink.error is not None:
            yield Reason(problem=sink.error, token=name, sink=sink.path)
        elif sink.behind_since is not None and monotonic - sink.behind_since > BEHIND_S:
            behind = monotonic - sink.behind_since
            yield Reason(problem=f"not written for {behind:.0f} s", token=name, sink=sink.path)
