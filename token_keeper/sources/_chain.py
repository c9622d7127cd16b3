"""A source that asks other sources, the best one first.

It decides who is asked, for how long, and whose answer counts. How one is asked is in `_link`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Final

from token_keeper._errors import (
    ConfigError,
    FetchError,
    RefusedError,
    ResponseError,
    TransientFetchError,
)
from token_keeper._model import NAME, Issued
from token_keeper.sources._asking import OCCASION
from token_keeper.sources._link import Link
from token_keeper.sources._source import Source, cleanly

_OURS: Final = 0.95
"""The share of the time that the sources get: the rest is for saying why none of them worked."""
_SOURCE_PARTS: Final = ("fetch", "aclose", "origin", "splay")
_STAYS: Final = "; a valid token stays"


class ChainSource:
    """Ask several sources in order; the first that works counts.

        source = ChainSource({"vault": FileSource("/run/vault/token"), "backend": HttpSource(url)})
        keeper.snapshot.source  # "vault" or "backend"

    Every fetch begins with the first one, so that what mended itself is used again.
    Only who asked to be left alone (`Retry-After`) is passed over until then, as
    long as there is another one to ask.

    One works if it brings a token that is not obviously dead: one that is a token,
    has not expired by its own claims or by what was said beside it, and was not
    refused by a server lately. If all tokens were refused, it is the first of them.
    What only the keeper's profile objects to is a failed fetch, and nobody else is asked.

    Each is given an equal share of the time that is left. Of those that notice
    by themselves when they have another token, those count that come before the
    one whose token is in use, and that one itself; after a fetch in vain, all.
    Name and spreading of fetches are those of the first source.

    Args:
        sources: By name, in the order in which they are asked. None of them is a chain.

    Raises:
        ConfigError: If that cannot work.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        problem = _problem(sources)
        if problem is not None:
            del sources  # Whatever it was meant to be: a traceback shows the locals of its frames.
            raise problem
        self._links = tuple(Link(name, source) for name, source in sources.items())
        self._matter = len(self._links)

    def __repr__(self) -> str:
        return f"<ChainSource {', '.join(link.name for link in self._links)}>"

    @property
    def origin(self) -> str:
        """That of the first source."""
        return self._links[0].source.origin

    @property
    def splay(self) -> bool:
        """That of the first source: usually the tokens are its own."""
        return self._links[0].source.splay

    async def fetch(self, *, tries: int = 1) -> Issued:
        """Return the token of the first source that works, within 30 s.

        Args:
            tries: How often each of them may ask.

        Raises:
            RefusedError: If all of them are refused one.
            FetchError: If none of them works. It says why, of each.
        """
        return await cleanly(self._outcome(tries))

    async def changes(self) -> AsyncIterator[None]:
        """Yield when a source that matters has another token. Never ends."""
        news: asyncio.Queue[int | Exception] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        listeners = [loop.create_task(_listen(place, link, news)) for place, link in enumerate(self._links)]
        try:
            while True:
                new = await news.get()
                if isinstance(new, Exception):
                    raise new
                if new < self._matter:
                    yield
        finally:
            for listener in listeners:
                listener.cancel()
            await asyncio.gather(*listeners, return_exceptions=True)

    async def retire(self) -> None:
        """Let each source give its tokens back, as far as that was asked for."""
        await asyncio.gather(*(link.retire() for link in self._links), return_exceptions=True)

    async def aclose(self) -> None:
        """Close each source."""
        ends = await asyncio.gather(*(link.source.aclose() for link in self._links), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _outcome(self, tries: int) -> Issued | FetchError:
        occasion, loop = OCCASION.get(), asyncio.get_running_loop()
        until = loop.time() + occasion.within_s * _OURS
        awake = [link for link in self._links if not link.rest_s()] or list(self._links)
        refused: Issued | None = None
        for place, link in enumerate(awake):
            share = max(until - loop.time(), 0.0) / (len(awake) - place)
            issued = await link.ask(tries, replace(occasion, within_s=share))
            if issued is None:
                continue
            if not occasion.is_denied(issued.secret):
                self._matter = self._links.index(link) + 1
                return issued
            refused = refused or issued
        self._matter = len(self._links)
        return refused or self._why()

    def _why(self) -> FetchError:
        """Return one error for those of all sources."""
        failed = [(link, link.failure) for link in self._links if link.failure is not None]
        whys = [f"{link.name}: {error.message.replace(_STAYS, '')}" for link, error in failed]
        message = f"none of the chain's sources brought a token{_STAYS}. {'. '.join(whys)}"
        errors = [error for _, error in failed]
        # One that did not ask to wait may be asked at once; the others are passed over meanwhile.
        wait = min(link.rest_s() for link, _ in failed) or None
        refusals = [error for error in errors if isinstance(error, RefusedError)]
        if len(refusals) == len(errors):
            # It is as certain as the least certain of them.
            reason = min(refusals, key=lambda error: error.is_certain).reason
            return RefusedError(reason, retry_after=wait, message=message)
        within = min((error.retry_within for error in errors if error.retry_within is not None), default=None)
        if all(isinstance(error, ResponseError) for error in errors):
            return ResponseError(message, retry_within=within)
        timed_out = errors[0].timed_out
        return TransientFetchError(message, retry_after=wait, retry_within=within, timed_out=timed_out)


async def _listen(place: int, link: Link, news: asyncio.Queue[int | Exception]) -> None:
    try:
        async for _ in link.changes():
            news.put_nowait(place)
    except Exception as error:  # noqa: BLE001 - Whoever listens to the chain gets it.
        news.put_nowait(error)


def _problem(sources: object) -> ConfigError | None:
    """Say why *sources* cannot be a chain."""
    if not isinstance(sources, Mapping) or not sources:
        return ConfigError("sources", 'must be a mapping of names to sources, such as {"primary": ...}')
    for name, source in sources.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            return ConfigError(
                "sources",
                "has a name that is not 1 to 64 letters, digits, dots, hyphens or underscores, "
                "the first a letter or a digit",
            )
        if isinstance(source, ChainSource):
            return ConfigError(f"sources[{name!r}]", "is a chain itself: put its sources into this one")
        if isinstance(source, type) or any(not hasattr(source, part) for part in _SOURCE_PARTS):
            kind = source.__name__ if isinstance(source, type) else type(source).__name__
            return ConfigError(f"sources[{name!r}]", f"is no source, but of type {kind}")
    return None
