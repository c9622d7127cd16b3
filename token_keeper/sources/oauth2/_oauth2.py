"""A source that asks an OAuth 2.0 authorization server.

It decides which way a token is got. What is sent is in `_forms` and `_authentication`,
where to in `_endpoint`; what lives in a store is in `_kept`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from token_keeper._errors import ConfigError, FetchError
from token_keeper._model import Issued, Secret
from token_keeper.sources._network import too_slow
from token_keeper.sources._source import FETCH_TIMEOUT_S, cleanly, without_traces
from token_keeper.sources._tries import retrying
from token_keeper.sources.oauth2 import _parts as parts
from token_keeper.sources.oauth2._endpoint import TokenEndpoint
from token_keeper.sources.oauth2._outcomes import DeviceCode, Granted, NotGranted
from token_keeper.sources.oauth2._words import (
    REPLAY_LIMIT,
    REPLAY_WINDOW_S,
    STORED,
    SUBJECT_TYPE,
    Words,
    check,
)

if TYPE_CHECKING:
    from token_keeper.sources.oauth2._lineage import Lineage
    from token_keeper.store import Slot, Store

SecretWord = str | Secret | Callable[[], str | Secret | Awaitable[str | Secret]]
"""A secret, or a function that returns it, sync or async, called afresh at each fetch."""

# A keeper that closes waits 2 s for its source, which has to close its connections, too.
_RETIRE_S: Final = 1.5


class OAuth2Source:
    """Ask an OAuth 2.0 authorization server for access tokens.

        source = OAuth2Source(
            issuer="https://login.example.com",
            client_id="robot",
            client_secret=lambda: secret_file.read_text().strip(),
            scope="calls.read",
        )

    A word that does nothing with the chosen *grant* is an error. Secrets may be
    functions of no arguments, sync or async, that are called afresh at each fetch.

    Args:
        token_url: The token endpoint. https, or http to loopback.
        issuer: Whose metadata (RFC 8414, OpenID Connect) name what is not given.
        grant: ``client_credentials``, ``refresh_token``, ``jwt_bearer`` (RFC 7523),
            ``token_exchange`` (RFC 8693) or ``device_code`` (RFC 8628).
        client_id: Who the client is.
        client_secret: Its secret.
        auth_method: How it shows who it is: ``basic`` (usual with a secret), ``post``,
            ``private_key_jwt`` (usual with a key), ``none``.
        private_key: PEM without a passphrase; signs for private_key_jwt, and
            the claims of *assertion*.
        key_id: Header `kid` of what is signed.
        algorithm: Such as ``PS256``. Without it the key decides.
        assertion_headers: More headers of what is signed.
        assertion_audience: `aud` for private_key_jwt. Without it the token endpoint.
        scope: Names with blanks between, or a list.
        audience: One, or a list.
        resource: One URI, or a list (RFC 8707).
        extra: Further form fields.
        refresh_token: The first one; later ones are in *store*.
        assertion: For jwt_bearer: a mapping of claims that we sign, or a signed text.
        assertion_lifetime: Seconds, of what is signed.
        subject_token: For token_exchange: what to exchange.
        subject_token_type: access_token, refresh_token, id_token, jwt, saml1, saml2 or a URI.
        actor_token: For token_exchange: who acts.
        actor_token_type: As *subject_token_type*; ``access_token`` if it is not said.
        requested_token_type: As *subject_token_type*.
        device_authorization_url: For device_code.
        revocation_url: Where tokens are revoked (RFC 7009).
        revoke: What to revoke at the end: ``none``, ``access_token`` or ``refresh_token``.
        store: Where the grant is kept; needed for refresh_token and device_code.
        stored_as: Its name there.
        replay_window: Seconds for which the server forgives that a refresh token comes twice.
        replay_limit: How often.
        token_path: JMESPath of the token. Without it ``access_token``.
        expires_path: JMESPath of the lifetime in seconds, or of the time of expiry.
        default_lifetime: Seconds, for opaque tokens that do not say theirs.
        timeout: Seconds for one request, at most 30.
        client: An AsyncClient of httpx or httpx2, instead of the shared one. Never closed.
        ca_file: PEM file with the authorities to trust, instead of the usual ones.
        client_cert: PEM file with the certificate to show.
        client_key: PEM file with its key, if that is not in *client_cert*.
        proxy: URL of a proxy, or an `httpx.Proxy`. Without it the environment decides.
        allow_http: Send secrets in the clear to other hosts, too.

    Raises:
        ConfigError: If a setting cannot work.
    """

    splay = True

    def __init__(  # noqa: PLR0913 - Each is a word of an RFC or of HttpSource, and nearly all have a default.
        self,
        token_url: str | None = None,
        *,
        issuer: str | None = None,
        grant: str = "client_credentials",
        client_id: str | None = None,
        client_secret: SecretWord | None = None,
        auth_method: str | None = None,
        private_key: SecretWord | None = None,
        key_id: str | None = None,
        algorithm: str | None = None,
        assertion_headers: Mapping[str, object] | None = None,
        assertion_audience: str | None = None,
        scope: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        resource: str | Sequence[str] | None = None,
        extra: Mapping[str, object] | None = None,
        refresh_token: SecretWord | None = None,
        assertion: SecretWord | Mapping[str, object] | None = None,
        assertion_lifetime: float = 300.0,
        subject_token: SecretWord | None = None,
        subject_token_type: str = SUBJECT_TYPE,
        actor_token: SecretWord | None = None,
        actor_token_type: str | None = None,
        requested_token_type: str | None = None,
        device_authorization_url: str | None = None,
        revocation_url: str | None = None,
        revoke: str = "none",
        store: Store | None = None,
        stored_as: str | None = None,
        replay_window: float = REPLAY_WINDOW_S,
        replay_limit: int = REPLAY_LIMIT,
        token_path: str | None = None,
        expires_path: str | None = None,
        default_lifetime: float | None = None,
        timeout: float = 10.0,
        client: Any = None,
        ca_file: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        proxy: Any = None,
        allow_http: bool = False,
    ) -> None:
        given = locals()
        words = Words(**{name: given[name] for name in Words.__slots__})
        # A traceback shows the locals of its frames.
        given.clear()
        del given, token_url, issuer, client_secret, private_key, extra, refresh_token, assertion
        del subject_token, actor_token, client, proxy, device_authorization_url, revocation_url
        self._shown = "<OAuth2Source>"
        problem = self._set_up(words)
        if problem is not None:
            raise problem

    def __repr__(self) -> str:
        return self._shown

    @property
    def origin(self) -> str:
        """Scheme, host and port of the token endpoint, or of the issuer."""
        return self._endpoint.origin

    async def fetch(self, *, tries: int = 1) -> Issued:
        """Ask for a token, within 30 s; with a store that others use it may wait 20 s for them.

        Args:
            tries: How often to ask at most: again only after what may pass
                at once, and not if the server said how long to wait.

        Raises:
            TransientFetchError: If the server was not reached or cannot answer now.
            RefusedError: If it will not issue a token, or somebody has to log in first.
            ResponseError: If what it answered is not a token.
        """
        if self._lineage is not None:
            return await self._lineage.fetch(tries=tries)
        return await cleanly(self._outcome(tries))

    async def login(self, show: Callable[[DeviceCode], Awaitable[None] | None]) -> Granted:
        """Have somebody log in on another device, and keep the grant in the store.

        Args:
            show: Shows the code, and where to enter it. Sync or async.

        Returns:
            What the server granted, which the store has by then.

        Raises:
            RefusedError: If the person or the server said no.
            TransientFetchError: If the code expired, or the server cannot be reached.
            ResponseError: If the server issued no refresh token.
            StoreError: If the grant cannot be stored.
            ConfigError: If the grant is not device_code.
        """
        if self._grant != "device_code" or self._lineage is None:
            raise ConfigError("grant", f"is {self._grant}: a login is for device_code")
        from token_keeper.sources.oauth2._login import log_in  # noqa: PLC0415 - Only who logs in.

        problem: FetchError
        try:
            return await log_in(self._endpoint, self._lineage, await self._forms.device(), show)
        except FetchError as error:
            problem = without_traces(error)
        except asyncio.CancelledError as error:
            raise without_traces(error) from None
        raise problem

    async def retire(self) -> None:
        """Revoke what *revoke* says, as well as can be within 1.5 s. Raises nothing."""
        if self._revoke == "none":
            return
        try:
            async with asyncio.timeout(_RETIRE_S):
                problem: BaseException | None = await self._given_back()
        except Exception as error:  # noqa: BLE001 - Whatever it is, the keeper closes.
            problem = error
        if problem is not None:
            from token_keeper.logs import keeper_logger  # noqa: PLC0415 - It loads structlog.

            log = keeper_logger(name=self._stored_as or self._grant)
            log.warning("tokenNotRevoked", error=str(problem) or type(problem).__name__)

    async def aclose(self) -> None:
        """Close the connections, unless other sources or a passed-in client need them."""
        try:
            if self._lineage is not None:
                await self._lineage.aclose()
        finally:
            await self._endpoint.aclose()

    def _set_up(self, words: Words) -> ConfigError | None:
        try:
            check(words)
            addresses = parts.addresses_of(words)
            signer = parts.signer_of(words)
            face, self._grant = addresses.face, words.grant
            self._revoke, self._stored_as = words.revoke, words.stored_as
            self._forms = parts.forms_of(words, signer)
            self._endpoint = TokenEndpoint(
                addresses,
                authentication=parts.authentication_of(words, signer),
                place=parts.place_of(words),
                lease=parts.lease_of(words),
                timeout_s=words.timeout,
            )
            self._last: Secret | None = None
            self._slot: Slot | None = None
            self._lineage: Lineage | None = None
            if words.store is not None:
                self._keep(words)
            self._shown = f"<OAuth2Source {face.origin}{face.path} {self._grant}>"
        except ConfigError as error:
            return without_traces(error)
        return None

    def _keep(self, words: Words) -> None:
        from token_keeper.sources.oauth2._kept import lineage_of  # noqa: PLC0415 - Only with a store.

        self._slot = words.store.slot(words.stored_as)
        self._lineage = lineage_of(words, self._slot, self._endpoint, self._forms)
        if words.grant in STORED:
            self.changes = self._lineage.changes

    async def _outcome(self, tries: int) -> Issued | FetchError:
        """Return the token or why there is none. Nothing is raised: frames down there hold secrets."""
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                outcome: Issued | FetchError = await retrying(tries)(self._try)
        except TimeoutError:
            return too_slow(self.origin, FETCH_TIMEOUT_S)
        if isinstance(outcome, Issued) and self._revoke == "access_token":
            self._last = outcome.secret
        return outcome

    async def _try(self) -> Issued | FetchError:
        try:
            came = await self._endpoint.exchange(await self._forms.initial(self._endpoint))
        except FetchError as error:
            return without_traces(error)
        return came.error if isinstance(came, NotGranted) else came.issued

    async def _given_back(self) -> FetchError | None:
        if self._lineage is not None and self._slot is not None:
            from token_keeper.sources.oauth2._kept import give_back  # noqa: PLC0415 - Loaded long before.

            await self._lineage.aclose()
            return await give_back(self._endpoint, self._slot, self._revoke)
        last, self._last = self._last, None
        return None if last is None else await self._endpoint.revoke(last, "access_token")
