"""The steps of a source that runs a program."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Final

from token_keeper._errors import FetchError, ResponseError
from token_keeper._redact import redact_text
from token_keeper.doctor._findings import found_step, told, unfound_step
from token_keeper.doctor._report import Status, Step, skipped
from token_keeper.doctor._seen import Seen, unseen
from token_keeper.doctor._subject import Subject
from token_keeper.doctor._words import length

_SLOW_SHARE: Final = 0.5
"""Of its time limit. Whoever takes more will once take too long."""
_TIMEOUT_S: Final = 10.0
_UNRUN: Final = "the program cannot be run"


async def see_command(subject: Subject, *, clock: Callable[[], float]) -> Seen:
    """Look for the program, run it once, and return what came of it.

    Raises:
        ConfigError: If a setting cannot work.
    """
    source = subject.made()
    words = subject.words
    place = f"the program {str(source.origin).removeprefix('command:')}"
    program = _program_step(words)
    if program.status is Status.FAILED:
        return unseen(place, (program, *skipped(("run",), _UNRUN)), _UNRUN, at=clock())
    limit_s = float(words.get("timeout", _TIMEOUT_S))
    begin, issued, error = time.monotonic(), None, None
    try:
        issued = await source.fetch(tries=1)
    except FetchError as failure:
        error = failure
    finally:
        took_s = time.monotonic() - begin
        await source.aclose()
    run = _run_step(error, took_s=took_s, limit_s=limit_s)
    if run.status is Status.FAILED:
        return unseen(place, (program, run), "the program printed nothing that counts", at=clock())
    kind = str(words.get("format", "auto"))
    found = "in what it printed" if kind == "auto" else f"in what it printed, read as {kind}"
    return Seen(
        place=place,
        steps=(program, run),
        received_at=clock(),
        issued=issued,
        token=found_step(issued, found) if issued is not None else unfound_step(error),
        missing="no token was found",
    )


def _program_step(words: Any) -> Step:
    if words.get("shell"):
        return Step(
            name="program",
            status=Status.SKIPPED,
            summary="skipped: a shell runs it, and finds by itself what it names",
        )
    name = os.fspath(words["run"][0])
    shown, path = redact_text(PurePath(name).name or name), _found(name, words)
    if path is None:
        found, remedy = _unfound(name, words)
        return Step(
            name="program",
            status=Status.FAILED,
            summary=f"{shown} {found}",
            details={"path": None},
            remedy=remedy,
        )
    status = os.stat(path)  # noqa: PTH116 # A string, as it is found.
    is_open = bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return Step(
        name="program",
        status=Status.WARNING if is_open else Status.OK,
        summary=f"{shown} is {redact_text(path)}, mode {stat.S_IMODE(status.st_mode):04o}",
        details={"path": redact_text(path), "mode": f"{stat.S_IMODE(status.st_mode):04o}"},
        remedy=f"Whoever can write it decides what is run: chmod go-w {redact_text(path)}" if is_open else "",
    )


def _found(name: str, words: Any) -> str | None:
    search = _search(words)
    if "/" in name:
        directory = os.fspath(words.get("cwd") or "")
        candidate = os.path.join(directory, name)  # noqa: PTH118 # As the source does.
        return shutil.which(candidate)
    return shutil.which(name, path=search)


def _search(words: Any) -> str | None:
    given = (words.get("env") or {}).get("PATH")
    return given if isinstance(given, str) else os.environ.get("PATH")


def _unfound(name: str, words: Any) -> tuple[str, str]:
    candidate = os.path.join(os.fspath(words.get("cwd") or ""), name)  # noqa: PTH118 # As above.
    if "/" not in name:
        remedy = "Install it, or write its whole path: a service has another PATH than your shell."
        return "is in no directory of $PATH", remedy
    if os.path.isdir(candidate):  # noqa: PTH112 # As above.
        return "is a directory", "Correct run."
    if os.path.exists(candidate):  # noqa: PTH110 # As above.
        return f"may not be executed by this user ({os.geteuid()})", "Correct its mode: chmod +x."
    return "is not there", "Install it, or correct run."


def _run_step(error: FetchError | None, *, took_s: float, limit_s: float) -> Step:
    details = {"seconds": round(took_s, 3), "timeout": limit_s}
    if error is not None and not isinstance(error, ResponseError):
        found, remedy = told(error, takes_options=False)
        return Step(
            name="run",
            status=Status.FAILED,
            summary=found,
            details=details,
            remedy=remedy or "Run it by hand as this user.",
        )
    is_slow = took_s > limit_s * _SLOW_SHARE
    return Step(
        name="run",
        status=Status.WARNING if is_slow else Status.OK,
        summary=f"ended well after {length(took_s)}, of {length(limit_s)} that it may take",
        details=details,
        remedy="Find out why it is slow, or raise timeout." if is_slow else "",
    )
