"""The keywords of an OAuth 2.0 source, and which of them go together.

A word that does nothing with the grant is an error, too: whoever wrote it
expects something of it. What each word may be is checked in `_parts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from token_keeper._errors import ConfigError
from token_keeper.sources._signing import LONGEST_LIFE_S
from token_keeper.sources._source import FETCH_TIMEOUT_S, check_seconds
from token_keeper.sources.oauth2 import _authentication as authentication
from token_keeper.sources.oauth2._forms import GRANT_TYPES

STORED: Final = frozenset({"refresh_token", "device_code"})
"""Grants that live in a store: their refresh tokens may rotate."""
SECRETS: Final = (
    *("client_secret", "private_key", "refresh_token"),
    *("assertion", "subject_token", "actor_token"),
)
"""Words that are secrets, as texts or as functions that return them."""

REVOKED: Final = ("none", "access_token", "refresh_token")
_BELONGS_TO: Final = {
    "refresh_token": "refresh_token",
    "assertion": "jwt_bearer",
    "subject_token": "token_exchange",
    "actor_token": "token_exchange",
    "actor_token_type": "token_exchange",
    "requested_token_type": "token_exchange",
    "device_authorization_url": "device_code",
}
REPLAY_WINDOW_S: Final = 30.0
"""Seconds for which a server is taken to forgive that a refresh token comes twice, unless it is said."""
REPLAY_LIMIT: Final = 1
"""How often, unless it is said."""
SUBJECT_TYPE: Final = "access_token"
"""What a token to exchange is taken for, unless it is said."""
_NEEDS_CLIENT_ID: Final = frozenset({"client_credentials", "device_code"})


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Words:
    """The keywords of `OAuth2Source`, with their secrets: never shown."""

    token_url: Any
    issuer: Any
    grant: Any
    client_id: Any
    client_secret: Any
    auth_method: Any
    private_key: Any
    key_id: Any
    algorithm: Any
    assertion_headers: Any
    assertion_audience: Any
    scope: Any
    audience: Any
    resource: Any
    extra: Any
    refresh_token: Any
    assertion: Any
    assertion_lifetime: Any
    subject_token: Any
    subject_token_type: Any
    actor_token: Any
    actor_token_type: Any
    requested_token_type: Any
    device_authorization_url: Any
    revocation_url: Any
    revoke: Any
    store: Any
    stored_as: Any
    replay_window: Any
    replay_limit: Any
    token_path: Any
    expires_path: Any
    default_lifetime: Any
    timeout: Any
    client: Any
    ca_file: Any
    client_cert: Any
    client_key: Any
    proxy: Any
    allow_http: Any


def check(words: Words) -> None:
    """Check what concerns more than one part.

    Raises:
        ConfigError: About the first word that cannot work.
    """
    if not isinstance(words.grant, str) or words.grant not in GRANT_TYPES:
        raise ConfigError("grant", f"must be one of {', '.join(GRANT_TYPES)}")
    for word, grant in _BELONGS_TO.items():
        if getattr(words, word) is not None and words.grant != grant:
            raise ConfigError(word, f"does not belong to grant {words.grant}, but to {grant}: leave it out")
    if words.subject_token_type != SUBJECT_TYPE and words.grant != "token_exchange":
        raise ConfigError(
            "subject_token_type", f"does not belong to grant {words.grant}, but to token_exchange"
        )
    _check_subject(words)
    _check_client(words)
    _check_store(words)
    check_seconds("timeout", words.timeout, most=FETCH_TIMEOUT_S)
    check_seconds("assertion_lifetime", words.assertion_lifetime, most=LONGEST_LIFE_S)
    _check_replay(words)
    _check_revoke(words)


def _check_subject(words: Words) -> None:
    if words.grant == "token_exchange" and words.subject_token is None:
        raise ConfigError("subject_token", "is required for grant token_exchange")
    if words.actor_token_type is not None and words.actor_token is None:
        raise ConfigError("actor_token_type", "is of actor_token: give that, too, or leave it out")
    if words.grant != "jwt_bearer":
        return
    if words.assertion is None:
        raise ConfigError("assertion", "is required for grant jwt_bearer: claims to sign, or a signed text")
    if isinstance(words.assertion, Mapping) and words.private_key is None:
        raise ConfigError("private_key", "is required to sign the claims of assertion")
    if (
        words.private_key is not None
        and not isinstance(words.assertion, Mapping)
        and (words.auth_method != authentication.PRIVATE_KEY_JWT)
    ):
        raise ConfigError("private_key", "signs nothing: assertion is a text. Leave one of them out")


def _check_client(words: Words) -> None:
    if words.client_id is not None and (not isinstance(words.client_id, str) or not words.client_id):
        raise ConfigError("client_id", "must be a string")
    if words.client_id is None and (words.grant in _NEEDS_CLIENT_ID or words.client_secret is not None):
        reason = "client_secret" if words.client_secret is not None else f"grant {words.grant}"
        raise ConfigError("client_id", f"is required for {reason}")
    if words.auth_method is not None and words.auth_method not in authentication.METHODS:
        raise ConfigError("auth_method", f"must be one of {', '.join(authentication.METHODS)}")
    has_proof = any((words.client_secret, words.private_key, words.client_cert, words.client))
    if words.grant == "client_credentials" and not has_proof and words.auth_method is None:
        raise ConfigError(
            "client_secret", "is required for grant client_credentials, or private_key or client_cert"
        )


def _check_store(words: Words) -> None:
    if words.store is None:
        if words.grant in STORED:
            raise ConfigError(
                "store",
                f"is required for grant {words.grant}, whose refresh token must survive a restart: pass "
                "store=DirectoryStore(...), or MemoryStore() if it may be lost",
            )
        if words.stored_as is not None:
            raise ConfigError("stored_as", "is a name in store: give that, too, or leave it out")
    elif words.stored_as is None:
        raise ConfigError("stored_as", "is required with store: the name that the grant has there")


def _check_replay(words: Words) -> None:
    window, limit = words.replay_window, words.replay_limit
    if window != 0 or isinstance(window, bool):
        check_seconds("replay_window", window)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit <= 100:
        raise ConfigError("replay_limit", "must be a whole number from 0 to 100")


def _check_revoke(words: Words) -> None:
    if words.revoke not in REVOKED:
        raise ConfigError("revoke", f"must be one of {', '.join(REVOKED)}")
    if words.revoke == "refresh_token" and words.grant not in STORED:
        raise ConfigError("revoke", f"cannot be refresh_token: grant {words.grant} has none")
