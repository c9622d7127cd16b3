"""Puts the API together: which path is answered by what, and what every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from token_keeper._errors import KeeperClosed
from token_keeper.sidecar._access import Keys
from token_keeper.sidecar._household import Household
from token_keeper.sidecar.api._operations import Operations, Reloaded
from token_keeper.sidecar.api._problems import (
    SAFE_HEADERS,
    ClientGone,
    Problem,
    answer_crash,
    answer_gone,
    answer_http,
    answer_problem,
    closed,
)
from token_keeper.sidecar.api._reads import Reads
from token_keeper.sidecar.api._reports import Reports
from token_keeper.sidecar.api._stream import Streams
from token_keeper.sidecar.dashboard._pages import routes as dashboard_routes


def make_app(
    household: Household,
    *,
    keys: Keys,
    reload: Callable[[], Awaitable[Reloaded]],
    page: str | None = None,
) -> Starlette:
    """Return the API as an ASGI application.

    It trusts that the caller may do what it asks: the server decided that before. What a
    caller may *see* of the health depends on ``scope["state"]["caller"]``; without one, all.

    Args:
        household: Whose tokens are served.
        keys: Makes the dashboard's codes and keys.
        reload: Reads the configuration again; raises `BadConfig` or `OSError` if it cannot be used.
        page: URL of the dashboard, such as ``http://127.0.0.1:8750/``; None without TCP.
    """

    async def answer_closed(request: Request, _: Exception) -> Response:
        return closed(household, request.path_params.get("name", "")).response()

    operations = Operations(household, keys=keys, reload=reload, page=page)
    app = Starlette(
        routes=[*_routes(household, operations), *dashboard_routes()],
        middleware=[Middleware(_SafeHeaders)],
        exception_handlers={
            Problem: answer_problem,
            ClientGone: answer_gone,
            KeeperClosed: answer_closed,
            HTTPException: answer_http,
            Exception: answer_crash,
        },
    )
    app.router.redirect_slashes = False
    return app


def _routes(household: Household, operations: Operations) -> list[Route]:
    reads, reports, streams = Reads(household), Reports(household), Streams(household)
    return [
        Route("/v1/tokens", reads.status, methods=["GET"]),
        Route("/v1/tokens/{name}", reads.token, methods=["GET"]),
        Route("/v1/tokens/{name}/denied", reports.denied, methods=["POST"]),
        Route("/v1/tokens/{name}/accepted", reports.accepted, methods=["POST"]),
        Route("/v1/tokens/{name}/refresh", reports.refresh, methods=["POST"]),
        Route("/v1/events", streams.events, methods=["GET"]),
        Route("/v1/reload", operations.reload, methods=["POST"]),
        Route("/v1/dashboard/codes", operations.new_code, methods=["POST"]),
        Route("/v1/dashboard/keys", operations.new_key, methods=["POST"]),
        Route("/healthz", operations.live, methods=["GET"]),
        Route("/readyz", operations.ready, methods=["GET"]),
        Route("/metrics", operations.metrics, methods=["GET"]),
        Route("/openapi.json", operations.openapi, methods=["GET"]),
    ]


class _SafeHeaders:
    """Adds the headers that every answer carries, unless it sets them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_safely)
