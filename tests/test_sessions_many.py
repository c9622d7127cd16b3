"""Many sessions on one keeper: none holds up another, and what befalls all is handled once."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref

from session_peers import (
    PLAIN,
    Peer,
    Reconnecting,
    connects,
    fresh,
    hangs,
    raises,
    returns,
    run,
)

from token_keeper import AsyncTokenKeeper
from token_keeper.supervision import Phase
from token_keeper.testing import ScriptedSource

MANY = 200


def gather(keeper, peers, **options):
    """Attach *peers*, all of them made with the current token and connected."""
    for number, peer in enumerate(peers):
        peer.handle = keeper.attach(peer, token=keeper.token, name=f"peer-{number}", **options)
        peer.handle.on()(peer.told.append)
        peer.handle.connected()


def test_all_sessions_get_each_new_token():
    async def main(clock):
        peers = [Peer(returns) for _ in range(MANY)]
        async with AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock, policy=PLAIN) as keeper:
            gather(keeper, peers)
            for _ in range(5):
                await keeper.refresh()
                await asyncio.sleep(10)
                assert {peer.tokens[-1] for peer in peers} == {keeper.token}

    run(main)


def test_one_that_hangs_and_one_that_raises_hold_up_nobody():
    async def main(clock):
        bad = [Peer(hangs), Peer(raises)]
        good = [Peer(returns) for _ in range(MANY)]
        async with AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock, policy=PLAIN) as keeper:
            gather(keeper, [*bad, *good])
            await keeper.refresh()
            await asyncio.sleep(0.1)
            assert {peer.tokens[-1] for peer in good} == {keeper.token}
            await asyncio.sleep(2)
            assert {peer.handle.snapshot.phase for peer in good} == {Phase.IDLE}

    run(main)


def test_when_all_are_denied_at_once_that_is_one_denial_and_one_fetch():
    async def main(clock):
        source = ScriptedSource(fresh(clock), takes_s=0.5)
        peers = [Peer() for _ in range(MANY)]
        denials = []
        keeper = AsyncTokenKeeper(source, clock=clock, policy=PLAIN)
        keeper.on("tokenDenied")(denials.append)
        async with keeper:
            gather(keeper, peers)
            await asyncio.sleep(1)
            for peer in peers:
                peer.handle.denied(code=20104)
            await asyncio.sleep(60)
            assert len(source.calls) == 2
            assert len(denials) == 1
            assert {peer.tokens[-1] for peer in peers} == {keeper.token}
            assert {peer.handle.snapshot.phase for peer in peers} == {Phase.IDLE}

    run(main)


def test_connections_of_one_account_are_spaced_and_those_of_another_are_not_held_up():
    async def main(clock):
        at = {"one": [], "two": []}

        def noting(by):
            async def answer(peer):
                at[by].append(clock.monotonic())
                peer.handle.connected()

            return answer

        peers = {by: [Reconnecting(noting(by)) for _ in range(50)] for by in at}
        async with AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock, policy=PLAIN) as keeper:
            for by, them in peers.items():
                gather(keeper, them, by=by)
            for peer in peers["one"]:
                peer.handle.disconnected()
            await asyncio.sleep(1)
            for peer in peers["two"][:1]:
                peer.handle.disconnected()
            began = clock.monotonic()
            await asyncio.sleep(60)
        assert len(at["one"]) == 50
        assert min(after - before for before, after in itertools.pairwise(at["one"])) >= 0.099
        assert at["two"][0] - began < 5
        assert at["one"][-1] - began < 20

    run(main)


def test_one_server_that_refuses_its_sessions_takes_the_token_from_nobody_else():
    async def main(clock):
        source = ScriptedSource(fresh(clock))
        denied, fine = Peer(), Peer()
        async with AsyncTokenKeeper(source, clock=clock, policy=PLAIN) as keeper:
            gather(keeper, [denied], by="chat")
            gather(keeper, [fine], by="voice")
            await asyncio.sleep(1)
            before = keeper.token
            source.hold()
            denied.handle.denied(code=51207)
            await asyncio.sleep(10)
            assert keeper.token == keeper.reader("voice").token == before
            source.release()
            await asyncio.sleep(10)
            assert denied.tokens == fine.tokens == [keeper.token]
        assert fine.kinds == ["sessionUpdated"]

    run(main)


def test_nothing_is_left_of_a_detached_session():
    async def main(clock):
        async with AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock, policy=PLAIN) as keeper:
            peers = [Peer(connects) for _ in range(MANY)]
            gather(keeper, peers)
            await keeper.refresh()
            await asyncio.sleep(10)
            tasks = len(asyncio.all_tasks())
            supervisors = [weakref.ref(peer.handle._supervisor) for peer in peers]
            for peer in peers:
                peer.handle.detach()
            await asyncio.sleep(10)
            del peers, peer
            gc.collect()
            assert not [one for one in supervisors if one() is not None]
            assert len(asyncio.all_tasks()) <= tasks

    run(main)


def test_sessions_come_and_go_by_the_thousand():
    async def main(clock):
        async with AsyncTokenKeeper(ScriptedSource(fresh(clock)), clock=clock, policy=PLAIN) as keeper:
            for _ in range(20):
                peers = [Peer(returns) for _ in range(50)]
                gather(keeper, peers)
                await asyncio.sleep(1)
                for peer in peers:
                    peer.handle.detach()
            await asyncio.sleep(1)
            assert len(keeper._circle._sessions) == 0
            assert len(asyncio.all_tasks()) < 10

    run(main)
