"""The rules of Twilio Access Tokens for what they grant, to whom, and whether that was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from token_keeper._finding import Finding
from token_keeper.inspection._findings import error, shown, warning
from token_keeper.inspection._profile import Context
from token_keeper.profiles._twilio import is_sid


class Product(NamedTuple):
    """A product of Twilio's, and what a token needs for it.

    Args:
        key: Its key in `grants`.
        title: What its users call it.
        helper: The class of the helper library that makes the grant.
        field: The path of the field that it requires, or empty.
        prefix: Of the SID that the field has to be.
        words: What the field may be instead.
        is_optional: Whether a grant can do without the field.
    """

    key: str
    title: str
    helper: str
    field: str = ""
    prefix: str = ""
    words: tuple[str, ...] = ()
    is_optional: Callable[[Mapping[str, object]], bool] = lambda _grant: False


def _takes_calls_only(grant: Mapping[str, object]) -> bool:
    incoming = grant.get("incoming")
    return isinstance(incoming, dict) and incoming.get("allow") is True


PRODUCTS = {
    "chat": Product(
        key="chat",
        title="Conversations",
        helper="ChatGrant",
        field="service_sid",
        prefix="IS",
    ),
    "sync": Product(
        key="data_sync",
        title="Sync",
        helper="SyncGrant",
        field="service_sid",
        prefix="IS",
        words=("default",),
    ),
    "voice": Product(
        key="voice",
        title="Voice",
        helper="VoiceGrant",
        field="outgoing.application_sid",
        prefix="AP",
        is_optional=_takes_calls_only,
    ),
    "video": Product(key="video", title="Video", helper="VideoGrant"),
}
"""By the name that `--for` and `expect.grants` take."""

EXPECTS = frozenset({"grants", "account_sid", "api_key_sid", "service_sid", "identity"})

SAME = (
    "sub",
    "grants.identity",
    *(f"grants.{product.key}.{product.field}" for product in PRODUCTS.values() if product.field),
)
"""What an update may not change: Twilio answers 51215 and ends the connection."""

TAKEN_BY_VOICE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
RESERVED_IN_CHAT = frozenset("!*'();:@&=+$,/?%#[]")


def grants(context: Context) -> Iterator[Finding]:
    """Require an object with an identity and at least one product."""
    if not context.is_jwt:
        return
    granted = context.claims.get("grants")
    if "grants" not in context.claims:
        yield error("grants-missing", "the token has no grants: it is good for nothing", _ADD_GRANT)
    elif not isinstance(granted, dict):
        yield error("grants-malformed", f"grants has to be an object and is {_kind(granted)}", _ADD_GRANT)
    elif malformed := [key for key, grant in _granted(granted) if not isinstance(grant, dict)]:
        yield error(
            "grants-malformed",
            f"the grant {shown(malformed[0])} has to be an object and is {_kind(granted[malformed[0]])}",
            "Add grants with add_grant() and the classes of the helper library.",
        )
    elif not _granted(granted):
        yield error("grants-empty", "grants names no product: the token is good for nothing", _ADD_GRANT)
        if not granted:
            yield _identity_missing()
    else:
        yield from _complete(context, granted)


def _complete(context: Context, granted: Mapping[str, object]) -> Iterator[Finding]:
    for name in context.expect.grants:
        product = PRODUCTS[name]
        if product.key not in granted:
            yield error(
                "grant-missing",
                f"there is no grant for {product.title} ({name}): grants.{product.key} is missing",
                f"Add a {product.helper} before the token is signed.",
            )
    identity = granted.get("identity")
    if not isinstance(identity, str) or not identity:
        yield _identity_missing()


def grant_fields(context: Context) -> Iterator[Finding]:
    """Require what each product's grant needs."""
    for product, grant in _product_grants(context):
        if not product.field:
            continue
        value = _at(grant, product.field)
        found = "not in an object" if value is _NO_OBJECT else shown(value)
        where = f"grants.{product.key}.{product.field}"
        if value is None or value == "":
            if not product.is_optional(grant):
                yield error(
                    "grant-field-missing",
                    f"{where} is missing: {product.title} cannot do without it",
                    f"Give it to {product.helper} as {product.field.replace('.', '_')}.",
                )
        elif not is_sid(value, product.prefix) and value not in product.words:
            yield error(
                "grant-field-malformed",
                f"{where} is {found}; it has to be {product.prefix} and 32 hex digits",
                f"Give {product.helper} the SID that the Console shows: {product.field.replace('.', '_')}.",
            )


