"""Finds out where an issuer's endpoints are (RFC 8414, OpenID Connect Discovery 1.0).

It decides which document is believed, and for how long. What is in it is public.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from token_keeper._errors import ConfigError, FetchError, ResponseError, TransientFetchError
from token_keeper._extract import parse_json
from token_keeper.sources._answers import ALWAYS_TRANSIENT, Answer
from token_keeper.sources._settings import Endpoint, endpoint_of
from token_keeper.sources.oauth2._outcomes import NotGranted
from token_keeper.sources.oauth2._posting import Form, send

TOKEN: Final = "token_endpoint"
REVOCATION: Final = "revocation_endpoint"
DEVICE: Final = "device_authorization_endpoint"

_FRESH_S: Final = 3_600.0
"""How long the metadata are believed before they are asked for again."""
_SHOWN: Final = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What an issuer says of itself, and when we read it by the loop's clock."""

    document: Mapping[str, object]
    read_at: float

    def endpoint(self, name: str, *, allow_http: bool) -> Endpoint:
        """Return the endpoint *name*.

        Raises:
            ResponseError: If there is none, or it is not one to send secrets to.
        """
        url = self.document.get(name)
        if url is None:
            raise ResponseError(
                f"the issuer's metadata name no {name}; a valid token stays. "
                f"If the server has one, give {_words(name)}"
            )
        try:
            place = endpoint_of(url, allow_http=allow_http, key=name, instead="client_id and client_secret")
        except ConfigError as error:
            problem = error.problem
        else:
            if allow_http or not self._is_downgrade(place):
                return place
            problem = "would send secrets in the clear, though the issuer is https"
        raise ResponseError(
            f"the {name} of the issuer's metadata cannot be used: it {problem}; a valid token stays. "
            f"Correct the server, or give {_words(name)}"
        )

    def _is_downgrade(self, place: Endpoint) -> bool:
        # To loopback, too: behind a port of this machine may be any of its users.
        return place.url.startswith("http:") and str(self.document.get("issuer")).startswith("https:")

    def takes(self, method: str) -> bool:
        """Whether the token endpoint takes the client authentication *method*, such as client_secret_post."""
        return method in self.auth_methods()

    def auth_methods(self) -> list[str]:
        """Return the client authentications that the token endpoint takes, by their names in metadata."""
        said = self.document.get("token_endpoint_auth_methods_supported")
        # RFC 8414 section 2: without the list it is client_secret_basic.
        methods = said if isinstance(said, list) else ["client_secret_basic"]
        return [method for method in methods if isinstance(method, str)]


class Discovery:
    """Reads the metadata of one issuer when they are needed, and remembers them.

    Args:
        issuer: As the user wrote it, checked.
        timeout_s: For one reading.
    """

    def __init__(self, issuer: Endpoint, *, timeout_s: float) -> None:
        self._issuer = issuer
        self._timeout_s = timeout_s
        self._known: Metadata | None = None
        self._is_doubted = False

    def doubt(self) -> None:
        """Read the metadata again before they are used: an endpoint is not where they say."""
        self._is_doubted = True

    async def metadata(self, client: Any) -> Metadata:
        """Return the metadata. Old ones are better than none.

        Raises:
            FetchError: If there are none.
        """
        known, now = self._known, asyncio.get_running_loop().time()
        if known is not None and now - known.read_at < _FRESH_S and not self._is_doubted:
            return known
        try:
            self._known = await self._read(client)
        except FetchError:
            if known is None:
                raise
            # Until the next doubt, or an hour later.
            self._known = Metadata(known.document, now)
        self._is_doubted = False
        return self._known

    async def _read(self, client: Any) -> Metadata:
        failures = []
        for url in _well_known(self._issuer.url):
            place = endpoint_of(url, allow_http=True)
            came = await send(client, Form(place), timeout_s=self._timeout_s / 2)
            if isinstance(came, NotGranted):
                raise came.error
            document = parse_json(came.text or "") if 200 <= came.status < 300 else None
            if (unfit := self._unfit(came, document)) is None:
                assert isinstance(document, Mapping)  # noqa: S101 - `_unfit` looked
                return Metadata(document, asyncio.get_running_loop().time())
            failures.append((came.status, f"{place.path} {unfit}"))
        may_pass = any(status >= 500 or status in ALWAYS_TRANSIENT for status, _ in failures)
        raise (TransientFetchError if may_pass else ResponseError)(
            f"{self._issuer.origin} has no metadata of the issuer: "
            f"{', and '.join(said for _, said in failures)}; a valid token stays. "
            "Check issuer, or give token_url instead"
        )

    def _unfit(self, answer: Answer, document: object) -> str | None:
        """Return why *document* is not to be believed, or None if it is."""
        if not 200 <= answer.status < 300:
            return f"answered {answer.status}"
        if not isinstance(document, Mapping):
            return "is no JSON object"
        named = document.get("issuer")
        if named == self._issuer.url:
            return None
        # RFC 8414 section 3.3: exactly so, or it may be somebody else's.
        shown = f" ({named})" if isinstance(named, str) and _SHOWN.fullmatch(named) else ""
        return f"is of another issuer{shown}, and it must be the same to the letter"


def _well_known(issuer: str) -> tuple[str, ...]:
    parts = urlsplit(issuer)
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return (
        f"{base}/.well-known/oauth-authorization-server{path}",
        f"{base}{path}/.well-known/openid-configuration",
    )


def _words(name: str) -> str:
    return f"{name.removesuffix('_endpoint')}_url"
