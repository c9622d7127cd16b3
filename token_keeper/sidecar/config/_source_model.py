"""What may stand in the table of a source, once it was checked: one struct for each `type`.

Lengths of time are seconds. Strings are kept as written: what they refer to is looked up elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Struct, to_builtins

from token_keeper.sidecar.config import _kinds as kinds
from token_keeper.sidecar.config._exact import Exact
from token_keeper.sidecar.config._shapes import PRIVATE, Such

GrantName = Literal["client_credentials", "refresh_token", "jwt_bearer", "token_exchange", "device_code"]
AuthMethod = Literal["basic", "post", "private_key_jwt", "none"]
Revoked = Literal["none", "access_token", "refresh_token"]
CommandFormat = Literal["auto", "raw", "json", "exec_credential", "credential_process"]

Duration: TypeAlias = Annotated[float, kinds.DURATION]
Sent: TypeAlias = Annotated[Any, kinds.SENT]
Texts: TypeAlias = Annotated[Any, kinds.TEXTS]
Name: TypeAlias = Annotated[str, kinds.TOKEN_NAME]
Private: TypeAlias = Annotated[str, PRIVATE]


class SourceTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table that may hold secrets. It is not shown, and equals only what says exactly the same."""

    def __repr__(self) -> str:
        # What is sent may be written in the file itself.
        return f"<{type(self).__name__}>"

    def __eq__(self, other: object) -> bool:
        # To Python 1 and true are one, to a backend they are not.
        return type(other) is type(self) and Exact(self._compared()) == Exact(other._compared())

    def __hash__(self) -> int:
        return hash(Exact(self._compared()))

    def _compared(self) -> Any:
        return to_builtins(self)


