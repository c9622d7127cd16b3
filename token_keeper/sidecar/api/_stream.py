"""`GET /v1/events`: server-sent events, from wherever the client left off.

A stream keeps one number, that of the last event that it sent. It has no queue:
a client that does not read is cut off, and comes back to what is still kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from http import HTTPStatus
from itertools import chain, islice

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from token_keeper._model import TokenEvent
from token_keeper.sidecar._documents import event_document
from token_keeper.sidecar._household import Household
from token_keeper.sidecar.api._problems import unknown_token
from token_keeper.sidecar.api._reads import status_document
from token_keeper.sidecar.api._requests import query_of, seconds
from token_keeper.sidecar.api._waits import disconnected

COMMENT_S = 15.0
"""A comment line follows after so many seconds without an event."""
WRITE_S = 10.0
"""A client that takes nothing for so long is cut off."""
HISTORY_MAX_S = 86_400.0
EVENTS_AT_ONCE = 100
"""Events of one write."""
STREAM_TYPE = "text/event-stream"

_COMMENT = b": still here\n\n"
_ENCODE = msgspec.json.Encoder().encode
_HEADERS = {"content-type": STREAM_TYPE, "x-accel-buffering": "no"}


class Streams:
    """The event streams.

    Args:
        household: Whose events they are.
    """

    def __init__(self, household: Household) -> None:
        self._household = household

    async def events(self, request: Request) -> ASGIApp:
        """Answer with a stream that ends only with the client, the token or the sidecar."""
        query = query_of(request, {"token": str, "history": seconds(HISTORY_MAX_S)})
        name = query.get("token")
        if name is not None and name not in self._household.tokens:
            raise unknown_token()
        if request.method == "HEAD":
            return Response(headers=_HEADERS)
        last = self._household.events.number_of(request.headers.get("last-event-id", ""))
        return _Stream(self._household, name, last, query.get("history"))


class _Stream:
    """The answer to one client.

    Args:
        household: Whose events it tells.
        name: Of the one token that it is about; None is all.
        last: Number of the last event that the client knows, or None.
        history_s: How far back to begin, in seconds, if it knows none.
    """

    def __init__(
        self, household: Household, name: str | None, last: int | None, history_s: float | None
    ) -> None:
        self._household = household
        self._log = household.events
        self._name = name
        self._last = last
        self._history_s = history_s
        self._comment_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        telling = asyncio.ensure_future(self._tell(send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait({telling, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            telling.cancel()
            await asyncio.wait({telling, gone})
        if not telling.cancelled() and not telling.result():
            # Closing would wait until the client takes what is still to be sent.
            scope.get("state", {}).get("drop", _nothing)()

    async def _tell(self, send: Send) -> bool:
        """Send the stream to its end. Returns False if the client does not keep up."""
        headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
        try:
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    await self._write(send, piece)
        except _TooSlow:
            return False
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True

    async def _write(self, send: Send, piece: bytes) -> None:
        try:
            async with asyncio.timeout(WRITE_S):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise _TooSlow from None
        # A server whose client reads quickly never waits: let others have their turn.
        await asyncio.sleep(0)
        self._comment_at = asyncio.get_running_loop().time() + COMMENT_S

    async def _pieces(self) -> AsyncGenerator[bytes]:
        tokens = self._household.tokens
        snapshot, news, told = self._begin()
        if snapshot is not None:
            yield await self._snapshot(snapshot)
        while True:
            while batch := list(islice(news, EVENTS_AT_ONCE)):
                yield b"".join(self._event(number, event) for number, event in batch)
            if self._is_over():
                return
            if tokens is not self._household.tokens:
                # A reload: whoever shows the tokens learns which ones there are now.
                tokens = self._household.tokens
                yield await self._snapshot(told)
            if not await self._is_news_after(told):
                yield _COMMENT
            later = self._log.after(told, self._name)
            if later is None:
                raise _TooSlow
            news, told = later, self._log.last

    def _begin(self) -> tuple[int | None, Iterator[tuple[int, TokenEvent]], int]:
        """Return the number of the snapshot, if one is due, the first events, and how far they go."""
        log, name = self._log, self._name
        resumed = None if self._last is None else log.after(self._last, name)
        if resumed is not None:
            return None, resumed, log.last
        if self._history_s is None:
            return log.last, iter(()), log.last
        past = log.history(self._household.clock.wall() - self._history_s, name)
        first = next(past, None)
        if first is None:
            return log.last, iter(()), log.last
        # A client that is cut off right after the snapshot resumes with the history.
        return first[0] - 1, chain((first,), past), log.last

    async def _is_news_after(self, told: int) -> bool:
        """Wait for an event after *told*, a reload or the end; False if a comment is due first."""
        try:
            async with asyncio.timeout_at(self._comment_at):
                await self._log.beyond(told)
        except TimeoutError:
            return False
        return True

    def _is_over(self) -> bool:
        is_removed = self._name is not None and self._name not in self._household.tokens
        return is_removed or self._log.is_closed

    async def _snapshot(self, number: int) -> bytes:
        only = None if self._name is None else (self._name,)
        document = await status_document(self._household, only)
        return self._framed("snapshot", number, document)

    def _event(self, number: int, event: TokenEvent) -> bytes:
        return self._framed(event.kind, number, _ENCODE(event_document(event)))

    def _framed(self, kind: str, number: int, document: bytes) -> bytes:
        # JSON has no line ends outside of strings, and none unescaped inside.
        return b"event: %b\nid: %b\ndata: %b\n\n" % (
            kind.encode(),
            self._log.id_of(number).encode(),
            document,
        )


class _TooSlow(Exception):
    """The client does not keep up."""


def _nothing() -> None:
    """Stand in for a server that cannot drop connections."""
