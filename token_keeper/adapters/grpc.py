"""gRPC, blocking and asyncio: interceptors, and call credentials.

    channel = grpc.intercept_channel(grpc.secure_channel(target, credentials), KeeperInterceptor(keeper))
    channel = grpc.aio.secure_channel(target, credentials, interceptors=aio_interceptors(keeper))

They put `authorization: Bearer TOKEN` into each call. UNAUTHENTICATED is reported, and a call with
one request and one response made once more with another token, within its timeout. Streams and
`.future()` calls are reported only: start them again. PERMISSION_DENIED is no denial. A call that
brings its own `authorization` is left alone. Make one interceptor for each channel: it cannot see
where its channel goes.

Where only credentials are taken, such as by an exporter, the token goes in as call credentials: to
one server, never over an insecure channel, and without word of a denial. Use either, not both.

    call = grpc.metadata_call_credentials(KeeperPlugin(keeper))
    credentials = grpc.composite_channel_credentials(grpc.ssl_channel_credentials(), call)
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import grpc
import grpc.aio

from token_keeper._errors import TokenKeeperError
from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._guard import UNAUTHORIZED, Guard
from token_keeper.adapters._origins import service_url

HEADER = "authorization"


class KeeperInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]  # grpc has no types.
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]  # As above.
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]  # As above.
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]  # As above.
):
    """Puts the token into the calls of one blocking channel, reports refusals, and retries once.

        channel = grpc.intercept_channel(channel, KeeperInterceptor(keeper))

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds to wait for a token, if there is none; a call's own timeout may be shorter.

    Raises:
        ConfigError: If an argument cannot work.
        TokenUnavailable: By a call, if no token came in time.
    """

    def __init__(self, keeper: Face, *, by: str = "grpc", timeout: float = WAIT_S) -> None:
        check_wait("timeout", timeout)
        self._share = Share(keeper, by)
        self._timeout = timeout

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Make the call; once more with another token if this one is refused."""
        if _brings_its_own(client_call_details.metadata):
            return continuation(client_call_details, request)
        limit = _Limit(client_call_details.timeout)
        sent = Secret(self._share.wait(limit.within(self._timeout)))
        call = continuation(_Details(client_call_details, sent, limit), request)
        if not call.done():
            # A `.future()` call: who made it must not be blocked by a retry.
            self._watch(call, sent)
            return call
        if not _refused(self._share, sent, call.code(), call.details()):
            return call
        found = self._share.another(sent.reveal(), limit.within(self._timeout))
        if found is None:
            return call
        another, found = Secret(found), None
        call = continuation(_Details(client_call_details, another, limit), request)
        self._watch(call, another)
        return call

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Make the call and report how it ends."""
        if _brings_its_own(client_call_details.metadata):
            return continuation(client_call_details, request)
        limit = _Limit(client_call_details.timeout)
        sent = Secret(self._share.wait(limit.within(self._timeout)))
        call = continuation(_Details(client_call_details, sent, limit), request)
        self._watch(call, sent)
        return call

    intercept_stream_unary = intercept_stream_stream = intercept_unary_stream

    def __repr__(self) -> str:
        return f"<KeeperInterceptor by {self._share.by!r}>"

    def _watch(self, call: Any, sent: Secret) -> None:
        def ended() -> None:
            _refused(self._share, sent, call.code(), call.details())

        # A refused unary call is an error without callbacks.
        if call.done() or not call.add_callback(ended):
            ended()


def aio_interceptors(keeper: Face, *, by: str = "grpc", timeout: float = WAIT_S) -> list[Any]:
    """Return the interceptors of one asyncio channel, one for each kind of call.

    The arguments are those of `KeeperInterceptor`.

    Raises:
        ConfigError: If an argument cannot work.
    """
    check_wait("timeout", timeout)
    share = Share(keeper, by)
    return [kind(share, timeout) for kind in (_AioUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)]


class _Aio:
    """What the four kinds share. A class that is of two kinds would serve the first only."""

    def __init__(self, share: Share, timeout: float) -> None:
        self._share = share
        self._timeout = timeout
        self._reports: set[asyncio.Task[None]] = set()

    async def watched(self, continuation: Any, details: Any, request: Any) -> Any:
        if _brings_its_own(details.metadata):
            return await continuation(details, request)
        limit = _Limit(details.timeout)
        sent = Secret(await self._share.awaited(limit.within(self._timeout)))
        call = await continuation(_aio_details(details, sent, limit), request)
        call.add_done_callback(partial(self._ended, sent))
        return call

    def _ended(self, sent: Secret, call: Any) -> None:
        report = asyncio.get_running_loop().create_task(self._report(sent, call))
        self._reports.add(report)
        report.add_done_callback(self._reports.discard)

    async def _report(self, sent: Secret, call: Any) -> None:
        _refused(self._share, sent, await call.code(), await call.details())


class _AioUnary(_Aio, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # As above.
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        if _brings_its_own(client_call_details.metadata):
            return await continuation(client_call_details, request)
        limit = _Limit(client_call_details.timeout)
        sent = Secret(await self._share.awaited(limit.within(self._timeout)))
        call = await continuation(_aio_details(client_call_details, sent, limit), request)
        if not _refused(self._share, sent, await _code(call), await call.details()):
            return call
        found = await self._share.another_awaited(sent.reveal(), limit.within(self._timeout))
        if found is None:
            return call
        another, found = Secret(found), None
        call = await continuation(_aio_details(client_call_details, another, limit), request)
        call.add_done_callback(partial(self._ended, another))
        return call


class _AioUnaryStream(_Aio, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]  # As above.
    intercept_unary_stream = _Aio.watched


class _AioStreamUnary(_Aio, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]  # As above.
    intercept_stream_unary = _Aio.watched


class _AioStreamStream(_Aio, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]  # As above.
    intercept_stream_stream = _Aio.watched


class KeeperPlugin(grpc.AuthMetadataPlugin):  # type: ignore[misc]  # As above.
    """The token as call credentials, for blocking and asyncio channels. It never blocks gRPC.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        origins: The servers that may see the token, such as ``"https://api.example"``;
            by default the first that is called. Calls to others go without a token.
        by: Names the reporter; by default the origin.
        timeout: Seconds that a call waits for a token, if there is none; it then fails.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def __init__(
        self,
        keeper: Face,
        *,
        origins: str | Iterable[str] | None = None,
        by: str | None = None,
        timeout: float = WAIT_S,
    ) -> None:
        self._guard = Guard(keeper, origins=origins, by=by, timeout=timeout)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[float, Share, Callable[..., None]]] = deque()

    def __call__(self, context: Any, callback: Any) -> None:
        """Answer *callback* at once if there is a token, else later from a thread of our own."""
        share = self._guard.of(service_url(context.service_url))
        if share is None:
            callback((), None)
        elif share.generation:
            _answer(share, callback, 0)
        else:
            self._answer_later(share, callback)

    def __repr__(self) -> str:
        return f"<KeeperPlugin {self._guard!r}>"

    def _answer_later(self, share: Share, callback: Callable[..., None]) -> None:
        with self._lock:
            is_first = not self._waiting
            self._waiting.append((time.monotonic() + self._guard.timeout, share, callback))
        if is_first:
            threading.Thread(target=self._answer_all, name="token_keeper grpc", daemon=True).start()

    def _answer_all(self) -> None:
        while True:
            until, share, callback = self._waiting[0]
            _answer(share, callback, max(until - time.monotonic(), 0.0))
            with self._lock:
                self._waiting.popleft()
                if not self._waiting:
                    return


