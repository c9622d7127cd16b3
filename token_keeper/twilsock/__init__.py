"""Twilsock, the protocol between Twilio and its chat SDKs: as much of it as it takes to ask about a token.

Importing this needs no further package; `probe` needs the extra `[twilio]`.
"""

from __future__ import annotations

from token_keeper.twilsock._frames import Frame, Status, decode, encode
from token_keeper.twilsock._messages import about_to_expire, close, init, reply
from token_keeper.twilsock._probe import ProbeResult, check_installed, probe
from token_keeper.twilsock._url import endpoint_of

__all__ = [
    "probe",
    "ProbeResult",
    "check_installed",
    "endpoint_of",
    "Frame",
    "Status",
    "encode",
    "decode",
    "init",
    "close",
    "reply",
    "about_to_expire",
]
