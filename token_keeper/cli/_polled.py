"""What commands that stay have in common: one exchange at a time, polled with whatever else they await."""

from __future__ import annotations

import time

from token_keeper.cli._client import Exchange, Sidecar, Unreachable
from token_keeper.cli._wire import Answer


class Polled:
    """Asks a sidecar again and again, without ever blocking but to connect.

    Whoever inherits decides what is asked and when. Its user polls `descriptor` for at most
    `timeout_s()`, then has it advance.

    Args:
        sidecar: Whom to ask.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._exchange: Exchange | None = None
        self._due_at = 0.0

    @property
    def descriptor(self) -> int | None:
        """What to poll for reading, while an exchange is under way."""
        return self._exchange.fileno() if self._exchange else None

    def timeout_s(self) -> float:
        """Return the seconds after which to advance, also if nothing comes."""
        return max(self._due_at - time.monotonic(), 0.0)

    def close(self) -> None:
        """Hang up."""
        exchange, self._exchange = self._exchange, None
        if exchange:
            exchange.close()

    def _whole_answer(self, exchange: Exchange, *, is_readable: bool) -> Answer | None:
        """Read what came; return the answer once it is complete, and hang up.

        Raises:
            Unreachable: It has not come in time.
            Failure: As `Exchange.receive`.
        """
        if is_readable:
            exchange.receive(0.0)
            if exchange.parser.is_complete:
                self.close()
                return exchange.parser.answer
        elif not self.timeout_s():
            raise Unreachable("the sidecar does not answer; it may hang")
        return None
