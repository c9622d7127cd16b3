"""Served tokens whose source costs virtual time only."""

from __future__ import annotations

import asyncio
from collections import Counter

from token_keeper._clock import Clock
from token_keeper._model import Issued, Secret, TokenEvent
from token_keeper._policy import DEFAULT_POLICY
from token_keeper.inspection import Expectations
from token_keeper.profiles import profile_named
from token_keeper.sidecar._served import ServedToken, TokenParts
from token_keeper.sidecar.config._model import HttpSourceConfig, TokenConfig

FETCH_S = 0.05


class Quiet:
    """A logger that drops everything."""

    def bind(self, **_: object) -> Quiet:
        return self

    def debug(self, *_: object, **__: object) -> None: ...

    info = warning = error = debug


class Minting:
    """A source of opaque tokens, each unlike all before. It answers after 50 ms."""

    origin = "http://backend.example"
    splay = True

    def __init__(self, name: str, lifetime_s: float) -> None:
        self._name = name
        self._lifetime_s = lifetime_s
        self._count = 0

    async def fetch(self, *, tries: int) -> Issued:
        del tries
        await asyncio.sleep(FETCH_S)
        self._count += 1
        return Issued(secret=Secret(f"{self._name}-{self._count}"), expires_in=self._lifetime_s)

    async def aclose(self) -> None: ...


def opened(name: str, lifetime_s: float, clock: Clock, seen: Counter[str]) -> ServedToken:
    """Return a served token that counts its events in *seen*."""
    parts = TokenParts(
        name=name,
        config=TokenConfig(source=HttpSourceConfig(url=Minting.origin)),
        source=Minting(name, lifetime_s),
        policy=DEFAULT_POLICY,
        profile=profile_named("opaque"),
        expect=Expectations(),
    )
    served = ServedToken(parts, clock=clock, logger=Quiet())

    def count(event: TokenEvent) -> None:
        seen[str(event.kind)] += 1

    served.on()(count)
    return served
