"""Limits of this process: no memory image for others, files enough for all connections."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Any

SPARE_FILES = 128
"""Descriptors besides connections: listeners, sources, sinks, hooks, libraries."""
_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Write no core dump, and let no other process of our user look into our memory. Failure is no error."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):
        import ctypes  # noqa: PLC0415 - For this one call.

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def allow_files(connections: int, logger: Any) -> int:
    """Raise our limit of open files so that *connections* fit. Returns how many do.

    If that is fewer, it is logged. Without a limit of our own, connections would take the
    files that fetches and sinks need.
    """
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= needed:
        return connections
    fitting = min(connections, max(allowed - SPARE_FILES, allowed // 2))
    logger.warning(
        "openFilesLimit",
        limit=hard,
        needed=needed,
        connections=fitting,
        remedy="raise LimitNOFILE= of the service, or lower server.max_connections",
    )
    return fitting
