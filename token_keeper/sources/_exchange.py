"""One question to a backend and its answer, with every bound that httpx does not set."""

from __future__ import annotations

import asyncio
import functools
import re
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from token_keeper._errors import ResponseError
from token_keeper.sources._answers import Answer, needs_body
from token_keeper.sources._clients import package_of
from token_keeper.sources._times import server_time

BODY_LIMIT: Final = 1_048_576
"""Bytes of a body, as they come and as they inflate to."""

_MOST_REDIRECTS: Final = 5
HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "token-keeper"}
"""Sent with each question, unless the user says otherwise."""
ENCODING: Final = "token_keeper.content_encoding"
"""Extension of a response: how its body is encoded, which httpx must not know."""
_HOST_ONLY: Final = re.compile(r"https?://[A-Za-z0-9.-]{1,100}:\d{1,5}", re.ASCII)
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# Before ours, so that httpcore notices by itself: it leaks a socket that is cancelled in its TLS handshake.
_CONNECT_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True, repr=False)
class Question:
    """What to send, with its secrets: never shown.

    `params`, `json`, `data` and `extensions` are as in httpx; `auth` is an Auth of its, a pair, or None.
    After `timeout_s` seconds the caller gives up. With `keeps_method` a redirect that would turn POST
    into GET is an error; with `reads_all` the body is read whatever the status.
    """

    method: str
    url: str
    headers: dict[str, str]
    params: Any
    json: Any
    data: Any
    auth: Any
    timeout_s: float
    extensions: Any = None
    keeps_method: bool = False
    reads_all: bool = False


async def ask(client: Any, question: Question) -> Answer:
    """Send *question* with *client*, follow its redirects within the origin, return the answer.

    Raises:
        ResponseError: If it is redirected elsewhere or too often.
        Exception: Whatever *client* raises.
    """
    package = package_of(client)
    request = _request(client, question, package)
    origin = _origin(request.url)
    for _ in range(_MOST_REDIRECTS + 1):
        auth = _bounded_auth(package)(_auth(client, question.auth, package))
        response = await client.send(request, stream=True, auth=auth, follow_redirects=False)
        try:
            if not response.has_redirect_location:
                return await _answer(response, reads_all=question.reads_all)
            request = response.next_request
        finally:
            await response.aclose()
        _check_redirect(origin, _origin(request.url))
        if question.keeps_method and request.method != question.method:
            raise ResponseError(
                f"the backend answered {question.method} with a redirect that asks for {request.method}, "
                "which would lose what was sent; a valid token stays. Make its target the URL"
            )
    raise ResponseError(
        f"the backend redirects more than {_MOST_REDIRECTS} times; a valid token stays. Check the URL"
    )


