"""Judges what a backend answered: a token, a refusal, or a failure that may pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from token_keeper._errors import PERMANENT_REASONS, RefusedError, ResponseError, TransientFetchError
from token_keeper._extract import parse_json
from token_keeper._model import Issued
from token_keeper._shape import error_code
from token_keeper.sources._place import TokenPlace
from token_keeper.sources._times import retry_after

ALWAYS_TRANSIENT: Final = frozenset({408, 425, 429})
"""Statuses below 500 that say nothing but that it is too early."""
DENIALS: Final = frozenset({401, 403})
"""Statuses that are a refusal, also without an error code."""

_HINTS: Final = {
    404: "Check the URL",
    405: "Check the method: json or data make it POST",
    407: "Check the credentials of the proxy",
    415: "Check whether the backend wants json or data",
    429: "The keeper slows down",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a backend answered.

    Args:
        status: Of HTTP.
        headers: By lower-case name.
        text: The body, or None if it was not read.
        problem: Why the body cannot be read, if it cannot.
        received_at: Unix seconds by our clock.
        server_time: Unix seconds by the backend's clock, if it is known.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    text: str | None = field(default=None, repr=False)
    problem: ResponseError | None = None
    received_at: float
    server_time: float | None = None


def needs_body(status: int) -> bool:
    """Whether the body of an answer can change what it means."""
    return 200 <= status < 500 and status not in ALWAYS_TRANSIENT


def token_in(answer: Answer, place: TokenPlace) -> Issued:
    """Return the token in *answer*.

    Raises:
        TransientFetchError: If the backend may answer otherwise later.
        RefusedError: If it will not issue a token.
        ResponseError: If it answered with success, but without a token.
    """
    if 200 <= answer.status < 300:
        if answer.problem is not None:
            raise answer.problem
        return place.issued(answer.text or "", server_time=answer.server_time)
    if answer.status < 400:
        raise ResponseError(f"the backend answered {answer.status}; a valid token stays. Check the URL")
    wait = retry_after(answer.headers, now=answer.received_at)
    document = parse_json(answer.text or "")
    code = error_code(document)
    if needs_body(answer.status):
        if code in PERMANENT_REASONS:
            raise RefusedError(str(code), retry_after=wait)
        if answer.status in DENIALS and not is_page(answer):
            raise RefusedError(f"http_{answer.status}", retry_after=wait)
    raise TransientFetchError(_message(answer, code), retry_after=wait)


def _message(answer: Answer, code: str | None) -> str:
    hint = _HINTS.get(
        answer.status,
        "Check headers, params and body" if answer.status < 500 else "The keeper tries again by itself",
    )
    return f"the backend answered {status_in_words(answer, code)}; a valid token stays. {hint}"


def status_in_words(answer: Answer, code: str | None) -> str:
    """Return the status of *answer*, and what is known beside it: an error *code*, or that it is a page."""
    detail = f" ({code})" if code else " with a web page, as a firewall does" if is_page(answer) else ""
    return f"{answer.status}{detail}"


def is_page(answer: Answer) -> bool:
    """Whether *answer* is HTML. Its `Content-Type` counts only if it has no readable body."""
    text = (answer.text or "").removeprefix("\ufeff").lstrip()
    return text.startswith("<") if text else answer.headers.get("content-type", "").startswith("text/html")
