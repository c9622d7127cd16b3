"""How a client shows who it is (RFC 6749 section 2.3, RFC 7523 section 2.2)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from token_keeper._model import Secret
from token_keeper.sources._settings import Endpoint
from token_keeper.sources._signing import Signer, timed_claims
from token_keeper.sources.oauth2._discovery import Metadata
from token_keeper.sources.oauth2._secrets import SecretSetting

BASIC: Final = "basic"
POST: Final = "post"
PRIVATE_KEY_JWT: Final = "private_key_jwt"
NONE: Final = "none"
METHODS: Final = (BASIC, POST, PRIVATE_KEY_JWT, NONE)

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthentication:
    """What is added to each request.

    Args:
        client_id: Who the client is, if the server wants to know.
        method: One of `METHODS`.
        is_chosen: Whether the user chose it; else metadata may turn basic into post.
        secret: For basic and post.
        key: For private_key_jwt: PEM.
        signer: Signs with that key.
        audience: `aud` of what is signed. Without it the token endpoint.
        lifetime_s: Of what is signed.
    """

    client_id: str | None
    method: str
    is_chosen: bool
    secret: SecretSetting | None
    key: SecretSetting | None
    signer: Signer
    audience: str | None
    lifetime_s: float

    async def added(
        self, token_endpoint: Endpoint, metadata: Metadata | None
    ) -> tuple[Secret | None, dict[str, Secret | str]]:
        """Return the header `Authorization`, if there is to be one, and form fields.

        Raises:
            FetchError: If a secret cannot be had, or cannot sign.
        """
        identity: dict[str, Secret | str] = {} if self.client_id is None else {"client_id": self.client_id}
        if self.method in {BASIC, POST}:
            assert self.secret is not None, "the settings were checked"  # noqa: S101
            secret = await self.secret.read()
            if self._is_in_header(metadata):
                return _basic(self.client_id or "", secret), {}
            return None, identity | {"client_secret": secret}
        if self.method == PRIVATE_KEY_JWT:
            return None, identity | await self._assertion(token_endpoint)
        return None, identity

    def _is_in_header(self, metadata: Metadata | None) -> bool:
        if self.is_chosen or metadata is None or metadata.takes("client_secret_basic"):
            return self.method == BASIC
        return not metadata.takes("client_secret_post")

    async def _assertion(self, token_endpoint: Endpoint) -> dict[str, Secret | str]:
        assert self.key is not None, "the settings were checked"  # noqa: S101
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.audience or token_endpoint.url,
            **timed_claims(lifetime=self.lifetime_s),
        }
        signed = self.signer.signed((await self.key.read()).reveal(), claims)
        return {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": signed}


def _basic(client_id: str, secret: Secret) -> Secret:
    # Form-encoded before they are joined, so that either may hold a colon. A blank becomes %20,
    # which every decoder understands; not all take + for one.
    pair = f"{quote(client_id, safe='')}:{quote(secret.reveal(), safe='')}"
    return Secret(f"Basic {base64.b64encode(pair.encode()).decode()}")
