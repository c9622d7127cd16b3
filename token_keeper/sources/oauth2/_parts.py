"""Makes the parts of an OAuth 2.0 source of its keywords, and checks each on the way."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from token_keeper._errors import ConfigError
from token_keeper._model import Secret
from token_keeper.sources._clients import ClientLease, TlsFiles
from token_keeper.sources._place import TokenPlace
from token_keeper.sources._settings import Endpoint, check_proxy, endpoint_of
from token_keeper.sources._signing import Signer, checked_claims, checked_key
from token_keeper.sources._values import Values
from token_keeper.sources.oauth2 import _authentication as authentication
from token_keeper.sources.oauth2._authentication import ClientAuthentication
from token_keeper.sources.oauth2._discovery import DEVICE, REVOCATION, TOKEN
from token_keeper.sources.oauth2._endpoint import Addresses
from token_keeper.sources.oauth2._forms import TOKEN_TYPES, Forms, SignedAssertion
from token_keeper.sources.oauth2._secrets import SecretSetting
from token_keeper.sources.oauth2._words import SUBJECT_TYPE, Words

_TYPE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+")
_SCOPE: Final = re.compile(r"[\x20-\x7e]+")
_OURS: Final = frozenset(
    {
        "grant_type",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
        "refresh_token",
        "device_code",
        "assertion",
        "subject_token",
        "subject_token_type",
        "actor_token",
        "actor_token_type",
        "requested_token_type",
        "scope",
    }
)
_PROOF: Final = frozenset({"client_assertion", "client_assertion_type"})
"""Fields that are the user's if the client does not show who it is by our means: somebody else signed it."""


def addresses_of(words: Words) -> Addresses:
    """Return where the server is.

    Raises:
        ConfigError: If that cannot be found out, or secrets must not be sent there.
    """
    if words.token_url is None and words.issuer is None:
        raise ConfigError("token_url", "is required, or issuer, whose metadata name it")
    issuer = None if words.issuer is None else _endpoint(words, "issuer")
    if issuer is not None and ("?" in issuer.url or "#" in issuer.url):
        raise ConfigError("issuer", "must have neither a query nor a fragment (RFC 8414 section 2)")
    urls = {TOKEN: "token_url", REVOCATION: "revocation_url", DEVICE: "device_authorization_url"}
    given = {name: _endpoint(words, word) for name, word in urls.items() if getattr(words, word) is not None}
    if issuer is None and words.grant == "device_code" and DEVICE not in given:
        raise ConfigError("device_authorization_url", "is required, or issuer, whose metadata name it")
    if issuer is None and words.revoke != "none" and REVOCATION not in given:
        raise ConfigError("revocation_url", "is required for revoke, or issuer, whose metadata name it")
    return Addresses(issuer=issuer, given=given, allow_http=bool(words.allow_http))


def authentication_of(words: Words, signer: Signer) -> ClientAuthentication:
    """Return how the client shows who it is.

    Raises:
        ConfigError: If that does not fit together.
    """
    method = _method(words)
    return ClientAuthentication(
        client_id=words.client_id,
        method=method,
        is_chosen=words.auth_method is not None,
        secret=None if words.client_secret is None else SecretSetting("client_secret", words.client_secret),
        key=_key(words, signer) if method == authentication.PRIVATE_KEY_JWT else None,
        signer=signer,
        audience=words.assertion_audience,
        lifetime_s=words.assertion_lifetime,
    )


def signer_of(words: Words) -> Signer:
    """Return what signs with the private key.

    Raises:
        ConfigError: If it cannot.
    """
    if words.private_key is None:
        for word in ("key_id", "algorithm", "assertion_headers"):
            if getattr(words, word) is not None:
                raise ConfigError(word, "is for what private_key signs: give that, too, or leave it out")
    return Signer(
        key_id=words.key_id,
        algorithm=words.algorithm,
        headers=words.assertion_headers,
        headers_key="assertion_headers",
    )


def forms_of(words: Words, signer: Signer) -> Forms:
    """Return what is sent for the grant.

    Raises:
        ConfigError: If it cannot be.
    """
    secrets = {name: SecretSetting(name, getattr(words, name)) for name in _secret_words(words)}
    signed = _signed_assertion(words, signer) if isinstance(words.assertion, Mapping) else None
    plain = _plain(words)
    return Forms(
        grant=words.grant,
        plain=plain,
        extra=_extra(words.extra, has_own_proof=words.auth_method == authentication.NONE),
        secrets=secrets,
        digest=_digest([words.grant, plain, words.extra, signed and words.assertion, words.token_path]),
        seed=None if words.refresh_token is None else SecretSetting("refresh_token", words.refresh_token),
        assertion=signed,
        timeout_s=words.timeout,
    )


def place_of(words: Words) -> TokenPlace:
    """Return where the token stands in an answer.

    Raises:
        ConfigError: If a path cannot work.
    """
    return TokenPlace(
        token_path=words.token_path, expires_path=words.expires_path, default_lifetime=words.default_lifetime
    )


