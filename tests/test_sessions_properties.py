"""What holds for an attached session whatever its client does and says, by the real driver and keeper."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from session_peers import HOUR, Recreating, attached, connects, fresh, hangs, lies, raises, returns, run

from token_keeper import TransientFetchError
from token_keeper.supervision import Phase
from token_keeper.testing import ScriptedSource

WORDS = st.sampled_from(["connecting", "connected", "disconnecting", "disconnected", "denied", "nonsense"])
CODES = st.sampled_from([None, 401, 403, 429, 20104, 51207, "invalid_token", "made up"])
NEWS = st.one_of(
    st.tuples(st.just("says"), WORDS, CODES),
    st.tuples(st.just("expired"), st.none(), CODES),
    st.tuples(st.just("warned"), st.none(), st.none()),
    st.tuples(st.just("refreshed"), st.none(), st.none()),
)
HISTORIES = st.lists(st.tuples(st.floats(0, 120), NEWS), max_size=12)
ANSWERS = st.lists(st.sampled_from([connects, returns, raises, hangs, lies]), max_size=8)


async def lived(clock, history, answers):
    """Let a session live through *history*, and then have peace, a good server and new tokens."""
    peer = Recreating(*answers, connects)
    async with attached(clock, peer, ScriptedSource(fresh(clock))) as keeper:
        for pause, (what, word, code) in history:
            await asyncio.sleep(pause)
            match what:
                case "says":
                    peer.handle.state_changed(word, code=code)
                case "expired":
                    peer.handle.expired(code=code)
                case "warned":
                    peer.handle.about_to_expire()
                case "refreshed":
                    await _refreshed(keeper)
        await asyncio.sleep(2 * HOUR)
        return peer, peer.handle.snapshot


async def _refreshed(keeper):
    try:
        await keeper.refresh()
    except TransientFetchError:
        return


# Each example lives for hours of virtual time; 400 of them were run once.
@settings(max_examples=20, deadline=None)
@given(history=HISTORIES, answers=ANSWERS)
def test_it_ends_in_peace_and_was_never_updated_twice_at_once_nor_with_one_string_twice(history, answers):
    peer, end = run(lambda clock: lived(clock, history, answers))

    updates = [token for method, token in peer.calls if method == "update"]
    assert peer.most_updating <= 1
    assert len(set(updates)) == len(updates)
    assert end.phase is Phase.IDLE
