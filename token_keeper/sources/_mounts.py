"""Whether a file system may keep who looks at it waiting. Blocks: for threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_LOCAL: Final = frozenset(
    {
        "bcachefs", "btrfs", "devtmpfs", "erofs", "ext2", "ext3", "ext4", "f2fs",
        "overlay", "ramfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs",
    }
)  # fmt: skip
"""Those that wait for no network and for no other program. Of the others nothing is expected."""


def answers_at_once(path: str | Path) -> bool:
    """Whether all directories on the way to *path* are local, and so is the file, if it is there."""
    try:
        local = frozenset(_local_devices())
        real = os.path.realpath(path)
        return all(_device(place) in local | {None} for place in {*_way(str(path)), *_way(real)})
    except (OSError, ValueError):
        return False


def _way(path: str) -> Iterator[str]:
    yield path
    yield from (str(parent) for parent in Path(path).parents)


def _device(place: str) -> int | None:
    with suppress(FileNotFoundError):
        return os.lstat(place).st_dev
    return None


def _local_devices() -> Iterator[int]:
    """Yield the devices of all local file systems that are mounted."""
    for line in _MOUNTS.read_text(errors="replace").splitlines():
        mounted, _, kind = line.partition(" - ")
        if kind.partition(" ")[0] in _LOCAL:
            major, _, minor = mounted.split(" ")[2].partition(":")
            yield os.makedev(int(major), int(minor))
