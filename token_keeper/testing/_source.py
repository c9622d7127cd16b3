"""A source that plays a script. It knows what to answer, never when it is asked."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from token_keeper._errors import FetchError
from token_keeper._model import Issued, Secret

Outcome = str | Issued | FetchError
Step = Outcome | Callable[[], Outcome | Awaitable[Outcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchCall:
    """One call of `ScriptedSource.fetch`.

    Args:
        at: When it began, by the event loop's clock, in seconds.
        tries: How many tries it was allowed.
    """

    at: float
    tries: int


class ScriptedSource:
    """Answer one fetch after the other from a script; the last answer is given for ever.

        source = ScriptedSource(mint(expires_at=T0 + 60), RefusedError("invalid_grant"))

    Args:
        *script: For each fetch a raw token, an `Issued`, a `FetchError` to
            raise, or a function of no arguments, sync or async, that returns one of these
            or raises anything.
        takes_s: How long each fetch takes by the event loop's clock, in seconds.
        origin: Fetches of one origin share its slots.
        splay: Whether the first token's refresh may be spread over its life.

    Attributes:
        calls: The fetches so far.
        in_flight: How many of them run now.
        most_in_flight: How many of them ran at once at most.
        cancelled: How many of them were cancelled.
        closed: Whether `aclose` was called.
    """

    def __init__(
        self, *script: Step, takes_s: float = 0.0, origin: str = "scripted", splay: bool = False
    ) -> None:
        if not script:
            raise ValueError("a script needs at least one answer")
        self.origin = origin
        self.splay = splay
        self.calls: list[FetchCall] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.cancelled = 0
        self.closed = False
        self._script = script
        self._takes_s = takes_s
        self._gate: _Gate | None = None
        self._called = threading.Condition()

    async def fetch(self, *, tries: int = 1) -> Issued:
        """Answer with the next step of the script.

        Raises:
            FetchError: If the script says so.
        """
        step = self._script[min(len(self.calls), len(self._script) - 1)]
        self._record(tries)
        try:
            if self._takes_s:
                await asyncio.sleep(self._takes_s)
            if gate := self._gate:
                await gate.passed()
            return await _play(step)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    async def aclose(self) -> None:
        """Remember that the keeper closed this source."""
        self.closed = True

    def hold(self) -> None:
        """Let fetches begin, but not end, until `release()`. May be called from any thread."""
        self._gate = self._gate or _Gate()

    def release(self) -> None:
        """Let the fetches that were held end, and later ones too. May be called from any thread."""
        gate, self._gate = self._gate, None
        if gate:
            gate.open()

    def wait_called(self, times: int = 1, *, timeout: float = 10.0) -> None:
        """Block until *times* fetches have begun. For tests with a keeper in another thread.

        Args:
            times: How many fetches since the source was made.
            timeout: Real seconds to wait at most.

        Raises:
            TimeoutError: If there were fewer in that time.
        """
        with self._called:
            if not self._called.wait_for(lambda: len(self.calls) >= times, timeout):
                raise TimeoutError(f"{len(self.calls)} of {times} fetches began within {timeout:g} s")

    def _record(self, tries: int) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        with self._called:
            self.calls.append(FetchCall(at=asyncio.get_running_loop().time(), tries=tries))
            self._called.notify_all()


class _Gate:
    """Holds back tasks of any event loop until any thread opens it, once and for good."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._waiting: list[asyncio.Future[None]] = []

    async def passed(self) -> None:
        with self._lock:
            if self._is_open:
                return
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
        await future

    def open(self) -> None:
        with self._lock:
            self._is_open = True
        for future in self._waiting:
            if not (loop := future.get_loop()).is_closed():
                loop.call_soon_threadsafe(_end, future)


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _play(step: Step) -> Issued:
    outcome = step
    if callable(outcome):
        answer = outcome()
        outcome = await answer if inspect.isawaitable(answer) else answer
    if isinstance(outcome, FetchError):
        # One instance may be raised many times; each time it starts without a traceback.
        raise outcome.with_traceback(None)
    if isinstance(outcome, str):
        return Issued(secret=Secret(outcome))
    return outcome
