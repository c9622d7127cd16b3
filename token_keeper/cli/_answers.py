"""What the sidecar's answers say: documents, or problems (RFC 9457), each with an exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NoReturn

from token_keeper.cli._client import EX_PROTOCOL, Nonsense, NotAllowed, UnknownToken
from token_keeper.cli._group import Failure
from token_keeper.cli._output import printable
from token_keeper.cli._wire import Answer

WORDS_MAX = 2_000
"""Most characters of the sidecar's words that are shown."""


def document_of(answer: Answer, path: str, *expected: int) -> dict[str, Any]:
    """Return the JSON object in *answer* if its status is one of *expected*, else fail with its problem."""
    try:
        document = json.loads(answer.body) if answer.body else {}
    except (ValueError, RecursionError):
        document = None
    if answer.status not in expected:
        _fail_with_problem(answer, document if isinstance(document, dict) else {}, path)
    if not isinstance(document, dict):
        raise Nonsense(path, "its answer is not a JSON object")
    return document


def problem_of(document: Mapping[str, Any]) -> str:
    """Return the name of the problem that *document* (RFC 9457) is about, or an empty string."""
    return str(document.get("type", "")).removeprefix("urn:token-keeper:problem:")


def words_of(document: Mapping[str, Any], status: int) -> str:
    """Return what a problem says, in words that may be printed."""
    texts = [text for key in ("title", "detail") if isinstance(text := document.get(key), str) and text]
    said = ": ".join(text.rstrip(".") for text in texts) or f"the sidecar answered {status}"
    # A title begins a sentence; here it goes on after our name.
    said = said[:1].lower() + said[1:] if said[1:2].islower() else said
    return printable(said[:WORDS_MAX])


def _fail_with_problem(answer: Answer, document: Mapping[str, Any], path: str) -> NoReturn:
    words = words_of(document, answer.status)
    problem = problem_of(document)
    if problem == "unknown-token":
        raise UnknownToken(words)
    if problem == "bad-request":
        raise Failure(words, os.EX_DATAERR)
    if answer.status in {401, 403, 421}:
        raise NotAllowed(words)
    if answer.status == 503:
        raise Failure(words, os.EX_TEMPFAIL)
    if problem:
        raise Failure(words, EX_PROTOCOL)
    raise Nonsense(path, f"it answered with status {answer.status}")
