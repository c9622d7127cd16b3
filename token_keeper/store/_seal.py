"""How a record is sealed, and what a key looks like.

Fernet of `cryptography` (AES-128-CBC, then HMAC-SHA256 over all of it): a published format with
implementations in many languages, so a record can be opened without us; several keys at once, so keys
can be replaced; and no nonce that must never come twice, which a restored backup would break.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from token_keeper._errors import ConfigError

KEY_BYTES: Final = 32
MAKES_ONE: Final = "openssl rand -base64 32"
"""The command that makes a key."""
EXPECTED: Final = f"a key is 32 bytes in base64 on a line of its own, as `{MAKES_ONE}` prints it"

_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?", re.ASCII)


class Seal:
    """Seals with the first key, opens with any.

    Args:
        text: One key on each line. Empty lines, and those that start with #, do not count.
        origin: What messages call the keys.

    Raises:
        ValueError: If there is no key in it, or something else.
    """

    __slots__ = ("_keys", "origin")

    def __init__(self, text: str, origin: str) -> None:
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - Only who seals has it.

        self.origin = origin
        self._keys = MultiFernet([Fernet(key) for key in _keys_in(text)])

    def sealed(self, content: bytes) -> str:
        """Return *content* so that nobody without a key can read or change it."""
        return self._keys.encrypt(content).decode("ascii")

    def opened(self, text: str) -> bytes | None:
        """Return what was sealed, or None if none of the keys did it."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - As above.

        try:
            return self._keys.decrypt(text)
        except (InvalidToken, ValueError):
            return None


def needs(word: str, packages: Sequence[str]) -> None:
    """Check that *packages* are there, which the setting *word* needs.

    Raises:
        ConfigError: If one is not.
    """
    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(word, f"needs the package {package}: pip install 'token-keeper[store]'")


def _keys_in(text: str) -> list[bytes]:
    """Return the keys as Fernet takes them. Raises ValueError, whose frames are the caller's to drop."""
    lines = [line.strip() for line in text.splitlines()]
    keys = [_key(line) for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError
    return keys


def _key(line: str) -> bytes:
    if not _BASE64.fullmatch(line):
        raise ValueError
    try:
        raw = base64.b64decode(line.rstrip("=").replace("-", "+").replace("_", "/") + "=", validate=True)
    except binascii.Error:
        raise ValueError from None
    return base64.urlsafe_b64encode(raw)
