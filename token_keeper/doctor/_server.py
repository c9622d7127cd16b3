"""What an authorization server says of itself, compared with what a source wants of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from token_keeper._errors import FetchError, ResponseError
from token_keeper.doctor._findings import told
from token_keeper.doctor._http import shown_url
from token_keeper.doctor._report import Status, Step, skipped
from token_keeper.doctor._words import listed
from token_keeper.sources._settings import Endpoint
from token_keeper.sources.oauth2._discovery import DEVICE, TOKEN, Metadata
from token_keeper.sources.oauth2._endpoint import owner_of
from token_keeper.sources.oauth2._forms import GRANT_TYPES

_METHODS: Final = {"basic": "client_secret_basic", "post": "client_secret_post"}
_LONGEST: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a source knows of its server, and of itself.

    Args:
        issuer: Whose metadata are read, if it is given.
        token_url: The token endpoint, if it is given.
        given: Endpoints that are given, by their names in metadata.
        grant: How the source asks.
        client_id: Who it is.
        method: How it authenticates, if that is given.
        has_secret: Whether it has a secret.
        has_key: Whether it has a key.
        allow_http: Whether secrets may be sent in the clear.
    """

    issuer: Endpoint | None
    token_url: str | None = field(repr=False)
    given: Mapping[str, str] = field(repr=False)
    grant: str
    client_id: str | None
    method: str | None
    has_secret: bool
    has_key: bool
    allow_http: bool

    @property
    def first(self) -> str:
        """Who is asked first."""
        return self.issuer.url if self.issuer is not None else str(self.token_url)

    @property
    def place(self) -> str:
        """What the report is about, without a query."""
        return shown_url(self.token_url or self.first)

    @property
    def owner(self) -> str:
        """As records of the store name whose they are."""
        return owner_of(self.first, self.client_id)

    def endpoint(self, name: str, metadata: Metadata | None) -> str:
        """Return where the endpoint *name* is.

        Raises:
            ResponseError: If the metadata do not say it, or it cannot be used.
        """
        if name in self.given:
            return self.given[name]
        if metadata is None:
            raise ResponseError(f"where the {name} is is not known. Give issuer, or its URL")
        return metadata.endpoint(name, allow_http=self.allow_http).url


def discovery_step(server: Server, metadata: Metadata | None, error: FetchError | None) -> Step:
    """Say what the issuer's metadata say, as far as the source needs it."""
    if server.issuer is None:
        return skipped(("discovery",), "token_url says where the endpoint is")[0]
    details: dict[str, object] = {"issuer": server.issuer.url, "token_endpoint": None, "grants": None}
    needed = [TOKEN, *([DEVICE] if server.grant == "device_code" else [])]
    try:
        if metadata is None:
            raise error or ResponseError("there are no metadata")
        places = {name: shown_url(server.endpoint(name, metadata)) for name in needed}
    except FetchError as failure:
        found, remedy = told(failure, takes_options=False)
        return Step(
            name="discovery", status=Status.FAILED, summary=found, details=details, remedy=remedy or _REMEDY
        )
    grants = _texts(metadata.document.get("grant_types_supported"))
    wanted = GRANT_TYPES[server.grant]
    is_offered = grants is None or wanted in grants
    return Step(
        name="discovery",
        status=Status.OK if is_offered else Status.WARNING,
        summary=f"the metadata are this issuer's; the token endpoint is {places[TOKEN]}",
        details={**details, **places, "grants": grants},
        remedy="" if is_offered else f"It offers {listed(grants or [])}, not {wanted}: check grant.",
    )


_REMEDY: Final = "Check issuer, or give token_url instead."


def endpoint_step(url: str, legs: Sequence[Step]) -> Step:
    """Sum up the way to a token endpoint that is at another host than its issuer."""
    worst = next(
        (leg for status in (Status.FAILED, Status.WARNING) for leg in legs if leg.status is status), None
    )
    shown = [leg.summary for leg in legs if leg.status is not Status.SKIPPED]
    if worst is None:
        return Step(
            name="endpoint",
            status=Status.OK,
            summary=f"{shown_url(url)} is elsewhere: {'; '.join(shown) or 'through the proxy'}",
            details={"url": shown_url(url)},
        )
    return Step(
        name="endpoint",
        status=worst.status,
        summary=f"{shown_url(url)} is elsewhere: {worst.summary}",
        details={"url": shown_url(url), **worst.details},
        remedy=worst.remedy,
        notes=worst.notes,
    )


def client_step(server: Server, metadata: Metadata | None) -> Step:
    """Say how the client authenticates, and whether the server takes that."""
    offered = None if metadata is None else [one[:_LONGEST] for one in metadata.auth_methods()]
    method = _method(server, offered)
    who = f'as "{server.client_id}"' if server.client_id else "without a client_id"
    details = {"client_id": server.client_id, "method": method, "offered": offered}
    if offered is None:
        summary = f"{method}, {who}; what the server takes is not known without an issuer"
        return Step(name="client", status=Status.OK, summary=summary, details=details)
    if method in offered:
        return Step(name="client", status=Status.OK, summary=f"{method}, {who}", details=details)
    return Step(
        name="client",
        status=Status.WARNING,
        summary=f"{method}, {who}; the server says that it takes {listed(offered)}",
        details=details,
        remedy="Set auth_method to one of these, and give what it needs.",
    )


def _method(server: Server, offered: Sequence[str] | None) -> str:
    """Return how the source authenticates, as metadata name it."""
    if server.method is not None:
        return _METHODS.get(server.method, server.method)
    if server.has_secret:
        takes_basic = offered is None or "client_secret_basic" in offered
        return _METHODS["basic" if takes_basic or "client_secret_post" not in (offered or ()) else "post"]
    return "private_key_jwt" if server.has_key and server.grant != "jwt_bearer" else "none"


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list):
        return None
    return [one[:_LONGEST] for one in value if isinstance(one, str)]
