"""The metrics, made from plain counters when somebody scrapes. Nothing is counted here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from token_keeper._model import Snapshot
from token_keeper.sidecar._health import is_ready, sinks_of
from token_keeper.sidecar._household import Household
from token_keeper.sidecar._served import ServedToken

PREFIX = "token_keeper_"


def exposition(household: Household, accept: str = "") -> tuple[bytes, str]:
    """Return the metrics and their content type, as an `Accept` header likes them.

    With 10 000 tokens this takes seconds. It reads counters and values that are replaced as
    a whole, so it may run in another thread than the household.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Household(household))
    wanted = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if "application/openmetrics-text" in wanted:
        body: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return body, OPENMETRICS
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Household(Collector):
    """Turns the counters of a household into metrics."""

    def __init__(self, household: Household) -> None:
        self._household = household

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        household = self._household
        tokens = list(household.tokens.values())
        yield from _gauges(tokens)
        for name, (kind, said, samples) in _FAMILIES.items():
            yield _family(name, kind, said, (one for served in tokens for one in samples(served)))
        hooks = (one for served in tokens for one in _hook_failures(household, served.name))
        yield _family("hook_failures", "counter", "Hooks that failed.", hooks)
        sinks = (one for served in tokens for one in _sinks(household, served.name))
        yield _family(
            "sink_generation", "gauge", "The generation that the sink was last written with.", sinks
        )
        jumps = Sample(PREFIX + "clock_jumps_total", {}, household.clock_jumps)
        yield _family("clock_jumps", "counter", "Jumps of a clock since the start.", iter((jumps,)))
        ready = Sample(PREFIX + "ready", {}, float(is_ready(household)))
        yield _family("ready", "gauge", "1 if every token is usable and written, else 0.", iter((ready,)))


def _family(name: str, kind: str, said: str, samples: Iterator[Sample]) -> Metric:
    metric = Metric(PREFIX + name, said, kind)
    # Made one by one while the text is: some 300 000 of them at once (10 000 tokens) would make the
    # garbage collector stop everything for half a second.
    metric.samples = samples  # type: ignore[assignment]
    return metric


_GAUGES = {
    "expires_at_seconds": "When the token expires, in Unix seconds; missing if that is not known.",
    "last_success_seconds": "When the source last gave a token, in Unix seconds; missing before.",
    "generation": "Number of the current token since the start; 0 before the first.",
    "waiters": "Requests that wait for a token.",
    "attempts_left": "Fetches that still fit before the token expires, up to 100.",
    "usable_seconds": "For how long the token can still be used; 0 if it cannot.",
}


def _gauges(tokens: list[ServedToken]) -> Iterator[Metric]:
    # Tuples of numbers, so that all gauges of a token are of one moment and nothing is collected.
    rows = [(served.name, *_values(served, served.snapshot)) for served in tokens]
    for column, (name, said) in enumerate(_GAUGES.items(), 1):
        yield _family(name, "gauge", said, _column(rows, column, PREFIX + name))


def _column(rows: list[tuple[Any, ...]], column: int, name: str) -> Iterator[Sample]:
    for row in rows:
        if row[column] is not None:
            yield Sample(name, {"name": row[0]}, row[column])


def _values(served: ServedToken, snapshot: Snapshot) -> tuple[float | None, ...]:
    """Return the gauges of a token, in their order."""
    return (
        snapshot.expires_at,
        served.last_success_at,
        snapshot.generation,
        served.tally.waiters,
        snapshot.attempts_left,
        snapshot.usable_for,
    )


def _fetches(served: ServedToken) -> Iterator[Sample]:
    for outcome, count in served.tally.fetches.items():
        yield Sample(PREFIX + "fetches_total", {"name": served.name, "outcome": outcome}, count)


def _fetch_seconds(served: ServedToken) -> Iterator[Sample]:
    labels, tally = {"name": served.name}, served.tally
    yield Sample(PREFIX + "fetch_seconds_count", labels, sum(tally.fetches.values()))
    yield Sample(PREFIX + "fetch_seconds_sum", labels, tally.fetch_s)


def _denials(served: ServedToken) -> Iterator[Sample]:
    for verdict, count in served.tally.denials.items():
        yield Sample(PREFIX + "denials_total", {"name": served.name, "verdict": verdict}, count)


def _listener_failures(served: ServedToken) -> Iterator[Sample]:
    yield Sample(PREFIX + "listener_failures_total", {"name": served.name}, served.listener_failures)


_FAMILIES: dict[str, tuple[str, str, Callable[[ServedToken], Iterator[Sample]]]] = {
    "fetches": ("counter", "Fetches, by how they ended.", _fetches),
    "fetch_seconds": ("summary", "How long fetches took.", _fetch_seconds),
    "denials": ("counter", "Reported denials, by the verdict.", _denials),
    "listener_failures": ("counter", "Calls of listeners that raised or took too long.", _listener_failures),
}


def _hook_failures(household: Household, name: str) -> Iterator[Sample]:
    with suppress(KeyError):  # It was just removed.
        failures = household.deliveries(name).hook_failures
        yield Sample(PREFIX + "hook_failures_total", {"name": name}, failures)


def _sinks(household: Household, name: str) -> Iterator[Sample]:
    for sink in sinks_of(household, name):
        yield Sample(PREFIX + "sink_generation", {"name": name, "path": sink.path}, sink.generation)
