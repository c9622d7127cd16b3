"""aiohttp: a client middleware that sends the current token, and another one if it is refused.

    session = aiohttp.ClientSession(middlewares=(KeeperMiddleware(keeper),))

It serves requests and the handshakes of `ws_connect`, and looks at each hop of a redirect: the token
goes only to the allowed origins. A 401 is reported with the token that was sent, and the request is
sent once more with another one, if its body can be: bytes, forms, JSON, files that can seek; not
generators. If none comes in time, the 401 stands. The token takes the place of an `Authorization`
header; aiohttp sends one request without it by `middlewares=()`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.payload import AsyncIterablePayload, BytesPayload, Payload

from token_keeper._face import Face
from token_keeper._share import WAIT_S, Share
from token_keeper.adapters._challenge import challenges
from token_keeper.adapters._guard import MAX_REFUSAL, Guard, bearer, borne, refused


class KeeperMiddleware:
    """Authenticates requests with a keeper's token.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        origins: The servers that may see the token, such as ``"https://api.example"``;
            by default the first that is called.
        by: Names the reporter; by default the origin. A refused token is withheld from it alone.
        timeout: Seconds to wait for a token, if there is none or another one is needed.

    Raises:
        ConfigError: If an argument cannot work.
        TokenUnavailable: By requests, if there is no token in time.
        KeeperClosed: By requests, before the start or after the end of the keeper.
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

    def __repr__(self) -> str:
        return f"<KeeperMiddleware, {self._guard!r}>"

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send *request* with the token, at most twice."""
        url = request.url
        share = self._guard.at(url.scheme, url.raw_host or "", url.port)
        if share is None:
            return await handler(request)
        request.headers["Authorization"] = bearer(await share.awaited(self._guard.timeout))
        response = await handler(request)
        if not _refused(share, request, response) or not _replayable(request.body):
            return response
        if not await self._take_another(share, request):
            return response
        await _let_go(response, request.body)
        response = await handler(request)
        _refused(share, request, response)
        return response

    async def _take_another(self, share: Share, request: ClientRequest) -> bool:
        """Put another token into *request*. Returns whether there is one."""
        other = await share.another_awaited(_sent(request) or "", self._guard.timeout)
        if other is None:
            return False
        request.headers["Authorization"] = bearer(other)
        return True


def _sent(request: ClientRequest) -> str | None:
    # Not kept in a variable: sending may raise, and a traceback shows the locals of its frames.
    return borne(request.headers.get("Authorization"))


def _refused(share: Share, request: ClientRequest, response: ClientResponse) -> bool:
    sent = _sent(request)
    challenge = challenges(response.headers)
    return sent is not None and refused(share, sent, response.status, challenge)


def _replayable(body: Any) -> bool:
    # Files know where they started; parts of a form answer for themselves.
    if isinstance(body, AsyncIterablePayload):
        return False
    return not body or (isinstance(body, Payload) and not body.consumed)


async def _let_go(refusal: ClientResponse, body: Any) -> None:
    if body and not isinstance(body, BytesPayload):
        # Until it was read, a file may still be on its way to the server.
        left = MAX_REFUSAL
        async for part in refusal.content.iter_any():
            left -= len(part)
            if left < 0:
                break
    refusal.release()
