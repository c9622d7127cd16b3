"""What several keys of one table must agree on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Final

from token_keeper._errors import ConfigError
from token_keeper.profiles import profile_named
from token_keeper.sidecar.config._model import FileSinkConfig, HookConfig, ServerConfig, TokenConfig
from token_keeper.sidecar.config._notes import At, Notes
from token_keeper.sidecar.config._places import claim, examine_directory
from token_keeper.sidecar.config._records import Found, check

LONGEST_SOCKET: Final = 107
"""Bytes of a Unix socket's path (unix(7), with the zero at its end)."""
LEAST_CONNECTIONS: Final = 16
MOST_CONNECTIONS: Final = 65_536
PLACEHOLDERS: Final = ("token", "expires_at", "generation", "name")

_PLACEHOLDER: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_ANYONE_READS: Final = 0o004


@check(ServerConfig)
def _server(found: Found, at: At, notes: Notes) -> None:
    if found.has("socket") and len((found["socket"] or "").encode()) > LONGEST_SOCKET:
        notes.wrong((*at, "socket"), f"is longer than {LONGEST_SOCKET} bytes, which no socket's path may be")
    if found.has("max_connections"):
        most = found["max_connections"]
        if not LEAST_CONNECTIONS <= most <= MOST_CONNECTIONS:
            notes.wrong_value(
                (*at, "max_connections"), f"must be from {LEAST_CONNECTIONS} to {MOST_CONNECTIONS}", most
            )
    for key in ("socket", "access_key_file", "metrics_key_file"):
        if found.has(key) and found[key] is not None:
            claim(found[key], (*at, key), notes)


@check(TokenConfig)
def _token(found: Found, at: At, notes: Notes) -> None:
    if not found.has("profile"):
        return
    profile = profile_named(found["profile"])
    for key, value in found["expect"].items() if found.has("expect") else ():
        try:
            profile.expectations({key: value})
        except ConfigError as error:
            notes.wrong((*at, "expect", key), error.problem)


@check(FileSinkConfig)
def _sink(found: Found, at: At, notes: Notes) -> None:
    if found.has("path") and claim(found["path"], (*at, "path"), notes):
        examine_directory(found["path"], (*at, "path"), notes)
    if found.has("format"):
        for key, problem in _format_problems(found):
            notes.wrong((*at, key), problem)
    if found.has("mode") and found["mode"] & _ANYONE_READS:
        notes.warn((*at, "mode"), "lets every user of this machine read the token")


def _format_problems(found: Found) -> Iterator[tuple[str, str]]:
    chosen = found["format"]
    for key, form, such in (
        ("variable", "env", '"ACCESS_TOKEN"'),
        ("template", "template", '"token={{token}}"'),
    ):
        if not found.has(key):
            continue
        if chosen == form and found[key] is None:
            yield key, f'is required with format = "{form}", such as {such}'
        elif chosen != form and found[key] is not None:
            yield key, f'works only with format = "{form}"'
    if found.has("template"):
        names = _PLACEHOLDER.findall(found["template"] or "")
        if not set(names) <= set(PLACEHOLDERS):
            known = ", ".join(f"{{{{{name}}}}}" for name in PLACEHOLDERS)
            yield "template", f"holds an unknown placeholder; known are {known}, without blanks"
    if found.has("adopt") and found["adopt"] and chosen != "json":
        yield "adopt", 'works only with format = "json": other formats do not say when the token expires'


@check(HookConfig)
def _hook(found: Found, at: At, notes: Notes) -> None:
    if found.has("on") and not found["on"]:
        notes.wrong((*at, "on"), 'must name an event, such as ["tokenUpdated"]')
    if found.has("timeout") and found["timeout"] <= 0:
        notes.wrong((*at, "timeout"), 'must be more than 0, such as "30s"')
    stated = found.stated.keys()
    if "run" in stated:
        _examine_command(found, at, notes)
        for key in stated & {"signal", "pid_file"}:
            notes.wrong((*at, key), "cannot be combined with run: write two hooks")
        return
    if "signal" not in stated and "pid_file" not in stated:
        notes.wrong((*at, "run"), "is required, or signal and pid_file: a hook calls a command or a process")
    elif "signal" not in stated:
        notes.wrong((*at, "signal"), 'is required with pid_file, such as "SIGHUP"')
    elif "pid_file" not in stated:
        notes.wrong((*at, "pid_file"), "is required with signal: it says which process gets it")
    if found.has("stdin") and found["stdin"] != "none":
        notes.wrong((*at, "stdin"), "works only with run: a signal brings no text")


def _examine_command(found: Found, at: At, notes: Notes) -> None:
    if not found.has("run"):
        return
    run = found["run"]
    if not run or not run[0]:
        notes.wrong((*at, "run"), 'must hold a command, such as ["systemctl", "reload", "app"]')
        return
    for place, argument in enumerate(run):
        if "\0" in argument:
            notes.wrong((*at, "run", place), "holds a zero byte, which no argument can")
        elif "${" in argument:
            notes.wrong(
                (*at, "run", place),
                "holds ${...}, and nothing is looked up here: a secret in an argument would be seen by"
                ' everybody on this machine. Use stdin = "token", or a script that reads what it needs',
            )
    if notes.once(shutil.which, run[0]) is None:
        notes.warn((*at, "run", 0), "is no program that this user can run here now")
