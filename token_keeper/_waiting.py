"""How callers wait for a token: one loop that awaits, one that blocks, the same questions.

A question is a function that returns the token, None to wait for the next
change, or raises. A waiter that goes away harms nobody: the fetch is not its.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from token_keeper._errors import ConfigError
from token_keeper._kept import KeptToken
from token_keeper._questions import unavailable

Question = Callable[[], str | None]

LONGEST_S = 1e9
"""Longest wait, in seconds: as good as without end, and no lock or loop takes much more."""


def check_wait(key: str, value: object) -> None:
    """Check that *value* is 0 or more seconds, perhaps infinite.

    Raises:
        ConfigError: About *key*, if it is not.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (0 <= value <= LONGEST_S or value == math.inf):  # type: ignore[operator]
        raise ConfigError(key, "must be 0 or more seconds, or math.inf")


def _limit(timeout: float) -> float:
    """Return *timeout* as loops and locks take it. What is left of somebody's deadline may be negative."""
    check_wait("timeout", 0 if isinstance(timeout, int | float) and timeout < 0 else timeout)
    return min(max(timeout, 0.0), LONGEST_S)


async def answer(kept: KeptToken, question: Question, *, timeout: float, by: str = "") -> str:  # noqa: ASYNC109 - the contract's name
    """Await the answer, in any event loop, for *timeout* seconds at most.

    Raises:
        TokenUnavailable: If there was none in time.
    """
    limit = _limit(timeout)
    try:
        async with asyncio.timeout(limit):
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
        raise unavailable(kept, by, waited=limit) from kept.last_failure


def block_for_answer(kept: KeptToken, question: Question, *, timeout: float, by: str = "") -> str:
    """Block the calling thread until the answer, for *timeout* seconds at most.

    Raises:
        TokenUnavailable: If there was none in time.
    """
    limit = _limit(timeout)
    deadline = time.monotonic() + limit
    while True:
        changes = kept.changes
        if (raw := question()) is not None:
            return raw
        rest = deadline - time.monotonic()
        if rest <= 0:
            raise unavailable(kept, by, waited=limit) from kept.last_failure
        kept.wait_beyond(changes, rest)
