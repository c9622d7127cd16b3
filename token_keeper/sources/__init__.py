"""Where tokens come from. All but HTTP backends and callables is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from token_keeper.sources._callable import CallableSource
from token_keeper.sources._http import HttpSource
from token_keeper.sources._source import Retiring, Source, Watched

if TYPE_CHECKING:
    from token_keeper.sources._chain import ChainSource
    from token_keeper.sources._command import CommandSource
    from token_keeper.sources._file import FileSource
    from token_keeper.sources._signing import SignedJwt
    from token_keeper.sources.oauth2 import DeviceCode, Granted, OAuth2Source

__all__ = [
    "HttpSource",
    "CallableSource",
    "OAuth2Source",
    "DeviceCode",
    "Granted",
    "SignedJwt",
    "CommandSource",
    "FileSource",
    "ChainSource",
    "Source",
    "Watched",
    "Retiring",
]

_HOMES = {
    "OAuth2Source": "oauth2",
    "DeviceCode": "oauth2",
    "Granted": "oauth2",
    "SignedJwt": "_signing",
    "CommandSource": "_command",
    "FileSource": "_file",
    "ChainSource": "_chain",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - As late as what it imports.

    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
