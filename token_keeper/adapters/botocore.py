"""botocore, boto3: the token of services that take a bearer token.

    from token_keeper.adapters.botocore import authenticate

    session = authenticate(botocore.session.get_session(), keeper)
    client = session.create_client("codecatalyst")
    client = boto3.Session(botocore_session=session).client("codecatalyst")

Clients that are made from the session afterwards ask for the token before each request. A 401, or an
answer that says that the token expired, is reported, and the request is signed and sent once more.
A service that would sign with keys by default needs `Config(signature_version="bearer")`.

Keys (SigV4: access key, secret key and session token) are three strings, and no keeper's matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from botocore.tokens import FrozenAuthToken, TokenProviderChain

from token_keeper._errors import ConfigError
from token_keeper._face import Face
from token_keeper._model import Secret
from token_keeper._share import WAIT_S, WORTH_ANOTHER, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._guard import UNAUTHORIZED, refused
from token_keeper.adapters._origins import Origins, origin_of

EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenExpiredException"}
"""Codes of AWS that mean a refused token under any status."""
AT_ONCE = 0
"""What botocore takes for a retry without a pause, in seconds."""
_CONTEXT = "token_keeper"


def authenticate(
    session: Any,
    keeper: Face,
    *,
    origins: str | Iterable[str] | None = None,
    by: str = "botocore",
    timeout: float = WAIT_S,
) -> Any:
    """Let the clients that *session* makes from now on send the keeper's token. Returns the session.

    Args:
        session: A `botocore.session.Session`.
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        origins: The servers that may see the token; by default the first that is called.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """
    if not hasattr(session, "register_component"):
        kind = type(session).__name__
        raise ConfigError("session", f"must be a botocore.session.Session, but is of type {kind}")
    check_wait("timeout", timeout)
    provider = KeeperTokenProvider(Share(keeper, by), Origins(origins), timeout)
    session.register_component("token_provider", TokenProviderChain([provider]))
    session.get_component("event_emitter").register_last("request-created", provider.note)
    session.register("needs-retry", provider.needs_retry)
    return session


class KeeperTokenProvider:
    """A token provider and its token at once: read anew for each signature, and kept nowhere."""

    METHOD = "token-keeper"

    def __init__(self, share: Share, origins: Origins, timeout: float) -> None:
        self._share = share
        self._origins = origins
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<KeeperTokenProvider of {self._share!r}>"

    def load_token(self, **_: object) -> KeeperTokenProvider:
        """Return what gives tokens for any service."""
        return self

    def get_frozen_token(self) -> FrozenAuthToken:
        """Return the token of this moment; wait for one if there is none."""
        at = self._share.expires_at
        expiration = None if at is None else datetime.fromtimestamp(at, UTC)
        return FrozenAuthToken(self._share.wait(self._timeout), expiration)

    def note(self, request: Any, **_: object) -> None:
        """Remember which token a signed request carries; take it out if the server must not see it."""
        scheme, __, sent = _text(request.headers.get("Authorization", "")).partition(" ")
        if scheme != "Bearer":
            return
        if not self._may_see(request.url):
            del request.headers["Authorization"]
            request.context.pop(_CONTEXT, None)
            return
        tries = request.context.get(_CONTEXT, (0, None))[0] + 1
        # In the request's own context, which its retries share.
        request.context[_CONTEXT] = (tries, Secret(sent))

    def needs_retry(self, response: Any, request_dict: Any, **_: object) -> int | None:
        """Report what an answer says of the token; 0 if the request is worth one more try, at once."""
        noted = request_dict["context"].get(_CONTEXT)
        if noted is None or response is None:
            return None
        tries, sent = noted
        if not self._is_refusal(sent, *response) or tries > 1 or not _is_replayable(request_dict["body"]):
            return None
        other = self._share.another(sent.reveal(), self._timeout)
        return None if other is None else AT_ONCE

    def _may_see(self, url: str) -> bool:
        # Raises nothing: a traceback would show what the caller holds.
        try:
            return self._origins.allows(origin_of(url))
        except ValueError:
            return False

    def _is_refusal(self, sent: Secret, http: Any, parsed: Any) -> bool:
        code = parsed.get("Error", {}).get("Code")
        if code in EXPIRED and http.status_code != UNAUTHORIZED:
            return self._share.denied(sent.reveal(), code=code) in WORTH_ANOTHER
        challenge = http.headers.get("WWW-Authenticate")
        return refused(self._share, sent.reveal(), http.status_code, challenge)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _is_replayable(body: Any) -> bool:
    # botocore rewinds what can seek.
    return body is None or isinstance(body, str | bytes | bytearray | dict) or hasattr(body, "seek")
