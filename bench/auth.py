"""What `KeeperAuth` costs a request: beside bare httpx, httpx-auth, Authlib, and the least possible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from time import perf_counter
from timeit import Timer
from typing import Any

import httpx
import httpx2
from authlib.integrations.httpx_client import (  # type: ignore[import-untyped]
    AsyncOAuth2Client,
    OAuth2Client,
)
from httpx_auth import OAuth2ClientCredentials
from report import Figures, heading, interleaved, note, run, table, times

from token_keeper import AsyncTokenKeeper, TokenKeeper
from token_keeper.adapters.httpx import KeeperAuth
from token_keeper.testing import ScriptedSource, mint

LIFETIME_S = 36_000
ROUNDS = 60
ROUNDS_OF_REQUESTS = 300
FLOWS = 500
REQUESTS = 8
URL = "https://api.example/things"
BARE, BARE_2 = "bare httpx", "bare httpx2"
OURS, OURS_2 = "KeeperAuth, httpx", "KeeperAuth, httpx2"
FLOOR, HTTPX_AUTH, AUTHLIB = "the floor: set the header", "httpx-auth", "Authlib"


class Floor(httpx.Auth):
    """The least that puts a token into a request, and looks at no answer."""

    def __init__(self, raw: str) -> None:
        self._header = f"Bearer {raw}"

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = self._header
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = self._header
        yield request


def authlib_token(raw: str) -> dict[str, object]:
    return {"access_token": raw, "token_type": "Bearer", "expires_at": int(time.time()) + LIFETIME_S}


def httpx_auth(raw: str) -> OAuth2ClientCredentials:
    issued = {"access_token": raw, "token_type": "Bearer", "expires_in": LIFETIME_S}
    issuer = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=issued)))
    auth = OAuth2ClientCredentials("https://issuer.example/token", "somebody", "something", client=issuer)
    drive(auth, httpx.Request("GET", URL), httpx.Response(200))  # It fetches the token now.
    return auth


def drive(auth: Any, request: Any, response: Any) -> None:
    """Do what a client does for one request that is answered by *response*."""
    flow = auth.sync_auth_flow(request)
    next(flow)
    try:
        flow.send(response)
    except StopIteration:
        return


async def drive_async(auth: Any, request: Any, response: Any) -> None:
    flow = auth.async_auth_flow(request)
    await anext(flow)
    try:
        await flow.asend(response)
    except StopAsyncIteration:
        return


def drive_authlib(client: Any, request: Any, response: Any) -> None:
    client.ensure_active_token(client.token)
    drive(client.token_auth, request, response)


async def drive_authlib_async(client: Any, request: Any, response: Any) -> None:
    await client.ensure_active_token(client.token)
    await drive_async(client.token_auth, request, response)


def exchange(package: Any) -> tuple[Any, Any]:
    request = package.Request("GET", URL)
    return request, package.Response(200, request=request)


def flows(raw: str, keeper: TokenKeeper | AsyncTokenKeeper) -> dict[str, tuple[Any, Any]]:
    """Return, by name, who authenticates and the package that it is for; Authlib comes beside."""
    return {
        BARE: (httpx.Auth(), httpx),
        BARE_2: (httpx2.Auth(), httpx2),
        FLOOR: (Floor(raw), httpx),
        OURS: (KeeperAuth(keeper), httpx),
        OURS_2: (KeeperAuth(keeper), httpx2),
        HTTPX_AUTH: (httpx_auth(raw), httpx),
    }


def per_run_us(statement: Callable[[], object], number: int) -> Callable[[], float]:
    timer = Timer(statement)
    return lambda: timer.timeit(number) / number * 1e6


async def per_await_us(statement: Callable[[], Awaitable[object]], number: int) -> float:
    begin = perf_counter()
    for _ in range(number):
        await statement()
    return (perf_counter() - begin) / number * 1e6


def compare(title: str, least: dict[str, float]) -> Figures:
    """Print what each costs over the bare client of its package."""
    bares = {BARE: BARE, BARE_2: BARE_2, OURS_2: BARE_2, AUTHLIB: BARE_2}
    over = {name: us - least[bares.get(name, BARE)] for name, us in least.items()}
    heading(title)
    table(
        ["", "us", "over bare", "to KeeperAuth"],
        [
            [
                name,
                f"{us:.1f}",
                f"{over[name]:+.1f}",
                "" if name in bares.values() else times(over[name], over[OURS]),
            ]
            for name, us in least.items()
        ],
    )
    return {name: {"us": us, "over_bare_us": over[name]} for name, us in least.items()}


def measure_flows(raw: str, keeper: TokenKeeper) -> Figures:
    cases = {}
    for name, (auth, package) in flows(raw, keeper).items():
        pair = exchange(package)
        cases[name] = per_run_us(lambda auth=auth, pair=pair: drive(auth, *pair), FLOWS)  # type: ignore[misc]
    authlib, pair = OAuth2Client(token=authlib_token(raw)), exchange(httpx2)
    cases[AUTHLIB] = per_run_us(lambda: drive_authlib(authlib, *pair), FLOWS)
    least = {name: min(values) for name, values in interleaved(cases, ROUNDS).items()}
    authlib.close()
    return compare("Authenticate a request: the flow alone", least)


async def measure_async_flows(raw: str, keeper: AsyncTokenKeeper) -> Figures:
    cases: dict[str, Callable[[], Awaitable[object]]] = {}
    for name, (auth, package) in flows(raw, keeper).items():
        pair = exchange(package)
        cases[name] = lambda auth=auth, pair=pair: drive_async(auth, *pair)  # type: ignore[misc]
    authlib, pair = AsyncOAuth2Client(token=authlib_token(raw)), exchange(httpx2)
    cases[AUTHLIB] = lambda: drive_authlib_async(authlib, *pair)
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            found[name].append(await per_await_us(case, FLOWS // 5))
    await authlib.aclose()
    return compare("The same, async", {name: min(values) for name, values in found.items()})


def measure_requests(raw: str, keeper: TokenKeeper) -> Figures:
    """Measure whole requests, which are answered in memory."""
    clients = {
        name: package.Client(
            transport=package.MockTransport(lambda _, package=package: package.Response(200)),
            auth=None if name in (BARE, BARE_2) else auth,
        )
        for name, (auth, package) in flows(raw, keeper).items()
    }
    clients[AUTHLIB] = OAuth2Client(
        token=authlib_token(raw), transport=httpx2.MockTransport(lambda _: httpx2.Response(200))
    )
    cases = {
        name: per_run_us(lambda client=client: client.get(URL), REQUESTS)  # type: ignore[misc]
        for name, client in clients.items()
    }
    least = {name: min(values) for name, values in interleaved(cases, ROUNDS_OF_REQUESTS).items()}
    for client in clients.values():
        client.close()
    figures = compare("A whole request, answered in memory", least)
    note("Least of many rounds each. Authlib is on httpx2.")
    return figures


def measure() -> Figures:
    raw = mint(expires_at=time.time() + LIFETIME_S, sub="benchmark")
    with TokenKeeper(ScriptedSource(raw)) as keeper:
        figures = {"flow": measure_flows(raw, keeper), "request": measure_requests(raw, keeper)}

    async def in_a_loop() -> Figures:
        async with AsyncTokenKeeper(ScriptedSource(raw)) as async_keeper:
            return await measure_async_flows(raw, async_keeper)

    return {**figures, "async_flow": asyncio.run(in_a_loop())}


if __name__ == "__main__":
    run(measure)
