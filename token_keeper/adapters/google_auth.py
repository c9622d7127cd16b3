"""google-auth: credentials for Google's clients, over HTTP and gRPC.

    from token_keeper.adapters.google_auth import KeeperCredentials

    client = storage.Client(project, credentials=KeeperCredentials(keeper))
    session = AuthorizedSession(KeeperCredentials(keeper), max_refresh_attempts=1)

`google.auth.aio` takes `AsyncKeeperCredentials`.

Google's sessions call `refresh()` after a 401 and retry, twice unless told otherwise.
It is the denial feedback, and does not say what the answer was: a 401 for a missing
right, or from a server that a redirect led to, counts as a denial too; so does a call
of your own, if a token was sent before. gRPC has none: see `token_keeper.adapters.grpc`.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from datetime import UTC, datetime
from typing import Any

from google.auth.aio.credentials import Credentials as AsyncCredentials
from google.auth.credentials import Credentials, TokenState
from google.auth.exceptions import RefreshError

from token_keeper._errors import TokenUnavailable
from token_keeper._face import Face
from token_keeper._share import WAIT_S, Share
from token_keeper.adapters._guard import UNAUTHORIZED, Guard, bearer
from token_keeper.adapters._handed import Handed
from token_keeper.adapters._origins import service_url


class _Live:
    """What both credentials share: the attributes that Google's clients read, live."""

    def __init__(
        self,
        keeper: Face,
        *,
        origins: str | Iterable[str] | None = None,
        by: str | None = None,
        timeout: float = WAIT_S,
    ) -> None:
        self._guard = Guard(keeper, origins=origins, by=by, timeout=timeout)
        self._own = Share(keeper, "google-auth" if by is None else by)
        self._handed = Handed()
        super().__init__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._own.keeper!r}>"

    @property
    def token(self) -> str:
        """The raw token, read when it is asked for; raises as the keeper's does."""
        return self._own.token

    @token.setter
    def token(self, _: object) -> None:
        """Do nothing: the SDK's constructor sets it to None."""

    @property
    def expiry(self) -> datetime | None:
        """When the current token expires, in UTC and naive as google-auth wants it."""
        at = self._own.expires_at
        return None if at is None else datetime.fromtimestamp(at, UTC).replace(tzinfo=None)

    @expiry.setter
    def expiry(self, _: object) -> None:
        """Do nothing: as for the token."""

    @property
    def valid(self) -> bool:
        """Always true: the keeper sees to it, and `before_request` waits for it."""
        return True

    @property
    def expired(self) -> bool:
        """Always false: the keeper hands out no expired token."""
        return False

    @property
    def token_state(self) -> TokenState:
        """Always fresh: nobody but the keeper is to refresh."""
        return TokenState.FRESH

    def _share(self, url: str) -> Share | None:
        share = self._guard.of(service_url(url))
        if share is None:
            self._handed.note_nothing()
        return share

    def _put(self, headers: MutableMapping[str, str], share: Share, raw: str) -> None:
        headers["authorization"] = bearer(self._handed.note(share, raw))


class KeeperCredentials(_Live, Credentials):  # type: ignore[misc]  # The SDK sets what is live here.
    """Credentials whose token is the keeper's, for `AuthorizedSession`, gRPC and Google's clients.

        session = AuthorizedSession(KeeperCredentials(keeper), max_refresh_attempts=1)

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        origins: The servers that may see the token; by default the first that is called.
        by: Names the reporter; by default the origin.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def before_request(self, request: Any, method: str, url: str, headers: MutableMapping[str, str]) -> None:
        """Put the token into *headers*, unless the server of *url* must not see it."""
        del request, method
        if (share := self._share(url)) is not None:
            self._put(headers, share, share.wait(self._guard.timeout))

    def refresh(self, request: Any) -> None:
        """Report the token that was sent as denied, and wait for another one.

        Raises:
            RefreshError: If none came in time.
        """
        del request
        share = self._handed.refused(UNAUTHORIZED) or self._own
        try:
            share.wait(self._guard.timeout)
        except TokenUnavailable as error:
            raise _unrefreshed(error) from error


class AsyncKeeperCredentials(_Live, AsyncCredentials):  # type: ignore[misc]  # As above.
    """As `KeeperCredentials`, for `google.auth.aio`. Arguments as there."""

    async def before_request(
        self, request: Any, method: str, url: str, headers: MutableMapping[str, str]
    ) -> None:
        """Put the token into *headers*, unless the server of *url* must not see it."""
        del request, method
        if (share := self._share(url)) is not None:
            self._put(headers, share, await share.awaited(self._guard.timeout))

    async def refresh(self, request: Any) -> None:
        """Report the token that was sent as denied, and wait for another one.

        Raises:
            RefreshError: If none came in time. The session then returns the server's answer.
        """
        del request
        share = self._handed.refused(UNAUTHORIZED) or self._own
        try:
            await share.awaited(self._guard.timeout)
        except TokenUnavailable as error:
            raise _unrefreshed(error) from error


def _unrefreshed(error: TokenUnavailable) -> RefreshError:
    message = f"the server refused the token: {error}"
    return RefreshError(message, retryable=True)  # type: ignore[no-untyped-call]  # Untyped there.