def inflated(body: bytes, encoding: str) -> bytes:
    """Return *body* without its content *encoding*, never more than `BODY_LIMIT` bytes.

    Raises:
        ResponseError: If it inflates to more, or the encoding is none of ours.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise _unreadable("in an encoding that was not asked for", "Send it without Content-Encoding")
    for window in (bits, -15) if encoding == "deflate" else (bits,):
        # Some servers call raw deflate what RFC 9110 says is zlib.
        inflater = zlib.decompressobj(window)
        try:
            plain = inflater.decompress(body, BODY_LIMIT + 1)
        except zlib.error:
            continue
        if len(plain) > BODY_LIMIT:
            raise _too_large()
        if inflater.eof:
            return plain
    raise _unreadable("compressed and damaged or cut", "Check the backend and the proxies on the way")


def _request(client: Any, question: Question, package: ModuleType) -> Any:
    url = package.URL(question.url)
    # httpx replaces the query of a URL if there are any params.
    params = url.params.merge(question.params or {}) if question.params or client.params else None
    return client.build_request(
        question.method,
        url,
        headers=question.headers,
        params=params,
        json=question.json,
        data=question.data,
        timeout=package.Timeout(None, connect=question.timeout_s * _CONNECT_SHARE),
        extensions=question.extensions,
    )


def _auth(client: Any, auth: Any, package: ModuleType) -> Any:
    if isinstance(auth, tuple):
        return package.BasicAuth(*auth)
    return auth if auth is not None else (client.auth or package.Auth())


async def _answer(response: Any, *, reads_all: bool) -> Answer:
    received_at, begin = time.time(), asyncio.get_running_loop().time()
    headers = {name.lower(): value for name, value in response.headers.items()}
    text, problem = None, None
    if reads_all or needs_body(response.status_code):
        try:
            text = await _text(response)
        except ResponseError as error:
            problem = error
    sent_at = server_time(headers)
    took = asyncio.get_running_loop().time() - begin
    return Answer(
        status=response.status_code,
        headers=headers,
        text=text,
        problem=problem,
        received_at=received_at + took,
        server_time=None if sent_at is None else sent_at + took,
    )


async def _text(response: Any) -> str:
    if response.is_stream_consumed:
        # A hook of the client read it already, and undid the encoding.
        body = response.content
    else:
        body = b"".join([chunk async for chunk in response.aiter_raw()])
    if len(body) > BODY_LIMIT:
        raise _too_large()
    try:
        return inflated(body, response.extensions.get(ENCODING, "")).decode("utf-8")
    except UnicodeDecodeError:
        text = None
    # Out of the handler: that exception holds the body.
    if text is None:
        raise _unreadable("not a text in UTF-8", "Check the URL")
    return text


@functools.cache
def _bounded_auth(package: ModuleType) -> Any:
    """Return a class that wraps an Auth of *package*: it sees every request and answer first."""

    class BoundedAuth(package.Auth):  # type: ignore[name-defined, misc] # Which package, is known only now.
        """Keep queries out of the package's log, and bound what an Auth reads."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            flow = self._inner.async_auth_flow(request)
            try:
                request = await anext(flow)
                while True:
                    url, request.url = request.url, _quiet(package)(request.url)
                    response = yield request
                    request.url = url
                    _bound(response, package)
                    request = await flow.asend(response)
            except StopAsyncIteration:
                return
            finally:
                await flow.aclose()

    return BoundedAuth


@functools.cache
def _quiet(package: ModuleType) -> Any:
    class QuietUrl(package.URL):  # type: ignore[name-defined, misc] # Which package, is known only now.
        """A URL that shows itself without its query: httpx logs every URL, and a query may be a secret."""

        def __str__(self) -> str:
            return str(self.copy_with(query=None, fragment=None))

        def __repr__(self) -> str:
            return f"QuietUrl({str(self)!r})"

    return QuietUrl


def _bound(response: Any, package: ModuleType) -> None:
    if response.is_stream_consumed:
        return
    # Without the header the package does not inflate: it would without bound.
    response.extensions[ENCODING] = response.headers.pop("content-encoding", "")
    response.stream = _bounded_stream(package)(response.stream)


@functools.cache
def _bounded_stream(package: ModuleType) -> Any:
    class BoundedStream(package.AsyncByteStream):  # type: ignore[name-defined, misc] # As above.
        """A stream that fails beyond `BODY_LIMIT`."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._inner:
                size += len(chunk)
                if size > BODY_LIMIT:
                    raise _too_large()
                yield chunk

        async def aclose(self) -> None:
            await self._inner.aclose()

    return BoundedStream


def _origin(url: Any) -> str:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    return f"{url.scheme}://{url.host}:{port}"


def _check_redirect(origin: str, target: str) -> None:
    if target != origin:
        shown = f" ({target})" if _HOST_ONLY.fullmatch(target) else ""
        raise ResponseError(
            f"the backend redirects to another origin{shown}, where the credentials do not go; "
            "a valid token stays. If that is right, make it the URL"
        )


def _too_large() -> ResponseError:
    return _unreadable(f"larger than {BODY_LIMIT // 1_048_576} MiB", "Check the URL")


def _unreadable(what: str, remedy: str) -> ResponseError:
    return ResponseError(f"the answer is {what}; a valid token stays. {remedy}")
