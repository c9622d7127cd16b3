"""JWTs for tests: made without a library, the same every time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

KEY = "a key for tests only, of 32 bytes or more"
"""Signs what `mint` makes, unless another key is given."""


def mint(
    *,
    expires_at: float | None = None,
    key: str = KEY,
    headers: Mapping[str, object] | None = None,
    **claims: object,
) -> str:
    """Return a JWT, signed with HS256. The same arguments give the same token.

        mint(expires_at=clock.wall() + 3600, jti="1")

    Args:
        expires_at: The claim `exp`, in Unix seconds, without its fraction. None leaves it out.
        key: Signs the token.
        headers: Added to the header, over `typ` and `alg`.
        **claims: The claims. `exp` here wins over *expires_at* and may be nonsense.
    """
    payload = ({} if expires_at is None else {"exp": int(expires_at)}) | claims
    signed = f"{_part({'typ': 'JWT', 'alg': 'HS256', **(headers or {})})}.{_part(payload)}"
    signature = hmac.digest(key.encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{_base64url(signature)}"


def _part(members: Mapping[str, object]) -> str:
    return _base64url(json.dumps(members, separators=(",", ":")).encode())


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
