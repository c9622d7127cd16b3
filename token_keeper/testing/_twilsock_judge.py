"""What a Twilsock server makes of a token: pure functions for `FakeTwilsock`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal

from token_keeper._model import Secret
from token_keeper.profiles import Inspection, inspect, profile_named
from token_keeper.twilsock import Status

On = Literal["init", "update"]

UNAUTHORIZED: Final = 51215
TOKEN_EXPIRED: Final = 51207
THROTTLED: Final = 51202

# What comes first is looked at first: nobody believes the claims of a token that is not signed.
_CODES: Final[tuple[tuple[int, frozenset[str]], ...]] = (
    (20102, frozenset({"header-typ", "header-alg", "header-cty"})),
    (20103, frozenset({"issuer", "subject", "issuer-subject-swapped"})),
    (20107, frozenset({"signature-invalid"})),
    (
        20104,
        frozenset(
            {"expired", "exp-missing", "exp-not-a-number", "exp-in-milliseconds", "issued-after-expiry"}
        ),
    ),
    (20105, frozenset({"not-yet-valid"})),
    (20157, frozenset({"lifetime-too-long"})),
    (
        20106,
        frozenset(
            {
                *("grants-missing", "grants-malformed", "grants-empty", "grant-missing"),
                *("grant-field-missing", "grant-field-malformed"),
                *("identity-missing", "identity-voice-characters", "region-not-us1"),
            }
        ),
    ),
)
_MALFORMED: Final = 20101


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilsockMessage:
    """A message as it arrived. Its token is shown as a fingerprint.

    Args:
        method: `init`, `update`, `close`, `reply` (to what the server said), `telemetry.v1` ...
        token: Of an `init` or `update`, else None.
        status: With which it was answered; None if it was not.
    """

    method: str
    token: Secret | None = None
    status: Status | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """For whom and what a token was accepted. An update may not change it.

    Args:
        account: SID of the account.
        identity: The user.
        services: SID of the service by product; empty for products without one.
        expires_at: Unix seconds; an update may.
    """

    account: str
    identity: str
    services: Mapping[str, str] = field(default_factory=dict)
    expires_at: float

    def covers(self, other: Bearer) -> bool:
        """Whether a connection of *other* can go on with this one."""
        return (self.account, self.identity) == (other.account, other.identity) and all(
            self.services.get(product) == service for product, service in other.services.items()
        )


def judge(
    token: Secret, *, key: Secret, now: float, products: Sequence[str], before: Bearer | None
) -> tuple[Status, Bearer | None]:
    """Return the answer to *token*, and its bearer if it is accepted.

    Args:
        token: As it was sent.
        key: With which it must be signed.
        now: Unix seconds.
        products: For which it must have a grant.
        before: Who was accepted with the connection's last token, for an update.
    """
    inspection = inspect(token, "twilio", now=now, expectations={"grants": tuple(products)}, secret=key)
    if not inspection.valid:
        return failure(401, _code_for(inspection)), None
    bearer = _bearer_of(inspection)
    if before is not None and not bearer.covers(before):
        return failure(401, UNAUTHORIZED), None
    return Status(code=200, status="OK"), bearer


def failure(status: int, code: int | None = None, description: str = "") -> Status:
    """Return a status with the words that belong to it, if no others are given."""
    entry = profile_named("twilio").entry(code)
    phrase = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else ""
    return Status(
        code=status,
        status=phrase.upper().replace(" ", "_"),
        error_code=code,
        description=description or (entry.title if entry else phrase),
    )


def _code_for(inspection: Inspection) -> int:
    found = {finding.code for finding in inspection.errors}
    known = {finding for _, findings in _CODES for finding in findings}
    if found - known:
        return _MALFORMED
    return next(code for code, findings in _CODES if findings & found)


def _bearer_of(inspection: Inspection) -> Bearer:
    claims = inspection.claims or {}
    grants = claims.get("grants")
    members = grants if isinstance(grants, Mapping) else {}
    return Bearer(
        account=str(claims.get("sub")),
        identity=str(members.get("identity")),
        services={
            product: str(grant.get("service_sid", ""))
            for product, grant in members.items()
            if isinstance(grant, Mapping)
        },
        expires_at=inspection.expires_at or 0.0,
    )
