"""Fetches per second through `HttpSource`, beside a loop of httpx that checks nothing."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

import httpx
from report import Figures, heading, median_ratio, note, run, table, times

from token_keeper import HttpSource

ROUNDS = 5
FETCHES = 250
IN_FLIGHT = (1, 8)
BARE = "httpx.AsyncClient and json()"
OURS = "HttpSource.fetch"

Fetch = Callable[[], Awaitable[object]]


@contextmanager
def backend() -> Iterator[str]:
    """Run a backend in a process of its own and give its URL."""
    program = [sys.executable, str(Path(__file__).with_name("backend.py"))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


async def rates(fetch: Fetch, in_flight: int) -> tuple[float, float]:
    """Return fetches per second, by the wall clock and by our own CPU."""
    left = iter(range(FETCHES))

    async def work() -> None:
        for _ in left:
            await fetch()

    begin, cpu = perf_counter(), process_time()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return FETCHES / (perf_counter() - begin), FETCHES / (process_time() - cpu)


async def compare(url: str) -> dict[str, list[tuple[float, float]]]:
    async with httpx.AsyncClient() as client:
        source = HttpSource(url)

        async def bare() -> object:
            response = await client.get(url)
            return response.raise_for_status().json()["token"]

        fetches: dict[str, Fetch] = {BARE: bare, OURS: source.fetch}
        for in_flight in IN_FLIGHT:
            for fetch in fetches.values():
                await rates(fetch, in_flight)  # The connections are open now.
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(ROUNDS):
            for in_flight in IN_FLIGHT:
                for name, fetch in fetches.items():
                    rate = await rates(fetch, in_flight)
                    found.setdefault(f"{in_flight} in flight: {name}", []).append(rate)
        await source.aclose()
    return found


def measure() -> Figures:
    with backend() as url:
        measured = asyncio.run(compare(url))
    heading("Fetches from a backend on loopback, in one process")
    found: dict[str, dict[str, float]] = {}
    for name, each in measured.items():
        bare = measured[f"{name.partition(':')[0]}: {BARE}"]
        found[name] = {
            "per_s": statistics.median(by_wall for by_wall, _ in each),
            "to_httpx": median_ratio([by_wall for by_wall, _ in each], [by_wall for by_wall, _ in bare]),
            "cpu_us": 1e6 / statistics.median(by_cpu for _, by_cpu in each),
            "cpu_to_httpx": median_ratio([by_cpu for _, by_cpu in bare], [by_cpu for _, by_cpu in each]),
        }
    table(
        ["", "fetches/s", "to httpx", "CPU us each", "to httpx"],
        [
            [
                name,
                f"{each['per_s']:.0f}",
                times(each["to_httpx"]),
                f"{each['cpu_us']:.0f}",
                times(each["cpu_to_httpx"]),
            ]
            for name, each in found.items()
        ],
    )
    note(f"Medians of {ROUNDS} rounds of {FETCHES}. Ours bounds time and size, and finds the token.")
    return {**found}


if __name__ == "__main__":
    run(measure)
