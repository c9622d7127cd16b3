"""The keeper for code with an event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Self

from token_keeper import _questions as questions
from token_keeper._errors import TokenUnavailable
from token_keeper._face import Face, check_reporter
from token_keeper._home import Home
from token_keeper._inputs import Started
from token_keeper._kept import KeptToken
from token_keeper._waiting import answer, check_wait


class AsyncTokenKeeper(Face):
    """Keep one token fresh in the background, for code with an event loop.

        async with AsyncTokenKeeper(source) as keeper:
            token = await keeper.get(timeout=5)

    While renewals fail, the current token is served until it expires.

    Args:
        source: Where tokens come from. Never called concurrently. Without one
            the keeper announces the expiry of what `update()` hands in.
        policy: Timing of renewal. The default suits tokens of 5 min to 24 h.
        profile: The rules that a token must pass: ``"auto"``, ``"jwt"``,
            ``"twilio"``, ``"opaque"``, or a `Profile` of your own.
        expect: What the token must be good for, as the profile understands it.
        name: Names the token in events and logs.
        start_timeout: Seconds to wait for the first token; 0 does not wait.
        clock: Where the time comes from. `token_keeper.testing` has a fake.
        logger: A structlog or standard logger, instead of the standard one named "token_keeper".

    Raises:
        ConfigError: If an argument cannot work.
    """

    _sync_in_thread = False

    async def start(self) -> None:
        """Start the keeper and wait for the first token. Does nothing the second time.

        Raises:
            TokenUnavailable: If none came within `start_timeout`, or the backend
                refuses to issue one; the keeper is then closed.
            KeeperClosed: After the end.
        """
        self._kept.check_alive()
        if self._home is not None:
            return
        self._home = Home(self._charge(), self._clock, self._log)
        self._kept.post(Started())
        if self._source is None or not self._start_timeout:
            return
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            await answer(self._kept, partial(questions.first, self._kept), timeout=self._start_timeout)
        except TokenUnavailable as error:
            waited = round(clock() - began, 2)
            await self.close()
            raise questions.unavailable(self._kept, "", waited=waited) from error.__cause__
        except BaseException:
            await self.close()
            raise

    async def get(self, *, min_validity: float = 0.0, timeout: float = 30.0) -> str:  # noqa: ASYNC109 - the contract's name
        """Return a token that is valid for *min_validity* more seconds; wait for one if need be.

        Args:
            min_validity: Seconds.
            timeout: Seconds to wait at most.

        Raises:
            TokenUnavailable: If none came in time, or the source's tokens never live that long.
            KeeperClosed: Before the start, after the end, or in a forked child.
        """
        if min_validity != 0.0:
            check_wait("min_validity", min_validity)
        held = self._kept.held
        if held is not None and self._boot() + min_validity < held.until:
            return held.raw
        return await answer(
            self._kept, partial(questions.usable, self._kept, "", min_validity), timeout=timeout
        )

    async def refresh(self, *, timeout: float = 30.0) -> str:  # noqa: ASYNC109 - the contract's name
        """Fetch now and return the new token; a fetch in flight is joined.

        It waits for what `min_interval` and a `Retry-After` forbid. If the
        source returns the current token again, that is the result.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            FetchError: If the fetch failed; a valid token stays.
            TokenUnavailable: If it did not end in time.
            ConfigError: If the keeper has no source.
            KeeperClosed: Before the start, after the end, or in a forked child.
        """
        self._check_sourced()
        asked = self._kept.ask()
        return await answer(self._kept, partial(questions.newer, self._kept, asked), timeout=timeout)

    def reader(self, by: str) -> AsyncTokenReader:
        """Return the reads of the reporter *by*: a token denied to it is withheld from it alone."""
        check_reporter(by)
        return AsyncTokenReader(self._kept, by)

    async def close(self) -> None:
        """Stop keeping the token. Waiters get `KeeperClosed`. Does nothing the second time."""
        self._kept.close()
        home, self._home = self._home, None
        if home is not None:
            await home.run(self._end(home))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncTokenReader:
    """The token as one reporter may use it: see `AsyncTokenKeeper.reader`."""

    __slots__ = ("_by", "_kept")

    def __init__(self, kept: KeptToken, by: str) -> None:
        self._kept = kept
        self._by = by

    @property
    def token(self) -> str:
        """The raw token. Never blocks. Raises as the keeper's does, also if it was denied here."""
        return questions.read(self._kept, self._by)

    async def get(self, *, min_validity: float = 0.0, timeout: float = 30.0) -> str:  # noqa: ASYNC109 - the contract's name
        """Return a token that was not denied here; wait for one if need be. As the keeper's."""
        check_wait("min_validity", min_validity)
        question = partial(questions.usable, self._kept, self._by, min_validity)
        return await answer(self._kept, question, timeout=timeout, by=self._by)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._by!r} of {self._kept.name!r}>"
