"""What a Twilsock server answers to the requests that clients send through it to Sync and Conversations.

As little as the real SDKs need until they say that they are ready: a user without conversations. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from token_keeper.twilsock import Frame

_CONVERSATIONS: Final = "https://aim.us1.twilio.com/Client/v2"
_SYNC: Final = "https://cds.us1.twilio.com/v3"
_LONG_AGO: Final = "2020-01-01T00:00:00.000Z"
_MAP: Final = re.compile(r"/v3/Maps/([\w.-]+)")
_ITEMS: Final = re.compile(r"/v3/Maps/([\w.-]+)/Items(?:/([\w.-]+))?")
_USER: Final = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a service answers.

    Args:
        code: As of HTTP.
        document: Its body.
    """

    code: int
    document: object

    @property
    def http_status(self) -> Mapping[str, object]:
        """The member of the reply's header."""
        return {"code": self.code, "status": "OK" if self.code == 200 else "NOT_FOUND"}


def respond(frame: Frame, identity: str) -> Answered:
    """Return what a service answers to the request in *frame*, for the user *identity*."""
    request = frame.header.get("http_request")
    members = request if isinstance(request, Mapping) else {}
    document = _document(str(members.get("path", "")), identity)
    if document is None:
        return Answered(code=404, document={"status": 404, "code": 20404, "message": "not found"})
    return Answered(code=200, document=document)


def _document(path: str, identity: str) -> object:
    if path == "/Client/v2/Configuration":
        return _configuration(identity)
    if path == "/Client/v2/MyConversations":
        return {"conversations": [], "meta": {"next_token": None}}
    if path == "/v4/Subscriptions":
        return {"estimated_delivery_in_ms": 60_000, "max_batch_size": 100, "ttl_in_s": 3600}
    if found := _MAP.fullmatch(path):
        return _map(found[1])
    if found := _ITEMS.fullmatch(path):
        return _items(found[1], found[2])
    return None


def _configuration(identity: str) -> object:
    links = ("conversations", "users", "typing", "media_service", "media_set_service", "messages_receipts")
    return {
        "identity": identity,
        "links": {
            "my_conversations": f"{_CONVERSATIONS}/MyConversations",
            "current_user": f"{_CONVERSATIONS}/Users/{identity}",
            **{name: f"{_CONVERSATIONS}/{name}" for name in links},
        },
        "options": {"reachability_enabled": False},
        "sync_objects": {"my_user_info": _USER, "my_conversations": "conversations"},
    }


def _map(name: str) -> object:
    url = f"{_SYNC}/Maps/{name}"
    return {
        "sid": f"MP-{name}",
        "unique_name": name,
        "url": url,
        "links": {"items": f"{url}/Items"},
        "revision": "0",
        "last_event_id": 0,
        "date_updated": _LONG_AGO,
        "date_expires": None,
        "items": [_item(name, key) for key in _keys(name)],
    }


def _items(name: str, key: str | None) -> object:
    if key is not None:
        return _item(name, key) if key in _keys(name) else None
    return {"items": [_item(name, one) for one in _keys(name)], "meta": {"next_token": None}}


def _keys(name: str) -> tuple[str, ...]:
    return ("friendlyName", "attributes") if name == _USER else ()


def _item(name: str, key: str) -> object:
    url = f"{_SYNC}/Maps/{name}/Items/{key}"
    return {
        "key": key,
        "url": url,
        "revision": "0",
        "last_event_id": 0,
        "date_updated": _LONG_AGO,
        "date_expires": None,
        "data": {"value": None},
    }
