"""The machine while all goes well: fetching, publishing, refreshing, announcing.

Its troubles are in test_machine_trouble.py, denials in test_recovery.py.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
from helpers import DAY, HOUR, MINUTE, PLAIN, T0, a_token, at, caching, mint, minting, starts, waits

from token_keeper._errors import RefusedError, TransientFetchError
from token_keeper._inputs import (
    Announce,
    CancelFetch,
    ClockJumped,
    Closed,
    CredentialsChanged,
    Failure,
    Fetched,
    FetchFailed,
    Started,
    StartFetch,
    Tick,
    TokenAccepted,
)
from token_keeper._machine import next_wakeup, step
from token_keeper._model import EventKind, Phase, Status
from token_keeper._policy import RefreshPolicy
from token_keeper._state import NEVER, State
from token_keeper.testing._simulation import Simulation

DOWN = TransientFetchError("the backend is down")
REFUSED = RefusedError("invalid_grant")
DOUBTFUL = RefusedError("http_401")
STALE_AT = 48 * MINUTE
SPLAYED = RefreshPolicy(jitter_ratio=0.0)


# One fetch at a time.


def test_a_machine_that_was_not_started_fetches_nothing() -> None:
    sim = Simulation(minting(), start=False)
    sim.run_for(DAY)

    assert sim.fetches == []
    assert sim.snapshot.status is Status.ABSENT


def test_starting_twice_is_starting_once() -> None:
    sim = Simulation(minting(), policy=PLAIN)
    sim.post(Started())
    sim.run_for(MINUTE)

    assert len(sim.fetches) == 1


def test_a_refresh_request_joins_the_fetch_in_flight() -> None:
    sim = Simulation(minting(), policy=PLAIN, fetch_s=5)
    sim.run_for(2)
    sim.refresh()
    sim.run_for(MINUTE)

    assert starts(sim) == [0]


def test_the_next_fetch_starts_min_interval_after_the_end_of_the_last_one() -> None:
    sim = Simulation(minting(), policy=replace(PLAIN, min_interval_s=7), fetch_s=5)
    sim.run_for(5)
    sim.refresh()
    sim.run_for(MINUTE)

    assert starts(sim) == [0, 12]


def test_a_fetch_may_take_a_sixth_of_what_remains() -> None:
    sim = Simulation(minting(2 * MINUTE), policy=PLAIN)
    sim.run_for(100)

    assert [fetch.timeout_s for fetch in sim.fetches] == [30, 5]


def test_a_late_outcome_of_a_cancelled_fetch_is_ignored() -> None:
    state, _ = step(State(), Started(), at(0), PLAIN)
    state, effects = step(state, CredentialsChanged(), at(1), PLAIN)
    assert effects == (CancelFetch(1),)

    for late in (Fetched(1, a_token()), FetchFailed(1, Failure(message="down"))):
        assert step(state, late, at(1.5), PLAIN) == (state, ())


def test_closing_cancels_the_fetch_and_nothing_happens_after_it() -> None:
    sim = Simulation(minting(), fetch_s=5)
    sim.run_for(1)
    sim.post(Closed())
    sim.refresh()
    sim.run_for(DAY)

    assert len(sim.fetches) == 1
    assert sim.names() == []
    assert sim.snapshot.status is Status.CLOSED
    assert next_wakeup(sim.state, sim.policy) == NEVER


def test_a_closed_machine_hands_out_nothing() -> None:
    sim = Simulation(minting())
    sim.run_for(1)
    sim.post(Closed())

    assert sim.usable() is None


# Publish.


def test_a_fetched_token_is_published_as_the_next_generation() -> None:
    first, second = a_token(), a_token(expires_at=T0 + 2 * HOUR)
    sim = Simulation([first, second], policy=PLAIN)
    sim.run_for(1)
    assert (sim.usable(), sim.snapshot.generation) == (first, 1)

    sim.run_for(HOUR)
    assert (sim.usable(), sim.snapshot.generation) == (second, 2)


def test_a_token_that_expired_on_its_way_is_not_published() -> None:
    kept, late = a_token(), a_token(expires_at=T0 + STALE_AT - 1)
    sim = Simulation([kept, late], policy=PLAIN)
    sim.run_for(STALE_AT + 0.5)

    assert sim.usable() == kept
    assert sim.names()[-1] == "refreshFailed"


def test_a_token_expires_on_the_issuers_clock() -> None:
    state, _ = step(State(), Started(), at(0), PLAIN)
    ahead = Fetched(1, a_token(expires_at=T0 + HOUR), skew_s=600.0)
    state, _ = step(state, ahead, at(0), PLAIN)

    assert state.current is not None
    assert state.current.expires == HOUR - 600


def test_a_new_token_settles_while_the_old_one_serves() -> None:
    old, new = a_token(), a_token(expires_at=T0 + 2 * HOUR)
    sim = Simulation([old, new], policy=replace(PLAIN, settle_s=10))
    sim.run_for(STALE_AT + 9)
    assert sim.usable() == old

    sim.run_for(1)
    assert sim.usable() == new


def test_the_first_token_does_not_settle() -> None:
    sim = Simulation([a_token()], policy=replace(PLAIN, settle_s=10))
    sim.run_for(0)

    assert sim.snapshot.generation == 1


def test_settling_ends_before_the_old_token_expires() -> None:
    sim = Simulation(minting(12), policy=replace(PLAIN, settle_s=60))
    sim.run_for(HOUR)

    assert "tokenExpired" not in sim.names()
    assert sim.snapshot.generation > 300


def test_a_denied_token_is_replaced_by_the_one_that_settles_at_once() -> None:
    old, new = a_token(), a_token(expires_at=T0 + 2 * HOUR)
    sim = Simulation([old, new], policy=replace(PLAIN, settle_s=10))
    sim.run_for(STALE_AT + 1)
    sim.deny()

    assert sim.usable() == new
    assert len(sim.fetches) == 2


def test_a_token_that_expired_while_it_settled_is_dropped_for_another_one() -> None:
    sim = Simulation(minting(), policy=replace(PLAIN, settle_s=10))
    sim.run_for(STALE_AT + 1)
    sim.suspend(DAY)
    sim.run_for(0)

    assert sim.names() == [
        "tokenUpdated",
        "tokenAboutToExpire",
        "clockJumped",
        "tokenExpired",
        "tokenUpdated",
    ]
    assert len(sim.fetches) == 3


def test_a_jump_while_a_token_settles_causes_a_fetch_all_the_same() -> None:
    sim = Simulation(minting(), policy=replace(PLAIN, settle_s=10))
    sim.run_for(STALE_AT + 1)
    sim.step_wall(60)
    sim.run_for(MINUTE)

    assert starts(sim) == [0, STALE_AT, STALE_AT + 10]


def test_new_credentials_drop_the_token_that_settles() -> None:
    sim = Simulation(minting(), policy=replace(PLAIN, settle_s=10))
    sim.run_for(STALE_AT + 5)
    sim.post(CredentialsChanged())
    sim.run_for(1)

    assert starts(sim) == [0, STALE_AT, STALE_AT + 5]


# Lifetime, lead, jitter.


def test_the_refresh_is_due_by_what_was_left_at_receipt() -> None:
    half_used = a_token(issued_at=T0 - HOUR, expires_at=T0 + HOUR)
    sim = Simulation([half_used, *[mint()] * 3], policy=PLAIN)
    sim.run_for(HOUR)

    assert starts(sim) == [0, STALE_AT]


def test_readers_may_learn_how_long_such_tokens_live_from_the_claims() -> None:
    sim = Simulation([a_token(issued_at=T0 - HOUR, expires_at=T0 + HOUR)])
    sim.run_for(0)

    assert sim.state.current is not None
    assert sim.state.current.lifetime_s == 2 * HOUR


def test_about_to_expire_is_announced_and_then_the_fetch_starts() -> None:
    state, _ = step(State(), Started(), at(0), PLAIN)
    state, _ = step(state, Fetched(1, a_token()), at(0), PLAIN)
    _, (warning, order) = step(state, Tick(), at(STALE_AT), PLAIN)

    assert isinstance(warning, Announce)
    assert warning.kind is EventKind.TOKEN_ABOUT_TO_EXPIRE
    assert isinstance(order, StartFetch)


def test_jitter_brings_each_refresh_forward_by_up_to_a_tenth_of_the_lifetime() -> None:
    dues = set()
    for seed in range(50):
        sim = Simulation(minting(), policy=RefreshPolicy(splay=False), seed=seed)
        sim.run_for(1)
        dues.add(sim.state.due)

    assert len(dues) == 50
    assert STALE_AT - 300 <= min(dues) < max(dues) <= STALE_AT


def test_a_year_long_token_is_refreshed_daily_and_without_a_warning() -> None:
    sim = Simulation(minting(365 * DAY), policy=PLAIN)
    sim.run_for(10 * DAY + 1)

    assert starts(sim) == [day * DAY for day in range(11)]
    assert set(sim.names()) == {"tokenUpdated"}


# Splay.


def test_the_first_token_is_refreshed_somewhere_between_a_tenth_of_its_life_and_stale_at() -> None:
    dues = []
    for seed in range(200):
        sim = Simulation(minting(), policy=SPLAYED, seed=seed)
        sim.run_for(1)
        dues.append(sim.state.due)

    assert 360 <= min(dues) < 500
    assert STALE_AT - 140 < max(dues) <= STALE_AT


def test_a_splayed_refresh_announces_no_expiry() -> None:
    sim = Simulation(minting(), policy=SPLAYED)
    sim.run_for(STALE_AT)

    assert sim.names() == ["tokenUpdated", "tokenUpdated"]


def test_after_a_scheduled_refresh_there_is_no_splay() -> None:
    sim = Simulation(minting(), policy=SPLAYED)
    sim.run_for(10 * HOUR)

    assert waits(sim)[1:] == [pytest.approx(STALE_AT)] * (len(sim.fetches) - 2)


@pytest.mark.parametrize(
    "disturb",
    [
        Simulation.refresh,
        Simulation.deny,
        lambda sim: sim.suspend(60),
        lambda sim: sim.step_wall(60),
        lambda sim: sim.post(CredentialsChanged()),
    ],
    ids=["refresh", "denial", "resume", "clock jump", "new credentials"],
)
def test_what_a_whole_fleet_may_go_through_at_once_is_followed_by_splay(disturb) -> None:
    sim = Simulation(minting(), policy=SPLAYED, seed=3)
    sim.run_for(2 * HOUR)
    disturb(sim)
    sim.run_for(1)

    assert sim.state.current is not None
    assert sim.state.due < sim.state.current.stale


def test_a_refresh_after_failures_is_followed_by_splay() -> None:
    sim = Simulation([mint(), mint(), DOWN, mint()], policy=SPLAYED)
    sim.run_for(2 * HOUR)

    assert sim.snapshot.generation == 3
    assert sim.state.current is not None
    assert sim.state.due < sim.state.current.stale


def test_after_unchanged_there_is_no_splay() -> None:
    token = a_token()
    sim = Simulation([token, token, mint()], policy=SPLAYED, seed=3)
    sim.run_for(20)
    sim.refresh()
    sim.refresh()
    sim.run_for(10)
    sim.refresh()
    sim.run_for(10)

    assert sim.state.current is not None
    assert sim.snapshot.generation == 2
    assert sim.state.due == sim.state.current.stale


# Events.


def test_events_that_a_jump_skipped_come_back_to_back_and_in_order() -> None:
    sim = Simulation([mint()], policy=PLAIN)
    sim.run_for(1)
    sim.suspend(DAY)

    assert sim.names() == ["tokenUpdated", "clockJumped", "tokenAboutToExpire", "tokenExpired"]


def test_about_to_expire_is_announced_on_time_in_every_phase() -> None:
    sim = Simulation([mint(), *[REFUSED] * 99], policy=PLAIN)
    sim.run_for(10)
    sim.refresh()
    sim.run_for(HOUR)

    (event,) = [event for event in sim.events if event.kind is EventKind.TOKEN_ABOUT_TO_EXPIRE]
    assert event.at == T0 + STALE_AT


def test_about_to_expire_is_announced_while_a_fetch_is_in_flight() -> None:
    sim = Simulation(minting(), policy=PLAIN, fetch_s=20)
    sim.run_for(STALE_AT + 10)
    sim.refresh()
    sim.run_for(15)

    assert sim.snapshot.phase is Phase.FETCHING
    assert sim.names() == ["tokenUpdated", "tokenAboutToExpire"]
    assert sim.events[-1].at == pytest.approx(T0 + 20 + STALE_AT)


def test_a_token_expires_at_its_very_moment() -> None:
    sim = Simulation([a_token()], policy=PLAIN)
    sim.run_for(HOUR - 0.001)
    assert sim.snapshot.status is Status.STALE

    sim.run_for(0.001)
    assert sim.usable() is None
    assert sim.snapshot.status is Status.EXPIRED


# Updates from outside.


def test_a_supplied_token_cancels_the_fetch_and_is_published() -> None:
    mine = a_token()
    sim = Simulation(minting(), fetch_s=5)
    sim.run_for(1)
    sim.supply(mine)
    sim.run_for(10)

    assert sim.usable() == mine
    assert sim.names() == ["tokenUpdated"]


@pytest.mark.parametrize(("failure", "phase"), [(DOWN, Phase.BACKING_OFF), (REFUSED, Phase.REFUSED)])
def test_a_supplied_token_ends_backing_off_and_refused(failure: TransientFetchError, phase: Phase) -> None:
    sim = Simulation([failure] * 99)
    sim.run_for(1)
    assert sim.snapshot.phase is phase

    sim.supply(a_token())
    assert sim.snapshot.phase is Phase.WAITING
    assert sim.snapshot.failures == 0


def test_supplying_the_current_token_again_changes_nothing() -> None:
    token = a_token()
    sim = Simulation([token])
    sim.run_for(1)
    before = sim.state
    sim.supply(token)

    assert sim.state == before


def test_an_expired_token_and_a_denied_one_cannot_be_supplied() -> None:
    denied, current = a_token(), a_token()
    sim = Simulation([denied, current], policy=PLAIN)
    sim.run_for(1)
    sim.deny()
    sim.run_for(1)
    sim.supply(denied)
    sim.supply(a_token(expires_at=T0))

    assert sim.usable() == current


def test_a_token_supplied_before_the_start_is_used_and_refreshed_later() -> None:
    sim = Simulation(minting(), policy=PLAIN, start=False)
    sim.supply(a_token())
    sim.run_for(10)
    sim.post(Started())
    sim.run_for(HOUR)

    assert starts(sim) == [STALE_AT]


def test_new_credentials_cancel_the_fetch_and_ask_again() -> None:
    sim = Simulation(minting(), fetch_s=5)
    sim.run_for(1)
    sim.post(CredentialsChanged())
    sim.run_for(10)

    assert starts(sim) == [0, 2]
    assert sim.snapshot.generation == 1


def test_a_token_that_is_not_wanted_any_more_is_withdrawn_and_its_successor_counts_on() -> None:
    sim = Simulation(minting(), fetch_s=5)
    sim.run_for(10)
    sim.post(CredentialsChanged(keeps=False))

    assert sim.usable() is None
    assert sim.snapshot.status == "absent"
    sim.run_for(10)
    assert sim.snapshot.generation == 2
    assert sim.names() == ["tokenUpdated", "tokenUpdated"]


def test_new_credentials_forget_how_the_source_caches() -> None:
    sim = Simulation(chain(caching(HOUR, renews_in_last_s=60)), policy=PLAIN)
    sim.run_for(2 * HOUR)
    assert sim.state.window_s is not None

    sim.post(CredentialsChanged())
    assert sim.state.window_s is None


# A keeper without a source.


def test_a_keeper_without_a_source_announces_and_fetches_nothing() -> None:
    sim = Simulation(sourced=False)
    sim.refresh()
    sim.supply(a_token())
    sim.post(ClockJumped(wall_s=5))
    sim.post(CredentialsChanged())
    sim.run_for(2 * HOUR)

    assert sim.fetches == []
    told = [(event.kind, event.at - T0) for event in sim.events if event.kind != "clockJumped"]
    assert told == [("tokenUpdated", 0), ("tokenAboutToExpire", HOUR - 180), ("tokenExpired", HOUR)]
    assert sim.snapshot.refresh_at is None
    assert sim.snapshot.next_attempt_at is None


# Short lifetimes.


@pytest.mark.parametrize("lifetime_s", [5, 6, 8, 12, 30])
def test_lifetimes_from_5_s_are_kept_without_a_gap_if_a_fetch_takes_under_2_s(lifetime_s: float) -> None:
    for seed in range(5):
        sim = Simulation(minting(lifetime_s), fetch_s=1.99, seed=seed)
        sim.run_for(20 * MINUTE)

        assert "tokenExpired" not in sim.names()


@pytest.mark.parametrize("lifetime_s", [0.2, 1, 2, 3, 4])
def test_lifetimes_under_5_s_cause_no_hot_loop(lifetime_s: float) -> None:
    sim = Simulation(minting(lifetime_s))
    sim.run_for(10 * MINUTE)

    assert min(waits(sim)) >= 1
    assert len(sim.history) <= 10 * 600


@pytest.mark.parametrize(
    "policy",
    [
        RefreshPolicy(lead_ratio=0.5, jitter_ratio=0.5),
        RefreshPolicy(lead_ratio=0.0, lead_min_s=0.0, jitter_ratio=0.0),
        RefreshPolicy(min_interval_s=100.0),
        RefreshPolicy(max_refresh_interval_s=1.0, jitter_ratio=0.5),
        RefreshPolicy(settle_s=1_000.0),
        RefreshPolicy(backoff_min_s=0.1, min_interval_s=0.1),
    ],
)
def test_no_policy_causes_a_hot_loop(policy: RefreshPolicy) -> None:
    for lifetime_s in (2, 60):
        flaky = (mint(lifetime_s) if number % 3 else DOWN for number in range(100_000))
        sim = Simulation(flaky, policy=policy)
        sim.run_for(10 * MINUTE)

        assert min(waits(sim)) >= policy.min_interval_s - 1e-9
        assert len(sim.history) <= 10 * 600 / min(policy.min_interval_s, 1.0)


# What may be shown.


def test_the_snapshot_shows_when_what_is_planned() -> None:
    sim = Simulation(minting(), policy=PLAIN)
    sim.run_for(1)
    shown = sim.snapshot

    assert (shown.status, shown.phase) == (Status.FRESH, Phase.WAITING)
    assert shown.stale_at == shown.refresh_at == shown.next_attempt_at == T0 + STALE_AT
    assert shown.expires_at == T0 + HOUR
    assert shown.usable_for == HOUR - 1
    assert shown.denied_by == ()


def test_no_attempt_is_planned_while_one_is_made() -> None:
    sim = Simulation(minting(), fetch_s=5)

    assert sim.snapshot.next_attempt_at is None


@pytest.mark.parametrize(
    ("failure", "lived"), [(DOWN, 0.1), (DOWN, 0.85), (REFUSED, 0.85)], ids=["fresh", "down", "refused"]
)
@pytest.mark.parametrize("lifetime_s", [12, MINUTE, HOUR, DAY])
def test_at_least_as_many_attempts_are_left_as_the_snapshot_says(
    failure: TransientFetchError, lived: float, lifetime_s: float
) -> None:
    sim = Simulation([mint(lifetime_s), *[failure] * 500], policy=PLAIN)
    sim.run_for(lifetime_s * lived)
    promised, before = sim.snapshot.attempts_left, len(sim.fetches)
    sim.run_for(lifetime_s * (1 - lived) - 0.001)

    assert promised is not None
    assert len(sim.fetches) - before >= promised > 0


def test_the_fetch_in_flight_counts_as_an_attempt() -> None:
    sim = Simulation(minting(12), policy=PLAIN, fetch_s=2)
    sim.run_for(8.5)

    assert sim.snapshot.phase is Phase.FETCHING
    assert sim.snapshot.attempts_left is not None
    assert sim.snapshot.attempts_left >= 1


def test_an_acceptance_of_a_former_token_is_ignored() -> None:
    sim = Simulation(minting(), policy=PLAIN)
    sim.run_for(1)
    before = sim.state
    sim.post(TokenAccepted(7))

    assert sim.state == before


def test_a_simulation_refuses_to_spin() -> None:
    class Spinning(Simulation):
        def _next(self) -> float:
            return self.boot

    with pytest.raises(RuntimeError, match="spins"):
        Spinning().run_for(1)
