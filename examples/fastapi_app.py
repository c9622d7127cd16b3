"""A FastAPI application that calls another API with a token that is always valid.

    TOKEN_URL=https://backend.example/token API_URL=https://api.example/things uvicorn fastapi_app:app

The keeper lives as long as the application: it is made in the lifespan, in the event loop that serves.
In an outage the application starts all the same; /readyz says when it can do its work.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from token_keeper import AsyncTokenKeeper, HttpSource, TokenUnavailable
from token_keeper.adapters.httpx import KeeperAuth

API_URL = os.environ["API_URL"]
WAIT_S = float(os.environ.get("WAIT_S", "5"))
"""How long a request waits for a token if there is none. The default, 30 s, is long for a web page."""


class State(TypedDict):
    """What the lifespan leaves in `request.state`."""

    keeper: AsyncTokenKeeper
    upstream: httpx.AsyncClient


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    async with (
        AsyncTokenKeeper(HttpSource(os.environ["TOKEN_URL"]), start_timeout=0) as keeper,
        # One client for all requests. A 401 is reported, and answered with another token.
        httpx.AsyncClient(auth=KeeperAuth(keeper, timeout=WAIT_S)) as upstream,
    ):
        yield State(keeper=keeper, upstream=upstream)


app = FastAPI(lifespan=lifespan)


@app.get("/things")
async def things(request: Request) -> Response:
    answer = await request.state.upstream.get(API_URL)
    return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


@app.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    now = request.state.keeper.snapshot
    return JSONResponse(
        {"status": now.status, "last_error": now.last_error},
        status_code=200 if now.usable_for > 0 else 503,
    )


@app.exception_handler(TokenUnavailable)
async def unavailable(_: Request, error: TokenUnavailable) -> JSONResponse:
    # The message says why there is no token, and holds no secret.
    return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": "5"})
