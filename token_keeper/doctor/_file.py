"""The steps of a source that reads a file which another program writes."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from token_keeper._errors import FetchError
from token_keeper._redact import redact_text
from token_keeper.doctor._findings import found_step, unfound_step
from token_keeper.doctor._report import Status, Step, skipped
from token_keeper.doctor._seen import Seen, unseen
from token_keeper.doctor._subject import Subject
from token_keeper.doctor._words import length

_MOST_LINKS: Final = 40
"""As the kernel follows."""
_MISSING: Final = "the file cannot be read"


async def see_file(subject: Subject, *, clock: Callable[[], float]) -> Seen:
    """Look at the file, read it once, and return what came of it.

    Raises:
        ConfigError: If a setting cannot work.
    """
    source, path = subject.made(), _absolute(subject.words["path"])
    place = redact_text(path)
    file = _file_step(path, now=time.time())
    if file.status is Status.FAILED:
        return unseen(place, (file, *skipped(("directory",), _MISSING)), _MISSING, at=clock())
    issued, token = None, None
    try:
        issued = await source.fetch(tries=2)
        token = found_step(issued, "read from the file")
    except FetchError as error:
        token = unfound_step(error)
    finally:
        await source.aclose()
    return Seen(
        place=place,
        steps=(file, _directory_step(path)),
        received_at=clock(),
        issued=issued,
        token=token,
        missing="the file holds no token",
        is_new=False,
        splay=False,
    )


def _absolute(path: str | os.PathLike[str]) -> str:
    """Return *path* as the source opens it: a Path would drop what symbolic links make of dots."""
    return os.path.abspath(os.fspath(path))  # noqa: PTH100 # See above.


def _file_step(path: str, *, now: float) -> Step:
    """Say whether the file is there, whose it is, and how old."""
    links = [f"{redact_text(link)} -> {redact_text(target)}" for link, target in _route(path).links]
    details: dict[str, object] = {"path": redact_text(path), "links": links}
    notes = tuple(f"link: {link}" for link in links)
    try:
        status = os.stat(path)  # noqa: PTH116 # A string, as the source has it.
    except OSError as error:
        found, remedy = _unseen(error, path, is_link=bool(links))
        seen = Status.FAILED
        details["error"] = error.strerror
    else:
        seen, found, remedy = _looks(status, details, now=now)
    return Step(name="file", status=seen, summary=found, details=details, remedy=remedy, notes=notes)


def _looks(status: os.stat_result, details: dict[str, object], *, now: float) -> tuple[Status, str, str]:
    """Return how a file is, in words, and what to do; add that to *details*."""
    mode, age = stat.S_IMODE(status.st_mode), now - status.st_mtime
    owner, group = _user(status.st_uid), _group(status.st_gid)
    details |= {
        "owner": owner,
        "group": group,
        "mode": f"{mode:04o}",
        "size": status.st_size,
        "age": round(age, 1),
    }
    if not stat.S_ISREG(status.st_mode):
        return Status.FAILED, "there is no regular file at this path", "Name the file that holds the token."
    written = f"written {length(age)} ago" if age >= 0 else f"dated {length(age)} from now"
    summary = f"{status.st_size} bytes of {owner}:{group}, mode {mode:04o}, {written}"
    remedy = _readers(mode)
    return Status.WARNING if remedy else Status.OK, summary, remedy


def _readers(mode: int) -> str:
    if mode & stat.S_IWOTH:
        return "Every user can write it, and so hand in a token: chmod o-rwx, and let its writer do so, too."
    if mode & stat.S_IROTH:
        return "Every user can read the token, if the directories above let them: chmod o-r."
    return ""


def _directory_step(path: str) -> Step:
    """Say who can put another file there: where its links are, and where they lead."""
    open_ones = [place for place in _route(path).directories if _is_open(place)]
    if not open_ones:
        return Step(name="directory", status=Status.OK, summary="nobody else can put another file there")
    shown = [redact_text(place) for place in open_ones]
    return Step(
        name="directory",
        status=Status.WARNING,
        summary=f"others can put another file there: they can write {', '.join(shown)}",
        details={"writable": shown},
        remedy=f"chmod go-w {shown[0]}",
    )


def _is_open(directory: str) -> bool:
    with suppress(OSError):
        mode = os.stat(directory).st_mode  # noqa: PTH116 # As above.
        # In a sticky directory nobody replaces what is another's.
        return bool(mode & (stat.S_IWGRP | stat.S_IWOTH)) and not mode & stat.S_ISVTX
    return False


@dataclass(frozen=True, slots=True)
class _Route:
    """Which symbolic links are on the way to a file, and which directories decide where it leads."""

    links: tuple[tuple[str, str], ...]
    directories: tuple[str, ...]


def _route(path: str) -> _Route:
    """Follow *path* name by name, as the kernel does."""
    links: list[tuple[str, str]] = []
    directories: list[str] = []
    here, names = "/", path.split("/")[::-1]
    while names and len(links) < _MOST_LINKS:
        name = names.pop()
        place = os.path.join(here, name)  # noqa: PTH118 # As above.
        try:
            target = os.readlink(place)  # noqa: PTH115 # As above.
        except OSError:
            here = os.path.normpath(place)
        else:
            links.append((place, target))
            directories.append(here)
            here = "/" if target.startswith("/") else here
            names += target.split("/")[::-1]
    return _Route(tuple(links), tuple(dict.fromkeys((*directories, os.path.dirname(here)))))  # noqa: PTH120 # As above.


def _unseen(error: OSError, path: str, *, is_link: bool) -> tuple[str, str]:
    if isinstance(error, PermissionError):
        return (
            f"this user ({os.geteuid()}) may not look at it",
            "Let it pass the directories on the way: chmod o+x, or a group for both.",
        )
    if isinstance(error, FileNotFoundError):
        if is_link:
            return "the link leads nowhere", "Find out why its writer removed what it leads to."
        if not Path(path).parent.is_dir():
            return "there is no such directory", "Correct the path, or mount what should be there."
        return "there is no such file", "Start what writes it, or correct the path."
    return f"it cannot be looked at ({error.strerror})", "Correct the path, or mend its file system."


def _user(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)


def _group(number: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)
