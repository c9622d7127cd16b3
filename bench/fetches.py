"""Fetches per second through `HttpSource`, beside a loop of httpx that checks nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

import httpx
from report import Figures, heading, medians, note, run, table, times

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


async def compare(url: str) -> Figures:
    async with httpx.AsyncClient() as client:
        source = HttpSource(url)

        async def bare() -> object:
            response = await client.get(url)
            return response.raise_for_status().json()["token"]

        fetches: dict[str, Fetch] = {BARE: bare, OURS: source.fetch}
        found: dict[str, dict[str, list[float]]] = {}
        for in_flight in IN_FLIGHT:
            for fetch in fetches.values():
                await rates(fetch, in_flight)  # The connections are open now.
        for _ in range(ROUNDS):
            for in_flight in IN_FLIGHT:
                for name, fetch in fetches.items():
                    by_wall, by_cpu = await rates(fetch, in_flight)
                    entry = found.setdefault(f"{in_flight} in flight: {name}", {"wall": [], "cpu": []})
                    entry["wall"].append(by_wall)
                    entry["cpu"].append(by_cpu)
        await source.aclose()
    return {name: medians(entry) for name, entry in found.items()}


def measure() -> Figures:
    with backend() as url:
        found = asyncio.run(compare(url))
    heading("Fetches from a backend on loopback, in one process")
    rows = []
    for name, rate in found.items():
        bare = found[f"{name.partition(':')[0]}: {BARE}"]
        rows.append(
            [
                name,
                f"{rate['wall']:.0f}",
                times(rate["wall"], bare["wall"]),
                f"{1e6 / rate['cpu']:.0f}",
                times(bare["cpu"], rate["cpu"]),
            ]
        )
    table(["", "fetches/s", "to httpx", "CPU us each", "to httpx"], rows)
    note(f"Medians of {ROUNDS} rounds of {FETCHES}. Ours bounds time and size, and finds the token.")
    return {"per_s": found}


if __name__ == "__main__":
    run(measure)
