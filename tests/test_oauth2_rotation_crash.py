"""No grant is lost, whatever dies when: real processes, SIGKILL, a provider that revokes what is used twice.

TOKEN_KEEPER_CRASHES=5000 kills that many processes at random times; TOKEN_KEEPER_CRASH_SEED repeats a run.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics

import pytest
from crashing import Crew
from oidc_provider import DEVICE, Provider, provider_program

from token_keeper import OAuth2Source, TransientFetchError
from token_keeper.store import DirectoryStore
from token_keeper.testing import run_virtual

CRASHES = int(os.environ.get("TOKEN_KEEPER_CRASHES", "60"))
SEED = int(os.environ.get("TOKEN_KEEPER_CRASH_SEED", "0")) or random.randrange(1, 2**31)
GRACE_S = 600
MOST = 1_000_000_000
WHEN = ("before", "after")

pytestmark = pytest.mark.timeout(120 + CRASHES)


@pytest.fixture(scope="module")
def program(request):
    yield from provider_program(request.config)


def words(provider, **options):
    """Return the words of a source whose grant starts with a login just now."""
    return {
        "token_url": provider.token_url,
        "grant": "refresh_token",
        "client_id": DEVICE["client_id"],
        "refresh_token": provider.logged_in(),
        "stored_as": "api",
        **options,
    }


@pytest.fixture
def strict(program):
    """A provider that knows no grace: a refresh token that comes twice ends the grant."""
    return Provider(program, [DEVICE])


@pytest.fixture
def forgiving(program):
    """A provider that forgives one replay."""
    return Provider(program, [DEVICE], graceSeconds=GRACE_S, graceLimit=1)


@pytest.fixture
def most_forgiving(program):
    """A provider that forgives any number of replays, for long enough."""
    return Provider(program, [DEVICE], graceSeconds=GRACE_S, graceLimit=MOST)


def assert_nothing_tripped(provider):
    counts = provider.counts()
    # A request that ends with its sender is an invalid one: nobody hears that.
    assert counts.errors.keys() <= {"invalid_request"}, counts
    assert (counts.reused, counts.grantsRevoked) == (0, 0), counts
    return counts


def two_fetches(worker, **death):
    """Take over what others fetched, then renew it: what a process does that starts while its token lives."""
    return worker.fetch(), worker.fetch(**death)


def assert_goes_on(crew, dead=()):
    """A process that starts now takes over what the *dead* one handed out last, or newer, and renews it."""
    with crew.hired() as worker:
        taken, renewed = two_fetches(worker)
    assert taken.token, (taken, dead)
    assert renewed.token, (renewed, dead)
    assert renewed.token != taken.token
    handed = [outcome.token for outcome in dead if outcome.token]
    assert taken.token not in handed[:-1], "it took over what was superseded"


def test_killed_at_any_step_of_a_rotation_the_next_process_goes_on(forgiving, tmp_path):
    with Crew(tmp_path, **words(forgiving)) as crew:
        assert_goes_on(crew)
        for step in itertools.count():
            with crew.hired() as worker:
                outcomes = two_fetches(worker, kill_at=step)
            assert_goes_on(crew, outcomes)
            if not outcomes[-1].killed:
                break

    assert {file.name for file in tmp_path.iterdir()} == {"api.grant", "api.lock"}, (
        "what the dead left is swept"
    )
    counts = assert_nothing_tripped(forgiving)
    print(f"{step} steps, {counts}")
    # Before and after each of these, and so in the middle of all that matters.
    done = {f"{when} {call}" for call in ("fsync", "replace", "connect", "send", "recv") for when in WHEN}
    assert done <= {*outcomes[-1].steps}
    assert counts.replayed > 0


def killed_at_random(crew, chance, after=None):
    """Kill half of CRASHES at random times of a renewal. Returns the figures."""
    assert_goes_on(crew)
    typical, deaths = typical_seconds(crew), 0
    for _ in range(CRASHES // 2):
        with crew.hired() as worker:
            outcomes = two_fetches(worker, kill_after=chance.uniform(0, 1.3 * typical))
        assert not [outcome for outcome in outcomes if outcome.error], (outcomes, SEED)
        deaths += outcomes[-1].killed
        if after is not None:
            after(outcomes)
    assert_goes_on(crew)
    assert deaths > CRASHES // 8
    return f"seed {SEED}: {deaths} of {CRASHES // 2} killed, a renewal takes {typical * 1000:.0f} ms"


def typical_seconds(crew):
    """Measure how long a process needs here and now for its first renewal."""

    def first_renewal():
        with crew.hired() as worker:
            return two_fetches(worker)[1].seconds

    return statistics.median(first_renewal() for _ in range(7))


def test_killed_at_random_times_the_next_process_goes_on(forgiving, tmp_path):
    with Crew(tmp_path, **words(forgiving)) as crew:
        figures = killed_at_random(crew, random.Random(SEED), lambda dead: assert_goes_on(crew, dead))

    print(figures, assert_nothing_tripped(forgiving))


def test_killed_again_and_again_no_grant_is_lost(most_forgiving, tmp_path):
    asked = words(most_forgiving, replay_window=GRACE_S, replay_limit=100)
    with Crew(tmp_path, **asked) as crew:
        figures = killed_at_random(crew, random.Random(SEED + 1))

    print(figures, assert_nothing_tripped(most_forgiving))


@pytest.mark.parametrize(("processes", "rounds"), [(2, CRASHES // 3), (8, CRASHES // 8)])
def test_processes_that_need_a_token_at_once_send_one_request(strict, tmp_path, processes, rounds):
    with Crew(tmp_path, **words(strict)) as crew:
        before = strict.counts().requests
        workers = [crew.hire() for _ in range(processes)]
        tokens = []
        for _ in range(rounds):
            for worker in workers:
                worker.begin()
            outcomes = [worker.outcome() for worker in workers]
            assert len({outcome.token for outcome in outcomes}) == 1, outcomes
            tokens.append(outcomes[0].token)
        for worker in workers:
            worker.end()

    counts = assert_nothing_tripped(strict)
    assert len({*tokens}) == counts.requests - before == rounds
    assert counts.rotated == rounds


@pytest.mark.parametrize(("processes", "fetches"), [(2, CRASHES // 3), (8, CRASHES // 12)])
def test_processes_that_fetch_as_fast_as_they_can_never_send_a_token_twice(
    strict, tmp_path, processes, fetches
):
    with Crew(tmp_path, **words(strict)) as crew:
        before = strict.counts().requests
        workers = [crew.hire() for _ in range(processes)]
        outcomes = []
        for worker in workers:
            worker.begin()
        for _ in range(fetches - 1):
            for worker in workers:
                outcomes.append(worker.outcome())
                worker.begin()
        outcomes += [worker.outcome() for worker in workers]
        for worker in workers:
            worker.end()

    counts = assert_nothing_tripped(strict)
    assert all(outcome.token for outcome in outcomes), outcomes
    print(counts, len(outcomes))
    assert len({outcome.token for outcome in outcomes}) == counts.rotated == counts.requests - before


def test_a_death_among_others_costs_them_nothing(most_forgiving, tmp_path):
    chance = random.Random(SEED + 2)
    with Crew(tmp_path, **words(most_forgiving, replay_window=GRACE_S, replay_limit=100)) as crew:
        assert_goes_on(crew)
        typical, deaths = typical_seconds(crew), 0
        workers = [crew.hire() for _ in range(4)]
        for _ in range(CRASHES // 10):
            for worker in workers:
                worker.begin()
            first = workers.pop(0).outcome(kill_after=chance.uniform(0, typical))
            outcomes = [worker.outcome() for worker in workers]
            assert all(outcome.token for outcome in outcomes), (first, outcomes, SEED)
            deaths += first.killed
            workers.append(crew.hire())

    print(f"seed {SEED}: {deaths} of {CRASHES // 10} killed", assert_nothing_tripped(most_forgiving))


def die_unheard(crew, provider):
    """Let a process die when the provider has acted, and it has not heard that."""
    with crew.hired() as worker:
        worker.fetch()
        provider.hold()
        worker.begin()
        provider.wait_until_held()
        worker.kill()
        assert worker.outcome().killed
    provider.release()


@pytest.mark.parametrize("limit", [0, 1])
def test_after_more_deaths_than_are_forgiven_the_token_that_is_left_is_not_put_at_risk(
    program, tmp_path, limit
):
    provider = Provider(program, [DEVICE], graceSeconds=GRACE_S if limit else 0, graceLimit=limit)
    with Crew(tmp_path, **words(provider, replay_limit=limit)) as crew:
        assert_goes_on(crew)
        for _ in range(limit + 1):
            die_unheard(crew, provider)
        before = provider.counts()
        with crew.hired() as worker:
            taken, renewed = two_fetches(worker)

    assert taken.token
    assert "log in again" in renewed.message
    assert assert_nothing_tripped(provider).requests == before.requests


def test_the_lock_of_a_process_that_was_killed_is_free(forgiving, tmp_path):
    with Crew(tmp_path, **words(forgiving)) as crew:
        assert_goes_on(crew)
        die_unheard(crew, forgiving)
        before = forgiving.counts()
        assert_goes_on(crew)

    after = assert_nothing_tripped(forgiving)
    assert after.replayed - before.replayed == 1


def test_what_was_handed_out_is_on_the_disk_by_then(strict, tmp_path):
    with Crew(tmp_path, **words(strict)) as crew:
        for _ in range(10):
            with crew.hired() as worker, crew.hired() as other:
                worker.fetch()
                handed = worker.fetch().token
                worker.kill()
                assert other.fetch().token == handed

    assert_nothing_tripped(strict)


def test_while_its_holder_is_stopped_others_say_who_has_the_store_and_then_go_on(strict, tmp_path):
    asked = words(strict)
    with Crew(tmp_path, **asked) as crew, crew.hired() as holder:
        assert holder.fetch().token
        strict.hold()
        holder.begin()
        strict.wait_until_held()
        holder.stop()
        strict.release()

        async def wait_for_it():
            source = OAuth2Source(store=DirectoryStore(tmp_path), **asked)
            await source.fetch(tries=1)

        with pytest.raises(
            TransientFetchError, match=r"api.* has been in use by process \d+ .*for over 20 s"
        ):
            run_virtual(wait_for_it)
        holder.go_on()
        held = holder.outcome()
        with crew.hired() as other:
            assert other.fetch().token == held.token
            assert other.fetch().token

    assert_nothing_tripped(strict)


def test_an_answer_that_is_lost_costs_one_replay(forgiving, tmp_path):
    with Crew(tmp_path, **words(forgiving)) as crew, crew.hired() as worker:
        assert worker.fetch().token
        forgiving.cut()

        lost, healed, after = worker.fetch(), worker.fetch(), worker.fetch()

    assert (lost.error, bool(healed.token), bool(after.token)) == ("TransientFetchError", True, True)
    counts = assert_nothing_tripped(forgiving)
    assert (counts.requests - 1, counts.replayed) == (4, 1)


def test_after_two_lost_answers_it_keeps_the_token_that_it_has(forgiving, tmp_path):
    with Crew(tmp_path, **words(forgiving)) as crew, crew.hired() as worker:
        assert worker.fetch().token
        forgiving.cut(2)

        first, second, third = worker.fetch(), worker.fetch(), worker.fetch()

    assert [first.error, second.error, third.error] == ["TransientFetchError"] * 3
    assert "log in again" in third.message
    counts = assert_nothing_tripped(forgiving)
    assert counts.requests - 1 == 3, "the third one sent nothing"
