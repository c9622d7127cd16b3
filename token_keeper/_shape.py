"""What a message may say of an answer: its shape, never what is in it.

Names of members are shown if they look like names, error codes if they look like codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from token_keeper._lifetime import is_number

_KEYS_SHOWN: Final = 8
_ERROR_CODE: Final = re.compile(r"[A-Za-z_]{1,40}", re.ASCII)
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}", re.ASCII)


def error_code(document: object) -> str | None:
    """Return the `error` code of *document* (RFC 6749 section 5.2), if it looks like one."""
    code = document.get("error") if isinstance(document, Mapping) else None
    return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None


def described(document: object) -> str:
    """Describe the answer: its error code if it is an error, else its shape."""
    code = error_code(document)
    if code is not None:
        return f"the backend answered with the error {code}"
    return f"the answer is {shape_of(document)}"


def shape_of(value: object) -> str:
    """Describe *value* by its type, an object by the names of its members."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "a boolean"
    if is_number(value):
        return "a number"
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    if isinstance(value, Mapping):
        return _object_shape(value)
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"of type {type(value).__name__}"


def _object_shape(value: Mapping[object, object]) -> str:
    if not value:
        return "an empty object"
    names = [_shown(key) for key, _ in zip(value, range(_KEYS_SHOWN), strict=False)]
    more = " and more" if len(value) > len(names) else ""
    return f"an object with {', '.join(names)}{more}"


def _shown(key: object) -> str:
    # A name can be anything, even a token.
    return key if isinstance(key, str) and _KEY.fullmatch(key) else "(another name)"
