"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

from typing import Any

from token_keeper.sidecar.config._model import Config
from token_keeper.sidecar.config._shapes import shape_of


def schema() -> dict[str, Any]:
    """Return what a configuration may look like, as JSON Schema 2020-12."""
    definitions: dict[str, Any] = {}
    whole = shape_of(Config).schema(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of token-keeper",
        **whole,
        "$defs": definitions,
    }
