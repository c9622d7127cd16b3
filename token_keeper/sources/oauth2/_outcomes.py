"""What can come of one request to a token endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from token_keeper._errors import FetchError
from token_keeper._model import Issued, Secret


class Delivery(Enum):
    """What became of the request, as far as it decides whether a refresh token may be sent again."""

    NEVER_SENT = "never sent"
    """No byte of it left: no address, no connection, no TLS, or the endpoint is not known."""
    ANSWERED = "answered"
    """The server said no, or not now, without acting: 4xx, and 503."""
    LOST = "lost"
    """It may have been acted on: no answer, one that was cut or cannot be read, or another 5xx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The server issued a token.

    Args:
        issued: The access token, and what was said beside it.
        refresh_token: The one to use from now on, if it was said.
        scope: The scope that was granted, if it was said.
    """

    issued: Issued
    refresh_token: Secret | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotGranted:
    """It did not.

    Args:
        error: Why.
        delivery: What became of the request.
        code: The `error` of the answer (RFC 6749 section 5.2, RFC 8628 section 3.5), if there was one.
        refresh_token: The one to use from now on: it may come beside an access token that nobody can read.
    """

    error: FetchError
    delivery: Delivery
    code: str | None = None
    refresh_token: Secret | None = None


Outcome = Granted | NotGranted


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """What a person needs to approve a device login (RFC 8628 section 3.2).

    Args:
        user_code: To be typed in at *verification_uri*.
        verification_uri: Where to go.
        verification_uri_complete: The same with the code in it, if the server gave one.
        expires_in: Seconds until the code is of no use any more.
        interval: Seconds between two questions whether it was approved.
    """

    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str | None = field(default=None, repr=False)
    expires_in: float
    interval: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAuthorization:
    """What the device authorization endpoint answered.

    Args:
        code: What is shown.
        device_code: What is not.
    """

    code: DeviceCode
    device_code: Secret
