"""What is said of a token: findings, and the classes of refusals."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DenialClass(StrEnum):
    """What a code means, whoever the vendor. Profiles map codes to these."""

    DENIED = "denied"
    THROTTLED = "throttled"
    FORBIDDEN = "forbidden"
    CONFIG = "config"


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """The token will be refused."""
    WARNING = "warning"
    """It works, but is unwise."""
    INFO = "info"
    """It could not be checked here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that inspection has to say of a token.

    Args:
        code: A stable name that scripts may rely on.
        severity: Whether the token will be refused for it.
        message: What was found, without the token.
        hint: What to do about it.
    """

    code: str
    severity: Severity
    message: str
    hint: str = ""
