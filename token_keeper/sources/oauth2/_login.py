"""The device login (RFC 8628): a person approves elsewhere what is asked for here."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from token_keeper._errors import ResponseError, TransientFetchError
from token_keeper._model import Secret
from token_keeper.sources.oauth2._forms import GRANT_TYPES
from token_keeper.sources.oauth2._fresh import Exchange
from token_keeper.sources.oauth2._lineage import Lineage
from token_keeper.sources.oauth2._outcomes import (
    DeviceAuthorization,
    DeviceCode,
    Granted,
    NotGranted,
)
from token_keeper.sources.oauth2._posting import Fields

Show = Callable[[DeviceCode], Awaitable[None] | None]
"""Shows a person the code."""

SLOWER_S: Final = 5.0
"""What `slow_down` adds to the interval (RFC 8628 section 3.5)."""
LEAST_INTERVAL_S: Final = 1.0
_LATER: Final = frozenset({"temporarily_unavailable", "server_error"})


class DeviceEndpoint(Exchange, Protocol):
    """An authorization server, as far as a device login needs it."""

    async def authorize_device(self, fields: Fields) -> DeviceAuthorization | NotGranted:
        """Ask for a code."""
        ...


async def log_in(endpoint: DeviceEndpoint, lineage: Lineage, fields: Fields, show: Show) -> Granted:
    """Have a person log in, and store the grant. What was stored before stays until then.

    Args:
        endpoint: Whom to ask.
        lineage: Where the grant is kept.
        fields: What to ask for: scope and the like.
        show: Shows the code.

    Raises:
        RefusedError: If the person or the server said no.
        TransientFetchError: If the code expired, or the server cannot be reached.
        ResponseError: If the server gave no refresh token.
        StoreError: If the grant cannot be stored.
    """
    # Nobody should log in for a grant that cannot be kept.
    await lineage.check()
    begun = await endpoint.authorize_device(fields)
    if isinstance(begun, NotGranted):
        raise begun.error
    shown = show(begun.code)
    if inspect.isawaitable(shown):
        await shown
    granted = await _approved(endpoint, begun)
    if granted.refresh_token is None:
        raise ResponseError(
            "the server issued no refresh token, so the login would be over with its access token; nothing "
            "was changed. Ask for it: many servers want the scope offline_access"
        )
    await lineage.begin(granted)
    return granted


async def _approved(endpoint: Exchange, begun: DeviceAuthorization) -> Granted:
    """Ask again and again until the person has decided."""
    loop = asyncio.get_running_loop()
    interval = max(begun.code.interval, LEAST_INTERVAL_S)
    ends = loop.time() + begun.code.expires_in
    fields: dict[str, Secret | str] = {
        "grant_type": GRANT_TYPES["device_code"],
        "device_code": begun.device_code,
    }
    while loop.time() + interval < ends:
        await asyncio.sleep(interval)
        outcome = await endpoint.exchange(fields)
        if isinstance(outcome, Granted):
            return outcome
        if outcome.code == "slow_down":
            interval += SLOWER_S
        elif outcome.code == "expired_token":
            break
        elif outcome.code != "authorization_pending":
            if not _may_pass(outcome):
                raise outcome.error
            # RFC 8628 section 3.5: after a failure of the network more slowly.
            interval *= 2
    raise TransientFetchError(
        f"nobody approved within {begun.code.expires_in:.0f} s; nothing was changed. Log in again"
    )


def _may_pass(outcome: NotGranted) -> bool:
    """Whether asking again can help: any other error code ends a login (RFC 8628 section 3.5)."""
    return isinstance(outcome.error, TransientFetchError) and outcome.code in {None, *_LATER}
