"""What it costs to import the package, in fresh processes, beside what others cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from time import perf_counter

from report import Figures, heading, interleaved, medians, note, run, table, times

ROUNDS = 15
BARE = "(nothing)"
SELF = "import token_keeper"
HTTPX = "import httpx"
STATEMENTS = {
    BARE: "pass",
    SELF: SELF,
    "from token_keeper import TokenKeeper": "from token_keeper import TokenKeeper",
    "... import TokenKeeper, HttpSource": "from token_keeper import TokenKeeper, HttpSource",
    "... and a keeper of an HttpSource made": (
        "from token_keeper import TokenKeeper, HttpSource; TokenKeeper(HttpSource('https://x.example/'))"
    ),
    "import asyncio": "import asyncio",
    HTTPX: HTTPX,
    "import google.auth.credentials": "import google.auth.credentials",
}


def one_process_ms(code: str) -> float:
    begin = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)
    return (perf_counter() - begin) * 1e3


def timed(code: str) -> Callable[[], float]:
    return lambda: one_process_ms(code)


def measure() -> Figures:
    cases = {name: timed(code) for name, code in STATEMENTS.items()}
    for case in cases.values():
        case()  # So that the byte code is on disk.
    found = medians(interleaved(cases, ROUNDS))
    bare = found[BARE]
    costs = {name: ms - bare for name, ms in found.items() if name != BARE}
    heading("Import")
    table(
        ["", "ms", "to httpx"],
        [[name, f"{ms:.1f}", times(ms, costs[HTTPX])] for name, ms in costs.items()],
    )
    note(f"Medians of {ROUNDS} fresh processes each, less the {bare:.0f} ms of an empty one.")
    return {"empty_process_ms": bare, "import_ms": costs}


if __name__ == "__main__":
    run(measure)
