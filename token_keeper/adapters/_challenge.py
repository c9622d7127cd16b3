"""What `WWW-Authenticate` says: RFC 9110 section 11.6.1, and RFC 6750 section 3 for Bearer."""

from __future__ import annotations

import re
from typing import Any

CHALLENGE = "WWW-Authenticate"
MAX_HEADER = 4_096
"""Characters that are read. No server needs more to say why it refused."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_PARAM = re.compile(rf"\s*({_TOKEN})\s*=\s*(?:{_QUOTED}|({_TOKEN}))\s*(?:,|$)")
_SCHEME = re.compile(rf"(?:^|,)\s*({_TOKEN})(?=\s+{_TOKEN}\s*=|\s*(?:,|$))")


def challenges(headers: Any) -> str | None:
    """Return the challenges in the *headers* of an answer, all of them, None if there are none."""
    # Where each line of a header has an entry of its own, get() returns the first alone.
    lines = headers.getall(CHALLENGE, ()) if hasattr(headers, "getall") else (headers.get(CHALLENGE),)
    return ", ".join(line for line in lines if line) or None


def bearer_error(header: str | None) -> tuple[str | None, str | None]:
    """Return `error` and `error_description` of the Bearer challenge, None for what is not said."""
    if not header:
        return None, None
    header = header[:MAX_HEADER]
    # What is quoted may look like a challenge of its own.
    outline = re.sub(_QUOTED, lambda quoted: "~" * len(quoted[0]), header)
    for scheme in _SCHEME.finditer(outline):
        if scheme[1].lower() == "bearer":
            said = _params(header, scheme.end())
            return said.get("error"), said.get("error_description")
    return None, None


def _params(header: str, at: int) -> dict[str, str]:
    said: dict[str, str] = {}
    while (param := _PARAM.match(header, at)) is not None:
        quoted, plain = param[2], param[3]
        value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        said.setdefault(param[1].lower(), value)
        at = param.end()
    return said
