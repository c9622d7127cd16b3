"""How often a source asks inside one fetch, and how long it pauses between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from token_keeper._errors import FetchError, TransientFetchError
from token_keeper._model import Issued

if TYPE_CHECKING:
    import tenacity

_FIRST_PAUSE_S: Final = 0.5
_PAUSE_JITTER_S: Final = 0.25


def retrying(tries: int) -> tenacity.AsyncRetrying:
    """Return what calls a function again, *tries* times at most, while it returns what may pass at once."""
    import tenacity  # noqa: PLC0415 - `import token_keeper` is quick.

    return tenacity.AsyncRetrying(
        sleep=asyncio.sleep,
        stop=tenacity.stop_after_attempt(max(1, tries)),
        wait=tenacity.wait_exponential(multiplier=_FIRST_PAUSE_S) + tenacity.wait_random(0, _PAUSE_JITTER_S),
        retry=tenacity.retry_if_result(_may_pass_at_once),
        retry_error_callback=_last_outcome,
    )


def _may_pass_at_once(outcome: Issued | FetchError) -> bool:
    if not isinstance(outcome, TransientFetchError):
        return False
    return outcome.retry_after is None and outcome.retry_within is None


def _last_outcome(state: tenacity.RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None
