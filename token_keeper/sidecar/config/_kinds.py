"""How values are written in the file, where TOML has no type for what they are.

Each kind says how to read a value, and what of it JSON Schema can say.
"""

from __future__ import annotations

import difflib
import grp
import math
import pwd
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from token_keeper._model import NAME

LONGEST_S: Final = 1e12
"""Longest duration; more is a mistake."""

LARGEST_INT: Final = 2**63
"""The first number that TOML does not promise to hold."""
_LONGEST_GUESS: Final = 64

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_NUMBER: Final = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
_DURATION: Final = re.compile(rf"({_NUMBER})(ms|s|m|h|d)", re.ASCII)
_RATIO: Final = re.compile(rf"({_NUMBER})%", re.ASCII)
_MODE: Final = re.compile(r"0?[0-7]{3}")
_HOST: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\]", re.ASCII
)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LISTEN: Final = re.compile(r"(localhost|127(?:\.(?:0|[1-9][0-9]{0,2})){3}|\[::1\]):([0-9]{1,5})", re.ASCII)
_NO_ID: Final = 2**32 - 1
"""The number that the system takes for "unchanged"."""


class WrongError(Exception):
    """A value cannot be read. Its text says what to write instead, and does not repeat the value.

    Args:
        problem: What it must be.
        hint: What may have been meant, to be said last.
    """

    def __init__(self, problem: str, *, hint: str = "") -> None:
        super().__init__(problem)
        self.hint = hint


def same(value: Any) -> Any:
    """Return *value*."""
    return value


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Kind:
    """One way to write a value.

    Args:
        read: Returns what was meant, or raises `WrongError`.
        schema: What JSON Schema can say of it.
        write: Returns how a value is written in the file.
    """

    read: Callable[[object], Any]
    schema: Mapping[str, Any]
    write: Callable[[Any], Any] = field(default=same)


def duration(value: object) -> float:
    """Return the seconds of ``90s``, ``3m``, ``1h``, ``2d``, ``500ms``, or of a bare number."""
    wrong = WrongError('must be a duration, such as "90s", "3m", "1h", "2d" or "500ms"')
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise wrong
        seconds = round(float(match[1]) * _UNITS[match[2]], 9)
    else:
        seconds = _finite(value, wrong)
    if not 0 <= seconds <= LONGEST_S:
        raise WrongError("is no duration that a clock can measure: write one such as 90s or 1h")
    return seconds


def written_duration(seconds: float) -> str:
    """Return *seconds* in the largest unit in which they are a whole number."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _UNITS[unit]
        if seconds and math.isclose(count, round(count), abs_tol=1e-9) and round(count) >= 1:
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def ratio(value: object) -> float:
    """Return the number of ``20%``, or a bare number."""
    wrong = WrongError('must be a share, such as "20%" or 0.2')
    if not isinstance(value, str):
        return _finite(value, wrong)
    match = _RATIO.fullmatch(value)
    if match is None:
        raise wrong
    return round(float(match[1]) / 100, 12)


def lead(value: object) -> tuple[str, float]:
    """Return ``ratio`` and a number, or ``fixed`` and seconds."""
    if isinstance(value, str):
        for name, read in (("ratio", ratio), ("fixed", duration)):
            try:
                return name, read(value)
            except WrongError:
                continue
    raise WrongError('must be a share or a duration in quotes, such as "20%" or "3m"')


def mode(value: object) -> int:
    """Return permission bits."""
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise WrongError('must be octal in quotes, such as "0600"')
    return int(value, 8)


def user(value: object) -> int:
    """Return the number of a user, who is given by name or by number."""
    return _identity(value, "user", lambda name: pwd.getpwnam(name).pw_uid)


def group(value: object) -> int:
    """Return the number of a group, which is given by name or by number."""
    return _identity(value, "group", lambda name: grp.getgrnam(name).gr_gid)


def token_name(value: object) -> str:
    """Return the name of a token."""
    rule = "1 to 64 letters, digits, dots, dashes and underscores, and a letter or digit first"
    return _matching(value, NAME, f"cannot be a name: {rule}")


def variable(value: object) -> str:
    """Return the name of an environment variable."""
    return _matching(
        value, _VARIABLE, 'must be the name of a variable, such as "ACCESS_TOKEN": letters, digits and _'
    )


def host(value: object) -> str:
    """Return a host's name as clients may send it."""
    return _matching(value, _HOST, 'must be a host name without a port, such as "token.internal"').lower()


