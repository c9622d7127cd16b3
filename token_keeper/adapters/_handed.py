"""Which token an SDK was given last: for SDKs that say that a token was refused, but not which one."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from contextvars import ContextVar

from token_keeper._errors import TokenUnavailable
from token_keeper._share import Share

_HERE: ContextVar[tuple[int, int, str, int] | None] = ContextVar("token_keeper_handed", default=None)
_NOTHING = ("", 0)


class Handed:
    """Remembers what was handed out, for each thread and task, as hashes: no token outlives its keeper.

    An SDK sends, and learns of the refusal, in one thread or task. Where it
    does not, the token that was handed out last to anybody is the one.

    Args:
        settle_s: For how many seconds after a denial a thread or task that sent nothing
            reports nothing: refusals of the token before are still on their way.
    """

    __slots__ = ("_denied_at", "_last", "_settle_s", "_shares")

    def __init__(self, *, settle_s: float = 0.0) -> None:
        self._shares: dict[str, Share] = {}
        self._last = _NOTHING
        self._settle_s = settle_s
        self._denied_at = -math.inf

    def note(self, share: Share, raw: str) -> str:
        """Remember that *raw* is handed out for *share*, and return it."""
        self._shares[share.by] = share
        self._last = (share.by, hash(raw))
        _HERE.set((id(self), _here(), *self._last))
        return raw

    def note_nothing(self) -> None:
        """Remember that this thread or task sends no token now."""
        self._last = _NOTHING
        _HERE.set((id(self), _here(), *_NOTHING))

    def refused(self, code: int | str) -> Share | None:
        """Report the token that was handed out here last. Returns whose it was; None if none was."""
        noted = _HERE.get()
        is_own = noted is not None and noted[:2] == (id(self), _here())
        by, handed = noted[2:] if noted is not None and is_own else self._last
        share = self._shares.get(by) if handed else None
        if share is None:
            return None
        if is_own or time.monotonic() >= self._denied_at + self._settle_s:
            self._deny(share, handed, code)
        return share

    def _deny(self, share: Share, handed: int, code: int | str) -> None:
        try:
            current = share.token
        except TokenUnavailable:
            return
        if hash(current) == handed:
            self._denied_at = time.monotonic()
            share.denied(current, code=code)


def _here() -> int:
    # A task inherits the context of whoever made it, but did not send what that one sent.
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident() if task is None else id(task)
