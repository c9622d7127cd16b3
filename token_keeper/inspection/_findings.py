"""Ways to make a finding, and to put foreign values into its sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping

from token_keeper._finding import Finding, Severity

HEX = frozenset("0123456789abcdef")

MAX_SHOWN = 64
"""Longest foreign text in a message, in characters."""


def error(code: str, message: str, hint: str) -> Finding:
    """Say that the token will be refused."""
    return Finding(code=code, severity=Severity.ERROR, message=message, hint=hint)


def warning(code: str, message: str, hint: str) -> Finding:
    """Say that the token works, but is unwise."""
    return Finding(code=code, severity=Severity.WARNING, message=message, hint=hint)


def info(code: str, message: str, hint: str) -> Finding:
    """Say that something could not be checked."""
    return Finding(code=code, severity=Severity.INFO, message=message, hint=hint)


def number(claims: Mapping[str, object], name: str) -> float | None:
    """Return the claim *name* if it is a finite number."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def seconds(length_s: float) -> str:
    """Write a length of time, at whatever size."""
    return f"{length_s:.0f} s" if abs(length_s) < 1e15 else f"{length_s:.3g} s"


def shown(value: object) -> str:
    """Write a claim into a message: escaped, bounded, and not if it looks like a secret."""
    if value is None:
        return "missing"
    if not isinstance(value, str):
        return f"a {_TYPES.get(type(value), 'value')}"
    if looks_secret(value):
        return "something that looks like a secret"
    if has_token(value):
        return "something that holds a token"
    text = ascii(value[: MAX_SHOWN + 1])
    return text if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]!a}..."


def looks_secret(value: str) -> bool:
    """Whether *value* has the form of an Auth Token or an API Key Secret."""
    return (len(value) == 32 and HEX.issuperset(value)) or is_mixed_secret(value)


def has_token(value: str) -> bool:
    """Whether a JWT stands somewhere in *value*, whole or not: two segments that begin with a brace."""
    return 0 <= value.find("eyJ") < value.rfind(".eyJ")


def is_mixed_secret(value: str) -> bool:
    """Whether *value* is 32 alphanumerics with letters of both cases."""
    is_alphanumeric = len(value) == 32 and value.isascii() and value.isalnum()
    return is_alphanumeric and value.lower() != value != value.upper()


_TYPES = {bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
