"""Reads what a server's certificate says of itself, and what is wrong with it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SOON_DAYS: Final = 14.0
"""A certificate that expires sooner is worth a warning."""
_DAY_S: Final = 86_400.0
_SHOWN: Final = 64

_EXPIRED: Final = 10
_NO_ISSUER: Final = (
    "is not signed by an authority that this machine trusts",
    "Give --ca-file for a private authority; for a public one let the server send its whole chain.",
)
_WRONG_HOST: Final = (
    "is for another host",
    "Use a name in the URL that the certificate is for, or get a certificate for this one.",
)
_UNKNOWN: Final = (
    "is not accepted",
    "Look at the chain that the server sends: openssl s_client -showcerts -connect HOST:PORT.",
)
# The codes are X509_V_ERR_* of OpenSSL.
VERDICTS: Final = {
    9: ("is not valid yet", "Compare the clocks of this machine and of whoever issued it."),
    _EXPIRED: (
        "has expired",
        "Renew the backend's certificate. If it is new, set the clock of this machine.",
    ),
    18: _NO_ISSUER,
    19: _NO_ISSUER,
    20: _NO_ISSUER,
    21: _NO_ISSUER,
    62: _WRONG_HOST,
    64: _WRONG_HOST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate says of itself.

    Args:
        issuer: Who signed it.
        expires_at: Unix seconds.
        names: The hosts that it is for.
    """

    issuer: str
    expires_at: float
    names: tuple[str, ...]

    def days_left(self, now: float) -> float:
        """Return for how many days it is valid; negative once it has expired."""
        return (self.expires_at - now) / _DAY_S

    def as_dict(self, now: float) -> dict[str, object]:
        """Return the form that programs read."""
        return {
            "issuer": self.issuer,
            "expires_at": self.expires_at,
            "expires_in_days": round(self.days_left(now), 1),
            "names": list(self.names),
        }


def certificate_of(peer: Mapping[str, Any] | None) -> Certificate | None:
    """Return what `getpeercert()` said, or None if it said nothing."""
    if not peer or "notAfter" not in peer:
        return None
    issuer = {key: value for part in peer.get("issuer", ()) for key, value in part}
    name = issuer.get("organizationName") or issuer.get("commonName") or "somebody without a name"
    return Certificate(
        issuer=str(name)[:_SHOWN],
        expires_at=float(ssl.cert_time_to_seconds(peer["notAfter"])),
        names=tuple(str(value)[:_SHOWN] for _, value in peer.get("subjectAltName", ())),
    )


def verdict(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    """Return what is wrong with a certificate, and the remedy."""
    return VERDICTS.get(error.verify_code, _UNKNOWN)
