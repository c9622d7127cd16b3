"""How a value of the configuration is repeated in a message, without a secret in it."""

from __future__ import annotations

import json
import re
from typing import Final
from urllib.parse import urlsplit

from token_keeper._redact import MASK, redact_text

LONGEST: Final = 60
"""Characters of a value or a key that are shown."""

_DENSE: Final = re.compile(r"[A-Za-z0-9_+=~-]{16,}", re.ASCII)
"""Longer than a word: perhaps a token or a key."""
_USER: Final = re.compile(r"[^\s/]+@")
_WORDS: Final = {dict: "a table", list: "a list", bool: "true or false", str: "a string"}


def shown(value: object) -> str:
    """Return *value* as TOML writes it, short and without what could be a secret; a table is only named."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(_harmless(value))
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "a huge number"
    if isinstance(value, float):
        return repr(value)
    return type_of(value)


def type_of(value: object) -> str:
    """Name the type of *value*, in the words of TOML."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return _WORDS.get(type(value), "a date or time")


def shown_key(key: str) -> str:
    """Return *key* in quotes, short and in ASCII."""
    return _quoted(key)


def _quoted(text: str) -> str:
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return json.dumps(cut)


def _harmless(text: str) -> str:
    if "://" in text:
        text = _bare_url(text)
    text = _USER.sub(f"{MASK}@", redact_text(text[: 4 * LONGEST]))
    return _DENSE.sub(lambda match: MASK if _is_dense(match[0]) else match[0], text)


def _is_dense(run: str) -> bool:
    return any(character.isdigit() for character in run) and any(character.isalpha() for character in run)


def _bare_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "<a URL>"
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{port}{parts.path}"
