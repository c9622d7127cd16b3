"""How the benchmarks time, print and save: cases side by side, and their ratios."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

Figures = dict[str, object]
"""What a program found: names and numbers, perhaps nested."""


def interleaved(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run all *cases* one after the other, *rounds* times, so that a busy machine hurts all alike."""
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            figures[name].append(case())
    return figures


def medians(figures: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}


def median_ratio(figures: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios of figures that were measured one right after the other."""
    return statistics.median(one / other for one, other in zip(figures, others, strict=True))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the least value that *share* of the *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def times(figure: float, other: float = 1.0) -> str:
    """Return how many times *other* goes into *figure*, for people."""
    ratio = figure / other
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def heading(title: str) -> None:
    print(f"\n{title}\n{'-' * len(title)}")


def note(text: str) -> None:
    print(f"  {text}")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, to_left: Sequence[int] = (0,)) -> None:
    """Print *rows* under *columns*: figures to the right, the columns *to_left* to the left."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        sized = enumerate(zip(line, widths, strict=True))
        cells = [
            cell.ljust(width) if place in to_left else cell.rjust(width) for place, (cell, width) in sized
        ]
        print("  ".join(["", *cells]).rstrip())


def machine() -> Figures:
    """Return what the figures depend on."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def run(measure: Callable[[], Figures]) -> None:
    """Run one program: print what it finds and, with `--json FILE`, write it."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers here")
    chosen = parser.parse_args()
    figures = measure()
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
