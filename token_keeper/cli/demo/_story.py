"""The script of the demo: which scenes there are, and what goes wrong in them.

The moments are chosen by what happens, not by the clock: an outage begins just
after a refresh, so that a token of 12 s lasts longer than an outage of 8 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from token_keeper._model import EventKind

if TYPE_CHECKING:
    from token_keeper.cli.demo._stage import Stage

RETRY_AFTER_S = 2
REPEATED = "sameTokenReturned"
"""Told when the backend answered with the token that it had issued last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the demo goes. Lengths are seconds.

    Args:
        lifetime_s: Of a token.
        outage_s: Less than a token lives.
        request_interval_s: Between the client's requests.
        lull_s: Before and after something sudden, so that it can be seen.
        calm_refreshes: Undisturbed refreshes at the beginning and at the end.
        min_interval_s: As in `RefreshPolicy`.
    """

    lifetime_s: float = 12.0
    outage_s: float = 8.0
    request_interval_s: float = 1.0
    lull_s: float = 2.5
    calm_refreshes: int = 2
    min_interval_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A part of the demo.

    Args:
        title: What is the matter.
        caption: What the keeper does about it.
        play: Makes it so, and returns when the scene is over.
    """

    title: str
    caption: str
    play: Callable[[Stage], Awaitable[None]]


def script(pace: Pace) -> tuple[Scene, ...]:
    """Return the scenes, in order."""
    return (
        Scene(
            title="all is well",
            caption="Half-way through a token's life the keeper fetches the next one.",
            play=_calm,
        ),
        Scene(
            title=f"the backend is down for {pace.outage_s:g} s",
            caption="The keeper serves the valid token and tries again.",
            play=_outage,
        ),
        Scene(
            title="the backend is overloaded, then broken",
            caption="503, then a web page. The keeper waits as told, and takes nothing but tokens.",
            play=_nonsense,
        ),
        Scene(
            title="the chat server revokes the token",
            caption="Out of use at once, also when the backend's cache brings it once more.",
            play=_denial,
        ),
        Scene(
            title="all is well again",
            caption="Nobody had to restart anything.",
            play=_epilogue,
        ),
    )


async def _calm(stage: Stage) -> None:
    for _ in range(stage.pace.calm_refreshes):
        await stage.coming(EventKind.TOKEN_UPDATED)


async def _epilogue(stage: Stage) -> None:
    await _calm(stage)
    await asyncio.sleep(stage.pace.lull_s / 2)


async def _outage(stage: Stage) -> None:
    fault = stage.fault(f"an outage of {stage.pace.outage_s:g} s")
    stage.backend.go_down()
    stage.tell("backend", "backendDown", "goes down: connections are refused", "error")
    await asyncio.sleep(stage.pace.outage_s)
    renewed = stage.coming(EventKind.TOKEN_UPDATED)
    stage.backend.come_back()
    stage.tell("backend", "backendUp", "is up again", "good")
    await renewed
    fault.is_over = True


async def _nonsense(stage: Stage) -> None:
    busy, page = stage.fault("503"), stage.fault("a web page for a token")
    renewed = stage.coming(EventKind.TOKEN_UPDATED)
    stage.backend.be_overloaded(RETRY_AFTER_S)
    stage.tell("backend", "backendBusy", f"is overloaded: 503, Retry-After: {RETRY_AFTER_S}", "warning")
    await stage.coming(EventKind.REFRESH_FAILED)
    stage.backend.show_page()
    await stage.coming(EventKind.REFRESH_FAILED)
    stage.backend.recover()
    await renewed
    busy.is_over = page.is_over = True


async def _denial(stage: Stage) -> None:
    await asyncio.sleep(stage.pace.lull_s)
    denial, repeat = stage.fault("a denial"), stage.fault("the denied token again")
    recovered, repeated = stage.coming(EventKind.RECOVERED), stage.coming(REPEATED)
    stage.backend.cache_once()
    stage.revoke()
    await repeated
    stage.backend.recover()
    await recovered
    denial.is_over = repeat.is_over = True
    await asyncio.sleep(stage.pace.lull_s / 2)
