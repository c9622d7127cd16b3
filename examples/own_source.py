"""Tokens from a function of yours: it mints them, or asks an SDK for one.

Run it: SIGNING_KEY=... python own_source.py
"""

import os
import time
import uuid

import jwt

from token_keeper import CallableSource, TokenKeeper


def mint() -> str:
    """Mint a token for another service of ours.

    The function may block: it runs in a thread of its own. It may as well be
    async, and may return the JSON of an SDK's answer. What it raises is a
    failed fetch, and the keeper tries again.
    """
    now = int(time.time())
    claims = {"iss": "worker-7", "aud": "billing", "iat": now, "exp": now + 600, "jti": uuid.uuid4().hex}
    # Read at each fetch, so that a rotated key needs no restart.
    return jwt.encode(claims, os.environ["SIGNING_KEY"], algorithm="HS256")


with TokenKeeper(CallableSource(mint, timeout=5), profile="jwt") as keeper:
    print("generation", keeper.snapshot.generation, "for", round(keeper.snapshot.usable_for), "s")
    keeper.refresh()
    print("generation", keeper.snapshot.generation, "for", round(keeper.snapshot.usable_for), "s")
