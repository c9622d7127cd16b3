"""Whether a token can be handed to a live session: a bad one kills a healthy connection."""

from __future__ import annotations

from token_keeper._secret import Secret
from token_keeper.inspection import Expectations, Profile

LEEWAY_S = 5.0
"""For `nbf` and `iat`, as at the token's receipt; `exp` has none."""


def flaws_of(
    offered: Secret, first: Secret | None, *, profile: Profile, expect: Expectations, wall: float
) -> tuple[str, ...]:
    """Return what speaks against handing *offered* to a session; empty if nothing does.

    Args:
        offered: The token.
        first: The token that the session began with, if there is one: who and what for stay the same.
        profile: Its rules.
        expect: What it must be good for.
        wall: Unix seconds by the issuer's clock.
    """
    inspection = profile.inspect(offered, now=wall, expectations=expect, leeway=LEEWAY_S, exp_leeway=0.0)
    changes = profile.changes(first, offered) if first is not None else ()
    return tuple(finding.message for finding in (*inspection.errors, *changes))
