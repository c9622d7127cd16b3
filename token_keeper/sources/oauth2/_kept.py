"""What an OAuth 2.0 source does with a store: keep its grant there, and give it back at the end."""

from __future__ import annotations

import functools
from dataclasses import replace

from token_keeper._errors import FetchError
from token_keeper._threads import in_thread
from token_keeper.logs import keeper_logger
from token_keeper.sources.oauth2._endpoint import TokenEndpoint
from token_keeper.sources.oauth2._forms import Forms
from token_keeper.sources.oauth2._fresh import FreshGrant
from token_keeper.sources.oauth2._lineage import Lineage
from token_keeper.sources.oauth2._rotating import RotatingGrant
from token_keeper.sources.oauth2._rotation import ReplayRule, Terms
from token_keeper.sources.oauth2._words import STORED, Words
from token_keeper.store import Slot

_NEEDS = {
    "refresh_token": "set refresh_token to that of a new login",
    "device_code": "run token-keeper login, or call OAuth2Source.login",
}


def lineage_of(words: Words, slot: Slot, endpoint: TokenEndpoint, forms: Forms) -> Lineage:
    """Return the grant of *words* as it is kept in *slot*."""
    terms = Terms(owner=endpoint.owner, asked=forms.digest)
    log = keeper_logger(name=words.stored_as)
    renewal: FreshGrant | RotatingGrant
    if words.grant in STORED:
        renewal = RotatingGrant(
            endpoint,
            terms=terms,
            seed=forms.configured,
            extra=forms.beside_refresh,
            rule=ReplayRule(window_s=words.replay_window, limit=words.replay_limit),
            needs=_NEEDS[words.grant],
            log=log,
        )
    else:
        fields = functools.partial(forms.initial, endpoint)
        renewal = FreshGrant(endpoint, terms=terms, fields=fields, log=log)
    return Lineage(slot=slot, terms=terms, renewal=renewal)


async def give_back(endpoint: TokenEndpoint, slot: Slot, kind: str) -> FetchError | None:
    """Revoke the stored token of *kind* and forget it; return why that failed, or None.

    Nothing is done while somebody else renews the grant: it is in use.

    Raises:
        StoreError: If the store cannot be read or written.
    """
    lease = await in_thread(slot.try_lease)
    if lease is None:
        return None
    try:
        record = await in_thread(lease.read)
        if record is None or record.owner != endpoint.owner:
            return None
        token = record.refresh_token if kind == "refresh_token" else record.access_token
        problem = await endpoint.revoke(token, kind) if token is not None else None
        if problem is None and (kind == "refresh_token" or record.refresh_token is None):
            await in_thread(lease.remove)
        elif problem is None and token is not None:
            # Or the next start would take it for one that still serves.
            await in_thread(
                lease.write, replace(record, access_token=None, received_at=None, expires_at=None)
            )
        return problem
    finally:
        await in_thread(lease.release)
