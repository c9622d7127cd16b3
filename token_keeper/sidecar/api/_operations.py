"""What operators and their tools ask for: health, metrics, the reload, the dashboard's keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from itertools import islice
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from token_keeper._errors import ConfigError
from token_keeper.sidecar._access import Access, Caller, Keys
from token_keeper.sidecar._health import Reason, reasons
from token_keeper.sidecar._household import Household
from token_keeper.sidecar._threads import Threads
from token_keeper.sidecar.api._problems import Problem, bad_request
from token_keeper.sidecar.api._reads import JSON
from token_keeper.sidecar.api._requests import object_of, query_of

REASONS_MAX = 100
"""Reasons that are listed; more of them say nothing new."""
CODE_MAX = 128
"""Characters of a code for the dashboard."""


class Reloaded(Protocol):
    """What a reload did, by the names of tokens."""

    @property
    def added(self) -> tuple[str, ...]: ...
    @property
    def changed(self) -> tuple[str, ...]: ...
    @property
    def removed(self) -> tuple[str, ...]: ...
    @property
    def unchanged(self) -> tuple[str, ...]: ...


class Operations:
    """The operators' part of the API.

    Args:
        household: Whose health it is.
        keys: Makes the dashboard's codes and keys.
        reload: Reads the configuration again; raises `BadConfig` or `OSError` if it cannot be used.
        page: URL of the dashboard, or None without TCP.
    """

    def __init__(
        self,
        household: Household,
        *,
        keys: Keys,
        reload: Callable[[], Awaitable[Reloaded]],
        page: str | None,
    ) -> None:
        self._household = household
        self._keys = keys
        self._reload = reload
        self._page = page
        self._scraping = Threads(1, "token_keeper metrics")

    async def live(self, request: Request) -> Response:
        """Answer whether the scheduler ticked lately."""
        if self._household.is_live:
            return _healthy(request, {"live": True})
        return _ill(request, "not-live", "The scheduler stands still", "Restart the sidecar.", live=False)

    async def ready(self, request: Request) -> Response:
        """Answer whether every token is usable for long enough and written to its sinks."""
        found = reasons(self._household)
        listed = [_reason(reason) for reason in islice(found, REASONS_MAX)]
        if not listed:
            return _healthy(request, {"ready": True})
        detail = "See the reasons; status and the log say more."
        more = sum(1 for _ in found)
        return _ill(
            request, "not-ready", "Not every token is usable", detail, ready=False, reasons=listed, more=more
        )

    async def metrics(self, request: Request) -> Response:
        """Answer with the metrics in the form that the scraper likes."""
        accept = ", ".join(request.headers.getlist("accept"))
        loop = asyncio.get_running_loop()
        body, media_type = await loop.run_in_executor(self._scraping, _exposition, self._household, accept)
        return Response(body, headers={"content-type": media_type, "vary": "accept"})

    async def openapi(self, _: Request) -> Response:
        """Answer with the description of the API."""
        from token_keeper.sidecar.api._openapi import document  # noqa: PLC0415 - only tools read it

        return Response(msgspec.json.encode(document()), media_type=JSON)

    async def reload(self, request: Request) -> Response:
        """Read the configuration again, all or nothing."""
        from token_keeper.sidecar.config import BadConfig  # noqa: PLC0415 - it is large, and loaded anyway by then

        query_of(request, {})
        await object_of(request, ())
        try:
            changes = await self._reload()
        except BadConfig as bad:
            raise _bad_configuration(bad.problems) from None
        except OSError as error:
            problem = f"cannot be read ({error.strerror}); make it readable"
            raise _bad_configuration((ConfigError(str(error.filename), problem),)) from None
        names = ("added", "changed", "removed", "unchanged")
        document: dict[str, Any] = {name: getattr(changes, name) for name in names}
        document["restart_needed"] = getattr(changes, "restart_needed", ())
        return Response(msgspec.json.encode(document), media_type=JSON)

    async def new_code(self, request: Request) -> Response:
        """Answer with a code that opens the dashboard once."""
        caller = caller_of(request)
        query_of(request, {})
        await object_of(request, ())
        if caller is not None and caller.over != "unix":
            detail = "Ask over the Unix socket: run token-keeper dashboard."
            raise Problem(HTTPStatus.FORBIDDEN, "forbidden", "Codes are not given over TCP", detail)
        if self._page is None:
            detail = 'Add listen = "127.0.0.1:8750" to [server] and restart the sidecar.'
            raise Problem(HTTPStatus.CONFLICT, "no-listener", "The dashboard needs a TCP listener", detail)
        code = self._keys.new_code()
        return Response(msgspec.json.encode({"code": code, "url": f"{self._page}#{code}"}), media_type=JSON)

    async def new_key(self, request: Request) -> Response:
        """Trade a code for a key that reads status and events."""
        query_of(request, {})
        members = await object_of(request, ("code",))
        code = members.pop("code", None)
        if not isinstance(code, str) or not 1 <= len(code) <= CODE_MAX:
            del code
            raise bad_request(f"code: must be a string of 1 to {CODE_MAX} characters.")
        key = self._keys.redeem(code)
        del code
        if key is None:
            detail = "A code works once, within a minute. Run token-keeper dashboard again."
            raise Problem(HTTPStatus.FORBIDDEN, "bad-code", "The code is not valid", detail)
        return Response(msgspec.json.encode({"key": key, "start": self._household.start}), media_type=JSON)


def _exposition(household: Household, accept: str) -> tuple[bytes, str]:
    from token_keeper.sidecar._metrics import exposition  # noqa: PLC0415 - only scrapes need it

    return exposition(household, accept)


def caller_of(request: Request) -> Caller | None:
    """Return who asks, if the server says so."""
    caller = request.scope.get("state", {}).get("caller")
    return caller if isinstance(caller, Caller) else None


def _sees_why(request: Request) -> bool:
    caller = caller_of(request)
    return caller is None or caller.access >= Access.STATUS


def _healthy(request: Request, document: dict[str, Any]) -> Response:
    if not _sees_why(request):
        return Response()
    return Response(msgspec.json.encode(document), media_type=JSON)


def _ill(request: Request, name: str, title: str, detail: str, **members: Any) -> Response:
    if not _sees_why(request):
        return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE)
    raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, name, title, detail, members=members)


def _reason(reason: Reason) -> dict[str, str]:
    places = {"token": reason.token, "sink": reason.sink}
    return {name: place for name, place in places.items() if place is not None} | {"problem": reason.problem}


def _bad_configuration(problems: tuple[ConfigError, ...]) -> Problem:
    errors = [{"key": problem.key, "problem": problem.problem} for problem in problems]
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "bad-configuration",
        "The configuration cannot be used",
        "Nothing was changed. Correct the errors and reload again; token-keeper check finds them too.",
        members={"errors": errors},
    )
