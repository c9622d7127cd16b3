"""What the words of SDKs for their connection state mean."""

from __future__ import annotations

from collections.abc import Mapping

from token_keeper.supervision._model import Link

_CONNECTING = {
    "connecting",
    "initialising",
    "initializing",
    "reconnecting",
    "registering",
    "resuming",
    "retrying",
}
_CONNECTED = {"connected", "initialised", "initialized", "online", "open", "opened", "ready", "registered"}
_CLOSING = {"closing", "disconnecting"}
_DENIED = {"denied", "forbidden", "rejected", "unauthorised", "unauthorized"}
_ENDED = {
    "closed",
    "destroyed",
    "disconnected",
    "ended",
    "error",
    "failed",
    "offline",
    "suspended",
    "unregistered",
}
_MEANINGS: Mapping[str, Link] = {
    **dict.fromkeys(_CONNECTING, Link.CONNECTING),
    **dict.fromkeys(_CONNECTED, Link.CONNECTED),
    **dict.fromkeys(_CLOSING, Link.CLOSING),
    **dict.fromkeys(_DENIED, Link.DENIED),
    **dict.fromkeys(_ENDED, Link.DISCONNECTED),
}


def link_of(word: str) -> Link | None:
    """Return what an SDK's *word* for its connection state means, or None if it is unknown."""
    return _MEANINGS.get(word.strip().lower())
