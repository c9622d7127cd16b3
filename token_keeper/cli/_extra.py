"""Says which extra a command needs, where it is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from token_keeper.cli._group import fail

SIDECAR = frozenset({"httptools", "msgspec", "prometheus_client", "starlette", "uvicorn", "uvloop"})
"""What the extra `[sidecar]` brings, by the names that are imported."""


@contextmanager
def sidecar_extra() -> Iterator[None]:
    """Exit 69 if an import inside lacks a package of the extra `[sidecar]`.

    with sidecar_extra():
        from token_keeper.sidecar.config import load
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in SIDECAR:
            raise
        fail(f"this needs {package}: pip install 'token-keeper[sidecar]'", os.EX_UNAVAILABLE)