def _answer(share: Share, callback: Callable[..., None], timeout: float) -> None:
    try:
        metadata = ((HEADER, f"Bearer {share.wait(timeout)}"),)
    except TokenKeeperError as error:
        callback(None, error)
    else:
        callback(metadata, None)


def _refused(share: Share, sent: Secret, code: Any, details: str | None) -> bool:
    """Report what the server said of the token that was *sent*; return whether to try another."""
    if code is grpc.StatusCode.OK:
        share.accepted(sent.reveal())
    if code is not grpc.StatusCode.UNAUTHENTICATED:
        return False
    # As HTTP's, which profiles know: gRPC maps the two to each other.
    return share.denied(sent.reveal(), code=UNAUTHORIZED, reason=details) in WORTH_ANOTHER


async def _code(call: Any) -> Any:
    try:
        return await call.code()
    except asyncio.CancelledError:
        # Who stops to wait for a status does not end the call.
        call.cancel()
        raise


class _Limit:
    """What is left of a call's timeout, in seconds."""

    def __init__(self, timeout: float | None) -> None:
        self._until = math.inf if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        return None if self._until == math.inf else self.within(math.inf)

    def within(self, longest: float) -> float:
        return min(max(self._until - time.monotonic(), 0.0), longest)


class _Details(grpc.ClientCallDetails):  # type: ignore[misc]  # As above.
    """A call's details with the token in them."""

    def __init__(self, of: Any, token: Secret, limit: _Limit) -> None:
        self.method = of.method
        self.timeout = limit.left()
        self.metadata = (*(of.metadata or ()), (HEADER, f"Bearer {token.reveal()}"))
        self.credentials = of.credentials
        self.wait_for_ready = of.wait_for_ready
        self.compression = of.compression


def _aio_details(details: Any, token: Secret, limit: _Limit) -> Any:
    metadata = grpc.aio.Metadata(*(details.metadata or ()), (HEADER, f"Bearer {token.reveal()}"))
    return details._replace(metadata=metadata, timeout=limit.left())


def _brings_its_own(metadata: Any) -> bool:
    return any(key.lower() == HEADER for key, _ in metadata or ())
