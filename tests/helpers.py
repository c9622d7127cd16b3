"""Small makers that several test files share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from token_keeper._errors import FetchError, TransientFetchError
from token_keeper._inputs import Moment
from token_keeper._model import Secret, Token
from token_keeper._policy import RefreshPolicy
from token_keeper.testing._simulation import Outcome, Simulation

T0 = 1_700_000_000.0
MINUTE = 60.0
HOUR = 3_600.0
DAY = 86_400.0

PLAIN = RefreshPolicy(splay=False, jitter_ratio=0.0)
"""Without chance in when a refresh is due: a token of an hour after 48 min."""

_serials = itertools.count(1)


def a_token(
    raw: str | None = None,
    *,
    expires_at: float | None = T0 + HOUR,
    issued_at: float | None = None,
) -> Token:
    """Return a token, unlike any other unless *raw* says which."""
    secret = Secret(raw if raw is not None else f"token-{next(_serials)}")
    return Token(secret=secret, expires_at=expires_at, issued_at=issued_at)


def minting(lifetime_s: float | None = HOUR) -> Iterator[Outcome]:
    """Yield the outcomes of a healthy backend: a new token each time, for ever."""
    return itertools.repeat(mint(lifetime_s))


def mint(lifetime_s: float | None = HOUR) -> Callable[[float], Token]:
    """Return the outcome of one healthy fetch: a new token."""
    return lambda wall: a_token(expires_at=None if lifetime_s is None else wall + lifetime_s)


def backend(
    lifetime_s: float,
    *,
    is_up: Callable[[float], bool],
    error: FetchError | None = None,
) -> Iterator[Outcome]:
    """Yield the outcomes of a backend that fails while *is_up* (of the wall clock) says no."""

    def answer(wall: float) -> Token | FetchError:
        if is_up(wall):
            return a_token(expires_at=wall + lifetime_s)
        return error or TransientFetchError("the backend is down")

    return itertools.repeat(answer)


def caching(lifetime_s: float, *, renews_in_last_s: float) -> Iterator[Outcome]:
    """Yield the outcomes of a backend that returns its cached token until the end of its life."""
    cached: list[Token] = []

    def answer(wall: float) -> Token:
        if not cached or (cached[-1].expires_at or 0.0) - wall <= renews_in_last_s:
            cached.append(a_token(expires_at=wall + lifetime_s))
        return cached[-1]

    return itertools.repeat(answer)


def at(boot: float, *, wall: float | None = None, jitter: float = 1.0, splay: float = 1.0) -> Moment:
    """Return the moment *boot* seconds after T0, for tests that call `step` themselves."""
    return Moment(wall=T0 + boot if wall is None else wall, boot=boot, jitter=jitter, splay=splay)


def starts(sim: Simulation) -> list[float]:
    """Return when the fetches of *sim* started."""
    return [fetch.started for fetch in sim.fetches]


def waits(sim: Simulation) -> list[float]:
    """Return the time between the end of each fetch and the start of the next one."""
    return [after.started - before.ends for before, after in itertools.pairwise(sim.fetches)]
