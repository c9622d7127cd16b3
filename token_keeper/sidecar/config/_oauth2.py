"""Turns the table of an OAuth 2.0 source into a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from token_keeper._model import Secret
from token_keeper.sidecar.config._assembly import (
    SOMEWHERE,
    Words,
    assembled,
    check_tls_files,
    read_again,
    settle,
    warn_of_secrets,
    words_in,
)
from token_keeper.sidecar.config._lookup import refers
from token_keeper.sidecar.config._notes import At, Notes
from token_keeper.sidecar.config._records import Found, check
from token_keeper.sidecar.config._source_model import OAuth2SourceConfig
from token_keeper.sidecar.config._stores import place_of
from token_keeper.sources import OAuth2Source
from token_keeper.sources.oauth2._words import SECRETS, STORED

_KEYS: Final = tuple(key for key in OAuth2SourceConfig.__struct_fields__ if key != "keep")
_LATE: Final = (*SECRETS, "extra")
"""What `OAuth2Source` takes from functions, so that files are read at each fetch."""
_INSTEAD: Final[Mapping[str, Mapping[str, Any]]] = {
    "token_url": {"token_url": SOMEWHERE},
    "issuer": {"token_url": SOMEWHERE},
    "client_id": {"client_id": "-"},
    "device_authorization_url": {"device_authorization_url": SOMEWHERE},
    "revocation_url": {"revocation_url": SOMEWHERE},
    # What a function returns is not known before the fetch.
    **{key: {key: lambda: Secret("")} for key in SECRETS},
}


@check(OAuth2SourceConfig)
def _oauth2_source(found: Found, at: At, notes: Notes) -> None:
    """Build the source, and note every word that it refuses."""
    words = words_in(found, _KEYS, at, notes)
    if not isinstance(words.read.get("assertion", ""), str | dict):
        notes.wrong((*at, "assertion"), "must be a string, or a table of claims")
        words.read.pop("assertion")
        words.meant.pop("assertion", None)
    check_tls_files(words.meant, at, notes)
    warn_of_secrets({key: words.read[key] for key in _LATE if key in words.read}, at, notes)
    if not found.has("grant", "keep"):
        # What belongs to which grant cannot be told.
        return
    kept = _kept(found, at, notes)
    hidden = {
        key: Secret(value) if key in SECRETS and isinstance(value, str) else value
        for key, value in words.meant.items()
    }
    source = _built(hidden | kept, words, at, notes)
    late = {
        key: read_again(words.read[key], hidden[key], (*at, key), notes.environ)
        for key in _LATE
        if key in hidden and refers(words.read[key], only_files=True)
    }
    if source is not None and late:
        # The first one only said whether what is in the files now can work.
        source = _built(hidden | kept | late, words, at, notes)
    settle(words, tuple(key for key in _KEYS if key not in late), at, notes)
    if source is not None:
        notes.sources[at] = source


def _kept(found: Found, at: At, notes: Notes) -> dict[str, Any]:
    """Return the words for the store, if it is needed."""
    if not found["keep"] and found["grant"] not in STORED:
        return {}
    store, name = place_of(at, notes)
    return {"store": store, "stored_as": name}


def _built(meant: dict[str, Any], words: Words, at: At, notes: Notes) -> OAuth2Source | None:
    complete = Words(words.stated, words.read, meant)
    return assembled(OAuth2Source, complete, at, notes, instead=_INSTEAD)
