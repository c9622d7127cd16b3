"""Tokens for tests: minted by Twilio's own helper library, or forged by hand where it cannot."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
from twilio.jwt.access_token import AccessToken
from twilio.jwt.access_token.grants import ChatGrant, SyncGrant, VideoGrant, VoiceGrant

NOW = 1_800_000_000
ACCOUNT = "AC" + "a1" * 16
KEY = "SK" + "b2" * 16
SERVICE = "IS" + "c3" * 16
APPLICATION = "AP" + "d4" * 16
SECRET = "CanarySecretCanarySecretCanary01"
AUTH_TOKEN = "0123456789abcdef" * 2

CHAT = ChatGrant(service_sid=SERVICE)
SYNC = SyncGrant(service_sid=SERVICE)
VOICE = VoiceGrant(outgoing_application_sid=APPLICATION)
VIDEO = VideoGrant(room="lobby")


def minted(*grants: Any, **options: Any) -> str:
    """Let Twilio's helper mint a token that is valid for an hour from `NOW`."""
    settings = {
        "account_sid": ACCOUNT,
        "signing_key_sid": KEY,
        "secret": SECRET,
        "identity": "alice",
        "nbf": NOW,
        "valid_until": NOW + 3600,
        **options,
    }
    return str(AccessToken(grants=list(grants or (CHAT,)), **settings).to_jwt())


def without_grants(**options: Any) -> str:
    """Let Twilio's helper mint a token to which nobody added a grant."""
    token = AccessToken(
        ACCOUNT, KEY, SECRET, **{"identity": "alice", "nbf": NOW, "valid_until": NOW + 3600, **options}
    )
    return str(token.to_jwt())


def forged(
    header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None, *, without: str = ""
) -> str:
    """Sign what no helper would mint: a good token's parts with *header* and *claims* changed."""
    good = minted()
    head = {**jwt.get_unverified_header(good), **(header or {})}
    body = {**jwt.decode(good, options={"verify_signature": False}), **(claims or {})}
    head.pop(without, None)
    body.pop(without, None)
    return signed(json.dumps(head).encode(), json.dumps(body).encode())


def granting(**grants: Any) -> str:
    """Forge a token with exactly these `grants`."""
    return forged(claims={"grants": grants})


def signed(header: bytes, payload: bytes) -> str:
    """Sign any bytes as if they were a header and a payload."""
    signing_input = b".".join((base64url(header), base64url(payload)))
    algorithm = jwt.get_algorithm_by_name("HS256")
    signature = algorithm.sign(signing_input, algorithm.prepare_key(SECRET))
    return (signing_input + b"." + base64url(signature)).decode()


def base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def altered(token: str) -> str:
    """Change the first character of the signature."""
    signing_input, _, signature = token.rpartition(".")
    return f"{signing_input}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
