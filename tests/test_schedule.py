"""Each rule of the schedule beside its row of the design's table, to be checked by eye."""

from __future__ import annotations

import math

import pytest
from helpers import DAY, HOUR, MINUTE

from token_keeper import _schedule as schedule
from token_keeper._errors import ConfigError
from token_keeper._policy import RefreshPolicy

POLICY = RefreshPolicy()
WEEK = 7 * DAY


@pytest.mark.parametrize(
    ("lifetime_s", "lead_s"),
    [
        (2, 1),  # never over half of the lifetime: that bound wins
        (12, 6),
        (60, 30),  # at least 30 s
        (100, 30),
        (5 * MINUTE, 60),  # 20 %
        (HOUR, 12 * MINUTE),
        (DAY, 0.2 * DAY),
        (WEEK, 6 * HOUR),  # at most 6 h
        (math.inf, 6 * HOUR),
        (0, 0),
    ],
)
def test_lead_is_a_fifth_of_the_lifetime_from_30_s_to_6_h_but_never_over_half(
    lifetime_s: float, lead_s: float
) -> None:
    assert schedule.lead_s(lifetime_s, POLICY) == pytest.approx(lead_s)


@pytest.mark.parametrize(("lifetime_s", "lead_s"), [(60, 30), (5 * MINUTE, 150), (HOUR, 180), (DAY, 180)])
def test_a_keeper_without_a_source_warns_3_min_before_expiry_but_never_over_half(
    lifetime_s: float, lead_s: float
) -> None:
    assert schedule.warning_lead_s(lifetime_s) == lead_s


@pytest.mark.parametrize(
    ("lifetime_s", "draw", "jitter_s"),
    [(60, 0.0, 0), (60, 0.5, 3), (60, 1.0, 6), (HOUR, 1.0, 300), (DAY, 1.0, 300)],
)
def test_jitter_is_at_most_a_tenth_of_the_lifetime_and_5_min(
    lifetime_s: float, draw: float, jitter_s: float
) -> None:
    assert schedule.jitter_s(lifetime_s, draw, POLICY) == pytest.approx(jitter_s)


@pytest.mark.parametrize(
    ("lifetime_s", "draw", "stale_after_s"),
    [(HOUR, 0.0, 48 * MINUTE), (HOUR, 1.0, 43 * MINUTE), (12, 0.0, 6), (12, 1.0, 4.8), (2, 1.0, 0.8)],
)
def test_a_refresh_is_due_at_expiry_less_lead_less_jitter(
    lifetime_s: float, draw: float, stale_after_s: float
) -> None:
    assert schedule.stale_after_s(lifetime_s, draw, POLICY) == pytest.approx(stale_after_s)


def test_a_refresh_is_never_due_before_the_token_came() -> None:
    extreme = RefreshPolicy(lead_ratio=0.5, jitter_ratio=0.5)

    assert schedule.stale_after_s(10, 1.0, extreme) == 0.0


@pytest.mark.parametrize(
    ("lifetime_s", "window_s", "draw", "stale_after_s"),
    [
        (HOUR, 5 * MINUTE, 0.0, 55 * MINUTE),  # within the window
        (HOUR, 5 * MINUTE, 1.0, 59 * MINUTE + 30),  # jitter goes later, up to 30 s before expiry
        (HOUR, 10, 0.0, HOUR - 30),  # at least 30 s
        (HOUR, 50 * MINUTE, 0.0, 48 * MINUTE),  # a window wider than the lead changes nothing
        (40, 5, 0.0, 20),  # or half of what remained at receipt
        (40, 5, 1.0, 20),
    ],
)
def test_a_caching_source_is_asked_within_the_window_in_which_it_renews(
    lifetime_s: float, window_s: float, draw: float, stale_after_s: float
) -> None:
    assert schedule.stale_in_window_s(lifetime_s, window_s, draw, POLICY) == pytest.approx(stale_after_s)


