"""Values that may be anything, compared as they would be sent."""

from __future__ import annotations

import json
from typing import Any


class Exact:
    """A value of JSON that equals only what is sent alike: to Python ``1``, ``1.0`` and ``true`` are one.

    It does not show what it holds.
    """

    __slots__ = ("_canonical", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._canonical = json.dumps(value, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Exact):
            return NotImplemented
        return self._canonical == other._canonical

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __repr__(self) -> str:
        return "<Exact>"
