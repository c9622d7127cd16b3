"""The form fields of each grant, with the functions in them called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from token_keeper._errors import TransientFetchError
from token_keeper._model import Secret
from token_keeper.sources._signing import Signer, timed_claims
from token_keeper.sources._values import Values
from token_keeper.sources.oauth2._endpoint import TokenEndpoint
from token_keeper.sources.oauth2._posting import Fields
from token_keeper.sources.oauth2._secrets import SecretSetting, in_time

GRANT_TYPES: Final = {
    "client_credentials": "client_credentials",
    "refresh_token": "refresh_token",
    "jwt_bearer": "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "token_exchange": "urn:ietf:params:oauth:grant-type:token-exchange",
    "device_code": "urn:ietf:params:oauth:grant-type:device_code",
}
TOKEN_TYPES: Final = {
    name: f"urn:ietf:params:oauth:token-type:{name}"
    for name in ("access_token", "refresh_token", "id_token", "jwt", "saml1", "saml2")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAssertion:
    """An assertion that we sign ourselves (RFC 7523 section 3).

    Args:
        claims: What to sign, beside when and for whom.
        key: PEM.
        signer: Signs with it.
        lifetime_s: Of each assertion.
    """

    claims: Values
    key: SecretSetting
    signer: Signer
    lifetime_s: float

    async def read(self, endpoint: TokenEndpoint) -> Secret:
        """Return an assertion that was just signed.

        Raises:
            FetchError: If it cannot be.
        """
        claims = await self.claims.resolve()
        assert isinstance(claims, Mapping), "the settings were checked"  # noqa: S101
        always = timed_claims(lifetime=self.lifetime_s)
        if "aud" not in claims:
            always["aud"] = await endpoint.token_url()
        return self.signer.signed((await self.key.read()).reveal(), always | dict(claims))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """What is sent for one grant.

    Args:
        grant: One of `GRANT_TYPES`.
        plain: Fields that are no secrets: scope, audience, resource and types.
        extra: Further fields of the user's.
        secrets: Fields that are secrets, by their names: subject_token, actor_token, assertion.
        digest: What tells tokens for this from tokens for something else.
        seed: The configured refresh token, if there is one.
        assertion: What we sign, for jwt_bearer.
        timeout_s: For the functions in all of these.
    """

    grant: str
    plain: Mapping[str, str | Sequence[str]]
    extra: Values | None = None
    secrets: Mapping[str, SecretSetting]
    digest: str
    seed: SecretSetting | None = None
    assertion: SignedAssertion | None = None
    timeout_s: float

    async def initial(self, endpoint: TokenEndpoint) -> Fields:
        """Return what is sent for a token with the client's own credentials.

        Raises:
            FetchError: If a secret cannot be had.
        """
        names = ", ".join(["extra", *self.secrets, *(["assertion"] if self.assertion else [])])
        return {
            "grant_type": GRANT_TYPES[self.grant],
            **await in_time(self._all(), self.timeout_s, names),
        } | ({} if self.assertion is None else {"assertion": await self.assertion.read(endpoint)})

    async def beside_refresh(self) -> Fields:
        """Return what is sent beside a refresh token.

        Raises:
            FetchError: If a secret cannot be had.
        """
        fields = dict(await in_time(self._all(), self.timeout_s, "extra"))
        if self.grant == "device_code":
            # The login may have been for less than was asked: without scope it is for all of that.
            fields.pop("scope", None)
        return fields

    async def device(self) -> Fields:
        """Return what is asked for when a login begins.

        Raises:
            FetchError: If a secret cannot be had.
        """
        return await in_time(self._all(), self.timeout_s, "extra")

    async def configured(self) -> Secret | None:
        """Return the refresh token of the configuration, as it is now.

        Raises:
            FetchError: If it cannot be had.
        """
        if self.seed is None:
            return None
        return await in_time(self.seed.read(), self.timeout_s, "refresh_token")

    async def _all(self) -> Fields:
        secrets = {name: await setting.read() for name, setting in self.secrets.items()}
        return {**self.plain, **await self._extra(), **secrets}

    async def _extra(self) -> dict[str, Secret | Sequence[str]]:
        if self.extra is None:
            return {}
        given = await self.extra.resolve()
        fields = {name: _field(value) for name, value in given.items()} if isinstance(given, Mapping) else {}
        del given
        for name, value in fields.items():
            if value is None:
                raise TransientFetchError(
                    f"extra[{name!r}]: the function returned what no form can hold; a valid token stays. "
                    "Let it return a string"
                )
        return {name: value for name, value in fields.items() if value is not None}


def _field(value: object) -> Secret | list[str] | None:
    """Return *value* as it can be sent, or None if it cannot."""
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Secret(str(value))
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return list(value)
    return None
