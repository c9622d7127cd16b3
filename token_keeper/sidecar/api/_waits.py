"""How a request waits for a token: for a change, for its client to go, or for the time to be over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Receive

from token_keeper._machine import fetch_due
from token_keeper._model import Phase
from token_keeper._state import NEVER
from token_keeper.sidecar._served import ServedToken
from token_keeper.sidecar.api._problems import ClientGone

AnswerT = TypeVar("AnswerT")

WAIT_MAX_S = 60.0
"""Longest wait of a request."""


async def wait_for(
    served: ServedToken, question: Callable[[], AnswerT | None], wait_s: float, request: Request
) -> AnswerT | None:
    """Return the first answer to *question*, asked at each change, or None after *wait_s* seconds.

    Raises:
        ClientGone: If the client goes away meanwhile.
    """
    if (answer := question()) is not None or wait_s <= 0:
        return answer
    gone = asyncio.ensure_future(disconnected(request.receive))
    served.tally.waiters += 1
    try:
        async with asyncio.timeout(wait_s):
            return await _changed_answer(served, question, gone)
    except TimeoutError:
        return None
    finally:
        served.tally.waiters -= 1
        gone.cancel()


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def retry_after(served: ServedToken) -> int:
    """Return the seconds to the next attempt to get a token; 1 while one is under way."""
    kept = served.kept
    due = fetch_due(kept.state, kept.policy)
    if kept.state.phase is Phase.FETCHING or due == NEVER:
        return 1
    return max(math.ceil(due - kept.boot()), 1)


async def _changed_answer(
    served: ServedToken, question: Callable[[], AnswerT | None], gone: asyncio.Future[None]
) -> AnswerT:
    while True:
        # Registered before the question, so that no change between them is missed.
        change = served.kept.change()
        try:
            if (answer := question()) is not None:
                return answer
            await asyncio.wait({change, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
        if gone.done():
            raise ClientGone
