"""What can come of one request to a token endpoint."""

from __future__ import annotations

from dataclasses import dataclass
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
    """

    error: FetchError
    delivery: Delivery
    code: str | None = None


Outcome = Granted | NotGranted
