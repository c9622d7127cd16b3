"""What the API says when it cannot do as asked: problem documents (RFC 9457).

A detail says what to do. It never repeats what the request held: that may be a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from token_keeper.sidecar._household import Household

URN = "urn:token-keeper:problem:"
PROBLEM_TYPE = "application/problem+json"

SAFE_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Headers of every answer that does not set them itself."""


class Problem(Exception):
    """Ends a request with a problem document.

    Args:
        status: The HTTP status.
        name: Last part of its type.
        title: What happened, without a full stop.
        detail: What to do.
        headers: Of the answer.
        members: More members of the document.
    """

    def __init__(  # noqa: PLR0913 - one for each part of the document
        self,
        status: int,
        name: str,
        title: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(title)
        self.status = status
        self.name = name
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def response(self) -> Response:
        """Return the answer."""
        document = {
            "type": URN + self.name,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }
        headers = {**SAFE_HEADERS, **self.headers}
        return Response(
            msgspec.json.encode(document), status_code=self.status, headers=headers, media_type=PROBLEM_TYPE
        )


class ClientGone(Exception):
    """The client went away: nobody waits for the answer any more."""


def bad_request(detail: str) -> Problem:
    """Return the answer to a query or a body that cannot be read; *detail* names the part."""
    return Problem(HTTPStatus.BAD_REQUEST, "bad-request", "The request cannot be understood", detail)


def unknown_token() -> Problem:
    """Return the answer to the name of a token that is not kept."""
    return Problem(
        HTTPStatus.NOT_FOUND,
        "unknown-token",
        "No such token is configured",
        "See GET /v1/tokens for the names; add [tokens.NAME] to the configuration and reload.",
    )


def unavailable(
    detail: str,
    retry_after: int,
    *,
    name: str = "unavailable",
    title: str = "No usable token now",
    **more: Any,
) -> Problem:
    """Return the answer if there is no token to give, with the seconds after which to ask again."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        name,
        title,
        detail,
        headers={"retry-after": str(retry_after)},
        members={"retry_after": retry_after, **more},
    )


def not_found() -> Problem:
    """Return the answer to a path that is none of ours."""
    return Problem(
        HTTPStatus.NOT_FOUND, "not-found", "There is nothing here", "See /openapi.json for what there is."
    )


def method_not_allowed(allow: str) -> Problem:
    """Return the answer to a method that the path does not have; *allow* are those it has."""
    return Problem(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "The path does not have this method",
        f"Use {allow}.",
        headers={"allow": allow},
    )


def closed(household: Household, name: str) -> Problem:
    """Return the answer if the token *name* was let go of while somebody asked for it."""
    served = household.tokens.get(name)
    if served is None:
        return unknown_token()
    if served.kept.gone is None:
        detail = "The token is just being set up by a reload. Ask again."
        return unavailable(detail, 1, name="starting", title="The token is not kept yet")
    detail = "The sidecar stops. Ask again; whoever runs it may start another one."
    return unavailable(detail, 1, name="shutting-down", title="The sidecar stops")


async def answer_problem(_: Request, problem: Exception) -> Response:
    """Answer with *problem*. For Starlette's table of exceptions."""
    assert isinstance(problem, Problem)  # noqa: S101 - the table says so
    return problem.response()


async def answer_http(request: Request, error: Exception) -> Response:
    """Answer to what the router did not find."""
    if getattr(error, "status_code", None) == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (getattr(error, "headers", None) or {}).get("Allow", "")
        return method_not_allowed(", ".join(sorted(allowed.split(", ")))).response()
    del request
    return not_found().response()


async def answer_gone(_: Request, __: Exception) -> Response:
    """Answer nobody: the client is not there."""
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=SAFE_HEADERS)


async def answer_crash(_: Request, __: Exception) -> Response:
    """Answer after an error of ours; it is logged by whoever called us."""
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal-error",
        "The sidecar made a mistake",
        "The tokens are kept all the same. Its log says more; please report it.",
    ).response()


__all__ = [
    "ClientGone",
    "Problem",
    "SAFE_HEADERS",
    "answer_crash",
    "answer_gone",
    "answer_http",
    "answer_problem",
    "bad_request",
    "closed",
    "method_not_allowed",
    "not_found",
    "unavailable",
    "unknown_token",
]
