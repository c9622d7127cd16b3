"""How callers wait for a token: one loop that awaits, one that blocks, the same questions.

A question is a function that returns the token, None to wait for the next
change, or raises. A waiter that goes away harms nobody: the fetch is not its.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from token_keeper._kept import KeptToken

Question = Callable[[], str | None]


async def answer(kept: KeptToken, question: Question, *, timeout: float, by: str = "") -> str:  # noqa: ASYNC109 - the contract's name
    """Await the answer, in any event loop, for *timeout* seconds at most.

    Raises:
        TokenUnavailable: If there was none in time.
    """
    try:
        async with asyncio.timeout(timeout):
            while True:
                # Registered before the question, so that no change between them is missed.
                change = kept.change()
                try:
                    if (raw := question()) is not None:
                        return raw
                    await change
                finally:
                    change.cancel()
    except TimeoutError:
        raise kept.unavailable(by, waited=timeout) from kept.last_failure


def block_for_answer(kept: KeptToken, question: Question, *, timeout: float, by: str = "") -> str:
    """Block the calling thread until the answer, for *timeout* seconds at most.

    Raises:
        TokenUnavailable: If there was none in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        changes = kept.changes
        if (raw := question()) is not None:
            return raw
        rest = deadline - time.monotonic()
        if rest <= 0:
            raise kept.unavailable(by, waited=timeout) from kept.last_failure
        kept.wait_beyond(changes, rest)
