"""The keeper for code without an event loop: the same, in a daemon thread of its own."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Self

from token_keeper import _questions as questions
from token_keeper._errors import TokenUnavailable
from token_keeper._face import CLOSE_S, DRAIN_S, Face, check_reporter
from token_keeper._home import JOIN_S, Home, LoopThread
from token_keeper._inputs import Started
from token_keeper._kept import KeptToken
from token_keeper._waiting import block_for_answer, check_wait


class TokenKeeper(Face):
    """Keep one token fresh in the background, for code that blocks.

        with TokenKeeper(HttpSource("https://backend.example/token")) as keeper:
            call_api(keeper.token)

    While renewals fail, the current token is served until it expires. Its
    thread is a daemon: a program that forgets `close()` ends promptly.

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

    _sync_in_thread = True
    _thread: LoopThread | None = None

    def start(self) -> None:
        """Start the keeper and wait for the first token. Does nothing the second time.

        Raises:
            TokenUnavailable: If none came within `start_timeout`, or the backend
                refuses to issue one; the keeper is then closed.
            KeeperClosed: After the end.
            RuntimeError: If it would block an event loop or a listener.
        """
        waits = self._source is not None and self._start_timeout > 0
        if waits:
            self._check_may_block("start()")
        began = time.monotonic()
        try:
            if self._move_in() and waits:
                block_for_answer(
                    self._kept, partial(questions.first, self._kept), timeout=self._start_timeout
                )
        except TokenUnavailable as error:
            waited = round(time.monotonic() - began, 2)
            self.close()
            raise questions.unavailable(self._kept, "", waited=waited) from error.__cause__
        except BaseException:
            self.close()
            raise

    def _move_in(self) -> bool:
        """Start the thread and what lives in it; return whether that was necessary."""
        with self._turn:
            self._kept.check_alive()
            if self._thread is not None:
                return False
            self._thread = LoopThread(self.name)
            self._home = self._thread.call(self._settle_in(), JOIN_S)
        self._kept.post(Started())
        return True

    def get(self, *, min_validity: float = 0.0, timeout: float = 30.0) -> str:
        """Return a token that is valid for *min_validity* more seconds; wait for one if need be.

        Args:
            min_validity: Seconds.
            timeout: Seconds to wait at most.

        Raises:
            TokenUnavailable: If none came in time, or the source's tokens never live that long.
            KeeperClosed: Before the start, after the end, or in a forked child.
            RuntimeError: If called in an event loop or by a listener: it might block them.
        """
        self._check_may_block("get()")
        if min_validity != 0.0:
            check_wait("min_validity", min_validity)
        held = self._kept.held
        if held is not None and self._boot() + min_validity < held.until:
            return held.raw
        return block_for_answer(
            self._kept, partial(questions.usable, self._kept, "", min_validity), timeout=timeout
        )

    def refresh(self, *, timeout: float = 30.0) -> str:
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
            RuntimeError: If called in an event loop or by a listener: it would block them.
        """
        self._check_may_block("refresh()")
        self._check_sourced()
        asked = self._kept.ask()
        return block_for_answer(self._kept, partial(questions.newer, self._kept, asked), timeout=timeout)

    def reader(self, by: str) -> TokenReader:
        """Return the reads of the reporter *by*: a token denied to it is withheld from it alone."""
        check_reporter(by)
        return TokenReader(self._kept, by, self._check_may_block)

    def close(self) -> None:
        """Stop keeping the token. Waiters get `KeeperClosed`. Does nothing the second time."""
        self._kept.close()
        if sys.is_finalizing():
            return  # The thread is frozen already: waiting for it would only hold up the end.
        with self._turn:
            home, self._home = self._home, None
            thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            if home is not None:
                self._move_out(thread, home)
        finally:
            thread.end()

    def _move_out(self, thread: LoopThread, home: Home) -> None:
        work, limit = self._end(home), DRAIN_S + CLOSE_S + JOIN_S
        if thread.is_current():
            # An async listener: waiting here would stop what is waited for.
            thread.last_work(work)
            return
        try:
            thread.call(work, limit)
        except TimeoutError:
            self._log.warning("closeTimedOut", after_s=limit)

    def _after_fork(self) -> None:
        """Leave thread and lock to the parent process."""
        super()._after_fork()
        self._thread = None
        self._turn = threading.RLock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_may_block(self, call: str) -> None:
        """Raise `RuntimeError` with advice where blocking would stop what is waited for."""
        if self._listeners.in_listener():
            raise RuntimeError(
                f"{call} may block, and this is a listener: read keeper.token instead, "
                "or hand over to a thread of your own"
            )
        # The one that raises where there is no loop costs five times the read.
        if asyncio._get_running_loop() is None:  # noqa: SLF001 - exported by asyncio for such as us
            return
        raise RuntimeError(
            f"{call} of TokenKeeper may block, and this thread runs an event loop: use AsyncTokenKeeper, "
            "read keeper.token, or call it with asyncio.to_thread()"
        )

    async def _settle_in(self) -> Home:
        return Home(self._charge(), self._clock, self._log)


class TokenReader:
    """The token as one reporter may use it: see `TokenKeeper.reader`."""

    __slots__ = ("_by", "_check", "_kept")

    def __init__(self, kept: KeptToken, by: str, check_may_block: Callable[[str], None]) -> None:
        self._kept = kept
        self._by = by
        self._check = check_may_block

    @property
    def token(self) -> str:
        """The raw token. Never blocks. Raises as the keeper's does, also if it was denied here."""
        return questions.read(self._kept, self._by)

    def get(self, *, min_validity: float = 0.0, timeout: float = 30.0) -> str:
        """Return a token that was not denied here; wait for one if need be. As the keeper's."""
        self._check("get()")
        check_wait("min_validity", min_validity)
        question = partial(questions.usable, self._kept, self._by, min_validity)
        return block_for_answer(self._kept, question, timeout=timeout, by=self._by)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._by!r} of {self._kept.name!r}>"
