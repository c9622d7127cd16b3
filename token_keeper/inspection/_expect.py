"""What a user expects of a token: checked once, compared with each token."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

from token_keeper._errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What a token must be good for. What is None or empty is not checked.

    Args:
        grants: Products that it must be good for, such as ``chat``.
        account_sid: The account that it must belong to.
        api_key_sid: The key that it must be issued with.
        service_sid: The service that one of its grants must name.
        identity: The user that it must be for.
    """

    grants: tuple[str, ...] = ()
    account_sid: str | None = None
    api_key_sid: str | None = None
    service_sid: str | None = None
    identity: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """The expectations that were stated."""
        return frozenset(field.name for field in fields(self) if getattr(self, field.name))

    @classmethod
    def from_mapping(
        cls,
        raw: Mapping[str, object],
        *,
        known: Collection[str],
        products: Collection[str] = (),
        at: str = "expect",
    ) -> Expectations:
        """Check *raw*, found at key *at* of the configuration.

        Args:
            raw: The expectations, as the user wrote them.
            known: The expectations that the profile can check.
            products: The names that `grants` may have.
            at: Where they were found.

        Raises:
            ConfigError: If a key is unknown, or its value cannot be one.
        """
        for key in sorted(raw.keys() - set(known)):
            raise ConfigError(f"{at}.{_shown(key)}", _unknown_key(known))
        values: dict[str, object] = {}
        for key, value in raw.items():
            if key == "grants":
                values[key] = _products(value, products=products, at=f"{at}.{key}")
            elif not isinstance(value, str) or not value:
                raise ConfigError(f"{at}.{key}", "must be a string that is not empty")
            else:
                values[key] = value
        return cls(**values)  # type: ignore[arg-type] # Each value was checked above.


def _products(value: object, *, products: Collection[str], at: str) -> tuple[str, ...]:
    known = ", ".join(products)
    if not isinstance(value, list | tuple):
        raise ConfigError(at, f"must be a list out of {known}")
    if not all(isinstance(name, str) and name in products for name in value):
        raise ConfigError(at, f"holds an unknown product; known are {known}")
    return tuple(dict.fromkeys(value))


def _unknown_key(known: Collection[str]) -> str:
    if not known:
        return 'this profile checks no expectations; profile = "twilio" does'
    return f"unknown key; known are {', '.join(sorted(known))}"


def _shown(key: object) -> str:
    text = ascii(key) if not isinstance(key, str) or not key.isprintable() else key
    return text[:64]
