"""The endpoints of one authorization server, as one client uses them.

It decides where a form goes and what is added to it. How it travels is in
`_posting`, what an answer means in `_reading`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from token_keeper._errors import FetchError, TransientFetchError
from token_keeper._extract import parse_json
from token_keeper._model import Secret
from token_keeper.sources._answers import Answer
from token_keeper.sources._clients import ClientLease
from token_keeper.sources._place import TokenPlace
from token_keeper.sources._settings import Endpoint
from token_keeper.sources._source import as_cause, without_traces
from token_keeper.sources.oauth2._authentication import ClientAuthentication
from token_keeper.sources.oauth2._device import authorization_in
from token_keeper.sources.oauth2._discovery import DEVICE, REVOCATION, TOKEN, Discovery, Metadata
from token_keeper.sources.oauth2._outcomes import Delivery, DeviceAuthorization, NotGranted, Outcome
from token_keeper.sources.oauth2._posting import Fields, Form, send
from token_keeper.sources.oauth2._reading import outcome_of, refusal_in
from token_keeper.sources.oauth2._secrets import in_time

T = TypeVar("T")

_NOT_HERE: Final = frozenset({404, 405, 410})


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the server is.

    Args:
        issuer: Whose metadata name what is not given here.
        given: Endpoints that the user set, by the names that metadata have for them.
        allow_http: Whether those that metadata name may be asked in the clear.
    """

    issuer: Endpoint | None
    given: dict[str, Endpoint]
    allow_http: bool

    @property
    def face(self) -> Endpoint:
        """What stands for all of them in messages."""
        face = self.given.get(TOKEN) or self.issuer
        assert face is not None, "the settings were checked"  # noqa: S101
        return face


class TokenEndpoint:
    """Asks an authorization server: each request once, and what came of it is a value.

    A request takes at most three times *timeout_s*: its secrets, its endpoint, and itself.

    Args:
        addresses: Where the server is.
        authentication: Who we are.
        place: Where the token stands in the answer.
        lease: The HTTP client.
        timeout_s: For each step.
    """

    def __init__(
        self,
        addresses: Addresses,
        *,
        authentication: ClientAuthentication,
        place: TokenPlace,
        lease: ClientLease,
        timeout_s: float,
    ) -> None:
        self.origin = addresses.face.origin
        named = addresses.issuer or addresses.face
        self.owner = owner_of(named.url, authentication.client_id)
        self._addresses = addresses
        self._authentication = authentication
        self._place = place
        self._lease = lease
        self._timeout_s = timeout_s
        issuer = addresses.issuer
        self._discovery = None if issuer is None else Discovery(issuer, timeout_s=timeout_s)

    async def exchange(self, fields: Fields) -> Outcome:
        """Send *fields* to the token endpoint, once, and return what came of it. Raises nothing."""
        came = await _clean(self._answer(TOKEN, fields))
        return came if isinstance(came, NotGranted) else outcome_of(came, self._place)

    async def authorize_device(self, fields: Fields) -> DeviceAuthorization | NotGranted:
        """Begin a login on another device. Raises nothing."""
        came = await _clean(self._answer(DEVICE, fields))
        return came if isinstance(came, NotGranted) else authorization_in(came)

    async def revoke(self, token: Secret, hint: str) -> FetchError | None:
        """Give *token* back, and return why that failed, or None. Raises nothing.

        Args:
            token: To be revoked (RFC 7009).
            hint: ``access_token`` or ``refresh_token``.
        """
        came = await _clean(self._answer(REVOCATION, {"token": token, "token_type_hint": hint}))
        if isinstance(came, Answer):
            refused = refusal_in(came, parse_json(came.text or ""))
            return None if refused is None else refused.error
        return came.error

    async def token_url(self) -> str:
        """Return where the token endpoint is.

        Raises:
            FetchError: If that cannot be found out.
        """
        endpoint, _ = await self._endpoint(TOKEN, await self._lease.client())
        return endpoint.url

    async def aclose(self) -> None:
        """Close the connections, unless other sources or a passed-in client need them."""
        await self._lease.aclose()

    async def _answer(self, name: str, fields: Fields) -> Answer | NotGranted:
        """Send *fields* to the endpoint *name*."""
        try:
            client = await self._lease.client()
            form = await self._form(name, fields, client)
        except FetchError as error:
            return NotGranted(error=without_traces(error), delivery=Delivery.NEVER_SENT)
        except Exception as error:  # noqa: BLE001 - Whatever it is, nothing was sent.
            return NotGranted(error=_unexpected(error, self.origin), delivery=Delivery.NEVER_SENT)
        came = await send(client, form, timeout_s=self._timeout_s)
        if isinstance(came, Answer) and came.status in _NOT_HERE and self._discovery is not None:
            self._discovery.doubt()
        return came

    async def _form(self, name: str, fields: Fields, client: Any) -> Form:
        endpoint, metadata = await self._endpoint(name, client)
        asked = self._addresses.given.get(TOKEN)
        if asked is None:
            asked, metadata = await self._endpoint(TOKEN, client)
        authorization, added = await in_time(
            self._authentication.added(asked, metadata), self._timeout_s, "client_secret or private_key"
        )
        return Form(endpoint, {**fields, **added}, authorization)

    async def _endpoint(self, name: str, client: Any) -> tuple[Endpoint, Metadata | None]:
        """Return the endpoint *name*, and the metadata if they were needed for that."""
        if (given := self._addresses.given.get(name)) is not None:
            return given, None
        assert self._discovery is not None, "the settings were checked"  # noqa: S101
        metadata = await self._discovery.metadata(client)
        return metadata.endpoint(name, allow_http=self._addresses.allow_http), metadata


def owner_of(url: str, client_id: str | None) -> str:
    """Return how records name whose grant it is: the server's *url* without its query, and the client."""
    return f"{url.partition('?')[0]} {client_id or ''}".strip()


async def _clean(answer: Awaitable[T]) -> T:
    """Return *answer*; if it is cancelled, without the frames that hold what was being sent."""
    try:
        return await answer
    except asyncio.CancelledError as error:
        raise without_traces(error) from None


def _unexpected(error: Exception, origin: str) -> FetchError:
    cause = as_cause(error) if isinstance(error, OSError | ImportError) else None
    problem = TransientFetchError(
        f"the request to {origin} could not be made ({type(error).__name__}); a valid token stays. "
        "Check what the functions for secrets return"
    )
    problem.__cause__ = cause
    return problem
