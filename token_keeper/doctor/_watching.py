"""An HTTP client that remembers how it was answered last, for sources that take a client."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import httpx

from token_keeper._errors import FetchError
from token_keeper._model import Issued
from token_keeper.doctor._fetch import CONTENT_TYPE, Observed
from token_keeper.sources._times import server_time


class Watching:
    """Sends as a keeper's client does, and remembers what no secret is in.

    Args:
        context: Whom it trusts.
        proxy: Through what it sends; None leaves that to the environment.
        clock: Unix time.
    """

    def __init__(self, context: ssl.SSLContext, *, proxy: Any, clock: Callable[[], float]) -> None:
        self.context = context
        self.client = httpx.AsyncClient(
            verify=context, proxy=proxy, event_hooks={"response": [self._note], "request": [self._count]}
        )
        self.clock = clock
        self._requests = 0
        self._last: httpx.Response | None = None
        self._ahead_s: float | None = None

    def forget(self) -> None:
        """Forget what was answered before."""
        self._requests, self._last, self._ahead_s = 0, None, None

    def observed(
        self,
        issued: Issued | None = None,
        error: FetchError | None = None,
        *,
        seconds: float = 0.0,
        path: str | None = None,
    ) -> Observed:
        """Return how a fetch went.

        Args:
            issued: What it came to, or None.
            error: Why not.
            seconds: How long it took.
            path: Where in the answer the token stands.
        """
        last = self._last
        kind = "" if last is None else last.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Observed(
            issued=issued,
            error=error,
            seconds=seconds,
            received_at=self.clock(),
            status=None if last is None else last.status_code,
            content_type=kind if CONTENT_TYPE.fullmatch(kind) else None,
            http_version="" if last is None else last.http_version[:16],
            requests=self._requests,
            path=path if issued is not None else None,
            ahead_s=self._ahead_s,
        )

    async def _count(self, request: httpx.Request) -> None:
        # What is read with GET are metadata.
        self._requests += request.method == "POST"

    async def _note(self, response: httpx.Response) -> None:
        sent_at = server_time({name.lower(): value for name, value in response.headers.items()})
        self._ahead_s = None if sent_at is None else sent_at - self.clock()
        self._last = response
