"""What may be shown of a value that could hold a secret. Pure: text in, text out.

It decides by the look of a string and by the name under which it stands. It
cannot recognize an opaque token in the middle of prose: raw tokens belong in a
`Secret`, and this is the net below.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from datetime import date, time, timedelta
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any
from uuid import UUID

from token_keeper._model import Secret, fingerprint_of

MASK = "<redacted>"
TEXT_MAX = 16_384
"""Characters of one string that are looked at. The rest is cut off."""
NODES_MAX = 1_000
"""Values in one nested value that are looked at; a long string counts for several. The rest is left out."""
DEPTH_MAX = 8

_SECRET_SUFFIXES = (
    *("token", "tokens", "jwt", "secret", "secrets", "cookie", "cookies", "assertion", "signature"),
    *("password", "passwords", "passwd", "pwd", "passphrase", "credential", "credentials"),
    *("apikey", "accesskey", "privatekey", "secretkey", "signingkey", "clientkey", "sessionkey", "authkey"),
)
_SECRET_PARTS = ("authorization", "password", "clientsecret", "privatekey", "apikey")
_HARMLESS = (int, float, complex, Enum, date, time, timedelta, PurePath, UUID)

_WORD = r"[A-Za-z0-9_-]"
# The header of a JWT begins with the Base64 of `{"`; the other three are `{` before a blank or a line end.
_JWT = re.compile(
    rf"eyJ{_WORD}{{8,}}(?:\.{{1,2}}{_WORD}+){{0,4}}"
    rf"|(?<!{_WORD})(?:eyA|ewo|ew0){_WORD}{{8,}}(?:\.{{1,2}}{_WORD}+){{1,4}}"
)
_JWT_STARTS = ("eyJ", "eyA", "ewo", "ew0")
_MARKS = re.compile(r"[:=\s]")
"""Each of the patterns below needs one of these."""
# "Basic authentication" is prose: Base64 of credentials is hardly ever without a digit or a sign.
_SCHEME = re.compile(
    r"\b(bearer|(?-i:Basic)(?=\s+[A-Za-z]{0,512}[0-9+/=]))\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE
)
_USERINFO = re.compile(r"(://[^\s/@:]{0,256}):[^\s/@]{1,1024}@")
_NAME = (
    r"[\w-]{0,32}(?:token|secret|password|passwd|passphrase|assertion|signature|jwt"
    r"|(?:api|access|private|signing|auth)[_-]?key)"
)
# `name=value` of queries, forms and reprs; `"name": "value"` of JSON and dicts; whole lines of headers.
_ASSIGNED = re.compile(
    rf"""\b({_NAME}=)(?:"[^"]*"?|'[^']*'?|[^\s&;,"'<>()]+)""",
    re.IGNORECASE,
)
_MEMBER = re.compile(
    rf"""(["']{_NAME}["']\s{{0,8}}:\s{{0,8}})(?:b?"(?:[^"\\]|\\.)*"?|b?'(?:[^'\\]|\\.)*'?)""",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"""\b((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]{0,32}(?:key|token))(["']?\s{0,8}[:=]\s{0,8}["']?)[^\r\n"'<]+""",
    re.IGNORECASE,
)


def redact_text(text: str) -> str:
    """Return *text* with whatever looks like a token or a credential masked.

    A JWT is replaced by its fingerprint. Text beyond 16 384 characters is cut off.
    """
    rest = len(text) - TEXT_MAX
    if rest > 0:
        text = text[:TEXT_MAX]
    if any(start in text for start in _JWT_STARTS):
        text = _JWT.sub(_fingerprint, text)
    if not _MARKS.search(text):
        # A single word: none of what follows can be in it.
        return f"{text}... ({rest} more characters)" if rest > 0 else text
    text = _HEADER.sub(rf"\1\2{MASK}", text)
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    text = _USERINFO.sub(rf"\1:{MASK}@", text)
    text = _MEMBER.sub(rf'\1"{MASK}"', text)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    return f"{text}... ({rest} more characters)" if rest > 0 else text


