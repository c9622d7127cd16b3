"""Notices that a file was replaced, by looking at it again and again.

Not by inotify: it needs a package or a system call of one's own, it does not see what
happens on a network file system, and it has to follow each symbolic link on the way.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from token_keeper.sources._aside import Aside, StillRunningError
from token_keeper.sources._mounts import answers_at_once

LOOK_S: Final = 1.0
"""Seconds between two looks."""
LONGEST_LOOK_S: Final = 10.0
"""A file system that takes longer does not answer; it is asked again when it did."""

Sight = tuple[int, ...]
"""What tells a file from its successor; of one that cannot be seen, why."""


async def changes(
    path: str | Path, *, every_s: float = LOOK_S, met: Callable[[], Sight | None] | None = None
) -> AsyncIterator[None]:
    """Yield each time when the file at *path* is another one than before, or came, or went. Never ends.

    A look at a local file costs some microseconds. One at a file system that may not
    answer is taken in a thread, and costs a hundred times that.

    Args:
        path: Its symbolic links are followed anew at each look.
        every_s: Seconds between two looks.
        met: Returns how the file looked to whoever read it last, so that no change
            between that and the first look is missed. None is not known.
    """
    aside = Aside("token_keeper watch")
    seen, is_quick = await _looked(aside, path)
    if met is not None and (known := met()) is not None and seen is not None and known != seen:
        yield
    while True:
        await asyncio.sleep(every_s)
        if is_quick and look(path) == seen:
            continue
        was = seen
        now, is_quick = await _looked(aside, path)
        if now is None:
            continue
        seen = now
        if was is not None and was != now:
            yield


def look(path: str | Path) -> Sight:
    """Return what tells the file at *path* from its successor. Blocks; never raises for what it meets."""
    try:
        file = os.stat(path)  # noqa: PTH116 - Where that is a string, it stays one.
    except OSError as error:
        return (error.errno or 0,)
    # The time of change, too: a file that may be read from now on is worth another try.
    return file.st_dev, file.st_ino, file.st_mtime_ns, file.st_size, file.st_ctime_ns


async def _looked(aside: Aside, path: str | Path) -> tuple[Sight | None, bool]:
    """Look in a thread. Returns None if that takes too long, and whether it never can."""
    with suppress(StillRunningError):
        work = aside.begin(lambda: (look(path), answers_at_once(path)))
        await asyncio.wait({work}, timeout=LONGEST_LOOK_S)
        return work.result() if work.done() else (None, False)
    return None, False
