"""A grant in a store: what is sent, kept and shared, with a model of the server on a clock that is set."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from rotating import LIFE_S, OWNER, Crash, Fault, FaultySlot, World

from token_keeper._errors import FetchError, RefusedError, StoreError, TransientFetchError
from token_keeper._model import Secret
from token_keeper.store import Record
from token_keeper.testing import run_virtual


@pytest.fixture
def world():
    return World()


def fetched(lineage, *, tries=1):
    return run_virtual(lineage.fetch(tries=tries)).secret


def failed(lineage, kind=TransientFetchError, *, tries=1):
    with pytest.raises(kind) as caught:
        run_virtual(lineage.fetch(tries=tries))
    return caught.value


def test_the_store_has_the_next_refresh_token_when_the_access_token_is_used(world):
    token = fetched(world.process())
    record = world.record()
    assert (record.access_token, record.refresh_token) == (token, Secret("refresh-2"))
    assert (record.mark, record.rotations) == (None, 1)


def test_a_grant_is_renewed_again_and_again(world):
    process = world.process()
    for _ in range(50):
        fetched(process)
        world.now += LIFE_S * 0.8
    assert world.record().rotations == 50
    assert not world.server.reuses


def test_a_restart_uses_the_stored_access_token_and_sends_nothing(world):
    token = fetched(world.process())
    world.now += LIFE_S / 2
    assert fetched(world.process()) == token
    assert len(world.server.requests) == 1


def test_a_restart_at_the_end_of_the_access_token_renews_it(world):
    token = fetched(world.process())
    world.now += LIFE_S * 0.9
    assert fetched(world.process()) != token


def test_a_restart_in_an_outage_uses_what_is_left(world):
    token = fetched(world.process())
    world.now += LIFE_S * 0.9
    world.server.faults.extend([Fault.NOT_SENT])
    process = world.process()
    assert fetched(process) == token
    world.server.faults.extend([Fault.NOT_SENT])
    failed(process)


def test_a_process_that_wants_another_token_gets_another(world):
    process = world.process()
    assert fetched(process) != fetched(process)


def test_who_waited_for_another_process_adopts_its_token(world):
    async def both():
        first, second = world.process(), world.process()
        return await asyncio.gather(first.fetch(tries=1), second.fetch(tries=1))

    one, other = run_virtual(both())
    assert one.secret == other.secret
    assert len(world.server.requests) == 1


def test_a_request_that_was_never_sent_leaves_no_mark(world):
    world.server.faults.extend([Fault.NOT_SENT])
    failed(world.process())
    assert world.record().mark is None
    fetched(world.process())
    assert not world.server.reuses


def test_a_server_that_is_busy_has_not_taken_the_token(world):
    world.server.faults.extend([Fault.BUSY])
    failed(world.process())
    assert world.record().mark is None


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.BROKEN])
def test_a_lost_answer_is_replayed_within_the_same_fetch(world, fault):
    world.server.faults.extend([fault])
    fetched(world.process(), tries=2)
    assert world.server.requests == ["refresh-1", "refresh-1"]
    assert not world.server.reuses


@pytest.mark.parametrize("fault", [Fault.DIES_BEFORE, Fault.DIES_AFTER])
def test_a_process_that_died_waiting_is_followed_by_one_that_replays(world, fault):
    world.server.faults.extend([fault])
    failed(world.process(), Crash)
    mark = world.record().mark
    assert mark is not None
    assert mark.sent_at == world.now
    world.now += 20.0
    fetched(world.process())
    assert world.server.requests == ["refresh-1", "refresh-1"]
    assert [event for event, _ in world.log.lines] == ["refreshTokenSentAgain"]


@pytest.mark.parametrize("at", ["write1", "wrote1", "write2", "wrote2"])
def test_a_process_that_died_at_any_write_loses_nothing(world, at):
    failed(world.process(FaultySlot(world.slot, **{at: Crash()})), Crash)
    fetched(world.process())
    assert not world.server.reuses


def test_a_lost_answer_is_replayed_only_once(world):
    fetched(process := world.process())
    world.now += LIFE_S * 0.8
    world.server.faults.extend([Fault.LOST_AFTER, Fault.LOST_AFTER])
    error = failed(process, tries=3)
    assert world.server.requests[1:] == ["refresh-2", "refresh-2"]
    assert "the valid token stays" in str(error)


def test_after_the_grace_time_the_token_is_held_while_the_access_token_serves(world):
    fetched(process := world.process())
    world.now += LIFE_S * 0.8
    world.server.faults.extend([Fault.LOST_BEFORE])
    failed(process)
    world.now += 40.0
    error = failed(process)
    assert len(world.server.requests) == 2
    assert error.retry_within == pytest.approx(LIFE_S * 0.2 - 40.0 - 60.0)


def test_in_its_last_minute_it_is_sent_all_the_same(world):
    fetched(process := world.process())
    world.now += LIFE_S * 0.8
    world.server.faults.extend([Fault.LOST_BEFORE])
    failed(process)
    world.now += LIFE_S * 0.2 - 59.0
    fetched(process)
    assert not world.server.reuses


def test_an_outage_in_which_every_request_is_lost_ends_without_a_login(world):
    fetched(process := world.process())
    world.now += LIFE_S * 0.8
    for _ in range(50):
        world.server.faults.extend([Fault.LOST_BEFORE])
        failed(process)
        world.server.faults.clear()
        world.now += 60.0
    fetched(process)
    assert not world.server.reuses


def test_a_token_that_was_replaced_elsewhere_is_read_again_before_the_grant_is_given_up(world):
    process = world.process()
    fetched(process)

    class Replaced(FaultySlot):
        """Another process, which knows no locks, writes between our mark and the answer."""

        def happens(self, what):
            if (what, self.writes) == ("wrote", 1):
                fresh = Secret("refresh-elsewhere")
                world.server._current.add("refresh-elsewhere")
                self.later = replace(world.record(), refresh_token=fresh, mark=None)
            super().happens(what)

        def try_lease(self):
            lease = super().try_lease()
            read = lease._lease.read
            reads = []

            def reread():
                reads.append(1)
                return self.later if len(reads) == 2 else read()

            lease.read = reread
            return lease

    world.server._current.clear()
    world.now += LIFE_S * 0.9
    fetched(world.process(Replaced(world.slot)))
    assert world.server.requests[1:] == ["refresh-2", "refresh-elsewhere"]


def test_a_grant_that_was_revoked_needs_a_login(world):
    fetched(process := world.process())
    world.server.is_revoked = True
    error = failed(process, RefusedError)
    assert error.is_certain
    assert "To log in again, run token-keeper login" in str(error)
    assert world.record().mark is None


def test_a_grant_that_was_revoked_after_a_lost_answer_says_so(world):
    fetched(process := world.process())
    world.server.faults.extend([Fault.LOST_BEFORE])
    failed(process)
    world.server.is_revoked = True
    assert "answer to an earlier refresh had been lost" in str(failed(process, RefusedError))


def test_without_a_grant_somebody_has_to_log_in(world):
    world.seed = None
    error = failed(world.process(), RefusedError)
    assert error.reason == "login_required"
    assert "token-keeper login" in str(error)


def test_a_newly_configured_refresh_token_begins_anew(world):
    fetched(world.process())
    world.server._current.add("new-login")
    world.seed = Secret("new-login")
    world.now += LIFE_S * 0.9
    fetched(world.process())
    assert world.server.requests[-1] == "new-login"
    assert world.record().superseded is None


def test_one_that_is_refused_leaves_the_stored_grant_in_use(world):
    fetched(world.process())
    world.seed = Secret("a-typo")
    world.now += LIFE_S * 0.9
    fetched(process := world.process())
    assert world.server.requests[1:] == ["a-typo", "refresh-2"]
    fetched(process)
    assert world.server.requests[3:] == ["refresh-4"]


def test_a_newly_configured_refresh_token_is_used_at_once(world):
    old = fetched(world.process())
    world.server._current.add("new-login")
    world.seed = Secret("new-login")
    assert fetched(world.process()) != old


def test_a_disk_that_is_full_before_is_met_before_the_token_is_spent(world):
    full = StoreError("/store/chat.grant", "there is no room")
    error = failed(world.process(FaultySlot(world.slot, write1=full)))
    assert "there is no room" in str(error)
    assert not world.server.requests


def test_a_new_refresh_token_that_cannot_be_written_is_kept_and_its_access_token_not_used(world):
    slot = FaultySlot(world.slot, write2=StoreError("/store/chat.grant", "the disk is broken"))
    process = world.process(slot)
    assert "in memory only" in str(failed(process))
    token = fetched(process)
    assert world.record().access_token == token
    assert world.server.requests == ["refresh-1"]


def test_what_could_not_be_written_is_written_at_the_end_at_the_latest(world):
    slot = FaultySlot(world.slot, write2=StoreError("/store/chat.grant", "the disk is broken"))

    async def fetch_and_close():
        process = world.process(slot)
        with pytest.raises(TransientFetchError):
            await process.fetch(tries=1)
        await process.aclose()

    run_virtual(fetch_and_close())
    assert world.record().refresh_token == Secret("refresh-2")
    assert world.record().mark is None


def test_a_refresh_token_beside_an_unreadable_access_token_is_kept(world):
    world.server.faults.extend([Fault.UNREADABLE])
    process = world.process()
    failed(process, FetchError)
    assert world.record().refresh_token == Secret("refresh-2")
    fetched(process)
    assert not world.server.reuses


def test_what_could_not_be_written_is_dropped_if_another_process_went_on(world):
    slot = FaultySlot(world.slot, write2=StoreError("/store/chat.grant", "the disk is broken"))
    process = world.process(slot)
    failed(process)
    theirs = fetched(world.process())
    assert fetched(process) == theirs
    assert not world.server.reuses


def test_a_cancelled_fetch_does_not_cancel_the_exchange(world):
    async def cancelled():
        process = world.process()
        call = asyncio.create_task(process.fetch(tries=1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        return await process.fetch(tries=1)

    token = run_virtual(cancelled()).secret
    assert world.server.requests == ["refresh-1"]
    assert world.record().access_token == token


def test_a_record_of_another_server_is_neither_sent_nor_replaced(world):
    with world.slot.try_lease() as lease:
        lease.write(Record(owner="https://other.example client", refresh_token=Secret("theirs")))
    error = failed(world.process())
    assert "https://other.example" in str(error)
    assert "theirs" not in str(error)
    assert world.record().refresh_token == Secret("theirs")
    assert not world.server.requests


def test_an_access_token_of_a_stored_grant_may_not_outlive_a_denial(world):
    """Denied, the keeper asks again: the stored one, which it has had, is not given again."""
    process = world.process()
    first = fetched(process)
    assert fetched(process) != first


def test_nothing_is_shown_of_what_is_kept(world):
    process = world.process()
    fetched(process)
    world.server.is_revoked = True
    error = failed(process, RefusedError)
    chain: list[BaseException | None] = [error, error.__cause__, error.__context__]
    assert "refresh-2" not in repr([*map(str, chain), *map(repr, chain)])
    assert error.__traceback__ is not None
    frames = []
    trace = error.__traceback__
    while trace:
        frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert not any("refresh-2" in frame for frame in frames)


def test_the_owner_is_part_of_every_record(world):
    fetched(world.process())
    assert world.record().owner == OWNER


def test_errors_of_the_store_are_failed_fetches(world):
    slot = FaultySlot(world.slot, write1=StoreError("/store/chat.grant", "is not writable: chmod u+w"))
    assert isinstance(failed(world.process(slot)), FetchError)