def redact_value(value: Any, *, key: str = "") -> Any:
    """Return *value*, or a copy that is safe to show if it held a secret.

    Mappings, lists, tuples, sets, exceptions, bytes and the reprs of other
    objects are looked into. The work is bounded. Never raises.

    Args:
        value: Anything.
        key: The name under which it stands.
    """
    return _Redaction().of(value, key, 0)


def describe(error: BaseException) -> str:
    """Return the type and the redacted text of *error*. Never raises."""
    try:
        text = redact_text(str(error))
    except Exception:  # noqa: BLE001 - A foreign __str__ may raise anything.
        text = "(no text)"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def render_traceback(error: BaseException) -> str:
    """Return the redacted traceback of *error*, without the values of locals. Never raises."""
    try:
        lines = traceback.format_exception(error, limit=-50)
    except Exception:  # noqa: BLE001 - As in `describe`.
        return describe(error)
    return redact_text("".join(lines))


def is_secret_name(key: str) -> bool:
    """Whether a value under this name is masked, whatever it looks like."""
    return _is_secret(key[-128:])


@lru_cache(maxsize=256)
def _is_secret(key: str) -> bool:
    squashed = "".join(filter(str.isalnum, key)).lower()
    return squashed.endswith(_SECRET_SUFFIXES) or any(part in squashed for part in _SECRET_PARTS)


def _fingerprint(match: re.Match[str]) -> str:
    return f"<token {fingerprint_of(match[0])}>"


class _Redaction:
    """One walk through one value, with a bound on its length."""

    def __init__(self) -> None:
        self._left = NODES_MAX

    def of(self, value: Any, key: str, depth: int) -> Any:
        self._left -= 1
        if value is None or isinstance(value, bool):
            return value
        try:
            return self._of(value, key, depth)
        except Exception:  # noqa: BLE001 - Foreign values may raise anything when looked at.
            return f"<unprintable {type(value).__name__}>"

    def _of(self, value: Any, key: str, depth: int) -> Any:
        if isinstance(value, Secret):
            return repr(value)
        if self._left < 0 or depth > DEPTH_MAX:
            return MASK
        if key and is_secret_name(key):
            return self._masked(value, key, depth)
        if isinstance(value, str):
            self._left -= min(len(value), TEXT_MAX) // 256
            clean = redact_text(value)
            return value if clean == value else clean
        if isinstance(value, _HARMLESS):
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return _bytes(value)
        if isinstance(value, BaseException):
            return describe(value)
        return self._container(value, depth)

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if callable(asdict := getattr(value, "_asdict", None)):
            return self._mapping(asdict(), depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._items(value, depth)
        # A renderer may use either; an object is kept if neither shows anything.
        text = f"{value!r} {value!s}"
        return value if redact_text(text) == text else redact_text(repr(value))

    def _masked(self, value: Any, key: str, depth: int) -> Any:
        if isinstance(value, Mapping):
            # A table of secrets by name: its names may be shown.
            return {
                self._name(name): self.of(item, key, depth + 1) for name, item in self._some(value.items())
            }
        # A count of tokens is no token.
        is_count = isinstance(value, int | float) and key.lower().endswith(("token", "tokens"))
        return value if is_count or (isinstance(value, str | bytes) and not value) else MASK

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        return {
            self._name(name): self.of(item, name if isinstance(name, str) else "", depth + 1)
            for name, item in self._some(value.items())
        }

    def _items(self, value: Any, depth: int) -> Any:
        clean = [self.of(item, "", depth + 1) for item in self._some(value)]
        return clean if isinstance(value, list) else tuple(clean)

    def _some(self, items: Any) -> Any:
        for item in items:
            if self._left < 0:
                return
            yield item

    def _name(self, name: Any) -> Any:
        return redact_text(name) if isinstance(name, str) else self.of(name, "", DEPTH_MAX)


def _bytes(value: bytes | bytearray | memoryview) -> Any:
    text = bytes(value[: TEXT_MAX + 1]).decode("latin-1")
    clean = redact_text(text)
    return value if clean == text else clean.encode("latin-1")
