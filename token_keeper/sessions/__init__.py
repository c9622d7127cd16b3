"""Live sessions: connections that were given a token and can be given another.

    handle = keeper.attach(session)
    sdk.on("stateChanged", handle.state_changed)

What is done and when is decided in `token_keeper.supervision`; here it is carried out.
"""

from __future__ import annotations

from token_keeper.sessions._connections import Connections
from token_keeper.sessions._events import SessionEvent, SessionSnapshot
from token_keeper.sessions._handle import SessionHandle
from token_keeper.sessions._protocol import Session
from token_keeper.supervision import Link, SessionEventKind

__all__ = [
    "Session",
    "SessionHandle",
    "SessionEvent",
    "SessionEventKind",
    "SessionSnapshot",
    "Link",
    "Connections",
]
