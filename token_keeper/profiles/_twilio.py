"""The rules of Twilio Access Tokens, but for their grants: form, header, issuer, times, signature."""

from __future__ import annotations

from collections.abc import Iterator

from token_keeper._finding import Finding
from token_keeper.inspection._findings import (
    HEX,
    error,
    info,
    is_mixed_secret,
    number,
    seconds,
    shown,
    warning,
)
from token_keeper.inspection._profile import Context
from token_keeper.inspection._reading import signed_parts
from token_keeper.inspection._rules import LEAST_MILLISECONDS

MAX_LIFETIME_S = 86_400
MAX_VOICE_LIFETIME_S = 86_399
MIN_LIFETIME_S = 180

CONTENT_TYPE = "twilio-fpa;v=1"
VALIDATION_CONTENT_TYPE = "twilio-pkrv;v=1"

ALONE = frozenset(
    {
        "looks-like-auth-token",
        "looks-like-api-secret",
        "looks-like-sid",
        "capability-token",
        "client-validation-token",
    }
)
"""Another kind of credential: what else is odd about it does not matter."""


def credential(context: Context) -> Iterator[Finding]:
    """Recognise another credential in the token's place."""
    value = context.reading.value.reveal()
    if len(value) == 32 and HEX.issuperset(value):
        yield error(
            "looks-like-auth-token",
            "this looks like an Auth Token, the password of an account",
            f"Never give it to a client, and replace it if one had it. {_MINT}",
        )
    elif is_mixed_secret(value):
        yield error(
            "looks-like-api-secret",
            "this looks like an API Key Secret, with which tokens are signed",
            f"Never give it to a client, and replace it if one had it. {_MINT}",
        )
    elif is_sid(value, value[:2]):
        yield error(
            "looks-like-sid",
            f"this looks like the SID of {_SID_KINDS.get(value[:2], 'something')}: a name, not a token",
            _MINT,
        )


def other_kind(context: Context) -> Iterator[Finding]:
    """Recognise Twilio's other kinds of JWT."""
    scope = context.claims.get("scope")
    if context.header.get("cty") == VALIDATION_CONTENT_TYPE:
        yield error(
            "client-validation-token",
            "this is a Public Key Client Validation token, which goes with REST requests",
            _MINT,
        )
    elif "cty" not in context.header and isinstance(scope, str) and scope.startswith("scope:"):
        yield error(
            "capability-token",
            "this is a Capability Token, which only the old SDKs took",
            f"{_MINT} The newer SDKs take nothing else.",
        )


def header(context: Context) -> Iterator[Finding]:
    """Require the three fields of the header."""
    if not context.is_jwt:
        return
    for name, wanted in (("typ", "JWT"), ("alg", "HS256"), ("cty", CONTENT_TYPE)):
        found = context.header.get(name)
        if found != wanted:
            yield error(
                f"header-{name}",
                f"{name} in the header is {shown(found)}; an Access Token has {wanted!r}",
                f"Set {name} to {wanted!r}, or let the helper library's AccessToken do it.",
            )


def parties(context: Context) -> Iterator[Finding]:
    """Require an API Key as issuer and an account as subject."""
    if not context.is_jwt:
        return
    issuer, subject = context.claims.get("iss"), context.claims.get("sub")
    if _starts(issuer, "AC") and _starts(subject, "SK"):
        yield error(
            "issuer-subject-swapped",
            "iss is an Account SID and sub an API Key SID: the two are swapped",
            "Pass the account's SID first, then the key's: AccessToken(account_sid, api_key_sid, secret).",
        )
        return
    if not is_sid(issuer, "SK"):
        yield error(
            "issuer",
            f"iss is {shown(issuer)}; it has to be an API Key SID (SK and 32 hex digits)",
            "Give AccessToken the API Key SID as its second argument; the account's own SID does not sign.",
        )
    if not is_sid(subject, "AC"):
        yield error(
            "subject",
            f"sub is {shown(subject)}; it has to be an Account SID (AC and 32 hex digits)",
            "Give AccessToken the SID of the live account as its first argument.",
        )


def missing_expiry(context: Context) -> Iterator[Finding]:
    """Require `exp`."""
    if context.is_jwt and "exp" not in context.claims:
        yield error(
            "exp-missing",
            "the token does not say when it expires (exp)",
            "Set exp to Unix seconds, at most 24 h ahead: AccessToken(..., ttl=3600).",
        )


def lifetime(context: Context) -> Iterator[Finding]:
    """Bound the lifetime: at most a day, and no less than is practical."""
    expires_at = number(context.claims, "exp")
    if expires_at is None or expires_at >= LEAST_MILLISECONDS:
        return
    stated = number(context.claims, "iat")
    if stated is None:
        stated = number(context.claims, "nbf")
    length_s = expires_at - (context.now if stated is None else stated)
    grants = context.claims.get("grants")
    has_voice = isinstance(grants, dict) and "voice" in grants
    longest_s = MAX_VOICE_LIFETIME_S if has_voice else MAX_LIFETIME_S
    if length_s > longest_s:
        yield error(
            "lifetime-too-long",
            f"the token is made for {seconds(length_s)}; Twilio takes at most {longest_s} s",
            "Mint it for an hour or so (ttl=3600) and refresh it.",
        )
    elif stated is not None and length_s < MIN_LIFETIME_S and not _ends_before_issue(context, expires_at):
        yield warning(
            "lifetime-too-short",
            f"the token is made for {seconds(length_s)}; under {MIN_LIFETIME_S} s is hard to refresh in time",
            "Mint it for an hour or so (ttl=3600).",
        )


def unchecked_signature(context: Context) -> Iterator[Finding]:
    """Say what a client cannot know, and find signatures that cannot be any."""
    if not context.is_jwt or context.key is not None:
        return
    _, signature = signed_parts(context.reading.value)
    if context.header.get("alg") == "HS256" and len(signature) != 32:
        yield error(
            "signature-invalid",
            f"the signature has {len(signature)} bytes; one by HS256 has 32: it was cut off or changed",
            "Copy the token complete, and compare its length with what the backend made.",
        )
    else:
        yield info(
            "signature-unchecked",
            "the signature was not checked: that takes the API Key Secret",
            "Where the secret is at hand, give it: --secret-file, or $TOKEN_KEEPER_SECRET.",
        )


def _ends_before_issue(context: Context, expires_at: float) -> bool:
    issued_at = number(context.claims, "iat")
    return issued_at is not None and issued_at >= expires_at


def _starts(value: object, prefix: str) -> bool:
    return isinstance(value, str) and value.startswith(prefix)


def is_sid(value: object, prefix: str) -> bool:
    """Whether *value* is *prefix*, two capital letters, and 32 hex digits."""
    return (
        isinstance(value, str)
        and len(value) == 34
        and value[:2] == prefix
        and value[:2].isascii()
        and value[:2].isalpha()
        and value[:2].isupper()
        and HEX.issuperset(value[2:].lower())
    )


_MINT = "Mint an Access Token on your server (the helper library's AccessToken), and pass that."
_SID_KINDS = {
    "AC": "an account",
    "SK": "an API Key",
    "IS": "a service",
    "AP": "an application",
    "US": "a user",
}