@pytest.mark.parametrize(("draw", "after_s"), [(0.0, 360), (0.5, 1620), (1.0, 2880)])
def test_splay_is_drawn_evenly_between_a_tenth_of_the_lifetime_and_stale_at(
    draw: float, after_s: float
) -> None:
    assert schedule.splay_after_s(HOUR, 2880, draw) == pytest.approx(after_s)


def test_splay_never_goes_past_stale_at() -> None:
    assert schedule.splay_after_s(10, 0.5, 0.0) == 0.5


@pytest.mark.parametrize(("draw", "after_s"), [(0.0, DAY), (1.0, 0.9 * DAY)])
def test_a_token_that_lives_longer_than_a_day_is_refreshed_daily(draw: float, after_s: float) -> None:
    assert schedule.longest_refresh_s(draw, POLICY) == pytest.approx(after_s)


@pytest.mark.parametrize(("draw", "wait_s"), [(0.0, 5), (0.5, 7.5), (1.0, 10)])
def test_waits_are_jittered_between_half_and_all_of_their_length(draw: float, wait_s: float) -> None:
    assert schedule.jittered_s(10, draw) == wait_s


@pytest.mark.parametrize(
    ("failures", "span_s", "wait_s"),
    [
        (1, 720, 1),
        (2, 720, 2),
        (3, 720, 4),
        (7, 720, 64),
        (8, 720, 120),  # at most a sixth of the span
        (5_000, 720, 120),  # the exponent is clamped
        (5_000, DAY, 300),  # and 5 min
        (1, 3, 0.5),
        (5_000, math.inf, 300),
    ],
)
def test_backoff_doubles_from_1_s_to_a_sixth_of_the_span(failures: int, span_s: float, wait_s: float) -> None:
    assert schedule.backoff_s(failures, span_s, POLICY) == wait_s


@pytest.mark.parametrize("lifetime_s", [60, 5 * MINUTE, HOUR, DAY, 30 * DAY])
def test_five_attempts_fit_between_the_refresh_and_the_expiry(lifetime_s: float) -> None:
    span_s = schedule.lead_s(lifetime_s, POLICY)
    waits = [schedule.backoff_s(failures, span_s, POLICY) for failures in range(1, 6)]

    assert sum(waits) < span_s


@pytest.mark.parametrize(("since_s", "wait_s"), [(0, 1), (3, 1), (40, 10), (HOUR, 300), (DAY, 300)])
def test_without_a_valid_token_the_wait_is_a_quarter_of_the_time_since_the_first_failure(
    since_s: float, wait_s: float
) -> None:
    assert schedule.absent_backoff_s(since_s, POLICY) == wait_s


@pytest.mark.parametrize(
    ("asked_s", "remaining_s", "wait_s"),
    [
        (60, 720, 60),
        (600, 720, 360),  # half of the remaining validity
        (HOUR, 0, 300),  # 5 min if nothing is valid
        (2 * HOUR, DAY, HOUR),  # 1 h
        (HOUR, math.inf, HOUR),
    ],
)
def test_retry_after_is_bounded_by_an_hour_half_of_the_validity_or_5_min(
    asked_s: float, remaining_s: float, wait_s: float
) -> None:
    assert schedule.retry_after_s(asked_s, remaining_s, POLICY) == wait_s


@pytest.mark.parametrize("nonsense", [None, 0, -1, math.nan, math.inf, -math.inf])
def test_a_nonsensical_retry_after_is_as_if_absent(nonsense: float | None) -> None:
    assert schedule.retry_after_s(nonsense, 720, POLICY) == 0.0


