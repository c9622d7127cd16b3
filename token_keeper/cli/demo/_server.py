"""The demo's chat server: it checks tokens as the vendor's would, and may revoke one.

It knows the secret of the API key and the time, and nothing of the keeper.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass

from token_keeper._model import fingerprint_of

KEY_SECRET = "what the demo's backend signs with, and its server verifies"
API_KEY_SID = "SK" + "0d" * 16
ACCOUNT_SID = "AC" + "0d" * 16
SERVICE_SID = "IS" + "0d" * 16
CONTENT_TYPE = "twilio-fpa;v=1"

REVOKED = 51215


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the server does not accept a token: one of the vendor's codes, and its words."""

    code: int
    reason: str


class ChatServer:
    """Accepts tokens of one account that are signed, current, good for chat, and not revoked."""

    def __init__(self) -> None:
        self._revoked: set[str] = set()

    def revoke(self, fingerprint: str) -> None:
        """Accept the token with this *fingerprint* no more."""
        self._revoked.add(fingerprint)

    def check(self, token: str, *, now: float) -> Refusal | None:
        """Return why *token* is refused at *now* (Unix seconds), or None if it is accepted."""
        signed, _, signature = token.rpartition(".")
        expected = hmac.digest(KEY_SECRET.encode(), signed.encode(), hashlib.sha256)
        if not hmac.compare_digest(signature.encode(), base64.urlsafe_b64encode(expected).rstrip(b"=")):
            return Refusal(20107, "the signature does not match")
        # Whoever knows the secret wrote it: it can be read without fear.
        header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
        grants = claims.get("grants", {})
        if (header.get("typ"), header.get("cty")) != ("JWT", CONTENT_TYPE):
            return Refusal(20102, "the header is not that of an Access Token")
        if (claims.get("iss"), claims.get("sub")) != (API_KEY_SID, ACCOUNT_SID):
            return Refusal(20103, "it is of another account")
        if now >= claims["exp"]:
            return Refusal(20104, f"expired {now - claims['exp']:.1f} s ago")
        if claims["nbf"] > now:
            return Refusal(20105, "not yet valid")
        if not grants.get("identity") or grants.get("chat") != {"service_sid": SERVICE_SID}:
            return Refusal(20106, "no grant for this chat service")
        if fingerprint_of(token) in self._revoked:
            return Refusal(REVOKED, "revoked")
        return None


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