def listen(value: object) -> str:
    """Return ``HOST:PORT`` on loopback."""
    wrong = 'must be an address of this machine with a port, such as "127.0.0.1:8750" or "[::1]:8750"'
    text = _matching(value, _LISTEN, wrong)
    name, _, port = text.rpartition(":")
    if int(port) > 65_535 or any(int(part) > 255 for part in name.split(".")[1:]):
        raise WrongError(wrong)
    return text


def path(value: object) -> str:
    """Return an absolute path."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise WrongError('must be an absolute path, such as "/run/app/token"')
    return value


def signal_name(value: object) -> str:
    """Return the name of a signal."""
    if not isinstance(value, str) or value not in signal.Signals.__members__:
        hint = meant(value, list(signal.Signals.__members__))
        raise WrongError('must be the name of a signal, such as "SIGHUP" or "SIGUSR1"', hint=hint)
    return value


def expected(value: object) -> Any:
    """Return what a profile will look at."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if not isinstance(value, str) or not value:
        raise WrongError("must be a string that is not empty, or a list of strings")
    return value


def sent(value: object) -> Any:
    """Return a field of a form or a query, or several of one name."""
    members = value if isinstance(value, list) else [value]
    if not all(_is_plain(one) for one in members):
        raise WrongError("must be a string, a number, true or false, or a list of these")
    return value


def texts(value: object) -> Any:
    """Return a string, or several."""
    members = value if isinstance(value, list) else [value]
    if not members or not all(isinstance(one, str) and one for one in members):
        raise WrongError("must be a string that is not empty, or a list of such strings")
    return value


def meant(given: object, known: Sequence[str]) -> str:
    """Return a question that names the one of *known* that *given* may be a misspelling of, or nothing."""
    if not isinstance(given, str) or len(given) > _LONGEST_GUESS:
        return ""
    by_look = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), by_look, n=1)
    return f": did you mean {by_look[close[0]]}?" if close else ""


def _is_plain(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) < LARGEST_INT
    return isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def _finite(value: object, wrong: WrongError) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong
    # A whole number may be too large for a float.
    if not -LONGEST_S <= value <= LONGEST_S:
        raise wrong
    return float(value)


def _identity(value: object, what: str, find: Callable[[str], int]) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < _NO_ID:
            return value
    elif isinstance(value, str) and value and value.isprintable():
        try:
            return find(value)
        except (KeyError, ValueError, OSError):
            raise WrongError(
                f"is no {what} of this machine: write a name or a number that it knows"
            ) from None
    raise WrongError(f"must be a {what}'s name, or its number")


def _matching(value: object, pattern: re.Pattern[str], problem: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise WrongError(problem)
    return value


def _anchored(pattern: re.Pattern[str]) -> str:
    return f"^(?:{pattern.pattern})$"


def _text(pattern: re.Pattern[str]) -> dict[str, Any]:
    return {"type": "string", "pattern": _anchored(pattern)}


_SECONDS: Final = {"type": "number", "minimum": 0, "maximum": LONGEST_S}
_IDENTITY: Final = {
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": _NO_ID - 1}, {"type": "string", "minLength": 1}]
}

DURATION = Kind(read=duration, schema={"anyOf": [_text(_DURATION), _SECONDS]}, write=written_duration)
RATIO = Kind(
    read=ratio,
    schema={"anyOf": [_text(_RATIO), {"type": "number"}]},
    write=lambda value: f"{value * 100:g}%",
)
LEAD = Kind(read=lead, schema={"anyOf": [_text(_RATIO), _text(_DURATION)]})
MODE = Kind(read=mode, schema=_text(_MODE), write=lambda bits: f"{bits:04o}")
USER = Kind(read=user, schema=_IDENTITY)
GROUP = Kind(read=group, schema=_IDENTITY)
TOKEN_NAME = Kind(read=token_name, schema=_text(NAME))
VARIABLE = Kind(read=variable, schema=_text(_VARIABLE))
HOST = Kind(read=host, schema=_text(_HOST))
LISTEN = Kind(read=listen, schema=_text(_LISTEN))
PATH = Kind(read=path, schema={"type": "string", "pattern": "^/"})
SIGNAL = Kind(read=signal_name, schema={"type": "string", "enum": list(signal.Signals.__members__)})
EXPECTED = Kind(
    read=expected,
    schema={"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}}]},
)
TEXTS = Kind(
    read=texts,
    schema={
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
        ]
    },
)
SENT = Kind(
    read=sent,
    schema={
        "anyOf": [
            {"type": ["string", "number", "boolean"]},
            {"type": "array", "items": {"type": ["string", "number", "boolean"]}},
        ]
    },
)
