"""What an authorization server's answer means (RFC 6749 sections 5.1 and 5.2, RFC 7009, RFC 8628).

Nothing of an answer is shown but its status and its error code: a description may repeat what was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from token_keeper._errors import (
    PERMANENT_REASONS,
    FetchError,
    RefusedError,
    ResponseError,
    TransientFetchError,
)
from token_keeper._extract import parse_json
from token_keeper._model import Secret
from token_keeper._shape import error_code, shape_of
from token_keeper.sources._answers import ALWAYS_TRANSIENT, DENIALS, Answer, is_page, status_in_words
from token_keeper.sources._place import TokenPlace
from token_keeper.sources._source import without_traces
from token_keeper.sources._times import retry_after
from token_keeper.sources.oauth2._outcomes import Delivery, Granted, NotGranted, Outcome

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MISTAKES: Final = {
    "invalid_request": "The server misses or does not know a field: compare extra with its documentation",
    "invalid_scope": "Check scope: the server does not know it, or this client may not have it",
    "invalid_target": "Check audience and resource: the server issues no token for them",
    "unsupported_grant_type": "Check grant: the server does not offer it, or not to this client",
    "unsupported_token_type": "Check revoke: the server cannot revoke tokens of this kind",
}
_PENDING: Final = {
    "authorization_pending": "Confirm the login in the browser",
    "slow_down": "The next question comes later",
    "expired_token": "The code of the login has expired: log in again",
}
_HINTS: Final = {
    404: "Check token_url",
    405: "Check token_url: it takes no POST",
    407: "Check the credentials of the proxy",
    429: "The keeper slows down",
}


def outcome_of(answer: Answer, place: TokenPlace) -> Outcome:
    """Return the tokens in *answer*, or why there are none. Raises nothing."""
    document = parse_json(answer.text or "")
    if (refused := refusal_in(answer, document)) is not None:
        return refused
    if not isinstance(document, Mapping):
        return _unreadable(answer, document)
    # Only its access token is meant, also if the server forgot to say of which type it is.
    kind = document.get("token_type")
    document = {**document, "token_type": kind if isinstance(kind, str) else "Bearer"}
    scope = document.get("scope")
    refresh_token = _sendable(document.get("refresh_token"))
    try:
        issued = place.issued(document, server_time=answer.server_time)
    except FetchError as error:
        problem = without_traces(error)
        return NotGranted(error=problem, delivery=Delivery.ANSWERED, refresh_token=refresh_token)
    return Granted(
        issued=issued,
        refresh_token=refresh_token,
        scope=scope if isinstance(scope, str) else None,
    )


def refusal_in(answer: Answer, document: object) -> NotGranted | None:
    """Return why *answer*, whose body says *document*, is no success; None if it is one."""
    said = document.get("error") if isinstance(document, Mapping) else None
    if 200 <= answer.status < 300 and not said:
        return None
    code = error_code(document)
    is_doubtful = answer.status >= 500 and answer.status != 503
    return NotGranted(
        error=_problem(answer, code),
        delivery=Delivery.LOST if is_doubtful else Delivery.ANSWERED,
        code=code,
    )


def _problem(answer: Answer, code: str | None) -> FetchError:
    status = answer.status
    wait = retry_after(answer.headers, now=answer.received_at)
    if status in ALWAYS_TRANSIENT or status >= 500:
        return TransientFetchError(_message(answer, code, _HINTS.get(status)), retry_after=wait)
    if code in PERMANENT_REASONS:
        return RefusedError(str(code), retry_after=wait)
    if code is None and status in DENIALS and not is_page(answer):
        return RefusedError(f"http_{status}", retry_after=wait)
    if code in _MISTAKES:
        return ResponseError(_message(answer, code, _MISTAKES[str(code)]))
    if status < 400 and code is None:
        return ResponseError(_message(answer, code, "Check token_url"))
    hint = _PENDING.get(str(code), _HINTS.get(status)) if status < 500 else None
    return TransientFetchError(
        _message(answer, code, hint or "Check the client's settings and the server's log"), retry_after=wait
    )


def _message(answer: Answer, code: str | None, hint: str | None) -> str:
    said = status_in_words(answer, code)
    remedy = hint or "The keeper tries again by itself"
    return f"the authorization server answered {said}; a valid token stays. {remedy}"


def _sendable(said: object) -> Secret | None:
    """Return the refresh token that was *said*; None if it is none, or no form could hold it."""
    return Secret(said) if isinstance(said, str) and said and not _SURROGATE.search(said) else None


def _unreadable(answer: Answer, document: object) -> NotGranted:
    """Return the problem of a success that is none: the server may well have acted."""
    problem = answer.problem
    if problem is None:
        found = "no JSON" if document is None else shape_of(document)
        problem = ResponseError(
            f"the answer of the authorization server is {found}, not the JSON object of RFC 6749; "
            "a valid token stays. Check token_url"
        )
    return NotGranted(error=without_traces(problem), delivery=Delivery.LOST)
