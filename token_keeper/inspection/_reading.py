"""Takes a value apart: what is wrapped around the token, and what is in it.

Nothing here trusts the value. Sizes and depths are bounded, and whatever
cannot be read is described in words that do not quote it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from token_keeper._secret import Secret

MAX_LENGTH = 16_384
"""Longest token, in characters. HTTP servers rarely accept a header that long."""

MAX_DEPTH = 32
"""Deepest nesting of JSON that is read."""

MAX_WRAPPINGS = 6
"""Most wrappings (blanks, quotes, prefixes, documents) that are taken off."""

USUAL_NAMES = ("token", "access_token", "accessToken", "Token", "jwt", "id_token")
"""Keys under which backends hand out tokens."""


class Wrapping(NamedTuple):
    """Something around a token that does not belong to it.

    Args:
        code: The finding that it deserves.
        path: For a JSON document: where in it the token is; empty if it is the whole document.
    """

    code: str
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What could be read from a value.

    Args:
        value: What is left once everything around it is taken off.
        given: The value as it was given.
        length: Of the value as it was given, in characters.
        wrappings: What was taken off, outermost first.
        header: First segment of a JWT, or None.
        claims: Second segment of a JWT, or None.
        flaw: Why the value is no JWT, without quoting it; empty if it is one.
    """

    value: Secret
    given: Secret
    length: int
    wrappings: tuple[Wrapping, ...] = ()
    header: Mapping[str, object] | None = field(default=None, repr=False)
    claims: Mapping[str, object] | None = field(default=None, repr=False)
    flaw: str = ""


def read(given: Secret) -> Reading:
    """Take *given* apart. Never raises."""
    raw = given.reveal()
    if len(raw) > MAX_LENGTH:
        return Reading(value=given, given=given, length=len(raw), flaw="it is too long to be read")
    wrappings, value = _unwrap(raw)
    header, claims, flaw = _decode(value)
    return Reading(
        value=given if value == raw else Secret(value),
        given=given,
        length=len(raw),
        wrappings=wrappings,
        header=header,
        claims=claims,
        flaw=flaw,
    )


def signed_parts(value: Secret) -> tuple[bytes, bytes]:
    """Return the signing input and the signature of a JWT that `read()` could read."""
    signing_input, _, signature = value.reveal().rpartition(".")
    return signing_input.encode("ascii"), _base64url(signature)


def is_canonical(value: Secret) -> bool:
    """Whether the signature of a JWT that `read()` could read is spelled as encoders spell it."""
    segment = value.reveal().rpartition(".")[2]
    return base64.urlsafe_b64encode(_base64url(segment)).decode("ascii").rstrip("=") == segment


def _unwrap(value: str) -> tuple[tuple[Wrapping, ...], str]:
    wrappings: list[Wrapping] = []
    while len(wrappings) < MAX_WRAPPINGS:
        outermost = _outermost(value)
        if outermost is None:
            break
        wrapping, value = outermost
        wrappings.append(wrapping)
    return tuple(wrappings), value


def _outermost(value: str) -> tuple[Wrapping, str] | None:
    # Byte order marks and zero-width spaces come with text copied from editors and pages.
    stripped = value.strip().strip("\ufeff\u200b").strip()
    if stripped != value:
        return Wrapping(code="surrounding-whitespace"), stripped
    if bearer := _bearer(value):
        return Wrapping(code="bearer-prefix"), value[bearer.end() :]
    if value[:1] in {"{", "[", '"'}:
        document, flaw = _parse(value)
        return None if flaw else _token_in(document)
    return None


def _token_in(document: object) -> tuple[Wrapping, str] | None:
    if isinstance(document, str):
        return (Wrapping(code="wrapped-json"), document) if _may_be_token(document) else None
    named: tuple[Wrapping, str] | None = None
    for path, name, text in _strings(document):
        found = Wrapping(code="wrapped-json", path=path), text
        if looks_like_jwt(_without_prefix(text)):
            return found
        if named is None and name in USUAL_NAMES and _may_be_token(text):
            named = found
    return named


