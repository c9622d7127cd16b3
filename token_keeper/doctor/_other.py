"""The steps of a source that can only be asked: what is inside is not known here."""

from __future__ import annotations

import time
from collections.abc import Callable

from token_keeper._errors import FetchError
from token_keeper._redact import redact_text
from token_keeper.doctor._findings import found_step, unfound_step
from token_keeper.doctor._report import Status, Step
from token_keeper.doctor._seen import Seen
from token_keeper.doctor._subject import Subject
from token_keeper.doctor._words import length


async def see_other(subject: Subject, *, clock: Callable[[], float]) -> Seen:
    """Ask the source once, and return what came of it.

    Raises:
        ConfigError: If a setting cannot work.
    """
    source = subject.made()
    begin, issued, error = time.monotonic(), None, None
    try:
        issued = await source.fetch(tries=1)
    except FetchError as failure:
        error = failure
    finally:
        await source.aclose()
    kind, took = type(source).__name__, length(time.monotonic() - begin)
    asked = Step(
        name="source",
        status=Status.OK,
        summary=f"{kind} was asked, for {took}; how it gets its tokens cannot be seen from outside",
        details={"type": kind, "seconds": round(time.monotonic() - begin, 3)},
    )
    return Seen(
        place=redact_text(str(source.origin)),
        steps=(asked,),
        received_at=clock(),
        issued=issued,
        token=found_step(issued, "handed over") if issued is not None else unfound_step(error),
        missing="the source has no token",
        splay=bool(source.splay),
    )
