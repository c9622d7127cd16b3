"""What a server answers to who wants to log in on another device (RFC 8628 section 3.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from token_keeper._errors import ResponseError
from token_keeper._extract import parse_json
from token_keeper._lifetime import duration
from token_keeper._model import Secret
from token_keeper._shape import shape_of
from token_keeper.sources._answers import Answer
from token_keeper.sources.oauth2._outcomes import Delivery, DeviceAuthorization, DeviceCode, NotGranted
from token_keeper.sources.oauth2._reading import refusal_in

_INTERVAL_S: Final = 5.0
_SHORTEST_INTERVAL_S: Final = 1.0
_LONGEST_INTERVAL_S: Final = 60.0
# Both are shown in a terminal and opened in a browser: nothing else may come through.
_USER_CODE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,62}[\x21-\x7e])?")
_LINK: Final = re.compile(r"https?://[\x21-\x7e]{1,2000}")


def authorization_in(answer: Answer) -> DeviceAuthorization | NotGranted:
    """Return the login that *answer* begins, or why it does not. Raises nothing."""
    document = parse_json(answer.text or "")
    if (refused := refusal_in(answer, document)) is not None:
        return refused
    if not isinstance(document, Mapping):
        return _unfit(f"is {shape_of(document) if document is not None else 'no JSON'}")
    # Google says verification_url.
    place = document.get("verification_uri", document.get("verification_url"))
    complete = document.get("verification_uri_complete")
    device_code, user_code = document.get("device_code"), document.get("user_code")
    expires_in, interval = duration(document.get("expires_in")), duration(document.get("interval"))
    if not isinstance(device_code, str) or not device_code:
        return _unfit("has no device_code")
    if not isinstance(user_code, str) or not _USER_CODE.fullmatch(user_code):
        return _unfit("has no user_code that can be shown")
    if not isinstance(place, str) or not _LINK.fullmatch(place):
        return _unfit("has no verification_uri that can be opened")
    if not expires_in:
        return _unfit("does not say when the code expires")
    code = DeviceCode(
        user_code=user_code,
        verification_uri=place,
        verification_uri_complete=complete if _is_link(complete) else None,
        expires_in=expires_in,
        interval=min(max(interval or _INTERVAL_S, _SHORTEST_INTERVAL_S), _LONGEST_INTERVAL_S),
    )
    return DeviceAuthorization(code=code, device_code=Secret(device_code))


def _is_link(value: object) -> bool:
    return isinstance(value, str) and _LINK.fullmatch(value) is not None


def _unfit(found: str) -> NotGranted:
    problem = ResponseError(
        f"the answer to the device authorization request {found} (RFC 8628 section 3.2); "
        "nothing was changed. Check device_authorization_url"
    )
    return NotGranted(error=problem, delivery=Delivery.LOST)
