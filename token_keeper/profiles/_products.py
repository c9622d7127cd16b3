"""Tells whether a token is one of Twilio's, and what each of its products will make of it."""

from __future__ import annotations

from dataclasses import replace

from token_keeper._finding import Finding
from token_keeper._secret import Secret
from token_keeper.inspection._expect import Expectations
from token_keeper.inspection._profile import Context, Key, apply
from token_keeper.inspection._reading import read
from token_keeper.profiles._names import profile_named
from token_keeper.profiles._twilio import is_sid
from token_keeper.profiles._twilio_grants import PRODUCTS, Product

TWILIO = "twilio"
_OTHER_KINDS = frozenset({"capability-token", "client-validation-token", "looks-like-sid"})


def looks_like_twilio(secret: Secret, *, now: float) -> bool:
    """Whether the token is, or should have been, an Access Token of Twilio's."""
    found = profile_named(TWILIO).inspect(secret, now=now)
    header, claims = found.header or {}, found.claims or {}
    parties = (claims.get("iss"), claims.get("sub"))
    return (
        str(header.get("cty", "")).startswith("twilio-")
        or any(is_sid(party, prefix) for party in parties for prefix in ("SK", "AC"))
        or bool(found.codes & _OTHER_KINDS)
    )


def looks_like_credential(secret: Secret, *, now: float) -> bool:
    """Whether the token has the form of an Auth Token or an API Key Secret, as many opaque tokens have."""
    return bool(
        profile_named(TWILIO).inspect(secret, now=now).codes
        & {"looks-like-auth-token", "looks-like-api-secret"}
    )


def product_errors(  # noqa: PLR0913 # All but the first two are keywords.
    name: str, secret: Secret, *, now: float, leeway: float, expect: Expectations, key: Key | None
) -> tuple[Finding, ...] | None:
    """Return why one product will refuse a token; empty if it will not, None if it is not granted.

    Each product is judged by its own grant and by what concerns all of them: what is wrong with
    another product's grant does not concern it.

    Args:
        name: Of the product, as `--for` takes it.
        secret: The raw token.
        now: Unix seconds.
        leeway: Tolerance for `nbf`, in seconds. `exp` has none.
        expect: What the token must be good for.
        key: What to check its signature with.
    """
    product = PRODUCTS[name]
    reading = read(secret)
    claims = dict(reading.claims or {})
    grants = claims.get("grants")
    if isinstance(grants, dict):
        if product.key not in grants:
            return None
        claims["grants"] = {key: grants[key] for key in ("identity", product.key) if key in grants}
    context = Context(
        reading=replace(reading, claims=claims if reading.claims is not None else None),
        header=reading.header or {},
        claims=claims,
        now=now,
        leeway_s=leeway,
        expect=_expected(name, product, expect),
        key=key,
    )
    return apply(profile_named(TWILIO), context).errors


def _expected(name: str, product: Product, expect: Expectations) -> Expectations:
    """Return what is expected of one product: a service of those that have one and are meant."""
    is_meant = product.field == "service_sid" and (not expect.grants or name in expect.grants)
    return replace(expect, grants=(), service_sid=expect.service_sid if is_meant else None)
