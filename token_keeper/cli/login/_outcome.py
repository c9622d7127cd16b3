"""What came of a login: for people in a line, for programs in a document."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from token_keeper._errors import ResponseError
from token_keeper._receive import receive
from token_keeper.cli._output import printable, span
from token_keeper.cli.login._display import LONGEST
from token_keeper.cli.login._target import Target
from token_keeper.cli.login._telling import Told
from token_keeper.profiles import profile_named

if TYPE_CHECKING:
    from token_keeper.sources.oauth2._outcomes import Granted


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A login that worked. Holds no secret.

    Args:
        target: Who logged in where.
        scope: What the server granted, if it said so.
        received_at: Unix seconds.
        expires_at: When the access token expires, if that is known.
    """

    target: Target
    scope: str | None
    received_at: float
    expires_at: float | None


def outcome_of(target: Target, granted: Granted) -> Outcome:
    """Return what may be said of *granted*."""
    now = time.time()
    try:
        token = receive(granted.issued, profile=profile_named("auto"), expect=None, wall=now, key=None).token
        expires_at = token.expires_at
    except ResponseError:
        # Whether it will do is the keeper's to say.
        expires_at = None
    return Outcome(target=target, scope=granted.scope, received_at=now, expires_at=expires_at)


def as_line(outcome: Outcome) -> str:
    """Return the line that people read."""
    target = outcome.target
    scope = f"granted: {printable(outcome.scope[:LONGEST])}; " if outcome.scope else ""
    if outcome.expires_at is None:
        end = "the access token does not say when it expires"
    else:
        end = f"the access token expires in {span(outcome.expires_at - outcome.received_at)}"
    return f"logged in for {target.name}: the grant is kept in {printable(target.place)}; {scope}{end}"


def as_document(outcome: Outcome, sidecar: Told) -> dict[str, Any]:
    """Return the form that programs read."""
    target, end = outcome.target, outcome.expires_at
    return {
        "name": target.name,
        "link": target.link,
        "stored_in": target.place,
        "scope": outcome.scope,
        "expires_at": end,
        "expires_in": None if end is None else int(end - outcome.received_at),
        "sidecar": {
            "socket": sidecar.socket,
            "running": sidecar.is_there,
            "refreshed": sidecar.has_token,
            "generation": sidecar.generation,
            "message": sidecar.text,
        },
    }
