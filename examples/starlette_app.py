"""The lifespan of a Starlette application, and of any other ASGI framework that has one.

    TOKEN_URL=https://backend.example/token API_URL=https://api.example/things uvicorn starlette_app:app

For the answers in an outage see fastapi_app.py: they are the same here.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from token_keeper import AsyncTokenKeeper, HttpSource
from token_keeper.adapters.httpx import KeeperAuth


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with (
        AsyncTokenKeeper(HttpSource(os.environ["TOKEN_URL"]), start_timeout=0) as keeper,
        httpx.AsyncClient(auth=KeeperAuth(keeper)) as upstream,
    ):
        app.state.keeper, app.state.upstream = keeper, upstream
        yield


async def things(request: Request) -> JSONResponse:
    answer = await request.app.state.upstream.get(os.environ["API_URL"])
    return JSONResponse(answer.json(), status_code=answer.status_code)


async def readyz(request: Request) -> JSONResponse:
    status = request.app.state.keeper.snapshot.status
    return JSONResponse({"status": status}, status_code=200 if status in {"fresh", "stale"} else 503)


app = Starlette(routes=[Route("/things", things), Route("/readyz", readyz)], lifespan=lifespan)
