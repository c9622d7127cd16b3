"""Every code that is known here, in the order of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from token_keeper.inspection._entries import Entry
from token_keeper.profiles import _codes_http, _codes_twilio

CATALOGUE: Mapping[int | str, Entry] = MappingProxyType(
    {entry.code: entry for entry in (*_codes_twilio.ENTRIES, *_codes_http.ENTRIES)}
)
"""By code. The numbers do not collide: HTTP statuses have three digits,
WebSocket close codes four, Twilio's codes five."""
