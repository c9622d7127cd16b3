"""Kinds of values that TOML has a type for, and choices among a few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from token_keeper.sidecar.config._kinds import LARGEST_INT, Kind, WrongError, meant


def choice(words: Sequence[str]) -> Kind:
    """Return the kind of value that is one of *words*."""
    *others, last = (f'"{word}"' for word in words)
    known = f"{', '.join(others)} or {last}" if others else last

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise WrongError(f"must be {known}", hint=meant(value, words))
        return value

    return Kind(read=read, schema={"type": "string", "enum": list(words)})


def unknown(key: str, known: Sequence[str]) -> str:
    """Say that *key* is not among the *known* ones."""
    return "is no key here" + (meant(key, known) or f": known are {', '.join(known)}")


def of_type(kind: type, words: str, name: str) -> Kind:
    """Return the kind of value that TOML has a type for."""

    def read(value: object) -> Any:
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not fits or (isinstance(value, int) and abs(value) >= LARGEST_INT):
            raise WrongError(f"must be {words}")
        return value

    return Kind(read=read, schema={"type": name})


STRING: Final = of_type(str, "a string", "string")
WHOLE: Final = of_type(int, "a whole number", "integer")
FLAG: Final = of_type(bool, "true or false", "boolean")
