"""azure-core: credentials and policies for the clients of Azure's SDKs.

    from token_keeper.adapters.azure_core import KeeperCredential, KeeperPolicy

    client = BlobServiceClient(url, credential=KeeperCredential(keeper))
    client = SomeClient(url, credential=None, authentication_policy=KeeperPolicy(keeper))

Clients of `.aio` packages take `AsyncKeeperCredential` and `AsyncKeeperPolicy`. The
keeper's source decides on scopes and tenant; what a client asks for is not passed on.

The credential works everywhere, but azure-core tells credentials of a refusal only
in a claims challenge (CAE). A challenge that a later token may meet (`nbf`) is a
denial; for others `ClientAuthenticationError` is raised, with the server's answer
as its cause. The policy sees every 401: it reports it and retries once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy, BearerTokenCredentialPolicy

from token_keeper._errors import TokenUnavailable
from token_keeper._face import Face
from token_keeper._share import WAIT_S, Share
from token_keeper._waiting import check_wait
from token_keeper.adapters._azure_rules import BearerRules, Trial, a_later_token_may_meet
from token_keeper.adapters._handed import Handed

CACHED_S = 60
"""How long a client that caches may keep a token that has no `refresh_on`, in seconds."""
ASKED_AGAIN_S = 120
"""How far `refresh_on` lies in the past: beyond the policy's jitter, so that it asks each time."""


class _Credential:
    """What both credentials share: how a token looks to the SDK, and what a claims challenge means."""

    def __init__(self, keeper: Face, *, by: str = "azure-core", timeout: float = WAIT_S) -> None:
        check_wait("timeout", timeout)
        self._share = Share(keeper, by)
        self._handed = Handed()
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._share!r}>"

    def _heed(self, claims: str | None) -> None:
        if not claims:
            return
        if not a_later_token_may_meet(claims):
            raise ClientAuthenticationError(
                message="the server asks for a token with other claims; the keeper cannot ask its source for "
                "them, and keeps the token. See the claims in the challenge of its answer"
            )
        self._handed.refused("insufficient_claims")

    def _expires_on(self) -> int | None:
        expires_at = self._share.expires_at
        return None if expires_at is None else int(expires_at)

    def _simple(self, raw: str) -> AccessToken:
        self._handed.note(self._share, raw)
        soon = int(time.time()) + CACHED_S
        return AccessToken(raw, min(self._expires_on() or soon, soon))

    def _full(self, raw: str) -> AccessTokenInfo:
        self._handed.note(self._share, raw)
        now = int(time.time())
        return AccessTokenInfo(raw, self._expires_on() or now + CACHED_S, refresh_on=now - ASKED_AGAIN_S)


def _unmet(error: TokenUnavailable) -> ClientAuthenticationError:
    return ClientAuthenticationError(message=f"the server refused the token: {error}")


class KeeperCredential(_Credential):
    """A `TokenCredential` with `get_token_info`, for blocking clients.

        client = BlobServiceClient(url, credential=KeeperCredential(keeper))

    The stock policies ask it before each request. Clients that only know `get_token`
    may keep a token for a minute.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        by: Names the reporter: a token that is denied to it is withheld from it alone.
        timeout: Seconds to wait for a token, if there is none.

    Raises:
        ConfigError: If an argument cannot work.
    """

    def get_token(
        self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, **kwargs: Any
    ) -> AccessToken:
        """Return the token as `TokenCredential` does. Scopes and tenant are the source's matter."""
        del scopes, tenant_id, kwargs
        return self._simple(self._wait(claims))

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Return the token as `SupportsTokenInfo` does. Scopes and tenant are the source's matter."""
        del scopes
        return self._full(self._wait((options or {}).get("claims")))

    def close(self) -> None:
        """Do nothing: the keeper belongs to whoever started it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def _wait(self, claims: str | None) -> str:
        self._heed(claims)
        try:
            return self._share.wait(self._timeout)
        except TokenUnavailable as error:
            if not claims:
                raise
            raise _unmet(error) from error


class AsyncKeeperCredential(_Credential):
    """An `AsyncTokenCredential` with `get_token_info`. Arguments as for `KeeperCredential`."""

    async def get_token(
        self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, **kwargs: Any
    ) -> AccessToken:
        """Return the token as `AsyncTokenCredential` does."""
        del scopes, tenant_id, kwargs
        return self._simple(await self._wait(claims))

    async def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return the token as `AsyncSupportsTokenInfo` does."""
        del scopes
        return self._full(await self._wait((options or {}).get("claims")))

    async def close(self) -> None:
        """Do nothing: the keeper belongs to whoever started it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        return

    async def _wait(self, claims: str | None) -> str:
        self._heed(claims)
        try:
            return await self._share.awaited(self._timeout)
        except TokenUnavailable as error:
            if not claims:
                raise
            raise _unmet(error) from error


class KeeperPolicy(BearerTokenCredentialPolicy[Any, Any]):
    """Adds the token to each request; reports a 401, and retries once with another token.

        PipelineClient(url, policies=[RedirectPolicy(), RetryPolicy(), KeeperPolicy(keeper)])

    Generated clients take it as `authentication_policy=`. Bodies that cannot be sent
    twice are not retried. As the stock policy it insists on https.

    Args:
        keeper: A `TokenKeeper` or an `AsyncTokenKeeper`.
        origins: The servers that may see the token; by default the first that is called.
        by: Names the reporter; by default the origin.
        timeout: Seconds to wait for a token, if there is none.

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
        super().__init__(KeeperCredential(keeper, timeout=timeout))
        self._rules = BearerRules(keeper, origins=origins, by=by, timeout=timeout)

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Send the request with the token, and once more with another one if that was refused."""
        share = self._rules.share(request)
        if share is None:
            return self.next.send(request)
        trial = Trial(request, share, share.wait(self._rules.timeout))
        try:
            response = self.next.send(request)
            if not trial.is_worth_another(response):
                return response
            if not trial.renew(share.another(trial.sent, self._rules.timeout)):
                return response
            if trial.streams:
                response.http_response.close()
            response = self.next.send(request)
            trial.judge(response)
            return response
        finally:
            trial.end()


class AsyncKeeperPolicy(AsyncBearerTokenCredentialPolicy[Any, Any]):
    """As `KeeperPolicy`, for async pipelines. Arguments as there."""

    def __init__(
        self,
        keeper: Face,
        *,
        origins: str | Iterable[str] | None = None,
        by: str | None = None,
        timeout: float = WAIT_S,
    ) -> None:
        super().__init__(AsyncKeeperCredential(keeper, timeout=timeout))
        self._rules = BearerRules(keeper, origins=origins, by=by, timeout=timeout)

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Send the request with the token, and once more with another one if that was refused."""
        share = self._rules.share(request)
        if share is None:
            return await self.next.send(request)
        trial = Trial(request, share, await share.awaited(self._rules.timeout))
        try:
            response = await self.next.send(request)
            if not trial.is_worth_another(response):
                return response
            if not trial.renew(await share.another_awaited(trial.sent, self._rules.timeout)):
                return response
            if trial.streams:
                await response.http_response.close()
            response = await self.next.send(request)
            trial.judge(response)
            return response
        finally:
            trial.end()
