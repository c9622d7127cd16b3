"""A real gRPC server on loopback that accepts the tokens of a `FakeBackend` until they are revoked."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from token_keeper.testing import FakeBackend

UNARY, TO_STREAM, FROM_STREAM, STREAMS = (
    "/test.Echo/Unary",
    "/test.Echo/Out",
    "/test.Echo/In",
    "/test.Echo/Both",
)
FORBIDDEN, SLOW = "/test.Echo/Forbidden", "/test.Echo/Slow"


class GuardedEcho:
    """Answers what it was sent, to who has a good token; one port needs local credentials, one nothing.

    Attributes:
        seen: The raw tokens that came, None where none came, in order.
        may_end: Ends slow calls. Set also when a client gives one up.
    """

    def __init__(self, backend: FakeBackend | None = None) -> None:
        self.seen: deque[str | None] = deque(maxlen=10_000)
        self.may_end = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._backend = backend
        self._revoked: set[str] = set()
        self._refuses_all = False
        self._threads = ThreadPoolExecutor(24)
        self._server = grpc.server(self._threads)
        self._server.add_generic_rpc_handlers((_Echo(self),))
        self.secure = (
            f"127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', grpc.local_server_credentials())}"
        )
        self.insecure = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_end.set()
        self._server.stop(None).wait()
        self._threads.shutdown()

    def revoke_all(self) -> None:
        assert self._backend is not None
        self._revoked |= set(self._backend.issued)

    def refuse_all(self) -> None:
        self._refuses_all = True

    def check(self, context: Any) -> None:
        assert self.may_answer.wait(10)
        headers = [value for key, value in context.invocation_metadata() if key == "authorization"]
        token = headers[0].removeprefix("Bearer ") if headers else None
        assert len(headers) <= 1
        self.seen.append(token)
        known = self._backend is not None and token in self._backend.issued
        if self._refuses_all or not known or token in self._revoked:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"the token {token} is not valid")


class _Echo(grpc.GenericRpcHandler):
    def __init__(self, server: GuardedEcho) -> None:
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        check = self._server.check

        def unary(request: bytes, context: Any) -> bytes:
            check(context)
            return request

        def slow(request: bytes, context: Any) -> bytes:
            check(context)
            context.add_callback(self._server.may_end.set)
            self._server.may_end.wait(10)
            return request

        def forbidden(_: bytes, context: Any) -> bytes:
            check(context)
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
            raise AssertionError

        def to_stream(request: bytes, context: Any) -> Any:
            check(context)
            yield request
            self._server.may_end.wait(10)

        def from_stream(requests: Any, context: Any) -> bytes:
            check(context)
            return b"".join(requests)

        def streams(requests: Any, context: Any) -> Any:
            check(context)
            yield from requests

        return {
            UNARY: grpc.unary_unary_rpc_method_handler(unary),
            SLOW: grpc.unary_unary_rpc_method_handler(slow),
            FORBIDDEN: grpc.unary_unary_rpc_method_handler(forbidden),
            TO_STREAM: grpc.unary_stream_rpc_method_handler(to_stream),
            FROM_STREAM: grpc.stream_unary_rpc_method_handler(from_stream),
            STREAMS: grpc.stream_stream_rpc_method_handler(streams),
        }.get(handler_call_details.method)
