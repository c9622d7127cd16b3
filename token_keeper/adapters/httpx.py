"""httpx and httpx2: an `auth=` that sends the current token, and another one if it is refused.

    client = httpx.Client(auth=KeeperAuth(keeper))  # or AsyncClient; or httpx2's

Blocking and async clients take either keeper. The token goes only to the allowed origins;
httpx itself takes it off a redirect to another one, but not from http to https of one host. A 401 is
reported with the token that was sent, and the request is sent once more with another one, if its body
can be: bytes, forms, JSON, files that can seek; not generators. If none comes in time, the 401 stands.

The token takes the place of an `Authorization` header; one request is sent without it by `auth=None`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S, Share
from token_keeper.adapters._guard import UNAUTHORIZED, Guard, bearer, refused

if TYPE_CHECKING:
    import httpx2

    class _Auth(httpx.Auth, httpx2.Auth):  # type: ignore[misc]  # Alike, but of each one's own requests.
        """What both clients take."""

    _IN_MEMORY = (httpx.ByteStream, httpx2.ByteStream)
else:
    try:
        import httpx2
    except ImportError:
        _CLIENTS = (httpx,)
    else:
        _CLIENTS = (httpx, httpx2)
    # After httpx2.alias_httpx() they are one.
    _Auth = type("_Auth", tuple(dict.fromkeys(client.Auth for client in _CLIENTS)), {})
    _IN_MEMORY = tuple(client.ByteStream for client in _CLIENTS)

Rewind = Callable[[], bool]


class KeeperAuth(_Auth):
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
        return f"<KeeperAuth, {self._guard!r}>"

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Send *request* with the token, at most twice."""
        share = self._share(request.url)
        if share is None:
            yield request
            return
        sent = share.wait(self._guard.timeout)
        request.headers["Authorization"] = bearer(sent)
        rewind = _rewind(request.stream)
        response = yield request
        if not _refused(share, sent, request, response) or rewind is None:
            return
        # No raw token is in a local variable while it waits: it may be interrupted.
        denied, sent = Secret(sent), ""
        other = share.another(denied.reveal(), self._guard.timeout)
        if other is None or not rewind():
            return
        request.headers["Authorization"] = bearer(other)
        response = yield request
        _refused(share, other, request, response)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """As `sync_auth_flow`, without blocking."""
        share = self._share(request.url)
        if share is None:
            yield request
            return
        sent = await share.awaited(self._guard.timeout)
        request.headers["Authorization"] = bearer(sent)
        rewind = _rewind(request.stream)
        response = yield request
        if not _refused(share, sent, request, response) or rewind is None:
            return
        denied, sent = Secret(sent), ""
        other = await share.another_awaited(denied.reveal(), self._guard.timeout)
        if other is None or not rewind():
            return
        request.headers["Authorization"] = bearer(other)
        response = yield request
        _refused(share, other, request, response)

    def _share(self, url: Any) -> Share | None:
        return self._guard.at(url.scheme, url.raw_host.decode("ascii"), url.port)


def _refused(share: Share, sent: str, request: Any, response: Any) -> bool:
    """Report what the answer says of the token. Returns whether another one is worth a retry."""
    answered, status = response.request, response.status_code
    # After a redirect to another origin the request had no token, and the answer says nothing of it.
    if answered is not request and answered.headers.get("Authorization") != bearer(sent):
        return False
    # Headers are slow to look up.
    challenge = response.headers.get("WWW-Authenticate") if status == UNAUTHORIZED else None
    is_worth_another = refused(share, sent, status, challenge)
    # A retry begins at the first server: a POST that it took, and answered with "see other", stays one.
    return is_worth_another and answered.method == request.method


def _rewind(stream: Any) -> Rewind | None:
    """Return what makes the body of a request ready to be sent again, None if nothing can."""
    if isinstance(stream, _IN_MEMORY):
        return _nothing
    parts = getattr(stream, "fields", None)
    if parts is not None:
        # The parts of a form are rewound by httpx itself.
        return _nothing if all(_can_seek(getattr(part, "file", b"")) for part in parts) else None
    # What `content=` was given: httpx has no public name for it.
    file: Any = getattr(stream, "_stream", None)
    if not hasattr(file, "read") or not _can_seek(file):
        return None
    return partial(_back, file, file.tell())


def _can_seek(file: Any) -> bool:
    return isinstance(file, bytes | str) or (hasattr(file, "seekable") and bool(file.seekable()))


def _back(file: Any, start: int) -> bool:
    try:
        file.seek(start)
    except (OSError, ValueError):
        return False
    return True


def _nothing() -> bool:
    return True