def _strings(document: object) -> Iterable[tuple[str, str, str]]:
    """Yield path, last key and text of each string in *document*, the shallowest first."""
    level: list[tuple[str, str, object]] = [("", "", document)]
    while level:
        deeper: list[tuple[str, str, object]] = []
        for path, name, node in level:
            if isinstance(node, str):
                yield path, name, node
            elif isinstance(node, dict):
                deeper += [(_joined(path, key), key, child) for key, child in node.items()]
            elif isinstance(node, list):
                deeper += [(f"{path}[{index}]", "", child) for index, child in enumerate(node)]
        level = deeper


def _joined(path: str, key: str) -> str:
    # A key of the document is foreign text, and may itself be a secret.
    shown = key if re.fullmatch(_PLAIN_KEY, key) else "?"
    return f"{path}.{shown}" if path else shown


def looks_like_jwt(text: str) -> bool:
    """Whether *text* has three segments between dots, the first of them a JSON object."""
    segments = text.split(".", 3)
    return len(segments) == 3 and not _object(segments[0])[1]


def _bearer(value: str) -> re.Match[str] | None:
    return re.match(_BEARER, value, re.IGNORECASE) if value[:1] in {"a", "A", "b", "B"} else None


def _may_be_token(text: str) -> bool:
    return re.match(_WRAPPED_TEXT, text, re.IGNORECASE) is not None


def _without_prefix(text: str) -> str:
    stripped = text.strip()
    bearer = _bearer(stripped)
    return stripped[bearer.end() :] if bearer else stripped


def _decode(value: str) -> tuple[Mapping[str, object] | None, Mapping[str, object] | None, str]:
    segments = value.split(".")
    if len(segments) != 3:
        count = f"{len(segments)} segments" if len(segments) > 1 else "one segment"
        return None, None, f"it has {count} between dots instead of three"
    header, flaw = _object(segments[0])
    if flaw:
        return None, None, f"its header {flaw}"
    claims, flaw = _object(segments[1])
    if flaw:
        return None, None, f"its payload {flaw}"
    if not _is_base64url(segments[2]):
        return None, None, "its signature is not unpadded base64url"
    return header, claims, ""


def _object(segment: str) -> tuple[Mapping[str, object] | None, str]:
    if not segment or not _is_base64url(segment):
        return None, "is not unpadded base64url"
    try:
        text = _base64url(segment).decode("utf-8")
    except UnicodeDecodeError:
        return None, "is not UTF-8"
    document, flaw = _parse(text)
    if flaw:
        return None, flaw
    if not isinstance(document, dict):
        return None, "is not a JSON object"
    return document, ""


def _is_base64url(segment: str) -> bool:
    return _BASE64URL.issuperset(segment) and len(segment) % 4 != 1


def _base64url(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


class _DuplicateKeyError(ValueError):
    """An object has a key twice: two readers may see two different documents."""


def _parse(text: str) -> tuple[object, str]:
    """Return the JSON document *text* and no flaw, or nothing and what is wrong with it."""
    try:
        document = json.loads(text, object_pairs_hook=_distinct, parse_int=_number)
    except _DuplicateKeyError:
        return None, "has a key twice"
    except RecursionError:
        return None, "is nested too deeply"
    except ValueError:
        return None, "is not JSON"
    return (None, "is nested too deeply") if _is_deep(document) else (document, "")


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _DuplicateKeyError
    return document


def _number(digits: str) -> float:
    # Python refuses to convert integers of more than 4300 digits, and float() makes them infinite.
    return int(digits) if len(digits) <= 20 else float(digits)


def _is_deep(document: object) -> bool:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return True


def _children(node: object) -> Iterable[object]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


# Compiled when they are needed, which for most values is never: the command has to start quickly.
_BEARER = r"(?:authorization\s*:\s*)?bearer(?:\s+|\s*:\s*|\Z)"
_WRAPPED_TEXT = r"\s*(?:[\x21-\x7e]+\s*\Z|bearer\s|[{\[\"])"
_PLAIN_KEY = r"[A-Za-z_][A-Za-z0-9_-]{0,23}"
_BASE64URL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
