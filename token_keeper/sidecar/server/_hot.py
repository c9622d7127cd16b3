"""Ready-made answers to `GET /v1/tokens/NAME`, each for as long as all of it is true.

An answer is never made here. It is what the API itself answered, kept with what
it depends on: the token's state, and the next moment at which a second of
`expires_in` passes, the token turns stale, or it expires.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from token_keeper.sidecar._household import Household
from token_keeper.sidecar._served import ServedToken

PREFIX: Final = "/v1/tokens/"
FIRST_LINE: Final = b"HTTP/1.1 200 OK\r\n"
FORMS: Final[Mapping[bytes, str]] = {
    b"*/*": "json",
    b"application/json": "json",
    b"text/plain": "text",
}
"""What `Accept` may be, and which form it asks for; for all else the API decides."""
STEP_S: Final = 0.001
"""So far the wall clock may move against the boot clock: what is slewed, not set."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class HotAnswer:
    """One answer of the API, and until when it is true."""

    __slots__ = ("_date", "_whole", "changes", "offset", "served", "tail", "tokens", "until")

    def __init__(
        self, tokens: Mapping[str, ServedToken], served: ServedToken, now: tuple[float, float]
    ) -> None:
        wall, boot = now
        self.tokens = tokens
        self.served = served
        self.changes = served.kept.changes
        self.offset = wall - boot
        self.until = _true_until(served, boot)
        self.tail = b""
        self._date = b""
        self._whole = b""

    def whole(self, date: bytes) -> bytes:
        """Return its bytes with the header line *date*."""
        if date is not self._date:
            self._date = date
            self._whole = FIRST_LINE + date + self.tail
        return self._whole


class HotAnswers:
    """The ready-made answers of a household.

    Args:
        household: Whose tokens.
    """

    def __init__(self, household: Household) -> None:
        self._household = household
        self._boot = household.clock.boot
        self._wall = household.clock.wall
        self._answers: dict[tuple[str, str], HotAnswer] = {}
        self._tokens: Mapping[str, ServedToken] = {}
        self.date = b""
        """The header line `Date`, with its end, as it is now."""

    def find(self, path: str, accept: bytes) -> HotAnswer | None:
        """Return the answer to a plain GET of *path*, if there is one and it is true now."""
        form = FORMS.get(accept)
        answer = self._answers.get((path, form)) if form else None
        return answer if answer is not None and self.is_true(answer) else None

    def is_true(self, answer: HotAnswer) -> bool:
        """Whether the API would answer the same now."""
        boot = self._boot()
        return (
            boot <= answer.until
            and answer.changes == answer.served.kept.changes
            and answer.tokens is self._household.tokens
            and -STEP_S < self._wall() - boot - answer.offset < STEP_S
        )

    def renewed(self, path: str, accept: bytes) -> HotAnswer | None:
        """Return a blank for the answer to a plain GET of *path*, or None if it is not kept."""
        name = path.removeprefix(PREFIX)
        tokens = self._household.tokens
        if accept not in FORMS or not path.startswith(PREFIX) or name not in tokens:
            return None
        return HotAnswer(tokens, tokens[name], (self._wall(), self._boot()))

    def keep(self, path: str, accept: bytes, answer: HotAnswer, tail: bytes) -> None:
        """Keep *tail*, an answer from after its `Date` on, if it is still true."""
        if not self.is_true(answer):
            return
        if self._tokens is not answer.tokens:
            # A reload replaced them: nothing of those that are gone stays in memory.
            self._tokens = answer.tokens
            self._answers.clear()
        answer.tail = tail
        self._answers[path, FORMS[accept]] = answer

    def recording(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], path: str, accept: bytes
    ) -> Any:
        """Return *app* for one plain GET of *path*, so that what it answers is kept."""

        async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
            blank = self.renewed(path, accept)
            head: list[bytes] = []

            async def noting(message: Any) -> None:
                nonlocal blank
                if blank is not None:
                    if message["type"] == "http.response.start":
                        head.extend(_lines(message))
                    elif head and not message.get("more_body"):
                        self.keep(path, accept, blank, b"".join([*head, b"\r\n", message.get("body", b"")]))
                        blank = None
                    else:
                        blank = None
                await send(message)

            await app(scope, receive, noting)

        return recorded


def _lines(start: Any) -> list[bytes]:
    """Return the header lines of a whole answer; none if it is of another kind."""
    headers = [(name.lower(), value) for name, value in start.get("headers", ())]
    names = {name for name, _ in headers}
    if start["status"] != 200 or b"content-length" not in names or b"connection" in names:
        return []
    return [b"%s: %s\r\n" % header for header in headers]


def _true_until(served: ServedToken, boot: float) -> float:
    """Return until when of the boot clock the answer of *boot* is true if nothing happens."""
    current = served.kept.state.usable_by("", boot)
    if current is None:
        return -math.inf
    until = current.expires
    if boot < current.stale:
        until = min(until, math.nextafter(current.stale, -math.inf))
    remaining = current.remaining_s(boot)
    if math.isfinite(remaining):
        until = min(math.nextafter(until, -math.inf), current.expires - math.floor(remaining))
    return until
