"""What the two azure-core policies share: everything that does not wait."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any

from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline import PipelineRequest, PipelineResponse

from token_keeper._face import Face
from token_keeper._share import Share
from token_keeper.adapters._challenge import MAX_HEADER, bearer_error, challenges
from token_keeper.adapters._guard import Guard, bearer, refused

_CLAIMS = re.compile(r'\bclaims="([A-Za-z0-9_=-]+)"')


class BearerRules:
    """Which requests get the token. Arguments as for `KeeperPolicy`."""

    def __init__(
        self, keeper: Face, *, origins: str | Iterable[str] | None, by: str | None, timeout: float
    ) -> None:
        self._guard = Guard(keeper, origins=origins, by=by, timeout=timeout)
        self.timeout = timeout

    def share(self, request: PipelineRequest[Any]) -> Share | None:
        """Return the share for the request's origin; None if that must not see the token.

        Raises:
            ServiceRequestError: If the request would show a token without TLS.
        """
        url = request.http_request.url
        share = self._guard.of(url)
        # Kept in the context, not in the options: those are passed on to the transport.
        kept = request.context.get("enforce_https", True)
        insists = request.context["enforce_https"] = request.context.options.pop("enforce_https", kept)
        if share is not None and insists is not False and not url.lower().startswith("https:"):
            raise ServiceRequestError(
                "the token is not sent without TLS; nothing was sent. Use an https URL, or pass "
                "enforce_https=False for a server that is not reached over a network"
            )
        return share


class Trial:
    """One request with its token, until it is answered.

    Args:
        request: The token is put into it at once.
        share: Of the request's origin.
        sent: The raw token.
    """

    __slots__ = ("_position", "_request", "_share", "sent")

    def __init__(self, request: PipelineRequest[Any], share: Share, sent: str) -> None:
        self._request = request
        self._share = share
        self._position = _position(request.http_request)
        self._send(sent)

    @property
    def streams(self) -> bool:
        """Whether the answer is still to be read."""
        return bool(self._request.context.options.get("stream"))

    def is_worth_another(self, response: PipelineResponse[Any, Any]) -> bool:
        """Report what the answer says of the token; whether the request may be sent once more."""
        return self.judge(response) and self._position is not None

    def judge(self, response: PipelineResponse[Any, Any]) -> bool:
        """Report what the answer says of the token; whether another one is worth a retry."""
        answer = response.http_response
        challenge = challenges(answer.headers)
        if challenge is not None and bearer_error(challenge)[0] == "insufficient_claims":
            asked = _CLAIMS.search(challenge[:MAX_HEADER])
            if asked is None or not a_later_token_may_meet(_decoded(asked[1])):
                return False
        return refused(self._share, self.sent, answer.status_code, challenge)

    def renew(self, other: str | None) -> bool:
        """Put another token into the request; False if there is none, or the body cannot be sent twice."""
        if other is None:
            return False
        body = _body(self._request.http_request)
        if hasattr(body, "seek"):
            try:
                body.seek(self._position)
            except (OSError, ValueError):
                return False
        self._send(other)
        return True

    def end(self) -> None:
        """Take the token out of the request: redirects and exceptions keep the object."""
        self._request.http_request.headers.pop("Authorization", None)

    def _send(self, raw: str) -> None:
        self.sent = raw
        self._request.http_request.headers["Authorization"] = bearer(raw)


def a_later_token_may_meet(claims: str) -> bool:
    """Whether the claims of a challenge ask for a token that was issued later (`nbf`)."""
    try:
        asked = json.loads(claims)["access_token"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return isinstance(asked, dict) and "nbf" in asked


def _decoded(claims: str) -> str:
    try:
        return base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).decode()
    except ValueError:
        return ""


def _body(http_request: Any) -> Any:
    return getattr(http_request, "body", None)


def _position(http_request: Any) -> int | None:
    """Return where the body begins; None if it cannot be sent twice."""
    body = _body(http_request)
    if body is None or isinstance(body, (str, bytes)):
        return 0
    # Files of a form may be streams.
    if isinstance(body, dict) and not getattr(http_request, "files", None):
        return 0
    try:
        return int(body.tell())
    except (AttributeError, OSError, ValueError):
        return None
