"""What the machine does when fetches fail, bring nothing new, or the clocks jump."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
from helpers import DAY, HOUR, MINUTE, PLAIN, T0, a_token, backend, caching, mint, minting, starts, waits

from token_keeper._errors import RefusedError, ResponseError, TransientFetchError
from token_keeper._inputs import ClockJumped, CredentialsChanged
from token_keeper._model import EventKind, Phase
from token_keeper._policy import RefreshPolicy
from token_keeper.testing._simulation import Simulation

DOWN = TransientFetchError("the backend is down")
REFUSED = RefusedError("invalid_grant")
DOUBTFUL = RefusedError("http_401")
STALE_AT = 48 * MINUTE


# A fetch failed.


def test_a_failed_fetch_leaves_the_valid_token_in_use() -> None:
    token = a_token()
    sim = Simulation([token], policy=PLAIN)
    sim.run_for(HOUR - 1)

    assert sim.usable() == token
    assert sim.snapshot.last_error == "the script has ended"
    assert sim.snapshot.phase is Phase.BACKING_OFF


def test_waits_double_from_1_s_to_a_sixth_of_the_span_that_is_fixed_for_the_streak() -> None:
    sim = Simulation([mint()], policy=PLAIN)
    sim.run_for(HOUR)

    nominal = [1, 2, 4, 8, 16, 32, 64, 120, 120, 120, 120]
    for waited, wait in zip(waits(sim)[1:], nominal, strict=False):
        assert max(wait / 2, 1) <= waited <= wait


@pytest.mark.parametrize("lifetime_s", [30, 60, 5 * MINUTE, HOUR, DAY])
def test_five_attempts_fit_before_the_expiry(lifetime_s: float) -> None:
    sim = Simulation([mint(lifetime_s)], policy=PLAIN)
    sim.run_for(lifetime_s - 0.001)

    assert len(sim.fetches) - 1 >= 5


def test_only_the_first_fetch_of_a_streak_makes_extra_tries() -> None:
    sim = Simulation([mint(), DOWN, DOWN, *[mint()] * 2], policy=PLAIN)
    sim.run_for(2 * HOUR)

    assert [fetch.tries for fetch in sim.fetches[:5]] == [3, 3, 1, 1, 3]


def test_each_failed_fetch_is_announced_once() -> None:
    sim = Simulation([mint(), DOWN, DOWN, DOWN, mint()], policy=PLAIN)
    sim.run_for(HOUR)

    assert sim.names() == ["tokenUpdated", "tokenAboutToExpire", *["refreshFailed"] * 3, "tokenUpdated"]
    assert [event.failures for event in sim.events] == [0, 0, 1, 2, 3, 0]


def test_without_a_valid_token_the_wait_grows_with_the_outage_up_to_5_min() -> None:
    sim = Simulation([])
    sim.run_for(DAY)

    for before, after in pairwise(sim.fetches):
        waited = after.started - before.ends
        assert waited <= min(max(before.ends / 4, 1), 300)
        assert waited >= min(max(before.ends / 8, 1), 150)


def test_a_streak_that_outlives_the_token_goes_on_at_a_quarter_of_its_age() -> None:
    sim = Simulation([mint(12)], policy=PLAIN)
    sim.run_for(DAY)

    assert max(waits(sim)[1:]) <= 300
    assert min(waits(sim)[-20:]) >= 150


def test_a_token_that_becomes_valid_soon_is_fetched_again_by_then() -> None:
    early = ResponseError("not valid yet", retry_within=8.0)
    sim = Simulation([*[DOWN] * 30, early, mint()])
    sim.run_for(HOUR)

    assert waits(sim)[29] > 30
    assert waits(sim)[30] <= 8


def test_a_failed_early_fetch_does_not_put_off_the_scheduled_one() -> None:
    sim = Simulation([mint(), REFUSED, *[mint()] * 2], policy=PLAIN)
    sim.run_for(STALE_AT - 5)
    sim.refresh()
    sim.run_for(6)

    assert sim.snapshot.generation == 2


# Unchanged.


def test_unchanged_is_neither_success_nor_failure() -> None:
    token = a_token()
    sim = Simulation([token, token], policy=PLAIN)
    sim.run_for(10)
    sim.refresh()
    sim.run_for(10)

    assert sim.names() == ["tokenUpdated"]
    assert (sim.snapshot.generation, sim.snapshot.failures, sim.snapshot.unchanged) == (1, 0, 1)


def test_unchanged_before_stale_at_asks_again_at_stale_at() -> None:
    token = a_token()
    sim = Simulation([token, token, mint()], policy=PLAIN)
    sim.run_for(10)
    sim.refresh()
    sim.run_for(HOUR)

    assert starts(sim) == [0, 10, STALE_AT]


def test_unchanged_after_stale_at_asks_when_a_third_of_the_rest_has_passed_and_after_the_expiry() -> None:
    token = a_token()
    sim = Simulation([token] * 50, policy=PLAIN)
    sim.run_for(HOUR + 2)

    after = starts(sim)[1:]
    assert after[:3] == pytest.approx([STALE_AT, STALE_AT + 240, STALE_AT + 400])
    assert after[-2:] == pytest.approx([HOUR + 0.5, HOUR + 1.5])


def test_the_current_token_returned_after_its_expiry_is_a_failed_fetch() -> None:
    token = a_token()
    sim = Simulation([token] * 50, policy=PLAIN)
    sim.run_for(HOUR + 1)

    assert sim.names()[-2:] == ["tokenExpired", "refreshFailed"]
    assert sim.usable() is None


def test_later_tokens_fall_due_when_the_caching_source_is_known_to_renew() -> None:
    sim = Simulation(caching(HOUR, renews_in_last_s=5 * MINUTE), policy=PLAIN)
    sim.run_for(HOUR)
    asked = len(sim.fetches)
    sim.run_for(DAY)

    assert "tokenExpired" not in sim.names()
    assert (len(sim.fetches) - asked) / (sim.snapshot.generation - 2) == pytest.approx(1, abs=0.1)


def test_a_caching_source_that_renews_only_after_the_expiry_costs_moments() -> None:
    sim = Simulation(caching(HOUR, renews_in_last_s=0), policy=PLAIN)
    gaps = 0.0
    for _ in range(10 * 3600 * 2):
        sim.run_for(0.5)
        gaps += 0.5 if sim.usable() is None else 0.0

    assert gaps <= 10 * 1.5
    assert len(sim.fetches) < 10 * 20


def test_a_token_without_a_known_expiry_is_refreshed_hourly_and_fires_no_expiry_events() -> None:
    sim = Simulation(minting(None))
    sim.run_for(DAY)

    assert all(HOUR / 2 <= waited <= HOUR for waited in waits(sim))
    assert set(sim.names()) == {"tokenUpdated"}
    assert sim.snapshot.expires_at is None
    assert sim.snapshot.attempts_left is None


def test_an_unchanged_token_without_a_known_expiry_is_asked_for_hourly() -> None:
    token = a_token(expires_at=None)
    sim = Simulation([token] * 100)
    sim.run_for(DAY)

    assert all(HOUR / 2 <= waited <= HOUR for waited in waits(sim))
    assert sim.usable() == token


def test_the_longest_refresh_interval_holds_for_tokens_without_an_expiry() -> None:
    token = a_token(expires_at=None)
    sim = Simulation([token] * 2000, policy=RefreshPolicy(max_refresh_interval_s=60))
    sim.run_for(HOUR)

    assert max(waits(sim)) <= 60


# Retry-After.


def test_retry_after_is_waited_for_and_little_more() -> None:
    sim = Simulation([mint(), TransientFetchError("busy", retry_after=100.0), mint()], policy=PLAIN)
    sim.run_for(HOUR)

    assert 100 <= waits(sim)[1] <= 110


def test_retry_after_does_not_shorten_the_back_off() -> None:
    sim = Simulation([*[DOWN] * 40, TransientFetchError("busy", retry_after=1.0)])
    sim.run_for(HOUR)

    assert waits(sim)[40] >= 100


def test_retry_after_takes_at_most_half_of_the_remaining_validity() -> None:
    sim = Simulation([mint(), TransientFetchError("busy", retry_after=3_000.0), mint()], policy=PLAIN)
    sim.run_for(HOUR)

    assert 360 <= waits(sim)[1] <= 396


def test_retry_after_takes_at_most_5_min_while_nothing_is_valid() -> None:
    sim = Simulation([TransientFetchError("busy", retry_after=3_000.0), mint()])
    sim.run_for(HOUR)

    assert 300 <= waits(sim)[0] <= 330


def test_retry_after_takes_at_most_5_min_while_the_token_is_withheld() -> None:
    busy = TransientFetchError("busy", retry_after=3_000.0)
    sim = Simulation([mint(DAY), busy, mint(DAY)], policy=PLAIN)
    sim.run_for(1)
    sim.deny()
    sim.run_for(HOUR)

    assert 300 <= waits(sim)[1] <= 330


def test_a_refresh_request_waits_for_retry_after() -> None:
    sim = Simulation([TransientFetchError("busy", retry_after=100.0), mint()])
    sim.run_for(10)
    sim.refresh()
    sim.run_for(85)
    assert len(sim.fetches) == 1

    sim.run_for(20)
    assert len(sim.fetches) == 2


def test_new_credentials_do_not_wait_for_retry_after() -> None:
    sim = Simulation([TransientFetchError("busy", retry_after=100.0), mint()])
    sim.run_for(10)
    sim.post(CredentialsChanged())
    sim.run_for(1)

    assert sim.usable() is not None


# Refused.


def test_a_certain_refusal_is_announced_once_and_probed_ever_more_slowly() -> None:
    sim = Simulation([mint(DAY), *[REFUSED] * 500], policy=PLAIN)
    sim.run_for(1)
    sim.refresh()
    sim.run_for(DAY / 2)

    assert sim.names().count("refreshRefused") == 1
    assert "refreshFailed" not in sim.names()
    assert 7.5 <= waits(sim)[1] <= 15
    assert 450 <= waits(sim)[-1] <= 900


def test_a_refused_keeper_serves_its_token_until_exp_and_then_recovers() -> None:
    refusals = backend(HOUR, is_up=lambda wall: wall > T0 + HOUR + 60, error=REFUSED)
    sim = Simulation(chain([mint()], refusals), policy=PLAIN)
    sim.run_for(HOUR - 1)
    assert sim.usable() is not None

    sim.run_for(HOUR / 2)
    assert sim.names() == [
        "tokenUpdated",
        "tokenAboutToExpire",
        "refreshRefused",
        "tokenExpired",
        "tokenUpdated",
    ]


def test_a_refusing_backend_is_probed_three_times_while_the_token_is_valid() -> None:
    for lifetime_s in (30, 60, 5 * MINUTE, HOUR, DAY):
        sim = Simulation([mint(lifetime_s), *[REFUSED] * 500], policy=PLAIN)
        sim.run_for(lifetime_s - 0.001)

        assert len(sim.fetches) - 2 >= 3


def test_one_refusal_without_a_code_is_a_failure_like_any_other() -> None:
    sim = Simulation([mint(), DOUBTFUL, mint()], policy=PLAIN)
    sim.run_for(HOUR)

    assert "refreshFailed" in sim.names()
    assert "refreshRefused" not in sim.names()


def test_two_refusals_without_a_code_5_s_apart_are_permanent() -> None:
    sim = Simulation([mint(), *[DOUBTFUL] * 20], policy=PLAIN)
    sim.run_until(T0 + HOUR - 300)

    failed = [event.at for event in sim.events if event.kind is EventKind.REFRESH_FAILED]
    (refused,) = [event.at for event in sim.events if event.kind is EventKind.REFRESH_REFUSED]
    assert failed[-1] - failed[0] < 5 <= refused - failed[0]


def test_a_different_failure_between_two_refusals_without_a_code_clears_the_doubt() -> None:
    sim = Simulation([mint(), *[DOUBTFUL, DOWN] * 20], policy=PLAIN)
    sim.run_for(HOUR)

    assert "refreshRefused" not in sim.names()


def test_a_failure_of_another_kind_is_announced_but_does_not_end_the_refusal() -> None:
    sim = Simulation([mint(), REFUSED, DOWN, *[REFUSED] * 50], policy=PLAIN)
    sim.run_for(STALE_AT + 60)

    assert sim.names()[2:] == ["refreshRefused", "refreshFailed"]
    assert sim.snapshot.phase is Phase.REFUSED


@pytest.mark.parametrize("ask", [Simulation.refresh, lambda sim: sim.post(CredentialsChanged())])
def test_a_refresh_request_and_new_credentials_probe_at_once(ask) -> None:
    sim = Simulation([REFUSED, mint()])
    sim.run_for(2)
    ask(sim)
    sim.run_for(0)

    assert sim.usable() is not None


# Clocks.


@pytest.mark.parametrize("seconds", [-DAY, -60, 60, DAY])
def test_a_step_of_the_wall_clock_moves_no_deadline(seconds: float) -> None:
    sim = Simulation(minting(), policy=PLAIN)
    sim.run_for(10)
    before = sim.state.current
    sim.post(ClockJumped(wall_s=seconds))

    assert sim.state.current == before


def test_a_jump_is_announced_and_causes_one_fetch_at_once() -> None:
    sim = Simulation(minting(), policy=PLAIN)
    sim.run_for(10)
    sim.step_wall(-60)
    sim.run_for(MINUTE)

    assert sim.names() == ["tokenUpdated", "clockJumped", "tokenUpdated"]
    assert starts(sim) == [0, 10]


def test_a_jump_before_the_start_causes_no_fetch() -> None:
    sim = Simulation(minting(), start=False)
    sim.step_wall(60)
    sim.run_for(MINUTE)

    assert sim.fetches == []


def test_a_suspended_machine_fetches_when_it_wakes_and_never_shows_the_expired_token() -> None:
    sim = Simulation(minting(), policy=PLAIN)
    sim.run_for(10)
    sim.suspend(DAY)
    assert sim.usable() is None

    sim.run_for(0)
    assert sim.usable() is not None


def test_a_paused_machine_serves_until_the_fetch_ends() -> None:
    sim = Simulation(minting(), policy=PLAIN, fetch_s=1)
    sim.run_for(10)
    sim.step_wall(DAY)

    assert sim.usable() is not None
    sim.run_for(10)
    assert sim.snapshot.generation == 2


def test_a_paused_machine_believes_the_wall_clock_once_a_fetch_failed() -> None:
    sim = Simulation([mint()], policy=PLAIN, fetch_s=1)
    sim.run_for(10)
    sim.step_wall(DAY)
    sim.run_for(2)

    assert sim.usable() is None
    assert sim.names()[1:] == ["clockJumped", "refreshFailed", "tokenAboutToExpire", "tokenExpired"]


def test_a_paused_machine_whose_token_is_still_valid_by_the_wall_clock_goes_on_serving() -> None:
    sim = Simulation([mint()], policy=PLAIN, fetch_s=1)
    sim.run_for(10)
    sim.step_wall(HOUR / 2)
    sim.run_for(2)

    assert sim.snapshot.usable_for == pytest.approx(HOUR / 2 - 11)


def test_a_clock_set_back_never_shortens_a_token() -> None:
    sim = Simulation([mint()], policy=PLAIN, fetch_s=1)
    sim.run_for(10)
    sim.step_wall(-DAY)
    sim.run_for(2)

    assert sim.snapshot.usable_for == pytest.approx(HOUR - 11)


def test_a_doubted_token_without_a_known_expiry_stays() -> None:
    sim = Simulation([mint(None)], fetch_s=1)
    sim.run_for(10)
    sim.step_wall(DAY)
    sim.run_for(2)

    assert sim.usable() is not None
