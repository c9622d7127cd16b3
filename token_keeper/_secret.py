"""The type of strings that must not be shown, and the form in which they are named."""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn


class Secret:
    """A string that shows itself only to `reveal()`.

    Printed or formatted it is its fingerprint; it cannot be pickled.
    """

    __slots__ = ("_value", "fingerprint")

    fingerprint: str
    """First 8 hex digits of the SHA-256 of the value."""

    def __init__(self, value: str) -> None:
        self._value = value
        self.fingerprint = fingerprint_of(value)

    def reveal(self) -> str:
        """Return the string itself."""
        return self._value

    def __repr__(self) -> str:
        return f"<secret {self.fingerprint}>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self._value), _bytes(other._value))

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied to another process")


def fingerprint_of(value: str) -> str:
    """Return the first 8 hex digits of the SHA-256 of *value*."""
    return hashlib.sha256(_bytes(value)).hexdigest()[:8]


def _bytes(value: str) -> bytes:
    # Lone surrogates have no UTF-8 form, and a token may be any text.
    return value.encode("utf-8", "surrogatepass")
