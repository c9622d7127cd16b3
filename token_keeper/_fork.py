"""What happens to keepers in a forked child: each is told, none can deadlock.

The registration with the interpreter is for the whole process, hence the one
process-wide set. A check at every read would cost more than the read.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that must know that it woke up in a child process."""

    def _after_fork(self) -> None:
        """Replace locks, drop what belongs to the parent."""
        ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(one: Forkable) -> None:
    """Call `one._after_fork()` in every child process that is forked from now on."""
    _watched.add(one)


def _after_in_child() -> None:
    for one in list(_watched):
        one._after_fork()  # noqa: SLF001 - private, as users hold keepers


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