def identity_characters(context: Context) -> Iterator[Finding]:
    """Judge the identity by what the products take."""
    granted = _grants_object(context)
    identity = granted.get("identity")
    if not isinstance(identity, str) or not identity:
        return
    if "chat" in granted and (reserved := sorted(RESERVED_IN_CHAT & set(identity))):
        yield warning(
            "identity-reserved-characters",
            f"the identity holds characters that Conversations reserves: {' '.join(reserved)}",
            "It works; still, Twilio advises to keep to letters, digits and - _ . ~",
        )
    if "voice" in granted and not TAKEN_BY_VOICE.issuperset(identity):
        yield error(
            "identity-voice-characters",
            "the identity holds characters that Voice does not take",
            "Use only A-Z a-z 0-9 and the underscore for the identity of a VoiceGrant.",
        )


def region(context: Context) -> Iterator[Finding]:
    """Require a key of region US1 for Video."""
    twr = context.header.get("twr")
    if twr is not None and twr != "us1" and "video" in _grants_object(context):
        yield error(
            "region-not-us1",
            f"the API Key is of region {shown(twr)} (twr); Video takes only keys of US1",
            "Create an API Key in region US1 for the VideoGrant, and mint without region.",
        )


def expected(context: Context) -> Iterator[Finding]:
    """Compare with what the user expects."""
    expect, claims = context.expect, context.claims
    for code, claim, found, wanted in (
        ("account-mismatch", "sub", claims.get("sub"), expect.account_sid),
        ("key-mismatch", "iss", claims.get("iss"), expect.api_key_sid),
        ("identity-mismatch", "grants.identity", _grants_object(context).get("identity"), expect.identity),
    ):
        if wanted and isinstance(found, str) and found and found != wanted:
            yield error(
                code,
                f"{claim} is {shown(found)}; expected is {shown(wanted)}",
                f"Mint the token with the expected {claim}, or correct the expectation.",
            )
    wanted = expect.service_sid
    if wanted and (services := _services(context)) is not None and wanted not in services:
        found = ", ".join(shown(service) for service in services) or "missing"
        yield error(
            "service-mismatch",
            f"the service in the grants is {found}; expected is {shown(wanted)}",
            "Give the grant's class the service_sid that the client connects to, or correct the expectation.",
        )


def _services(context: Context) -> list[object] | None:
    """Return the services of the grants that matter, or None if there is no grant at all."""
    granted = _granted(_grants_object(context))
    if not granted:
        return None
    keys = {PRODUCTS[name].key for name in context.expect.grants}
    return [
        grant["service_sid"]
        for key, grant in granted
        if (not keys or key in keys) and isinstance(grant, dict) and grant.get("service_sid")
    ]


def _product_grants(context: Context) -> Iterator[tuple[Product, Mapping[str, object]]]:
    granted = _grants_object(context)
    for product in PRODUCTS.values():
        grant = granted.get(product.key)
        if isinstance(grant, dict):
            yield product, grant


def _grants_object(context: Context) -> Mapping[str, object]:
    granted = context.claims.get("grants")
    return granted if isinstance(granted, dict) else {}


def _granted(granted: Mapping[str, object]) -> list[tuple[str, object]]:
    return [(key, grant) for key, grant in granted.items() if key != "identity"]


def _at(node: object, path: str) -> object:
    for key in path.split("."):
        if not isinstance(node, dict):
            # Something else where an object belongs makes the field malformed, not missing.
            return node if node is None or node == "" else _NO_OBJECT
        node = node.get(key)
    return node


_NO_OBJECT = object()


def _identity_missing() -> Finding:
    return error(
        "identity-missing",
        "grants.identity is missing or empty: nobody is named whom the token is for",
        "Give AccessToken the user's name: AccessToken(..., identity=...).",
    )


def _kind(value: object) -> str:
    return "null" if value is None else "a string" if isinstance(value, str) else shown(value)


_ADD_GRANT = "Add the product's grant before signing: " + ", ".join(
    f"{product.helper} ({product.title})" for product in PRODUCTS.values()
)
