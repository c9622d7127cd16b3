"""What you need to test a program that keeps tokens: time, backends and sources that obey.

Nothing here is for production; all of it is public and stable.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from token_keeper.testing._backend import FakeBackend
    from token_keeper.testing._backend_faults import BackendFault
    from token_keeper.testing._backend_wire import ReceivedRequest
    from token_keeper.testing._clock import VirtualClock
    from token_keeper.testing._loop import VirtualLoop, run_virtual
    from token_keeper.testing._mint import mint
    from token_keeper.testing._simulation import Simulation
    from token_keeper.testing._source import FetchCall, ScriptedSource
    from token_keeper.testing._twilsock import FakeTwilsock
    from token_keeper.testing._twilsock_hub import TwilsockFault
    from token_keeper.testing._twilsock_judge import TwilsockMessage

__all__ = [
    "VirtualClock",
    "VirtualLoop",
    "run_virtual",
    "mint",
    "ScriptedSource",
    "FetchCall",
    "FakeBackend",
    "BackendFault",
    "ReceivedRequest",
    "FakeTwilsock",
    "TwilsockFault",
    "TwilsockMessage",
    "Simulation",
]

_HOMES = {
    "VirtualClock": "_clock",
    "VirtualLoop": "_loop",
    "run_virtual": "_loop",
    "mint": "_mint",
    "ScriptedSource": "_source",
    "FetchCall": "_source",
    "FakeBackend": "_backend",
    "BackendFault": "_backend_faults",
    "ReceivedRequest": "_backend_wire",
    "FakeTwilsock": "_twilsock",
    "TwilsockFault": "_twilsock_hub",
    "TwilsockMessage": "_twilsock_judge",
    "Simulation": "_simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
