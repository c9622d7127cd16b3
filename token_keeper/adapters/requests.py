"""requests: an `auth=` that sends the current token, and another one if it is refused.

    session.auth = KeeperAuth(keeper)

The token goes only to the allowed origins; requests itself takes it off a redirect to another one, but
not from http to https of one host. A 401 is reported with the token that was sent, and the request is
sent once more with another one, if its body can be: bytes, forms, JSON, files that can seek; not
generators. If none comes in time, the 401 stands. The token takes the place of an `Authorization`
header, and nothing is taken from netrc.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from requests import PreparedRequest, Response
from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import UnrewindableBodyError
from requests.utils import rewind_body
from urllib3.exceptions import HTTPError

from token_keeper._face import Face
from token_keeper._share import WAIT_S, Share
from token_keeper.adapters._guard import MAX_REFUSAL, Guard, bearer, borne, refused


class KeeperAuth(AuthBase):
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

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Put the token into the request."""
        share = self._guard.of(r.url or "")
        if share is not None:
            r.headers["Authorization"] = bearer(share.wait(self._guard.timeout))
            r.register_hook("response", self._answered)
        return r

    def _answered(self, response: Response, **options: Any) -> Response:
        # Redirected requests have this hook as well. Requests has taken the header off where it must.
        share = self._guard.of(response.request.url or "")
        if share is None or not _refused(share, response):
            return response
        again = self._with_another(share, response.request) if hasattr(response, "connection") else None
        # No raw token is in a local variable from here on: sending may raise.
        return response if again is None else _sent_again(share, again, response, options)

    def _with_another(self, share: Share, request: PreparedRequest) -> PreparedRequest | None:
        """Return a copy of *request* with another token; None if there is none, or the body is gone."""
        if not _rewound(request):
            return None
        other = share.another(borne(request.headers["Authorization"]) or "", self._guard.timeout)
        if other is None:
            return None
        again = request.copy()
        again.headers["Authorization"] = bearer(other)
        return again


def _sent_again(
    share: Share, request: PreparedRequest, refusal: Response, options: dict[str, Any]
) -> Response:
    _drain(refusal, is_streamed=bool(options.get("stream")))
    _take_cookies(request, refusal)
    response: Response = refusal.connection.send(request, **options)
    response.history.append(refusal)
    response.request = request
    _refused(share, response)
    return response


def _drain(refusal: Response, *, is_streamed: bool) -> None:
    """Read the refusal, so that its connection can be used again; who streams reads no more than a bit."""
    if is_streamed:
        with suppress(HTTPError):
            refusal.raw.read(MAX_REFUSAL)
    else:
        _ = refusal.content
    refusal.close()


def _refused(share: Share, response: Response) -> bool:
    """Report what the answer says of the token. Returns whether another one is worth a retry."""
    sent = borne(response.request.headers.get("Authorization"))
    challenge = response.headers.get("WWW-Authenticate")
    return sent is not None and refused(share, sent, response.status_code, challenge)


def _rewound(request: PreparedRequest) -> bool:
    """Make the body ready to be sent again. Returns whether that was possible."""
    if request.body is None or isinstance(request.body, bytes | str):
        return True
    try:
        rewind_body(request)
    except (UnrewindableBodyError, ValueError):
        return False
    return True


def _take_cookies(request: PreparedRequest, refusal: Response) -> None:
    """Send the cookies that came with *refusal*, as after a redirect."""
    jar: Any = request._cookies  # noqa: SLF001 - requests has no public name for it
    extract_cookies_to_jar(jar, refusal.request, refusal.raw)
    request.headers.pop("Cookie", None)
    request.prepare_cookies(jar)
