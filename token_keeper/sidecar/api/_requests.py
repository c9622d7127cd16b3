"""Reads the parts of a request, strictly: what is not understood is refused, never ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import ClientDisconnect, Request

from token_keeper._model import NAME
from token_keeper.sidecar.api._problems import ClientGone, Problem, bad_request

BODY_MAX = 65_536
"""Bytes of a request's body."""
GENERATION_MAX = 2**53 - 1
"""The largest integer that every JSON reader gets right."""
QUERY_FIELDS_MAX = 16

_NUMBER = re.compile(r"[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?")
_COUNT = re.compile(r"[0-9]{1,16}")

Reader = Callable[[str], Any]
"""Reads the text of a parameter; raises ValueError that says what it must be."""


def query_of(request: Request, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Return the parameters of the query that are there, read by *readers*.

    Raises:
        Problem: If one is unknown, repeated, or cannot be read.
    """
    raw = request.scope.get("query_string", b"")
    try:
        fields = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX
        )
    except ValueError:
        raise bad_request("The query cannot be read: write NAME=VALUE&..., percent-encoded UTF-8.") from None
    values: dict[str, Any] = {}
    for name, text in fields:
        if name not in readers:
            known = f"known here are: {', '.join(readers)}" if readers else "none is known here"
            raise bad_request(f"The query has an unknown parameter; {known}.")
        if name in values:
            raise bad_request(f"{name}: is there twice; give it once.")
        try:
            values[name] = readers[name](text)
        except ValueError as error:
            raise bad_request(f"{name}: {error}.") from None
    return values


def seconds(most: float) -> Reader:
    """Return a reader of a length of time of at most *most* seconds."""

    def read(text: str) -> float:
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not 0 <= value <= most:
            raise ValueError(f"must be a number of seconds from 0 to {most:.0f}")
        return value

    return read


def count(text: str) -> int:
    """Read a whole number, 0 or more."""
    if not _COUNT.fullmatch(text) or int(text) > GENERATION_MAX:
        raise ValueError(f"must be a whole number from 0 to {GENERATION_MAX}")
    return int(text)


def reporter(text: str) -> str:
    """Read the name of a reporter; empty is the default one."""
    if text and not NAME.fullmatch(text):
        raise ValueError("must be empty, or 1 to 64 letters, digits, dots, hyphens or underscores")
    return text


def accepted_type(accept: str | None, offers: tuple[str, ...]) -> str | None:
    """Return which of the *offers* an `Accept` header likes best, or None if it takes none of them.

    Of equals the first one wins; without the header too.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_range(part) for part in accept.split(",")]
    liked = max(offers, key=lambda offer: _quality(offer, ranges))
    return liked if _quality(liked, ranges) > 0 else None


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip() for piece in part.lower().split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            value = value.strip()
            is_quality = re.fullmatch(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", value)
            # What cannot be read is taken as not wanted: nobody gets a raw token by mistake.
            quality = float(value) if is_quality else 0.0
    return kind, quality


def _quality(offer: str, ranges: list[tuple[str, float]]) -> float:
    # The most specific range decides (RFC 9110, section 12.5.1).
    for wanted in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        found = [quality for kind, quality in ranges if kind == wanted]
        if found:
            return max(found)
    return 0.0


async def object_of(request: Request, members: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON object of the body; an empty body is an empty object.

    Raises:
        Problem: If it is too large, of another type, not an object, or has other than these *members*.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body is not JSON",
            "Send a JSON object with Content-Type: application/json.",
        )
    # The body may hold a token, so nothing is raised by a frame that holds it.
    document = _decoded(await _body(request))
    if isinstance(document, dict) and not document.keys() - set(members):
        return document
    is_object = isinstance(document, dict)
    del document
    known = f"known here are: {', '.join(members)}" if members else "none is known here"
    if is_object:
        raise bad_request(f"The body has an unknown member; {known}.")
    raise bad_request(f"The body must be a JSON object; of members, {known}.")


def _decoded(body: bytes) -> object:
    if not body:
        return {}
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "0")
    body = bytearray()
    if length.isascii() and length.isdigit() and len(length) <= 9 and int(length) <= BODY_MAX:
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_MAX:
                    break
        except ClientDisconnect:
            body.clear()
            raise ClientGone from None
        if len(body) <= BODY_MAX:
            return bytes(body)
    body.clear()
    raise Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too-large",
        "The body is too large",
        f"Send at most {BODY_MAX} bytes.",
        # The rest of it is not read.
        headers={"connection": "close"},
    )
