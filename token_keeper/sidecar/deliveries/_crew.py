"""What the deliveries of all tokens share: threads to write files, threads to run hooks."""

from __future__ import annotations

import asyncio

from token_keeper._clock import Clock, SystemClock
from token_keeper.sidecar._threads import Threads
from token_keeper.sinks import sweep

WRITERS = 4
"""Files that are written at once."""
HOOKS = 8
"""Hooks that run at once; one that hangs has its place until its time is up."""


class Crew:
    """Those who write files and run hooks, for any number of tokens of one event loop.

    Args:
        clock: Where the time comes from.

    Attributes:
        writers: Threads for files.
        hooks: Threads for hooks.
        silent: Directories from which nothing could be read back in time: one wait is enough.
        writing: The write under way, by path: after a reload another token may own that path.
    """

    __slots__ = ("_swept", "clock", "hooks", "silent", "writers", "writing")

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.writers = Threads(WRITERS, "token-keeper sinks")
        self.hooks = Threads(HOOKS, "token-keeper hooks")
        self.writing: dict[str, asyncio.Future[object]] = {}
        self.silent: set[str] = set()
        self._swept: set[tuple[str, int | None]] = set()

    def sweep(self, directory: str, owner: int | None) -> None:
        """Remove soon what a killed run left in *directory*, once for all sinks there."""
        if (directory, owner) in self._swept:
            return
        self._swept.add((directory, owner))
        self.writers.submit(sweep, directory, frozenset() if owner is None else frozenset({owner}))