class BearerJwtConfig(SourceTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tokens.NAME.source.bearer_jwt]`: a JWT that is signed for each request, and sent as `Bearer`.

    Args:
        private_key: PEM of the key that signs.
        claims: Of the JWT. `iat`, `exp` and `jti` are added.
        lifetime: Of the JWT.
        key_id: The `kid` in its header.
        algorithm: Without it the usual one for the key: RS256, ES256, ES384 or EdDSA.
        headers: More members of its header.
    """

    private_key: Annotated[str, PRIVATE, Such("${file:/etc/app/app.pem}")]
    claims: Annotated[Mapping[str, Any], PRIVATE, Such({"iss": "12345"})]
    lifetime: Duration = 540.0
    key_id: str | None = None
    algorithm: str | None = None
    headers: Annotated[Mapping[str, Any], PRIVATE] | None = None


class HttpSourceConfig(
    SourceTable, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="http"
):
    """`[tokens.NAME.source]` of type ``http``: the words of `HttpSource`.

    Strings may hold ``${env:NAME}``, ``${file:PATH}`` and ``${credential:NAME}``; they are kept as written.

    Args:
        url: Where tokens are issued. https, or http to this machine.
        method: GET or POST; by default POST if there is a body.
        headers: Sent with each request.
        params: Added to the query of the URL.
        json: Sent as JSON.
        data: Form fields.
        bearer_jwt: Sends a JWT that is signed for each request, as `Authorization: Bearer`.
        timeout: For one try, at most 30 s.
        token_path: JMESPath of the token. Without it the usual names are tried.
        expires_path: JMESPath of the lifetime in seconds, or of the time of expiry.
        default_lifetime: For opaque tokens that do not say theirs.
        ca_file: PEM file with the authorities to trust, instead of the usual ones.
        client_cert: PEM file with the certificate to show.
        client_key: PEM file with its key, if that is not in `client_cert`.
        proxy: URL of a proxy. Without it the environment decides.
        allow_http: Send secrets in the clear to other machines, too.
    """

    url: Annotated[str, Such("https://backend.example/token")]
    method: str | None = None
    headers: Annotated[Mapping[str, str], PRIVATE] | None = None
    params: Annotated[Mapping[str, Sent], PRIVATE] | None = None
    json: Annotated[Any, PRIVATE] = None
    data: Annotated[Mapping[str, Sent], PRIVATE] | None = None
    bearer_jwt: BearerJwtConfig | None = None
    timeout: Duration = 10.0
    token_path: Annotated[str, Such("data.token")] | None = None
    expires_path: str | None = None
    default_lifetime: Duration | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    allow_http: bool = False


class OAuth2SourceConfig(
    SourceTable, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="oauth2"
):
    """`[tokens.NAME.source]` of type ``oauth2``: the words of `OAuth2Source`.

    Strings may refer, as those of ``http``.

    Args:
        token_url: The token endpoint. This, or `issuer`.
        issuer: Whose metadata name the endpoints (RFC 8414, OpenID Connect Discovery).
        grant: How tokens are obtained.
        client_id: Who we are to the server.
        client_secret: Its secret.
        auth_method: How the client authenticates. Without it: basic with a secret, private_key_jwt with a
            key, else none.
        private_key: PEM of the key that signs assertions.
        key_id: The `kid` of what it signs.
        algorithm: Without it the usual one for the key: RS256, ES256, ES384 or EdDSA.
        assertion_headers: More members of the header of what it signs.
        assertion_audience: The `aud` of private_key_jwt, instead of the token endpoint.
        scope: What is asked for; several in one string, or a list.
        audience: For whom the token shall be good.
        resource: The same as URLs (RFC 8707).
        extra: More form fields.
        refresh_token: The first one, for the grant refresh_token. Its successors are in the store.
        assertion: For jwt_bearer: a JWT, or the claims of one that `private_key` signs.
        assertion_lifetime: Of assertions that we sign.
        subject_token: For token_exchange: the token that is exchanged.
        subject_token_type: Its type, as a word or a URN.
        actor_token: For token_exchange: the token of who acts.
        actor_token_type: Its type.
        requested_token_type: The type that is asked for.
        device_authorization_url: Where a device asks for its code, for device_code.
        revocation_url: Where tokens are given back.
        revoke: What is given back when the sidecar ends or the token leaves the configuration.
        keep: Keep access tokens in the store, too. Those of refresh_token and device_code always are.
        replay_window: How long after it was sent a refresh token may be sent again, if the answer was lost.
        replay_limit: How often.
        token_path: JMESPath of the token, if it is not `access_token`.
        expires_path: JMESPath of its lifetime, if that is not `expires_in`.
        default_lifetime: For opaque tokens that do not say theirs.
        timeout: For one try, at most 30 s.
        ca_file: PEM file with the authorities to trust, instead of the usual ones.
        client_cert: PEM file with the certificate to show.
        client_key: PEM file with its key, if that is not in `client_cert`.
        proxy: URL of a proxy. Without it the environment decides.
        allow_http: Send secrets in the clear to other machines, too.
    """

    token_url: Annotated[str, Such("https://login.example/token")] | None = None
    issuer: Annotated[str, Such("https://login.example")] | None = None
    grant: GrantName = "client_credentials"
    client_id: str | None = None
    client_secret: Private | None = None
    auth_method: AuthMethod | None = None
    private_key: Private | None = None
    key_id: str | None = None
    algorithm: str | None = None
    assertion_headers: Annotated[Mapping[str, Any], PRIVATE] | None = None
    assertion_audience: str | None = None
    scope: Texts | None = None
    audience: Texts | None = None
    resource: Texts | None = None
    extra: Annotated[Mapping[str, Sent], PRIVATE] | None = None
    refresh_token: Private | None = None
    assertion: Annotated[Any, PRIVATE] = None
    assertion_lifetime: Duration = 300.0
    subject_token: Private | None = None
    subject_token_type: str = "access_token"
    actor_token: Private | None = None
    actor_token_type: str | None = None
    requested_token_type: str | None = None
    device_authorization_url: str | None = None
    revocation_url: str | None = None
    revoke: Revoked = "none"
    keep: bool = False
    replay_window: Duration = 30.0
    replay_limit: int = 1
    token_path: str | None = None
    expires_path: str | None = None
    default_lifetime: Duration | None = None
    timeout: Duration = 10.0
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    allow_http: bool = False


class CommandSourceConfig(
    SourceTable, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="command"
):
    """`[tokens.NAME.source]` of type ``command``: a program that prints a token.

    Args:
        run: The program and its arguments; nothing in it is looked up.
        shell: Give the one string of `run` to `/bin/sh`.
        format: What it prints; auto tells by its look.
        timeout: How long it may take, at most 28 s.
        env: Variables of its environment, besides ours. Strings may refer.
        cwd: Where it runs.
        token_path: JMESPath of the token. Without it the usual names are tried.
        expires_path: JMESPath of the lifetime in seconds, or of the time of expiry.
        default_lifetime: For opaque tokens that do not say theirs.
    """

    run: Annotated[tuple[str, ...], PRIVATE, Such(["/usr/bin/print-token"])]
    shell: bool = False
    format: CommandFormat = "auto"
    timeout: Duration = 10.0
    env: Annotated[Mapping[Annotated[str, kinds.VARIABLE], str], PRIVATE] | None = None
    cwd: str | None = None
    token_path: str | None = None
    expires_path: str | None = None
    default_lifetime: Duration | None = None


class FileSourceConfig(
    SourceTable, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="file"
):
    """`[tokens.NAME.source]` of type ``file``: a file that another program writes.

    Args:
        path: Absolute. It need not be there yet.
        token_path: JMESPath of the token, if the file holds JSON. Without it the usual names are tried.
        expires_path: JMESPath of the lifetime in seconds, or of the time of expiry.
        default_lifetime: For opaque tokens that do not say theirs.
    """

    path: Annotated[str, Such("/var/run/secrets/tokens/app")]
    token_path: str | None = None
    expires_path: str | None = None
    default_lifetime: Duration | None = None


LinkConfig = HttpSourceConfig | OAuth2SourceConfig | CommandSourceConfig | FileSourceConfig
"""What a chain is made of."""


class ChainSourceConfig(
    SourceTable, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="chain"
):
    """`[tokens.NAME.source]` of type ``chain``: the first source that works.

    Args:
        sources: By name, asked in the order of the file.
    """

    sources: Annotated[Mapping[Name, LinkConfig], Such({"agent": {"type": "file", "path": "/run/app/token"}})]

    def _compared(self) -> Any:
        # The order says who is asked first.
        return [[name, to_builtins(link)] for name, link in self.sources.items()]


SourceConfig = LinkConfig | ChainSourceConfig
"""One struct for each type of source; `type` tells which."""
