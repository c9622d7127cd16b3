"""Keeps short-lived access tokens fresh for long-running clients.

    with TokenKeeper(HttpSource("https://backend.example/token")) as keeper:
        call_api(keeper.token)

Everything is imported when it is first used: `import token_keeper` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from token_keeper._blocking import TokenKeeper, TokenReader
    from token_keeper._errors import (
        ConfigError,
        FetchError,
        InvalidToken,
        KeeperClosed,
        RefusedError,
        ResponseError,
        StoreError,
        TokenKeeperError,
        TokenUnavailable,
        TransientFetchError,
    )
    from token_keeper._keeper import AsyncTokenKeeper, AsyncTokenReader
    from token_keeper._model import (
        EventKind,
        Issued,
        Phase,
        Secret,
        Snapshot,
        Status,
        Token,
        TokenEvent,
        Verdict,
    )
    from token_keeper._policy import RefreshPolicy
    from token_keeper.sources import (
        CallableSource,
        ChainSource,
        CommandSource,
        DeviceCode,
        FileSource,
        Granted,
        HttpSource,
        OAuth2Source,
        SignedJwt,
        Source,
    )
    from token_keeper.store import DirectoryStore, MemoryStore

__all__ = [
    "TokenKeeper",
    "AsyncTokenKeeper",
    "TokenReader",
    "AsyncTokenReader",
    "HttpSource",
    "OAuth2Source",
    "CommandSource",
    "FileSource",
    "ChainSource",
    "CallableSource",
    "SignedJwt",
    "DeviceCode",
    "Granted",
    "DirectoryStore",
    "MemoryStore",
    "Source",
    "Issued",
    "Secret",
    "Token",
    "RefreshPolicy",
    "Snapshot",
    "Status",
    "Phase",
    "EventKind",
    "TokenEvent",
    "Verdict",
    "TokenKeeperError",
    "TokenUnavailable",
    "KeeperClosed",
    "ConfigError",
    "InvalidToken",
    "StoreError",
    "FetchError",
    "TransientFetchError",
    "RefusedError",
    "ResponseError",
]

__version__ = "0.1.0"

_HOMES = {
    "TokenKeeper": "_blocking",
    "TokenReader": "_blocking",
    "AsyncTokenKeeper": "_keeper",
    "AsyncTokenReader": "_keeper",
    "RefreshPolicy": "_policy",
    **dict.fromkeys(
        (
            "HttpSource",
            "OAuth2Source",
            "CommandSource",
            "FileSource",
            "ChainSource",
            "CallableSource",
            "SignedJwt",
            "DeviceCode",
            "Granted",
            "Source",
        ),
        "sources",
    ),
    **dict.fromkeys(("DirectoryStore", "MemoryStore"), "store"),
    **dict.fromkeys(
        ("Issued", "Secret", "Token", "Snapshot", "Status", "Phase", "EventKind", "TokenEvent", "Verdict"),
        "_model",
    ),
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "_errors"),
    **dict.fromkeys(("TokenUnavailable", "KeeperClosed", "InvalidToken"), "_errors"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
