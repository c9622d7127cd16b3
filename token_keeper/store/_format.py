"""How a record looks in a file: as JSON, or sealed inside of it.

A file is read only if it is, byte by byte, what would be written for its content: so
damage anywhere shows, and nothing is ever sent that was not stored.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Final

from token_keeper._model import Secret
from token_keeper.store._record import Mark, Record
from token_keeper.store._seal import Seal

FORMAT: Final = "token-keeper grant"
VERSION: Final = 1
MOST_BYTES: Final = 1_048_576
"""Bytes of a file that is read. Two tokens of 16 384 characters fit in whatever script they are."""

_TOKEN: Final = 16_384
_REST: Final = 16_384
_SEALING: Final = 128
_FRAME: Final = 512
ROOM: Final = (3 * 2 * _TOKEN + _REST + _SEALING) * 4 // 3 + _FRAME
"""Bytes that are reserved for a record: three tokens in which JSON escapes each character, sealed."""

LEFT: Final = "It was left as it is"
AWAY: Final = f"{LEFT}; move it away to start anew"
_FOREIGN: Final = f"is no record of token_keeper, or was cut off. {AWAY}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A file that is whole, not yet opened."""

    is_sealed: bool
    _content: Any = field(repr=False)

    def record(self, name: str, seal: Seal | None) -> Record | str:
        """Return the record inside, or what is wrong with it.

        Args:
            name: Of the grant whose record it should be.
            seal: What opens it, if it is sealed.
        """
        if not self.is_sealed:
            return _record_of(self._content, name)
        if seal is None:
            return f"is sealed, and no key is given. {LEFT}; give the key that sealed it"
        opened = seal.opened(self._content)
        if opened is None:
            return (
                f"is sealed with another key than {seal.origin} holds. {LEFT}; add the key that "
                "sealed it, or move it away to start anew"
            )
        return _record_of(_parsed(opened), name)


def written(record: Record, name: str, seal: Seal | None) -> bytes | str:
    """Return the content of the file for *record*, or why there can be none."""
    try:
        body = _body_of(record, name)
        if seal is None:
            content = _laid_out("grant", body)
        else:
            content = _laid_out("sealed", seal.sealed(json.dumps(body, allow_nan=False).encode("ascii")))
    except ValueError:
        return "was not written: a time in the new record is no number. What it held before stays"
    if len(content) > MOST_BYTES:
        return f"was not written: it would have over {MOST_BYTES} bytes. What it held before stays"
    return content


def envelope_of(content: bytes) -> Envelope | str:
    """Return what the file with *content* holds, or what is wrong with it."""
    if len(content) > MOST_BYTES:
        return f"is larger than any record ({MOST_BYTES} bytes). {AWAY}"
    if not content.strip(b"\0 \n"):
        return f"is empty. {AWAY}"
    document = _parsed(content)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        return _FOREIGN
    version = document.get("version")
    if type(version) is int and version > VERSION:
        return (
            f"was written by a newer token_keeper (format {version}, this one knows {VERSION}). "
            f"{LEFT}; update this one"
        )
    kind = "grant" if "grant" in document else "sealed"
    if not _is_laid_out(kind, document.get(kind), content):
        return f"is damaged: its content is not what its checksum says. {AWAY}"
    if kind == "sealed" and not isinstance(document["sealed"], str):
        return _FOREIGN
    return Envelope(kind == "sealed", document[kind])


def _laid_out(kind: str, inside: object) -> bytes:
    """Return the whole file, for eyes and for the comparison."""
    frame = {
        "format": FORMAT,
        "version": VERSION,
        "note": "do not edit, copy or restore: what is in it works once",
    }
    text = json.dumps(inside, allow_nan=False)
    whole = frame | {kind: inside, "sha256": hashlib.sha256(f"{kind} {text}".encode("ascii")).hexdigest()}
    return json.dumps(whole, indent=2).encode("ascii") + b"\n"


def _is_laid_out(kind: str, inside: object, content: bytes) -> bool:
    try:
        return _laid_out(kind, inside) == content
    except (ValueError, RecursionError):
        return False


def _body_of(record: Record, name: str) -> dict[str, object]:
    mark = record.mark
    return {
        "name": name,
        "owner": record.owner,
        "refresh_token": _revealed(record.refresh_token),
        "access_token": _revealed(record.access_token),
        "asked": record.asked,
        "received_at": record.received_at,
        "expires_at": record.expires_at,
        "skew_s": record.skew_s,
        "rotations": record.rotations,
        "seeds": record.seeds,
        "mark": None if mark is None else {"sent_at": mark.sent_at, "times": mark.times, "by": mark.by},
        "superseded": _revealed(record.superseded),
    }


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def _parsed(content: bytes) -> Any:
    """Return the JSON in *content*, or None: the parser's own errors hold the text."""
    try:
        return json.loads(content.decode("ascii"), parse_constant=_refused)
    except (ValueError, RecursionError):
        return None


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _record_of(body: Any, name: str) -> Record | str:
    try:
        found = _text(body["name"])
        record = _checked(body)
    except (KeyError, TypeError):
        return _FOREIGN
    if found != name:
        shown = (
            found if found.isascii() and found.isprintable() and len(found) <= len(name) + 64 else "another"
        )
        return f"holds the grant {shown}, not {name}: it was renamed or copied. {LEFT}; give it its name back"
    return record


def _checked(body: Any) -> Record:
    """Return the record in *body*. Raises KeyError or TypeError if there is none."""
    mark = body["mark"]
    return Record(
        owner=_text(body["owner"]),
        refresh_token=_secret(body["refresh_token"]),
        access_token=_secret(body["access_token"]),
        asked=_text(body["asked"]),
        received_at=_optional_time(body["received_at"]),
        expires_at=_optional_time(body["expires_at"]),
        skew_s=_number(body["skew_s"]),
        rotations=_count(body["rotations"]),
        seeds=tuple(_text(seed) for seed in body["seeds"]),
        mark=None
        if mark is None
        else Mark(sent_at=_number(mark["sent_at"]), times=_count(mark["times"]), by=_text(mark["by"])),
        superseded=_secret(body["superseded"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _secret(value: object) -> Secret | None:
    return None if value is None else Secret(_text(value))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    try:
        number = float(value)
    except OverflowError:
        raise TypeError from None
    if not math.isfinite(number):
        raise TypeError
    return number


def _optional_time(value: object) -> float | None:
    return None if value is None else _number(value)


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value