@pytest.mark.parametrize(("draw", "wait_s"), [(0.0, 60), (1.0, 66)])
def test_retry_after_is_a_lower_bound(draw: float, wait_s: float) -> None:
    assert schedule.retry_after_jittered_s(60, draw) == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("since_s", "validity_s", "wait_s"),
    [
        (0, DAY, 15),  # probed after 15 s
        (15, DAY, 7.5),  # then after half of the time since the first refusal
        (10 * MINUTE, DAY, 5 * MINUTE),
        (10 * HOUR, DAY, 15 * MINUTE),  # at most 15 min
        (0, 40, 10),  # at least three times while the token is valid
        (10 * HOUR, 10 * MINUTE, 150),
        (10 * HOUR, 0, 15 * MINUTE),
        (1, DAY, 1),  # never under `min_interval`
    ],
)
def test_a_refusing_backend_is_probed_ever_more_slowly(
    since_s: float, validity_s: float, wait_s: float
) -> None:
    assert schedule.refused_probe_s(since_s, validity_s, POLICY) == wait_s


@pytest.mark.parametrize(
    ("remaining_s", "wait_s"),
    [
        (12 * MINUTE, 4 * MINUTE),  # a third of the remaining validity
        (HOUR, 10 * MINUTE),  # at most 10 min
        (9, 5),  # at least 5 s
        (3, 3.5),  # and just after the expiry
    ],
)
def test_after_unchanged_the_source_is_asked_when_a_third_of_the_rest_has_passed(
    remaining_s: float, wait_s: float
) -> None:
    assert schedule.unchanged_wait_s(remaining_s) == wait_s


@pytest.mark.parametrize(("strikes", "wait_s"), [(0, 0), (1, 1), (2, 2), (3, 4), (9, 256), (99_999, 300)])
def test_each_token_in_vain_doubles_the_wait_after_a_denial(strikes: int, wait_s: float) -> None:
    assert schedule.denial_wait_s(strikes, POLICY) == wait_s


@pytest.mark.parametrize(
    ("level", "elapsed_s", "then"),
    [(0, 0, 0), (0, 300, 1), (2, 150, 2.5), (4, DAY, 5), (math.inf, 0, 5), (3, -10, 3)],
)
def test_the_bucket_holds_five_and_gets_one_more_every_five_minutes(
    level: float, elapsed_s: float, then: float
) -> None:
    assert schedule.bucket_level(level, elapsed_s, POLICY) == then


@pytest.mark.parametrize(("level", "wait_s"), [(0, 300), (0.5, 150), (1, 0), (4.2, 0)])
def test_an_empty_bucket_makes_denials_wait_for_the_next_fetch(level: float, wait_s: float) -> None:
    assert schedule.bucket_wait_s(level, POLICY) == wait_s


@pytest.mark.parametrize(
    ("remaining_s", "settle_s"),
    [(HOUR, 10), (12, 6), (0, 0), (math.inf, 10)],
)
def test_a_token_settles_for_as_long_as_asked_but_not_until_the_old_one_expires(
    remaining_s: float, settle_s: float
) -> None:
    assert schedule.settle_s(remaining_s, RefreshPolicy(settle_s=10)) == settle_s


@pytest.mark.parametrize(
    ("remaining_s", "timeout_s"), [(1, 2), (12, 2), (60, 10), (HOUR, 30), (0, 30), (math.inf, 30)]
)
def test_a_fetch_may_take_a_sixth_of_what_remains_from_2_s_to_30_s(
    remaining_s: float, timeout_s: float
) -> None:
    assert schedule.fetch_timeout_s(remaining_s, POLICY) == timeout_s


@pytest.mark.parametrize(("by_s", "jumped"), [(2.0, False), (2.1, True), (-2.0, False), (-2.1, True)])
def test_a_jump_is_a_difference_of_more_than_2_s(by_s: float, *, jumped: bool) -> None:
    assert schedule.has_jumped(by_s) is jumped


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lead_ratio", 0.6),
        ("lead_ratio", math.nan),
        ("jitter_ratio", -0.1),
        ("min_interval_s", 0),
        ("backoff_max_s", 0.5),
        ("denial_bucket", 0),
        ("denial_bucket", 1.5),
        ("settle_s", math.inf),
        ("splay", 1),
        ("lead_min_s", "30"),
        ("lead_min_s", True),
    ],
)
def test_a_policy_names_the_number_that_cannot_work(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        RefreshPolicy(**{name: value})  # type: ignore[arg-type]
