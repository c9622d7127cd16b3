"""Where the sidecar of a configuration keeps a grant."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from token_keeper.sidecar.config import Checked
    from token_keeper.store import DirectoryStore


def stored_as(name: str, link: str | None) -> str:
    """Return under which name the grant of the token *name*, or of a *link* of its chain, is kept."""
    return name if link is None else f"{name}.{link}"


def store_of(checked: Checked) -> DirectoryStore:
    """Return the store of a configuration.

    Raises:
        ConfigError: If it cannot be used.
    """
    from token_keeper.sidecar.config import _stores  # noqa: PLC0415 # It needs an extra.

    return _stores.store_of(checked.config.store, os.environ)
