"""Profiles: what is known of kinds of tokens, and of the codes with which servers refuse them.

The catalogue of codes is imported when it is first used: inspection alone needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from token_keeper._finding import DenialClass, Finding, Severity
from token_keeper.inspection import (
    Context,
    Expectations,
    Inspection,
    Key,
    Profile,
    Rule,
    error,
    info,
    number,
    shown,
    warning,
)
from token_keeper.profiles._names import inspect, profile_named

if TYPE_CHECKING:
    from token_keeper.inspection._entries import Cause, Entry
    from token_keeper.inspection._judge import Certainty, JudgedCause
    from token_keeper.profiles._catalogue import CATALOGUE
    from token_keeper.profiles._explain import Explanation, explain

__all__ = [
    "CATALOGUE",
    "Cause",
    "Certainty",
    "Context",
    "DenialClass",
    "Entry",
    "Expectations",
    "Explanation",
    "Finding",
    "Inspection",
    "JudgedCause",
    "Key",
    "Profile",
    "Rule",
    "Severity",
    "error",
    "explain",
    "info",
    "inspect",
    "number",
    "profile_named",
    "shown",
    "warning",
]

_LATER = {
    "CATALOGUE": "token_keeper.profiles._catalogue",
    "Cause": "token_keeper.inspection._entries",
    "Certainty": "token_keeper.inspection._judge",
    "Entry": "token_keeper.inspection._entries",
    "Explanation": "token_keeper.profiles._explain",
    "JudgedCause": "token_keeper.inspection._judge",
    "explain": "token_keeper.profiles._explain",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
