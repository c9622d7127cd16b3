"""Inspection: what a value is, whether it can work, and why a server refused it. Knows no vendor."""

from __future__ import annotations

from token_keeper.inspection._expect import Expectations
from token_keeper.inspection._findings import error, info, number, shown, warning
from token_keeper.inspection._profile import Context, Inspection, Key, Profile, Rule
from token_keeper.inspection._reading import Reading

__all__ = [
    "Context",
    "Expectations",
    "Inspection",
    "Key",
    "Profile",
    "Reading",
    "Rule",
    "error",
    "info",
    "number",
    "shown",
    "warning",
]
