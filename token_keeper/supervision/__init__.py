"""All decisions about one live session, as a pure function: see `_machine.py`."""

from __future__ import annotations

from token_keeper.supervision._flaws import flaws_of
from token_keeper.supervision._inputs import (
    Abandon,
    AskRefresh,
    Attempted,
    CallEnded,
    Detached,
    Effect,
    Effects,
    Input,
    Judged,
    Moment,
    Offered,
    Report,
    ReportAccepted,
    Said,
    SlowDown,
    Start,
    Tell,
    Tick,
    Warned,
)
from token_keeper.supervision._machine import next_wakeup, step
from token_keeper.supervision._model import (
    Call,
    Link,
    Offer,
    Phase,
    Rung,
    SessionEventKind,
    SessionState,
)
from token_keeper.supervision._pace import Pace
from token_keeper.supervision._words import link_of

__all__ = [
    "step",
    "next_wakeup",
    "SessionState",
    "Phase",
    "Link",
    "Rung",
    "Offer",
    "Call",
    "Moment",
    "Input",
    "Start",
    "Offered",
    "Said",
    "Warned",
    "Judged",
    "CallEnded",
    "Tick",
    "Detached",
    "Effect",
    "Effects",
    "Attempted",
    "Abandon",
    "Report",
    "ReportAccepted",
    "SlowDown",
    "AskRefresh",
    "Tell",
    "SessionEventKind",
    "Pace",
    "flaws_of",
    "link_of",
]
