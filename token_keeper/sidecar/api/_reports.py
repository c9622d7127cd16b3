"""`POST /v1/tokens/NAME/...`: servers denied or accepted a token, or somebody wants a new one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from token_keeper._errors import FetchError, TokenUnavailable
from token_keeper._model import Secret, Verdict
from token_keeper._questions import newer
from token_keeper.sidecar._documents import token_answer
from token_keeper.sidecar._household import Household
from token_keeper.sidecar._served import ServedToken
from token_keeper.sidecar.api._problems import bad_request, unavailable
from token_keeper.sidecar.api._reads import JSON, etag_of, holds, named, no_token
from token_keeper.sidecar.api._requests import GENERATION_MAX, object_of, query_of, reporter, seconds
from token_keeper.sidecar.api._waits import WAIT_MAX_S, retry_after, wait_for

MEMBERS = ("token", "generation", "fingerprint", "start", "by", "code", "reason")
TOKEN_MAX = 16_384
"""Characters of a token."""
CODE_MAX = 256
"""Characters of a server's code."""
REASON_MAX = 16_384
"""Characters of what else a server said."""
CODE_LIMIT = 2**63
"""A server's code as a number lies below this, and not below its negative."""

_WAIT = {"wait": seconds(WAIT_MAX_S)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a client says of a token that a server saw.

    Args:
        token: The raw token, or None.
        generation: Its generation, or None.
        fingerprint: Its fingerprint, or None.
        start: The start of the sidecar that gave it, or None.
        by: Who says it.
        code: The server's code.
        reason: What else the server said.
    """

    token: Secret | None = None
    generation: int | None = None
    fingerprint: str | None = None
    start: str | None = None
    by: str = ""
    code: int | str | None = None
    reason: str | None = None


class Reports:
    """What clients report and ask for.

    Args:
        household: Whose tokens they are.
    """

    def __init__(self, household: Household) -> None:
        self._household = household

    async def denied(self, request: Request) -> Response:
        """Judge a denial, and answer with the verdict, perhaps with another token after a wait."""
        served = named(self._household, request)
        wait_s = query_of(request, _WAIT).get("wait", 0.0)
        report = await _report_of(request)
        raw = self._raw(served, report)
        # Of another token we do not know what to mask in what a server said, and it decides nothing.
        code, reason = (report.code, report.reason) if raw else (None, None)
        verdict = served.report_denied(raw, by=report.by, code=code, reason=reason)
        del raw
        if wait_s > 0:
            return await self._with_token(served, verdict, report.by, wait_s, request)
        hopeful = verdict in {Verdict.DENIED, Verdict.GAVE_UP}
        return _answer(
            {
                "verdict": verdict,
                "generation": served.kept.state.generation,
                "retry_after": retry_after(served) if hopeful else None,
            }
        )

    async def accepted(self, request: Request) -> Response:
        """Note that a server accepted the token."""
        served = named(self._household, request)
        query_of(request, {})
        report = await _report_of(request)
        served.report_accepted(self._raw(served, report), by=report.by)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def refresh(self, request: Request) -> Response:
        """Ask for a newer token; with a wait, answer with what came of it."""
        served = named(self._household, request)
        wait_s = query_of(request, _WAIT).get("wait", 0.0)
        await object_of(request, ())
        served.kept.check_started()
        asked = served.kept.ask()
        if wait_s <= 0:
            return _answer({"generation": asked[0]}, status=HTTPStatus.ACCEPTED)

        def question() -> dict[str, Any] | None:
            return None if newer(served.kept, asked) is None else token_answer(served, self._household.start)

        try:
            answer = await wait_for(served, question, wait_s, request)
        except FetchError as error:
            title = "The refresh failed"
            raise unavailable(str(error), retry_after(served), name="refresh-failed", title=title) from None
        except TokenUnavailable as error:
            raise unavailable(str(error), retry_after(served)) from None
        if answer is None:
            detail = "The fetch goes on; a valid token stays. Ask again, or read the token."
            title = "No newer token in time"
            raise unavailable(detail, retry_after(served), name="refresh-pending", title=title)
        return _token_answer(answer)

    async def _with_token(
        self, served: ServedToken, verdict: Verdict, by: str, wait_s: float, request: Request
    ) -> Response:
        def question() -> dict[str, Any] | None:
            return token_answer(served, self._household.start, by) if holds(served, by, 0.0) else None

        if verdict is Verdict.GAVE_UP:
            detail = (
                "Too many tokens were denied. See the token's diagnosis in the events, then report again."
            )
            title = "Another token would be denied too"
            raise unavailable(detail, retry_after(served), name="gave-up", title=title, verdict=verdict)
        waits = wait_s if verdict is Verdict.DENIED else 0.0
        answer = await wait_for(served, question, waits, request)
        if answer is None:
            raise no_token(served, by, waits, verdict=verdict)
        return _token_answer({"verdict": verdict, "retry_after": None, **answer})

    def _raw(self, served: ServedToken, report: Report) -> str:
        """Return the current token if the report is about it, else the empty string: superseded."""
        current = served.kept.state.current
        if current is None or report.start not in {None, self._household.start}:
            return ""
        secret = current.token.secret
        is_it = (
            report.token in {None, secret}
            and report.generation in {None, current.generation}
            and report.fingerprint in {None, secret.fingerprint}
        )
        return secret.reveal() if is_it else ""


async def _report_of(request: Request) -> Report:
    """Return the report in the body. Raises `Problem`, from frames that do not hold the token."""
    members = await object_of(request, MEMBERS)
    problem = _problem_of(members)
    if problem is None:
        return _report(members)
    del members
    raise bad_request(problem)


def _report(members: dict[str, Any]) -> Report:
    """Return the checked *members* as a report. Servers like to quote the token that they refuse."""
    secret = Secret(members["token"]) if "token" in members else None
    said: dict[str, Any] = {
        name: int(value) if isinstance(value, float) else value
        for name, value in members.items()
        if value is not None
    }
    if secret is not None:
        for name in said.keys() & {"code", "reason", "start"}:
            if isinstance(said[name], str):
                said[name] = said[name].replace(secret.reveal(), f"<token {secret.fingerprint}>")
    return Report(**{**said, "token": secret})


def _problem_of(members: dict[str, Any]) -> str | None:
    """Return what is wrong with a report, in words that do not repeat it."""
    for name, check in _CHECKS.items():
        if name in members and (problem := check(members[name])) is not None:
            return f"{name}: {problem}."
    if members.keys().isdisjoint(("token", "generation", "fingerprint")):
        return "token, generation or fingerprint: say which token it is about."
    return None


def _check_text(most: int, *, least: int = 0, optional: bool = False) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if isinstance(value, str) and least <= len(value) <= most:
            return None
        if value is None and optional:
            return None
        return f"must be a string of {least} to {most} characters{' or null' if optional else ''}"

    return check


def _is_whole(value: Any) -> bool:
    # JSON knows no integers: 7.0 is as whole as 7.
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1


def _check_generation(value: Any) -> str | None:
    if _is_whole(value) and 1 <= value <= GENERATION_MAX:
        return None
    return f"must be a whole number from 1 to {GENERATION_MAX}"


def _check_fingerprint(value: Any) -> str | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8}", value):
        return None
    return "must be 8 hex digits in lower case"


def _check_by(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    try:
        reporter(value)
    except ValueError as error:
        return str(error)
    return None


def _check_code(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= CODE_MAX):
        return None
    if _is_whole(value) and -CODE_LIMIT <= value < CODE_LIMIT:
        return None
    return f"must be a whole number, a string of at most {CODE_MAX} characters, or null"


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "token": _check_text(TOKEN_MAX, least=1),
    "generation": _check_generation,
    "fingerprint": _check_fingerprint,
    "start": _check_text(64, optional=True),
    "by": _check_by,
    "code": _check_code,
    "reason": _check_text(REASON_MAX, optional=True),
}


def _answer(document: dict[str, Any], *, status: int = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(document), status_code=status, media_type=JSON)


def _token_answer(answer: dict[str, Any]) -> Response:
    headers = {"etag": etag_of(answer["start"], answer["generation"])}
    return Response(msgspec.json.encode(answer), media_type=JSON, headers=headers)
