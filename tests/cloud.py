"""What the tests of the cloud SDKs' adapters share."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import trustme
from guarding import GuardedApi

from token_keeper.testing import FakeBackend


class TlsGuardedApi(GuardedApi):
    """A `GuardedApi` over TLS, for SDKs that send no token without it."""

    def __init__(self, ca: trustme.CA, backend: FakeBackend | None = None) -> None:
        super().__init__(backend)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(context)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    @property
    def origin(self) -> str:
        return super().origin.replace("http:", "https:")


@contextmanager
def calling_in_a_loop(
    opened: Callable[[], AbstractAsyncContextManager[Callable[[str], Awaitable[int]]]],
) -> Iterator[Callable[[str], int]]:
    """Yield a blocking function of a URL that calls an async client in a loop in a thread.

    The client is opened, used and closed in that loop.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    try:
        manager = opened()
        call = run(manager.__aenter__())
        try:
            yield lambda url: run(_called(call, url))
        finally:
            run(manager.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _called(call: Callable[[str], Awaitable[int]], url: str) -> int:
    return await call(url)


def shown(error: BaseException) -> str:
    """Return all that an error, its causes and the locals of their frames show."""
    parts: list[str] = []
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        parts.append(repr(one))
        parts.append(str(one))
        chain += [one.__cause__, one.__context__]
        trace = one.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            if "token_keeper" in frame.f_code.co_filename:
                parts.append(repr(frame.f_locals))
            trace = trace.tb_next
    return "\n".join(parts)
