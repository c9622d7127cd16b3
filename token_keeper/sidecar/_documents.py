"""The JSON documents of the API, as plain values. Only the token's answer holds a secret."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from token_keeper._inputs import Moment
from token_keeper._model import Status, TokenEvent
from token_keeper._state import Current
from token_keeper._view import snapshot_of
from token_keeper.sidecar._served import ServedToken


class WrittenSink(Protocol):
    """What is shown of a sink."""

    @property
    def path(self) -> str:
        """The file."""
        ...

    @property
    def generation(self) -> int:
        """The last one that was written; 0 if none was."""
        ...

    @property
    def error(self) -> str | None:
        """Why the last write failed, until one succeeds."""
        ...


def token_answer(served: ServedToken, start: str, by: str = "") -> dict[str, Any] | None:
    """Return the answer of `GET /v1/tokens/NAME` to the reporter *by*, or None if none is usable."""
    now, state = served.kept.moment(), served.kept.state
    current = state.usable_by(by, now.boot)
    if current is None or served.kept.gone is not None:
        return None
    expires_at = snapshot_of(state, now, served.kept.policy).expires_at
    return {
        "token": current.token.secret.reveal(),
        "token_type": "Bearer",
        "expires_at": expires_at,
        "expires_in": _whole_seconds(current, now),
        "generation": current.generation,
        "start": start,
        "status": Status.STALE if now.boot >= current.stale else Status.FRESH,
    }


def token_row(served: ServedToken, sinks: Sequence[WrittenSink] = ()) -> dict[str, Any]:
    """Return how a token stands, without secrets: a row of `GET /v1/tokens`."""
    now, state = served.kept.moment(), served.kept.state
    snapshot = snapshot_of(state, now, served.kept.policy)
    return {
        "name": served.name,
        "profile": served.profile.name,
        "status": snapshot.status,
        "phase": snapshot.phase,
        "generation": snapshot.generation,
        "fingerprint": snapshot.fingerprint,
        "issued_at": snapshot.issued_at,
        "expires_at": snapshot.expires_at,
        "expires_in": _whole_seconds(state.current, now) if state.current else None,
        "stale_at": snapshot.stale_at,
        "refresh_at": snapshot.refresh_at,
        "next_attempt_at": snapshot.next_attempt_at,
        "failures": snapshot.failures,
        "unchanged": snapshot.unchanged,
        "last_error": snapshot.last_error,
        # Without a known expiry there is no end to it, and JSON has no infinity.
        "usable_for": snapshot.usable_for if math.isfinite(snapshot.usable_for) else None,
        "attempts_left": snapshot.attempts_left,
        "denied_by": snapshot.denied_by,
        "source": snapshot.source,
        "sinks": [{"path": sink.path, "generation": sink.generation, "error": sink.error} for sink in sinks],
    }


def event_document(event: TokenEvent) -> dict[str, Any]:
    """Return the members of *event*."""
    return {
        "kind": event.kind,
        "name": event.name,
        "at": event.at,
        "generation": event.generation,
        "fingerprint": event.fingerprint,
        "expires_at": event.expires_at,
        "failures": event.failures,
        "error": event.error,
        "verdict": event.verdict,
        "diagnosis": event.diagnosis,
    }


def _whole_seconds(current: Current, now: Moment) -> int | None:
    remaining = current.remaining_s(now.boot)
    return math.floor(remaining) if math.isfinite(remaining) else None
