"""How a source is asked: what its keeper knows beside it, and what counts as an answer."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from token_keeper._errors import ResponseError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper.sources._source import FETCH_TIMEOUT_S, Source, as_cause


def _is_unknown(_: Secret) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What whoever fetches knows, and a source of sources has to know.

    Args:
        within_s: Seconds after which nobody waits for the outcome any more.
        wall: Returns Unix seconds, by the clock that the token will be judged by.
        is_denied: Whether a server refused this token lately.
    """

    within_s: float = FETCH_TIMEOUT_S
    wall: Callable[[], float] = time.time
    is_denied: Callable[[Secret], bool] = _is_unknown


# Not an argument of `fetch`: most sources need none of it, and users write sources of their own.
OCCASION: Final = ContextVar("token_keeper_occasion", default=Occasion())  # noqa: B039 - It is immutable.


def asking(source: Source, tries: int, occasion: Occasion) -> asyncio.Task[Issued]:
    """Begin to ask *source*. Returns the task of what it hands over, which need not be waited for.

    The task raises `FetchError` if that is nothing, or not what a source has to hand over.
    """
    call = asyncio.get_running_loop().create_task(asked(source, tries, occasion))
    call.add_done_callback(_retrieve)
    return call


async def asked(source: Source, tries: int, occasion: Occasion) -> Issued:
    """Return what *source* hands over, if it is what a source has to hand over. In a task of its own.

    Raises:
        FetchError: If it hands over nothing, or something else.
    """
    OCCASION.set(occasion)
    try:
        issued: object = source.fetch(tries=tries)
        if inspect.isawaitable(issued):
            issued = await issued
    except SystemExit as error:
        # In a task it would end the whole event loop.
        raise TransientFetchError(
            "the source wanted to end the program; a valid token stays. See the cause"
        ) from as_cause(error)
    if isinstance(issued, Issued) and isinstance(issued.secret, Secret):
        return issued
    found = type(issued.secret if isinstance(issued, Issued) else issued).__name__
    del issued  # A traceback shows the locals of its frames.
    raise ResponseError(
        f"the source returned {found}; a valid token stays. Let it return Issued(secret=Secret(token))"
    )


def _retrieve(call: asyncio.Task[Issued]) -> None:
    # An outcome that nobody waits for any more is not worth a warning.
    if not call.cancelled():
        call.exception()
