"""What the words of SDKs for their connection state mean."""

from __future__ import annotations

from collections.abc import Mapping

from token_keeper.supervision._model import Link

_WORDS: Mapping[Link, frozenset[str]] = {
    Link.CONNECTING: frozenset(
        {"connecting", "reconnecting", "retrying", "registering", "initializing", "initialising", "resuming"}
    ),
    Link.CONNECTED: frozenset(
        {"connected", "open", "opened", "ready", "registered", "initialized", "initialised", "online"}
    ),
    Link.CLOSING: frozenset({"disconnecting", "closing"}),
    Link.DENIED: frozenset({"denied", "unauthorized", "unauthorised", "forbidden", "rejected"}),
    Link.DISCONNECTED: frozenset(
        {
            *("disconnected", "closed", "unregistered", "destroyed", "error", "failed", "offline"),
            *("suspended", "ended"),
        }
    ),
}
_MEANINGS = {word: link for link, words in _WORDS.items() for word in words}


def link_of(word: str) -> Link | None:
    """Return what an SDK's *word* for its connection state means, or None if it is unknown."""
    return _MEANINGS.get(word.strip().lower())
