"""`GET /v1/tokens` and `GET /v1/tokens/NAME`: how tokens stand, and one token itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from token_keeper._errors import TokenUnavailable
from token_keeper._questions import unavailable as why_unavailable
from token_keeper._questions import usable
from token_keeper._waiting import LONGEST_S
from token_keeper.sidecar._documents import token_answer, token_row
from token_keeper.sidecar._health import is_ready, sinks_of
from token_keeper.sidecar._household import Household
from token_keeper.sidecar._served import ServedToken
from token_keeper.sidecar.api._problems import Problem, unavailable, unknown_token
from token_keeper.sidecar.api._requests import accepted_type, count, query_of, reporter, seconds
from token_keeper.sidecar.api._waits import WAIT_MAX_S, retry_after, wait_for

JSON, TEXT = "application/json", "text/plain"
ROWS_AT_ONCE = 50
"""Rows of a status document before whatever else runs in the loop gets a turn."""

_ENCODE = msgspec.json.Encoder().encode
_TOKEN_QUERY = {
    "min_validity": seconds(LONGEST_S),
    "after_generation": count,
    "wait": seconds(WAIT_MAX_S),
    "by": reporter,
}


class Reads:
    """The two reads.

    Args:
        household: Whose tokens they are.
    """

    def __init__(self, household: Household) -> None:
        self._household = household

    async def status(self, request: Request) -> Response:
        """Answer how every token stands."""
        query_of(request, {})
        return Response(await status_document(self._household), media_type=JSON)

    async def token(self, request: Request) -> Response:
        """Answer with the token itself, perhaps after a wait."""
        served = named(self._household, request)
        query = query_of(request, _TOKEN_QUERY)
        kind = accepted_type(_accept_of(request), (JSON, TEXT))
        if kind is None:
            raise Problem(
                HTTPStatus.NOT_ACCEPTABLE,
                "not-acceptable",
                "The token has no such form",
                f"Accept {JSON}, or {TEXT} for the raw token and nothing else.",
            )
        return await self._token(served, query, kind, request)

    async def _token(
        self, served: ServedToken, query: dict[str, Any], kind: str, request: Request
    ) -> Response:
        by, min_validity = query.get("by", ""), query.get("min_validity", 0.0)
        after, wait_s = query.get("after_generation", 0), query.get("wait", 0.0)
        start = self._household.start

        def question() -> dict[str, Any] | None:
            if not holds(served, by, min_validity):
                return None
            answer = token_answer(served, start, by)
            # A higher one is of another start: whatever there is now is news.
            return None if answer is None or answer["generation"] == after else answer

        try:
            answer = await wait_for(served, question, wait_s, request)
            newest = token_answer(served, start, by) if answer is None else answer
            enough = answer is not None or holds(served, by, min_validity)
        except TokenUnavailable as error:
            title = "The source's tokens never live that long"
            raise unavailable(str(error), retry_after(served), name="too-short", title=title) from None
        if newest is None or not enough:
            raise no_token(served, by, wait_s)
        etag = etag_of(start, newest["generation"])
        headers = {"etag": etag, "vary": "accept"}
        if answer is None or _matches(request.headers.getlist("if-none-match"), etag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        if kind == TEXT:
            return Response(answer["token"], media_type=TEXT, headers=headers)
        return Response(_ENCODE(answer), media_type=JSON, headers=headers)


def named(household: Household, request: Request) -> ServedToken:
    """Return the token that the path names. Raises `Problem`."""
    served = household.tokens.get(request.path_params["name"])
    if served is None:
        raise unknown_token()
    return served


def etag_of(start: str, generation: int) -> str:
    """Return the validator of a generation."""
    return f'"{start}-{generation}"'


def holds(served: ServedToken, by: str, min_validity: float) -> bool:
    """Whether *by* can use the token for *min_validity* seconds; if it is too short, a fetch starts.

    Raises:
        KeeperClosed: If it is kept no more.
        TokenUnavailable: If the source's tokens never live that long.
    """
    served.kept.check_alive()
    # A token that a reload just added begins a moment later.
    return served.kept.state.started and usable(served.kept, by, min_validity) is not None


def no_token(served: ServedToken, by: str, wait_s: float, **members: Any) -> Problem:
    """Return the answer if there is no token to give to *by*."""
    detail = str(why_unavailable(served.kept, by, waited=wait_s))
    return unavailable(detail, retry_after(served), **members)


async def status_document(household: Household, only: Iterable[str] | None = None) -> bytes:
    """Return the document of `GET /v1/tokens`, made in slices so that nothing else waits for it."""
    tokens = household.tokens
    names = list(tokens) if only is None else [name for name in only if name in tokens]
    head = {
        "start": household.start,
        "started_at": household.started_at,
        "ready": is_ready(household),
        "live": household.is_live,
        "version": _version(),
    }
    rows: list[bytes] = []
    for name in names:
        rows.append(_ENCODE(token_row(tokens[name], sinks_of(household, name))))
        if len(rows) % ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return b'%b,"tokens":[%b]}' % (_ENCODE(head)[:-1], b",".join(rows))


@cache
def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - 10 ms that the start need not wait for

    return version("token-keeper")


def _accept_of(request: Request) -> str | None:
    lines = request.headers.getlist("accept")
    return ", ".join(lines) if lines else None


def _matches(headers: list[str], etag: str) -> bool:
    wanted = [tag.strip().removeprefix("W/") for header in headers for tag in header.split(",")]
    return etag in wanted or "*" in wanted
