"""A keeper whose grant was refused: it asks slowly, and notices a new login at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from rotating import OWNER, World

from token_keeper import AsyncTokenKeeper, DirectoryStore
from token_keeper._model import Phase, Secret
from token_keeper.store import Record
from token_keeper.testing import VirtualClock, run_virtual


class Grant:
    """A lineage as a source."""

    origin = "https://as.example:443"
    splay = True

    def __init__(self, lineage):
        self.fetch = lineage.fetch
        self.changes = lineage.changes
        self.aclose = lineage.aclose


@pytest.fixture
def world(tmp_path):
    return World(store=DirectoryStore(tmp_path / "store"))


def kept(world, scene):
    """Play *scene* with a keeper on the virtual clock, which the server follows."""
    clock = VirtualClock()

    async def play():
        async with AsyncTokenKeeper(Grant(world.process()), clock=clock, start_timeout=0) as keeper:
            await scene(keeper)

    world.wall = world.server.wall = clock.wall
    run_virtual(play, clock)


def test_a_grant_that_is_refused_is_not_sent_each_time_its_own_record_is_written(world):
    world.server.is_revoked = True

    async def scene(keeper):
        await asyncio.sleep(3_600.0)
        assert keeper.snapshot.phase is Phase.REFUSED

    kept(world, scene)
    assert len(world.server.requests) <= 40


def test_a_login_in_another_process_is_noticed_within_two_seconds(world):
    world.seed = None

    async def scene(keeper):
        await asyncio.sleep(60.0)
        assert keeper.snapshot.phase is Phase.REFUSED
        with world.slot.try_lease() as lease:
            lease.write(Record(owner=OWNER, refresh_token=world.server.first()))
        await asyncio.sleep(2.0)
        assert keeper.token

    kept(world, scene)


def test_the_token_of_a_login_is_adopted_and_nothing_is_sent(world):
    first = world.seed
    world.seed = None

    async def scene(keeper):
        await asyncio.sleep(60.0)
        world.seed = first
        login = world.process()
        issued = await login.fetch(tries=1)
        world.seed = None
        sent = len(world.server.requests)
        await asyncio.sleep(10.0)
        assert keeper.token == issued.secret.reveal()
        assert len(world.server.requests) == sent

    kept(world, scene)


def test_what_others_write_while_all_is_well_causes_no_fetch(world):
    async def scene(keeper):
        await keeper.get()
        sent = len(world.server.requests)
        with world.slot.try_lease() as lease:
            lease.write(replace(world.record(), refresh_token=Secret("of-another-process")))
        await asyncio.sleep(30.0)
        assert len(world.server.requests) == sent

    kept(world, scene)
