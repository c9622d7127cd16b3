"""Fetches once, exactly as a keeper does, and watches."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

import httpx

from token_keeper._errors import FetchError, ResponseError
from token_keeper._extract import extract
from token_keeper._model import Issued, Secret
from token_keeper.sources import HttpSource
from token_keeper.sources._exchange import BODY_LIMIT, ENCODING, inflated
from token_keeper.sources._times import server_time

CONTENT_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,32}/[a-z0-9.+-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to ask a backend for a token with. As the words of `HttpSource`."""

    url: str = field(repr=False)
    method: str | None = None
    headers: Mapping[str, Secret] = field(default_factory=dict)
    params: Any = field(default=None, repr=False)
    json: Any = field(default=None, repr=False)
    data: Any = field(default=None, repr=False)
    token_path: str | None = None
    expires_path: str | None = None
    default_lifetime: float | None = None
    timeout: float = 10.0
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = field(default=None, repr=False)
    allow_http: bool = False

    def source(self, auth: httpx.Auth | None = None) -> HttpSource:
        """Return the source that a keeper would have.

        Raises:
            ConfigError: If a setting cannot work.
        """
        words = {field.name: getattr(self, field.name) for field in fields(self)}
        return HttpSource(**{**words, "headers": dict(self.headers)}, auth=auth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """How one fetch went.

    Args:
        issued: What a keeper would have got, or None.
        error: What a keeper would have been told instead, or None.
        seconds: From when the first request was ready to the end of the last answer.
        received_at: Unix seconds of our clock, at the end.
        status: Of HTTP; None if there was no answer.
        content_type: Of the answer, if it said one and that looks like one.
        http_version: Of the answer.
        requests: How many were sent; more than one follow redirects.
        path: Where the token stood; "" is a raw text, "@" a JSON string.
        ahead_s: The backend's clock less ours, if the answer says it.
    """

    issued: Issued | None = None
    error: FetchError | None = None
    seconds: float
    received_at: float
    status: int | None = None
    content_type: str | None = None
    http_version: str = ""
    requests: int = 0
    path: str | None = None
    ahead_s: float | None = None


async def fetch_once(request: Request, *, clock: Callable[[], float] = time.time) -> Observed:
    """Ask the backend once, and return what a keeper would make of it. Raises nothing of the network."""
    watch = _Watch(clock)
    source = request.source(watch)
    issued, error = None, None
    try:
        issued = await source.fetch(tries=1)
    except FetchError as failure:
        error = failure
    finally:
        await source.aclose()
    return Observed(
        issued=issued,
        error=error,
        seconds=time.monotonic() - watch.began_at if watch.began_at is not None else 0.0,
        received_at=clock(),
        status=watch.status,
        content_type=watch.content_type,
        http_version=watch.http_version,
        requests=watch.requests,
        path=watch.path(request) if issued else None,
        ahead_s=watch.ahead_s,
    )


class _Watch(httpx.Auth):
    """Sees the answer as the source does: an Auth gets it after its body was bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.began_at: float | None = None
        self.status: int | None = None
        self.content_type: str | None = None
        self.http_version = ""
        self.requests = 0
        self.ahead_s: float | None = None
        self._clock = clock
        self._encoding = ""
        self._chunks: list[bytes] = []

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Add nothing to *request*, and look at its answer."""
        self.began_at = time.monotonic() if self.began_at is None else self.began_at
        self.requests += 1
        response = yield request
        sent_at = server_time({name.lower(): value for name, value in response.headers.items()})
        self.ahead_s = None if sent_at is None else sent_at - self._clock()
        self.status = response.status_code
        self.http_version = response.http_version[:16]
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.content_type = kind if CONTENT_TYPE.fullmatch(kind) else None
        self._encoding = response.extensions.get(ENCODING, "")
        self._chunks.clear()
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _Copied(response.stream, self._chunks)

    def path(self, request: Request) -> str | None:
        """Return where the token stood, by looking for it once more."""
        try:
            text = Secret(inflated(b"".join(self._chunks), self._encoding).decode("utf-8"))
            return extract(text.reveal(), token_path=request.token_path).path
        except (ResponseError, UnicodeDecodeError):
            return None


class _Copied(httpx.AsyncByteStream):
    """A stream that leaves a copy of what went through it."""

    def __init__(self, inner: httpx.AsyncByteStream, chunks: list[bytes]) -> None:
        self._inner = inner
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size <= BODY_LIMIT:
                self._chunks.append(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
