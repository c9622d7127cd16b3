"""The messages that are exchanged about a token, as frames. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from token_keeper.twilsock._frames import Status, encode

CAPABILITIES: Final = ("client_update",)
"""What a client of ours understands: that the server says when the token is about to expire."""

OK: Final = Status(code=200, status="OK")


def init(
    message_id: str,
    token: str,
    *,
    metadata: Mapping[str, object],
    capabilities: Sequence[str] = CAPABILITIES,
) -> bytes:
    """Ask to be let in with *token*. The first message of a connection, by the client."""
    return encode(
        {
            "method": "init",
            "id": message_id,
            "token": token,
            "continuation_token": None,
            "metadata": dict(metadata),
            "registrations": None,
            "tweaks": None,
            "capabilities": list(capabilities),
        }
    )


def reply(to: str, status: Status = OK, *, payload: object = None, **members: object) -> bytes:
    """Answer the message *to*, with further *members* of the header."""
    return encode({"method": "reply", "id": to, "status": status.as_member(), **members}, payload)


def about_to_expire(message_id: str) -> bytes:
    """Tell a client that its token is about to expire."""
    return encode(
        {"method": "client_update", "id": message_id, "client_update_type": "token_about_to_expire"}
    )


def close(message_id: str, status: Status | None = None) -> bytes:
    """Say goodbye, and why; a client gives no reason."""
    reason = {} if status is None else {"status": status.as_member()}
    return encode({"method": "close", "id": message_id, **reason})
