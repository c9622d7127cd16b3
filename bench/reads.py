"""What it costs to read a valid token: ours, Authlib's, google-auth's, and the least that it can cost."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from timeit import Timer

from authlib.integrations.httpx_client import (  # type: ignore[import-untyped]
    AsyncOAuth2Client,
    OAuth2Client,
)
from google.oauth2.credentials import Credentials
from report import Figures, heading, interleaved, note, run, table, times

from token_keeper import AsyncTokenKeeper, TokenKeeper
from token_keeper.testing import ScriptedSource, mint

LIFETIME_S = 36_000
ROUNDS = 60
READS = 8_000
"""In so short a time that some rounds are not interrupted by whatever else the machine does."""
AWAITS = 4_000
THREADS = 8
READS_PER_THREAD = 25_000
ROUNDS_TOGETHER = 7

CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Slot:
    __slots__ = ("raw", "until")

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self.until = time.clock_gettime(CLOCK) + LIFETIME_S


class Floor:
    """The least that checks the expiry at each read: a method, one snapshot, one look at a clock."""

    __slots__ = ("_slot",)

    def __init__(self, raw: str) -> None:
        self._slot = Slot(raw)

    def token(self) -> str:
        slot = self._slot
        if time.clock_gettime(CLOCK) < slot.until:
            return slot.raw
        raise LookupError

    async def get(self) -> str:
        slot = self._slot
        if time.clock_gettime(CLOCK) < slot.until:
            return slot.raw
        raise LookupError


def authlib_token(raw: str) -> dict[str, object]:
    return {"access_token": raw, "token_type": "Bearer", "expires_at": int(time.time()) + LIFETIME_S}


def google_credentials(raw: str) -> Credentials:
    # It compares with a naive time in UTC.
    expiry = dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(seconds=LIFETIME_S)
    return Credentials(token=raw, expiry=expiry)  # type: ignore[no-untyped-call]


def per_run_ns(statement: str, number: int, **names: object) -> Callable[[], float]:
    timer = Timer(statement, globals=names)
    return lambda: timer.timeit(number) / number * 1e9


def sync_cases(
    raw: str, keeper: TokenKeeper, async_keeper: AsyncTokenKeeper
) -> dict[str, tuple[str, object]]:
    """Return statements about `it`, by name."""
    return {
        "the floor: method, snapshot, clock": ("it.token()", Floor(raw)),
        "TokenKeeper.token": ("it.token", keeper),
        "AsyncTokenKeeper.token": ("it.token", async_keeper),
        "TokenKeeper.reader('chat').token": ("it.token", keeper.reader("chat")),
        "Authlib ensure_active_token, read": (
            "it.ensure_active_token(it.token); it.token['access_token']",
            OAuth2Client(token=authlib_token(raw)),
        ),
        "google-auth .valid, read": ("it.valid; it.token", google_credentials(raw)),
        "google-auth before_request": (
            "it.before_request(None, 'GET', 'https://api.example/', {})",
            google_credentials(raw),
        ),
    }


def measure_one_thread(raw: str, keeper: TokenKeeper, async_keeper: AsyncTokenKeeper) -> Figures:
    cases = {
        name: per_run_ns(statement, READS // 8 if "google" in name else READS, it=it)
        for name, (statement, it) in sync_cases(raw, keeper, async_keeper).items()
    }
    cases["TokenKeeper.get(min_validity=60)"] = per_run_ns("it.get(min_validity=60)", READS, it=keeper)
    least = {name: min(values) for name, values in interleaved(cases, ROUNDS).items()}
    heading("Read a valid token, one thread")
    floor, ours = least["the floor: method, snapshot, clock"], least["TokenKeeper.token"]
    table(
        ["", "ns", "to the floor", "to TokenKeeper.token"],
        [[name, f"{ns:.0f}", times(ns, floor), times(ns, ours)] for name, ns in least.items()],
    )
    note(f"Least of {ROUNDS} rounds; the loop around the reads (some 10 ns each) is included.")
    return dict(least)


def together(read: str, it: object) -> float:
    """Return how many reads per second all threads do together."""
    ready = threading.Barrier(THREADS + 1)
    timer = Timer(read, globals={"it": it})

    def work() -> None:
        ready.wait()
        timer.inner(range(READS_PER_THREAD), perf_counter)  # type: ignore[attr-defined]

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.wait()
    begin = perf_counter()
    for thread in threads:
        thread.join()
    return THREADS * READS_PER_THREAD / (perf_counter() - begin)


class Locked:
    """What most libraries do: a lock around each read."""

    def __init__(self, raw: str) -> None:
        self._lock = threading.Lock()
        self._slot = Slot(raw)

    def token(self) -> str:
        with self._lock:
            if time.clock_gettime(CLOCK) < self._slot.until:
                return self._slot.raw
        raise LookupError


def measure_threads(raw: str, keeper: TokenKeeper, async_keeper: AsyncTokenKeeper) -> Figures:
    statements = sync_cases(raw, keeper, async_keeper)
    del statements["AsyncTokenKeeper.token"], statements["TokenKeeper.reader('chat').token"]
    del statements["google-auth before_request"]
    statements["the floor, behind a lock"] = ("it.token()", Locked(raw))
    cases = {name: (lambda read=read, it=it: together(read, it)) for name, (read, it) in statements.items()}
    most = {name: max(values) for name, values in interleaved(cases, ROUNDS_TOGETHER).items()}
    heading(f"Read a valid token, {THREADS} threads together")
    ours = most["TokenKeeper.token"]
    table(
        ["", "million/s", "TokenKeeper.token is"],
        [[name, f"{rate / 1e6:.2f}", times(ours, rate)] for name, rate in most.items()],
    )
    note(f"Most of {ROUNDS_TOGETHER} rounds of {THREADS} x {READS_PER_THREAD} reads.")
    return dict(most)


async def per_await_ns(read: Callable[[], Awaitable[object]], number: int) -> float:
    begin = perf_counter()
    for _ in range(number):
        await read()
    return (perf_counter() - begin) / number * 1e9


async def measure_awaited(raw: str, keeper: AsyncTokenKeeper) -> Figures:
    floor, authlib = Floor(raw), AsyncOAuth2Client(token=authlib_token(raw))

    reads: dict[str, tuple[Callable[[], Awaitable[object]], int]] = {
        "the floor, awaited": (floor.get, AWAITS),
        "await AsyncTokenKeeper.get()": (keeper.get, AWAITS),
        "await AsyncTokenKeeper.get(min_validity=60)": (partial(keeper.get, min_validity=60), AWAITS),
        "Authlib await ensure_active_token": (
            lambda: authlib.ensure_active_token(authlib.token),
            AWAITS // 20,
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(ROUNDS):
        for name, (read, number) in reads.items():
            found[name].append(await per_await_ns(read, number))
    await authlib.aclose()
    least = {name: min(values) for name, values in found.items()}
    heading("Read a valid token, awaited")
    lowest, ours = least["the floor, awaited"], least["await AsyncTokenKeeper.get()"]
    table(
        ["", "ns", "to the floor", "to AsyncTokenKeeper.get()"],
        [[name, f"{ns:.0f}", times(ns, lowest), times(ns, ours)] for name, ns in least.items()],
    )
    return dict(least)


def measure() -> Figures:
    raw = mint(expires_at=time.time() + LIFETIME_S, sub="benchmark")

    async def with_a_loop() -> tuple[Figures, Figures, Figures]:
        async with AsyncTokenKeeper(ScriptedSource(raw)) as async_keeper:
            keeper = await asyncio.to_thread(TokenKeeper(ScriptedSource(raw)).__enter__)
            try:
                # The loop waits in another thread, so it takes nothing from the readers.
                one = await asyncio.to_thread(measure_one_thread, raw, keeper, async_keeper)
                many = await asyncio.to_thread(measure_threads, raw, keeper, async_keeper)
            finally:
                await asyncio.to_thread(keeper.close)
            awaited = await measure_awaited(raw, async_keeper)
        return one, many, awaited

    one, many, awaited = asyncio.run(with_a_loop())
    return {"one_thread_ns": one, "threads_per_s": many, "awaited_ns": awaited}


if __name__ == "__main__":
    run(measure)
