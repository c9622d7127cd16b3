"""Says what kind of token it is, and what Twilio's products will make of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from token_keeper._model import Finding, Secret, Severity
from token_keeper._receive import LEEWAY_S
from token_keeper.doctor._findings import Examined
from token_keeper.doctor._report import ProductStatus, ProductVerdict, Status, Step
from token_keeper.inspection import Context, Expectations, Profile
from token_keeper.inspection._reading import looks_like_jwt, read
from token_keeper.profiles import profile_named
from token_keeper.profiles._twilio import is_sid
from token_keeper.profiles._twilio_grants import PRODUCTS, Product

TWILIO = "twilio"
_OTHER_KINDS = frozenset({"capability-token", "client-validation-token", "looks-like-sid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """By which rules a token is judged, and why.

    Args:
        profile: The rules.
        reason: Why these.
    """

    profile: Profile
    reason: str


def kind_of(secret: Secret, *, asked: str, expects: bool, now: float) -> Kind:
    """Choose the rules for a token.

    Args:
        secret: The raw token.
        asked: The profile that the user named; ``auto`` lets the look decide.
        expects: Whether the user expects something that only Twilio's rules check.
        now: Unix seconds.
    """
    if asked != "auto":
        return Kind(profile=profile_named(asked), reason=f"judged by the profile {asked}, as asked")
    if looks_like_twilio(secret, now=now):
        return Kind(
            profile=profile_named(TWILIO),
            reason='a Twilio Access Token by its look; give the keeper profile="twilio", too',
        )
    if expects:
        reason = "judged by the profile twilio: only that knows what --for and --expect ask for"
        return Kind(profile=profile_named(TWILIO), reason=reason)
    name = "jwt" if looks_like_jwt(secret.reveal()) else "opaque"
    words = {"jwt": "a JWT", "opaque": "an opaque string, which says nothing of itself"}
    return Kind(profile=profile_named(name), reason=f"{words[name]}; judged by the profile {name}")


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


def kind_step(kind: Kind, examined: Examined) -> Step:
    """Say what kind of token it is."""
    inspection = examined.inspection
    header: Mapping[str, Any] = inspection.header or {}
    algorithm = header.get("alg")
    return Step(
        name="kind",
        status=Status.OK,
        summary=kind.reason,
        details={
            "profile": kind.profile.name,
            "algorithm": algorithm[:16] if isinstance(algorithm, str) else None,
            "issued_at": inspection.issued_at,
            "not_before": inspection.not_before,
            "expires_at": inspection.expires_at,
        },
    )


def product_verdicts(
    examined: Examined, *, expect: Expectations, key: Secret | None
) -> dict[str, ProductVerdict] | None:
    """Return what each product will make of the token, or None if it is no token for products."""
    if examined.inspection.profile != TWILIO:
        return None
    return {
        name: _verdict(name, product, examined, expect=expect, key=key) for name, product in PRODUCTS.items()
    }


def _verdict(
    name: str, product: Product, examined: Examined, *, expect: Expectations, key: Secret | None
) -> ProductVerdict:
    reading = read(examined.secret)
    claims = dict(reading.claims or {})
    grants = claims.get("grants")
    if isinstance(grants, dict):
        if product.key not in grants:
            return ProductVerdict(status=ProductStatus.NOT_GRANTED)
        # Its own grant alone: what is wrong with another product's does not concern this one.
        claims["grants"] = {
            member: grants[member] for member in ("identity", product.key) if member in grants
        }
    context = Context(
        reading=replace(reading, claims=claims if reading.claims is not None else None),
        header=reading.header or {},
        claims=claims,
        now=examined.now,
        leeway_s=LEEWAY_S,
        expect=_expected(name, product, expect),
        key=key,
    )
    return _judged(_errors(profile_named(TWILIO), context))


def _errors(profile: Profile, context: Context) -> tuple[Finding, ...]:
    findings = [finding for rule in profile.rules for finding in rule(context)]
    alone = [finding for finding in findings if finding.code in profile.alone]
    return tuple(finding for finding in alone[:1] or findings if finding.severity is Severity.ERROR)


def _judged(errors: tuple[Finding, ...]) -> ProductVerdict:
    if not errors:
        return ProductVerdict(status=ProductStatus.OK)
    return ProductVerdict(status=ProductStatus.REFUSED, reasons=errors)


def _expected(name: str, product: Product, expect: Expectations) -> Expectations:
    """Return what is expected of one product: a service of those that have one and are meant."""
    is_meant = product.field == "service_sid" and (not expect.grants or name in expect.grants)
    return replace(expect, grants=(), service_sid=expect.service_sid if is_meant else None)


def products_step(verdicts: Mapping[str, ProductVerdict], wanted: Collection[str]) -> Step:
    """Sum up what the products will make of the token."""
    by_status = {
        status: [name for name, verdict in verdicts.items() if verdict.status is status]
        for status in ProductStatus
    }
    refused, missing = by_status[ProductStatus.REFUSED], by_status[ProductStatus.NOT_GRANTED]
    wanting = [name for name in missing if name in wanted]
    words = {
        ProductStatus.OK: "good for",
        ProductStatus.REFUSED: "refused by",
        ProductStatus.NOT_GRANTED: "not granted:",
    }
    said = [f"{word} {', '.join(by_status[status])}" for status, word in words.items() if by_status[status]]
    remedy = ""
    if wanting:
        remedy = f"Add a {PRODUCTS[wanting[0]].helper} before the token is signed."
    if refused:
        remedy = verdicts[refused[0]].reasons[0].hint
    return Step(
        name="products",
        status=Status.FAILED if refused or wanting else Status.OK,
        summary="; ".join(said),
        details={name: verdict.status.value for name, verdict in verdicts.items()},
        remedy=remedy,
    )
