"""Says what kind of token was fetched, and what Twilio's products will make of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from token_keeper._model import Finding, Secret
from token_keeper._receive import LEEWAY_S
from token_keeper.doctor._findings import Examined
from token_keeper.doctor._report import ProductStatus, ProductVerdict, Status, Step
from token_keeper.inspection import Expectations, Profile
from token_keeper.inspection._reading import looks_like_jwt
from token_keeper.profiles import profile_named
from token_keeper.profiles._products import (
    TWILIO,
    looks_like_credential,
    looks_like_twilio,
    product_errors,
)
from token_keeper.profiles._twilio_grants import PRODUCTS

_CREDENTIAL = (
    "Twilio's Auth Tokens and API Key Secrets look like this, too. If it is one, no client may get it: "
    "replace it, and see --profile twilio."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """By which rules a token is judged, and why.

    Args:
        profile: The rules.
        reason: Why these.
        notes: What else it might be.
    """

    profile: Profile
    reason: str
    notes: tuple[str, ...] = ()


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
            reason='a token of Twilio\'s by its look; give the keeper profile="twilio", too',
        )
    if expects:
        reason = "judged by the profile twilio: only that knows what --for and --expect ask for"
        return Kind(profile=profile_named(TWILIO), reason=reason)
    name = "jwt" if looks_like_jwt(secret.reveal()) else "opaque"
    words = {"jwt": "a JWT", "opaque": "an opaque string, which says nothing of itself"}
    notes = (_CREDENTIAL,) if looks_like_credential(secret, now=now) else ()
    return Kind(
        profile=profile_named(name), reason=f"{words[name]}; judged by the profile {name}", notes=notes
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
        notes=kind.notes,
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
        name: _verdict(
            product_errors(name, examined.secret, now=examined.now, leeway=LEEWAY_S, expect=expect, key=key)
        )
        for name in PRODUCTS
    }


def _verdict(errors: tuple[Finding, ...] | None) -> ProductVerdict:
    if errors is None:
        return ProductVerdict(status=ProductStatus.NOT_GRANTED)
    if not errors:
        return ProductVerdict(status=ProductStatus.OK)
    return ProductVerdict(status=ProductStatus.REFUSED, reasons=errors)


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
