"""The profiles that have a name, and inspection by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from token_keeper._errors import ConfigError
from token_keeper._secret import Secret
from token_keeper.inspection import _rules as rules
from token_keeper.inspection._expect import Expectations
from token_keeper.inspection._profile import Inspection, Key, Profile
from token_keeper.inspection._reading import Reading, looks_like_jwt
from token_keeper.inspection._signature import signature
from token_keeper.profiles import _twilio as twilio
from token_keeper.profiles import _twilio_grants as twilio_grants

if TYPE_CHECKING:
    from token_keeper.inspection._entries import Entry


def _catalogue() -> Mapping[int | str, Entry]:
    from token_keeper.profiles._catalogue import CATALOGUE  # noqa: PLC0415 # Most inspections need no codes.

    return CATALOGUE


_JWT = Profile(
    name="jwt",
    rules=(
        rules.length,
        rules.wrapping,
        rules.presence,
        rules.structure,
        rules.expiry,
        rules.start,
        rules.order,
        rules.open_end,
        signature,
    ),
    alone=frozenset({"too-long", "empty"}),
    same=("sub",),
    catalogue=_catalogue,
)

_OPAQUE = Profile(
    name="opaque",
    rules=(rules.length, rules.wrapping, rules.presence, rules.characters),
    alone=frozenset({"too-long"}),
    catalogue=_catalogue,
)

_TWILIO = Profile(
    name="twilio",
    rules=(
        rules.length,
        rules.wrapping,
        rules.presence,
        twilio.credential,
        rules.structure,
        twilio.other_kind,
        twilio.header,
        twilio.parties,
        twilio.missing_expiry,
        rules.expiry,
        rules.start,
        rules.order,
        twilio.lifetime,
        twilio_grants.grants,
        twilio_grants.grant_fields,
        twilio_grants.identity_characters,
        twilio_grants.region,
        twilio_grants.expected,
        signature,
        twilio.unchecked_signature,
    ),
    expects=twilio_grants.EXPECTS,
    products=tuple(twilio_grants.PRODUCTS),
    alone=twilio.ALONE | {"too-long"},
    same=twilio_grants.SAME,
    catalogue=_catalogue,
)


def _by_look(reading: Reading) -> Profile:
    return _JWT if looks_like_jwt(reading.value.reveal()) else _OPAQUE


_AUTO = Profile(name="auto", catalogue=_catalogue, choose=_by_look)

_NAMED = {profile.name: profile for profile in (_AUTO, _JWT, _TWILIO, _OPAQUE)}


def profile_named(name: str) -> Profile:
    """Return the profile *name*: ``auto``, ``jwt``, ``twilio`` or ``opaque``.

    Raises:
        ConfigError: If there is none of that name.
    """
    try:
        return _NAMED[name]
    except (KeyError, TypeError):
        raise ConfigError("profile", f"unknown; known are {', '.join(_NAMED)}") from None


def inspect(  # noqa: PLR0913 # All but the first two are keywords.
    raw: str | Secret,
    profile: Profile | str = "auto",
    *,
    now: float,
    expectations: Expectations | Mapping[str, object] | None = None,
    secret: str | Key | None = None,
    leeway: float = 0.0,
    exp_leeway: float | None = None,
) -> Inspection:
    """Say what *raw* is, and whether it can work; see `Profile.inspect`.

        inspect(token, "twilio", now=time.time()).errors

    Raises:
        ConfigError: If there is no such *profile*, or it cannot check the *expectations*.
    """
    given, raw = (raw if isinstance(raw, Secret) else Secret(raw)), ""
    key, secret = (Secret(secret) if isinstance(secret, str) else secret), None
    chosen = profile_named(profile) if isinstance(profile, str) else profile
    return chosen.inspect(
        given,
        now=now,
        expectations=expectations,
        secret=key,
        leeway=leeway,
        exp_leeway=exp_leeway,
    )
