"""Turns the tables of commands, files and chains into sources."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any, Final

from token_keeper.sidecar.config._assembly import (
    Words,
    assembled,
    read_again,
    settle,
    warn_of_secrets,
    words_in,
)
from token_keeper.sidecar.config._notes import At, Notes
from token_keeper.sidecar.config._records import Found, check
from token_keeper.sidecar.config._source_model import (
    ChainSourceConfig,
    CommandSourceConfig,
    FileSourceConfig,
)
from token_keeper.sources import ChainSource, CommandSource, FileSource
from token_keeper.sources._references import looks_referring

_LOOKED_UP: Final = tuple(key for key in CommandSourceConfig.__struct_fields__ if key != "run")
_NO_PATH: Final = 'must be an absolute path, such as "/run/app"'


@check(CommandSourceConfig)
def _command_source(found: Found, at: At, notes: Notes) -> None:
    """Build the source, and note every word that it refuses."""
    words = words_in(found, _LOOKED_UP, at, notes)
    _check_absolute("cwd", words, at, notes)
    warn_of_secrets({"env": words.read.get("env")}, at, notes)
    if "cwd" in words.meant and not notes.once(os.path.isdir, words.meant["cwd"]):
        notes.warn((*at, "cwd"), "is no directory that this user can see now")
    if not found.has("run") or not _can_run(found, at, notes):
        return
    meant: dict[str, Any] = {**words.meant, "run": _as_said(found)}
    if "env" in meant:
        meant["env"] = read_again(words.read["env"], meant["env"], (*at, "env"), notes.environ)
    source = assembled(CommandSource, Words(found.stated, words.read, meant), at, notes, instead={})
    settle(words, ("cwd",), at, notes)
    if source is not None:
        notes.sources[at] = source


@check(FileSourceConfig)
def _file_source(found: Found, at: At, notes: Notes) -> None:
    """Build the source, and note every word that it refuses."""
    words = words_in(found, FileSourceConfig.__struct_fields__, at, notes)
    _check_absolute("path", words, at, notes)
    if "path" not in words.meant:
        return
    source = assembled(FileSource, words, at, notes, instead={})
    settle(words, ("path",), at, notes)
    if source is not None:
        notes.sources[at] = source


@check(ChainSourceConfig)
def _chain_source(found: Found, at: At, notes: Notes) -> None:
    """Build the source of what was built of its links."""
    if not found.has("sources"):
        return
    links: Mapping[str, Any] = {
        name: notes.sources[*at, "sources", name]
        for name in found["sources"]
        if (*at, "sources", name) in notes.sources
    }
    if len(links) < len(found["sources"]):
        return
    if not links:
        notes.wrong((*at, "sources"), "must hold a source, such as [tokens.NAME.source.sources.primary]")
        return
    source = assembled(lambda: ChainSource(links), Words({}, {}, {}), at, notes, instead={})
    if source is not None:
        notes.sources[at] = source


def _can_run(found: Found, at: At, notes: Notes) -> bool:
    """Whether `run` holds a command. What is wrong with it is noted."""
    run, before = found["run"], len(notes.problems)
    is_shell = found.has("shell") and found["shell"]
    if not run or not run[0].strip():
        notes.wrong((*at, "run"), 'must hold a command, such as ["/usr/bin/print-token"]')
    elif is_shell and len(run) != 1:
        notes.wrong((*at, "run"), 'must hold one string with shell = true, such as ["a | b"]')
    for place, argument in enumerate(run):
        if "\0" in argument:
            notes.wrong((*at, "run", place), "holds a zero byte, which no argument can")
        elif looks_referring(argument) or ("${" in argument and not is_shell):
            notes.wrong(
                (*at, "run", place),
                "holds ${...}, and nothing is looked up here: a secret in an argument would be seen by"
                " everybody on this machine. Use env, or a script that reads what it needs",
            )
    if len(notes.problems) > before:
        return False
    if not is_shell and notes.once(shutil.which, run[0]) is None:
        notes.warn((*at, "run", 0), "is no program that this user can run here now")
    return True


def _as_said(found: Found) -> Any:
    run: tuple[str, ...] = found["run"]
    return run[0] if found.has("shell") and found["shell"] else list(run)


def _check_absolute(key: str, words: Words, at: At, notes: Notes) -> None:
    """Note it if the path *key* depends on where we were started, and leave it out."""
    path = words.meant.get(key)
    if path is not None and (not path.startswith("/") or "\0" in path):
        notes.wrong((*at, key), _NO_PATH)
        del words.meant[key]
