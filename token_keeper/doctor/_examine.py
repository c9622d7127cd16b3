"""One examination: looks at a source step by step, asks it once, and judges what came."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from token_keeper.doctor._chain import chained
from token_keeper.doctor._command import see_command
from token_keeper.doctor._fetch import Request
from token_keeper.doctor._file import see_file
from token_keeper.doctor._http import see_http, shown_url
from token_keeper.doctor._judge import Rules, judged
from token_keeper.doctor._oauth2 import see_oauth2
from token_keeper.doctor._other import see_other
from token_keeper.doctor._report import Report
from token_keeper.doctor._seen import Seen
from token_keeper.doctor._subject import Subject, request_of
from token_keeper.sources import ChainSource, CommandSource, FileSource
from token_keeper.sources.oauth2 import OAuth2Source

__all__ = ["Order", "examine", "shown_url"]

_BY_KIND: Mapping[object, Callable[..., Awaitable[Seen]]] = {
    OAuth2Source: see_oauth2,
    CommandSource: see_command,
    FileSource: see_file,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Rules):
    """What to examine, and by what to judge its token.

    Args:
        request: What to ask a backend with, or another source.
        profile: By whose rules to judge the token; ``auto`` goes by its look.
        expect: What it must be good for.
        key: What to check its signature with.
        policy: When a keeper would refresh it.
        connect: Whom else to show it to; None is nobody.
    """

    request: Request | Subject


async def examine(order: Order, *, clock: Callable[[], float] = time.time) -> Report:
    """Examine a source and its token. What goes wrong is in the report.

    A source is asked once. One that would spend a refresh token is not asked:
    then it is examined what its store holds.

    Args:
        order: What to examine.
        clock: Unix time.

    Raises:
        ConfigError: If a setting cannot work.
    """
    asked = order.request
    if isinstance(asked, Request):
        asked.source()
    if order.connect is not None:
        order.connect.check()
    if isinstance(asked, Subject) and asked.kind is ChainSource:
        links: Mapping[str, Request | Subject] = asked.words["sources"]
        sights = {name: functools.partial(_see, link, clock) for name, link in links.items()}
        return await chained(sights, order, clock=clock)
    return await judged(await _see(asked, clock), order)


async def _see(asked: Request | Subject, clock: Callable[[], float]) -> Seen:
    """Take the steps that belong to a kind of source."""
    if isinstance(asked, Request):
        return await see_http(asked, clock=clock)
    if (request := request_of(asked)) is not None:
        request.source()
        return await see_http(request, clock=clock, takes_options=False)
    return await _BY_KIND.get(asked.kind, see_other)(asked, clock=clock)
