"""What callers ask of a kept token: the token itself, or the error that says why there is none.

A question answers at once: with the token, with None if it is worth waiting
for the next change, or by raising. How to wait is the matter of `_waiting.py`.
"""

from __future__ import annotations

import copy

from token_keeper._errors import KeeperClosed, TokenUnavailable
from token_keeper._kept import NOT_STARTED, KeptToken
from token_keeper._machine import fetch_due
from token_keeper._model import Phase
from token_keeper._state import NEVER, State


def read(kept: KeptToken, by: str = "") -> str:
    """Return the token that *by* may use now. Raises `TokenUnavailable` or `KeeperClosed`."""
    current = kept.state.usable_by(by, kept.boot())
    if current is None or kept.gone is not None:
        raise _missing(kept, by)
    return current.token.secret.reveal()


def usable(kept: KeptToken, by: str, min_validity: float) -> str | None:
    """Return the token if *by* may use it for *min_validity* seconds, None if it is to wait.

    Raises:
        KeeperClosed: After the end, or before the start.
        TokenUnavailable: If the source's tokens never live that long.
    """
    kept.check_started()
    state, boot = kept.state, kept.boot()
    current = state.usable_by(by, boot)
    if current is None:
        kept.poke()
        return None
    if current.remaining_s(boot) >= min_validity:
        return current.token.secret.reveal()
    fetched = state.sourced and current.generation != kept.supplied_generation
    if fetched and current.lifetime_s < min_validity:
        raise TokenUnavailable(
            f"{kept.name}: no token is valid for {min_validity:.0f} s: the source's live for "
            f"{current.lifetime_s:.0f} s. The current one stays; ask for less, or for longer tokens"
        )
    kept.ask_once(current.generation)
    return None


def first(kept: KeptToken) -> str | None:
    """Return the first token, or None if it is to wait.

    Raises:
        TokenUnavailable: If the backend refuses: waiting would not help.
    """
    raw = usable(kept, "", 0.0)
    if raw is None and kept.state.phase is Phase.REFUSED:
        raise unavailable(kept)
    return raw


def newer(kept: KeptToken, asked: tuple[int, int]) -> str | None:
    """Return the token that came of `kept.ask()`, or None if it is to wait; raise what went wrong."""
    kept.check_alive()
    generation, fetch_id = asked
    state, ended, failure = kept.outcome()
    if state.generation > generation:
        return read(kept)
    if ended < fetch_id or state.settling is not None:
        return None
    if failure is not None:
        # Each waiter raises its own: a raised exception collects the frames of its thread.
        raise copy.copy(failure) from failure.__cause__
    if state.last_error is not None:
        raise unavailable(kept)
    return read(kept)


def unavailable(kept: KeptToken, by: str = "", waited: float = 0.0) -> TokenUnavailable:
    """Return the error that says why *by* has no token, chained to the last failure."""
    state, now = kept.state, kept.moment()
    within = f" within {round(waited, 2):g} s" if waited else ""
    parts = [f"{kept.name}: no usable token{within}: {_story(state, by, now.boot)}"]
    if state.failures:
        times = "once" if state.failures == 1 else f"{state.failures} times in a row"
        parts.append(f"the fetch failed {times}, last because: {state.last_error}")
    due = fetch_due(state, kept.policy)
    if kept.gone is not None:
        if not state.failures:
            parts.append("the first fetch had not ended yet, see whether the backend answers")
        parts.append("so the start failed, and the keeper is closed; start_timeout=0 starts all the same")
    elif state.phase is Phase.FETCHING:
        parts.append("a fetch is under way")
    elif due != NEVER:
        parts.append(f"the next attempt starts in {max(due - now.boot, 0.0):.0f} s")
    elif not state.sourced:
        parts.append("there is no source: hand one in with update()")
    error = TokenUnavailable("; ".join(parts))
    error.__cause__ = kept.last_failure
    return error


def _missing(kept: KeptToken, by: str) -> KeeperClosed | TokenUnavailable:
    if kept.gone is not None:
        return KeeperClosed(kept.gone)
    if not kept.state.started:
        return KeeperClosed(NOT_STARTED)
    # A reader that finds nothing usable wakes the scheduler: it may have slept through a suspend.
    kept.poke()
    return unavailable(kept, by)


def _story(state: State, by: str, boot: float) -> str:
    current = state.current
    if current is None:
        return "there has been none yet"
    if by in current.withheld:
        return f"generation {current.generation} was denied"
    if boot >= current.expires:
        return f"generation {current.generation} expired {boot - current.expires:.0f} s ago"
    return f"generation {current.generation} is valid for {current.remaining_s(boot):.0f} s"
