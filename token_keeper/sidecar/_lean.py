"""Imports what a server needs, without what it would only need in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

FOR_TERMINALS = ("rich", "pygments")
"""structlog and httpx load these if they are there: 8 MiB and a tenth of a second."""
LEAN = ("structlog", "httpx")


def import_leanly() -> None:
    """Import structlog and httpx as if nothing for terminals were installed."""
    with _hidden():
        for name in LEAN:
            import_module(name)


@contextmanager
def _hidden() -> Iterator[None]:
    hidden = [name for name in FOR_TERMINALS if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment] # The import system's word for: not there.
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
