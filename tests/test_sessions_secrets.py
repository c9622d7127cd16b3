"""Planted tokens, looked for in everything that sessions and connections show."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import asynccontextmanager

import pytest
from fetching import shown
from session_peers import PLAIN, Peer, Recreating, attached, run, wait_until

from token_keeper import AsyncTokenKeeper, CallableSource, Issued, RefreshPolicy, Secret, TokenKeeper
from token_keeper.supervision import Phase
from token_keeper.testing import ScriptedSource, mint


def jwts(clock):
    return [mint(expires_at=clock() + 3600, jti=f"canary-{number}") for number in range(9)]


def opaque(_clock):
    # Words, so that no pattern can tell them from prose.
    return [f"canary/of/the/{word}/generation" for word in ("first", "second", "third", "fourth", "fifth")]


KINDS = pytest.mark.parametrize("make", [jwts, opaque])


def issuing(tokens, clock):
    return [Issued(secret=Secret(token), expires_at=clock() + 3600) for token in tokens]


def parts(tokens):
    """Return what must not be shown: the tokens, and of a JWT its claims and signature alone."""
    return [part for token in tokens for part in (token, *token.split(".")[1:])]


def screen_of(caplog, *things):
    shown_things = [repr(thing) for thing in things]
    records = [record.getMessage() + repr(vars(record)) for record in caplog.records]
    return "\n".join([*shown_things, *records])


class Quoting(Recreating):
    """A client whose every method quotes its tokens, old and new, when it fails."""

    def __init__(self):
        super().__init__()
        self.seen = []

    async def update_token(self, token):
        self.seen.append(token)
        raise ValueError(f"bad tokens: {self.seen!r} {' '.join(self.seen)}")

    async def reconnect(self):
        raise ConnectionError(*self.seen)

    async def recreate(self, token):
        raise KeyError(token)


@KINDS
def test_exceptions_of_a_session_that_quote_tokens_are_told_without_them(make, caplog):
    caplog.set_level(logging.DEBUG)

    async def main(clock):
        tokens = make(clock.wall)
        peer, looks = Quoting(), []
        async with attached(clock, peer, ScriptedSource(*issuing(tokens, clock.wall))) as keeper:
            peer.seen.append(keeper.token)
            for _ in range(3):
                await keeper.refresh()
                await asyncio.sleep(60)
                looks.append([peer.handle, peer.handle.snapshot, keeper, *asyncio.all_tasks()])
            looks = [repr(look) for look in looks]
        return tokens, screen_of(caplog, looks, peer.told, [repr(event) for event in peer.told])

    tokens, screen = run(main)
    assert "sessionGaveUp" in screen
    assert "ValueError" in screen
    assert not [part for part in parts(tokens) if part in screen]


@KINDS
def test_codes_reasons_and_words_that_quote_the_token_are_told_without_it(make, caplog):
    caplog.set_level(logging.DEBUG)

    async def main(clock):
        tokens = make(clock.wall)
        peer = Peer()
        async with attached(clock, peer, ScriptedSource(*issuing(tokens, clock.wall))) as keeper:
            token = keeper.token
            peer.handle.state_changed(token)
            peer.handle.state_changed(f"bad token {token}")
            long = "x" * 150 + token
            peer.handle.denied(code=f"E_{token}", reason=f"{long} was refused")
            await asyncio.sleep(30)
            peer.handle.expired(code=long, reason=ValueError(token))
            peer.handle.state_changed("denied", code={"token": token}, reason=[token])
            await asyncio.sleep(30)
            looks = [peer.handle, peer.handle.snapshot, peer.told, keeper.snapshot, *asyncio.all_tasks()]
            return tokens, screen_of(caplog, *looks)

    tokens, screen = run(main)
    assert "sessionDenied" in screen
    assert "sessionWordUnknown" in screen
    assert not [part for part in parts(tokens) if part in screen]


@KINDS
def test_threads_and_the_errors_of_blocking_sessions_show_no_token(make, caplog):
    caplog.set_level(logging.DEBUG)
    names = []

    class Blocking:
        def update_token(self, token):
            names.extend(thread.name for thread in threading.enumerate())
            raise SystemExit(token)

        def reconnect(self):
            raise RuntimeError(f"cannot reconnect with {tokens[0]}")

    tokens = make(time.time)
    serial = iter(issuing(tokens, time.time))
    policy = RefreshPolicy(min_interval_s=0.1)
    with TokenKeeper(CallableSource(lambda: next(serial)), policy=policy) as keeper:
        handle = keeper.attach(Blocking())
        told = []
        handle.on()(told.append)
        wait_until(lambda: handle.snapshot.phase is Phase.GAVE_UP, "the end of its patience", timeout=8)
        screen = screen_of(caplog, handle, told, handle.snapshot, names)
    assert "cannot reconnect" in screen
    assert not [part for part in parts(tokens) if part in screen]


@KINDS
def test_a_refused_argument_shows_no_token_in_its_frames(make):
    token = make(time.time)[0]

    async def main(clock):
        async with AsyncTokenKeeper(clock=clock) as keeper:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - any error at all is looked through.
                keeper.attach(object(), token=token)
            # The frames of the test itself hold the token, for it is the program.
            return caught.value

    error = run(main)
    frames = []
    trace = error.__traceback__
    while trace is not None:
        if "token_keeper" in trace.tb_frame.f_code.co_filename:
            frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    inner = [frame for frame in frames if "test_sessions" not in frame]
    assert token not in str(error)
    assert not [frame for frame in inner if token in frame]


@KINDS
def test_connections_show_no_token(make, caplog):
    caplog.set_level(logging.DEBUG)

    @asynccontextmanager
    async def quoting(token):
        raise OSError(f"cannot connect with {token}")
        yield

    async def main(clock):
        tokens = make(clock.wall)
        source = ScriptedSource(*issuing(tokens, clock.wall))
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
            connections = keeper.connections(quoting)
            task = asyncio.create_task(anext(aiter(connections)))
            await asyncio.sleep(60)
            looks = [connections, repr(asyncio.all_tasks())]
            await keeper.close()
            error = (await asyncio.gather(task, return_exceptions=True))[0]
            return tokens, screen_of(caplog, *looks) + shown(error)

    tokens, screen = run(main)
    assert screen.count("cannot connect with") >= 3
    assert not [part for part in parts(tokens) if part in screen]
