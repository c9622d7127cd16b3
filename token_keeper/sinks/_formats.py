"""How a token looks in a file. Pure: an answer in, bytes out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

ENTRIES = ("token", "expires_at", "generation", "name")
"""What a template may hold between double braces."""

# Neither a shell nor systemd nor docker makes anything of these.
_PLAIN = re.compile(r"[A-Za-z0-9._+/=,:@%-]*")
_ENTRY = re.compile(r"\{\{(" + "|".join(ENTRIES) + r")\}\}")


def as_raw(answer: Mapping[str, Any]) -> bytes:
    """Return the token alone, without a line feed."""
    return str(answer["token"]).encode("ascii")


def as_json(answer: Mapping[str, Any]) -> bytes:
    """Return the whole *answer*, as the API gives it, and a line feed."""
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


def as_env(answer: Mapping[str, Any], variable: str) -> bytes:
    """Return a line that sets *variable*, for shells, systemd's `EnvironmentFile` and docker.

    Quotes stand only where a shell needs them: docker takes them for a part of the value. A token
    holds neither quotes nor backslashes.
    """
    token = str(answer["token"])
    value = token if _PLAIN.fullmatch(token) else f"'{token}'"
    return f"{variable}={value}\n".encode("ascii")


def as_template(answer: Mapping[str, Any], name: str, template: str) -> bytes:
    """Return *template* with its entries filled in. An expiry that is not known is empty."""
    values = {entry: answer.get(entry) for entry in ENTRIES} | {"name": name}

    def filled(match: re.Match[str]) -> str:
        return text_of(values[match[1]])

    # In one pass: a token may hold braces itself.
    return _ENTRY.sub(filled, template).encode("utf-8", "surrogateescape")


def text_of(value: object) -> str:
    """Return *value* as a template shows it: whole numbers without a fraction, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)