def lease_of(words: Words) -> ClientLease:
    """Return the HTTP client.

    Raises:
        ConfigError: If it cannot work, or is combined with settings of one.
    """
    check_proxy(words.proxy)
    tls = TlsFiles(ca_file=words.ca_file, client_cert=words.client_cert, client_key=words.client_key)
    return ClientLease(client=words.client, tls=tls, proxy=words.proxy)


def _secret_words(words: Words) -> list[str]:
    """Return the words that are sent as fields of the same name, if they are given."""
    given = [
        name for name in ("subject_token", "actor_token", "assertion") if getattr(words, name) is not None
    ]
    return [name for name in given if not isinstance(getattr(words, name), Mapping)]


def _signed_assertion(words: Words, signer: Signer) -> SignedAssertion:
    return SignedAssertion(
        claims=Values("assertion", dict(checked_claims("assertion", words.assertion))),
        key=_key(words, signer),
        signer=signer,
        lifetime_s=words.assertion_lifetime,
    )


def _endpoint(words: Words, word: str) -> Endpoint:
    url = getattr(words, word)
    return endpoint_of(
        url, allow_http=bool(words.allow_http), key=word, instead="client_id and client_secret"
    )


def _method(words: Words) -> str:
    """Return how the client shows who it is, with every word for that in use."""
    signs = words.private_key is not None and words.grant != "jwt_bearer"
    by_default = authentication.PRIVATE_KEY_JWT if signs else authentication.NONE
    method: str = words.auth_method or (authentication.BASIC if words.client_secret else by_default)
    by_secret = method in {authentication.BASIC, authentication.POST}
    if by_secret and words.client_secret is None:
        raise ConfigError("client_secret", f"is required for auth_method {method}")
    if not by_secret and words.client_secret is not None:
        raise ConfigError("client_secret", f"is not sent with auth_method {method}: leave one of them out")
    by_key = method == authentication.PRIVATE_KEY_JWT
    if by_key and (words.private_key is None or words.client_id is None):
        raise ConfigError(
            "private_key" if words.private_key is None else "client_id",
            "is required for auth_method private_key_jwt",
        )
    if not by_key and signs:
        raise ConfigError("private_key", f"signs nothing with auth_method {method}: leave one of them out")
    if words.assertion_audience is not None and (not by_key or not isinstance(words.assertion_audience, str)):
        raise ConfigError("assertion_audience", "must be a string, and is for auth_method private_key_jwt")
    return method


def _key(words: Words, signer: Signer) -> SecretSetting:
    return SecretSetting("private_key", checked_key(words.private_key, signer))


def _plain(words: Words) -> dict[str, str | Sequence[str]]:
    fields: dict[str, str | Sequence[str]] = {}
    if words.scope is not None:
        fields["scope"] = _scope(words.scope)
    for word in ("audience", "resource"):
        if (value := getattr(words, word)) is not None:
            fields[word] = _strings(word, value)
    if words.grant == "token_exchange":
        fields["subject_token_type"] = _token_type("subject_token_type", words.subject_token_type)
        if words.actor_token is not None:
            # RFC 8693 section 2.1: required with an actor_token.
            kind = words.actor_token_type or SUBJECT_TYPE
            fields["actor_token_type"] = _token_type("actor_token_type", kind)
        if words.requested_token_type is not None:
            fields["requested_token_type"] = _token_type("requested_token_type", words.requested_token_type)
    return fields


def _digest(asked: object) -> str:
    """Return what tells tokens for what is *asked* from others: 16 hex digits. Functions do not count."""
    text = json.dumps(asked, sort_keys=True, default=_named)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _named(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return value.fingerprint if isinstance(value, Secret) else ""


def _scope(scope: Any) -> str:
    values: list[str] = list(scope) if isinstance(scope, list | tuple) else [scope]
    if not values or not all(isinstance(one, str) and _SCOPE.fullmatch(one) for one in values):
        raise ConfigError("scope", "must be a string such as 'read write', or a list of such")
    return " ".join(values)


def _strings(word: str, value: Any) -> str | list[str]:
    values: list[str] = list(value) if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(one, str) and one for one in values):
        raise ConfigError(word, "must be a string, or a list of strings")
    return values[0] if len(values) == 1 else values


def _token_type(word: str, value: object) -> str:
    if isinstance(value, str) and (value in TOKEN_TYPES or _TYPE.fullmatch(value)):
        return TOKEN_TYPES.get(value, value)
    raise ConfigError(word, f"must be one of {', '.join(TOKEN_TYPES)}, or a URI")


def _extra(extra: object, *, has_own_proof: bool) -> Values | None:
    if extra is None:
        return None
    if not isinstance(extra, Mapping):
        raise ConfigError("extra", "must be a mapping of form fields")
    for name, value in extra.items():
        if not isinstance(name, str):
            raise ConfigError("extra", "must be a mapping of names to values")
        if name in _OURS and not (has_own_proof and name in _PROOF):
            raise ConfigError(f"extra[{name!r}]", "is set by us, from the word for it: leave it out")
        is_list = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
        is_plain = isinstance(value, str | Secret | int) and not isinstance(value, bool)
        if not callable(value) and not is_plain and not is_list:
            raise ConfigError(
                f"extra[{name!r}]", "must be a string, a Secret, a number, a list, or a function"
            )
    return Values("extra", dict(extra))
