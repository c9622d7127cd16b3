"""Whatever happens to processes and requests: the grant survives where the server's grace allows it."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rotating import LIFE_S, Crash, Fault, FaultySlot, World

from token_keeper._errors import FetchError
from token_keeper.testing import run_virtual

FAULTS = [None, None, None, *Fault]
PLACES = st.sampled_from([None, None, None, "write1", "wrote1", "write2", "wrote2", "write3"])
STEP = st.tuples(
    st.sampled_from(FAULTS),
    PLACES,
    st.integers(min_value=1, max_value=3),
    st.sampled_from([0.0, 1.0, 5.0, 29.0, 31.0, 120.0, LIFE_S * 0.3, LIFE_S * 0.85, LIFE_S * 1.2]),
    st.booleans(),
)


def one_step(world, process, fault, place, tries):
    """Let *process* fetch with a fault and a death in the *place*; return whether it survived."""
    world.server.faults.clear()
    world.server.faults.extend([fault])
    slot = FaultySlot(world.slot, **({place: Crash()} if place else {}))
    lineage = process or world.process(slot)
    try:
        run_virtual(lineage.fetch(tries=tries))
    except Crash:
        return None
    except FetchError:
        pass
    return lineage


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, max_size=12))
def test_a_grant_is_never_lost_to_a_server_that_forgives_for_long(steps):
    world = World()
    world.server.grace_s, world.server.grace_uses = 1e9, 10**6
    process = None
    for fault, place, tries, gap_s, restarts in steps:
        process = one_step(world, None if restarts else process, fault, place, tries)
        world.now += gap_s
    world.now += LIFE_S * 2
    world.server.faults.clear()
    run_virtual(world.process().fetch(tries=1))
    assert not world.server.reuses


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, max_size=12))
def test_reuse_is_never_detected_while_an_access_token_is_at_stake(steps):
    """The server forgives what we are told it does; a reuse beyond that is only risked as the last resort."""
    world = World()
    world.server.grace_s, world.server.grace_uses = 30.0, 1
    process = None
    for fault, place, tries, gap_s, restarts in steps:
        before = len(world.log.lines)
        was_revoked = world.server.is_revoked
        process = one_step(world, None if restarts else process, fault, place, tries)
        if world.server.is_revoked and not was_revoked:
            assert "last resort" in [said.get("why") for _, said in world.log.lines[before:]]
        world.now += gap_s


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([Fault.DIES_BEFORE, Fault.DIES_AFTER, Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.BROKEN]),
    st.floats(min_value=0.0, max_value=29.0),
    st.integers(min_value=0, max_value=5),
)
def test_one_lost_answer_costs_one_replay_and_nothing_else(fault, pause_s, rotations):
    world = World()
    world.server.grace_s = 30.0
    for _ in range(rotations):
        run_virtual(world.process().fetch(tries=1))
        world.now += LIFE_S
    sent = len(world.server.requests)
    one_step(world, None, fault, None, 1)
    world.now += pause_s
    run_virtual(world.process().fetch(tries=1))
    assert len(world.server.requests) == sent + 2
    assert not world.server.reuses
    assert world.record().mark is None
