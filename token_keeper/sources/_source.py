"""What a keeper may expect of a source, and how a source's errors stay clean."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Final, Protocol, TypeVar, runtime_checkable

from token_keeper._errors import ConfigError, FetchError
from token_keeper._model import Issued

MOST_S: Final = 1e12
"""Seconds that a float can still tell apart; more is a mistake."""
FETCH_TIMEOUT_S: Final = 30.0
"""No fetch takes longer, whatever its source."""

E = TypeVar("E", bound=BaseException)


class Source(Protocol):
    """Where tokens come from. One fetch at a time."""

    @property
    def origin(self) -> str:
        """What shares its slots with other sources: scheme, host and port of a backend."""
        ...

    @property
    def splay(self) -> bool:
        """Whether the first token's refresh may be spread over its life."""
        ...

    async def fetch(self, *, tries: int) -> Issued:
        """Return a token, within 30 s.

        Args:
            tries: How often the source may ask, inside this one fetch.

        Raises:
            TransientFetchError: If asking again later may help.
            RefusedError: If the backend will not issue a token.
            ResponseError: If what it answered is not a token.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections. A later fetch opens them again."""
        ...


@runtime_checkable
class Watched(Protocol):
    """A source that notices by itself when it has another token."""

    def changes(self) -> AsyncIterator[None]:
        """Yield whenever a fetch would bring another token, or its failure may be over. Never ends."""
        ...


@runtime_checkable
class Retiring(Protocol):
    """A source with something to do when nobody needs its tokens any more."""

    async def retire(self) -> None:
        """Give the tokens back, as far as that was asked for. Raises nothing."""
        ...


async def cleanly(outcome: Awaitable[Issued | FetchError]) -> Issued:
    """Return the token that *outcome* comes to, or raise why there is none, without a frame of how it came.

    Raises:
        FetchError: If that is what it comes to.
    """
    try:
        came = await outcome
    except asyncio.CancelledError as error:
        raise without_traces(error) from None
    if isinstance(came, FetchError):
        raise came
    return came


def chained(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and all that led to it, the innermost last. What is cut off meanwhile is left out."""
    reached = [error]
    for one in reached:
        yield one
        for inner in (one.__cause__, one.__context__, *getattr(one, "exceptions", ())):
            if isinstance(inner, BaseException) and all(inner is not known for known in reached):
                reached.append(inner)


def without_traces(error: E) -> E:
    """Drop the tracebacks of *error* and of all that it is chained to: their frames hold secrets."""
    for one in chained(error):
        one.__traceback__ = None
        if isinstance(one, AttributeError):
            # What the attribute was missing of: perhaps the answer, taken for something else.
            one.obj = None
        if isinstance(one, FetchError):
            # What it was raised in the course of may hold the answer; what caused it was chosen.
            one.__context__ = None
    return error


def as_cause(error: BaseException | None) -> BaseException | None:
    """Return a foreign *error* as it may be shown: without frames, or not at all if it holds a text."""
    if error is None or isinstance(error, json.JSONDecodeError | UnicodeError):
        return None
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        following = one.__cause__ if one.__suppress_context__ else (one.__cause__ or one.__context__)
        following = None if isinstance(following, json.JSONDecodeError | UnicodeError) else following
        one.__cause__, one.__context__ = following, None
        one = following
    return without_traces(error)


def check_seconds(key: str, value: object, *, most: float = math.inf) -> None:
    """Check that *value* is a positive number of seconds, at most *most*.

    Raises:
        ConfigError: About *key*, if it is not.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= min(most, MOST_S):  # type: ignore[operator]
        bound = "" if math.isinf(most) else f", at most {most:g}"
        raise ConfigError(key, f"must be a positive number of seconds{bound}")
