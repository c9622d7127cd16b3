"""What may be sent, adopted and believed of a stored grant: pure decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from token_keeper._model import Issued, Secret
from token_keeper.sources.oauth2 import _rotation as rotation
from token_keeper.sources.oauth2._rotation import Hold, ReplayRule, Sending
from token_keeper.store import Mark, Record
from token_keeper.testing import mint

NOW = 1_700_000_000.0
TERMS = rotation.Terms(owner="https://as.example client", asked="scope")
RULE = ReplayRule(window_s=30.0, limit=1)
DAY_S = 86_400.0
RECORD = Record(
    owner="https://as.example client",
    refresh_token=Secret("refresh-1"),
    access_token=Secret("access-1"),
    received_at=NOW - 2_800.0,
    expires_at=NOW + 800.0,
)


def lost(ago_s, times=1, **changes):
    return replace(RECORD, mark=Mark(sent_at=NOW - ago_s, times=times, by="process 1"), **changes)


def test_a_refresh_token_that_was_never_sent_may_be_sent():
    assert rotation.permission(RECORD, RULE, NOW) is Sending.FIRST


@pytest.mark.parametrize("ago_s", [0.0, 29.9, -1.0])
def test_one_whose_answer_was_lost_is_sent_again_within_the_window(ago_s):
    assert rotation.permission(lost(ago_s), RULE, NOW) is Sending.REPLAY


def test_it_is_sent_again_only_as_often_as_the_server_forgives():
    assert rotation.permission(lost(5.0, times=2), RULE, NOW) == Hold(NOW + 800.0 - 60.0)


def test_after_the_window_it_is_held_until_the_last_minute_of_the_access_token():
    assert rotation.permission(lost(31.0), RULE, NOW) == Hold(NOW + 740.0)


def test_the_last_minute_of_a_short_access_token_is_a_tenth_of_its_life():
    record = lost(31.0, received_at=NOW - 40.0, expires_at=NOW + 60.0)
    assert rotation.permission(record, RULE, NOW) == Hold(NOW + 50.0)


@pytest.mark.parametrize("left_s", [59.0, 0.0, -1.0])
def test_in_the_last_minute_and_later_nothing_is_left_to_lose(left_s):
    assert rotation.permission(lost(31.0, expires_at=NOW + left_s), RULE, NOW) is Sending.LAST_RESORT


def test_without_an_access_token_nothing_is_left_to_lose():
    record = lost(31.0, access_token=None, received_at=None, expires_at=None)
    assert rotation.permission(record, RULE, NOW) is Sending.LAST_RESORT


def test_a_mark_of_the_far_future_is_not_within_the_window():
    assert isinstance(rotation.permission(lost(-3_600.0), RULE, NOW), Hold)


def test_a_window_of_nothing_allows_no_replay():
    rule = ReplayRule(window_s=0.0, limit=1)
    assert isinstance(rotation.permission(lost(1.0), rule, NOW), Hold)


def test_a_replay_counts_and_keeps_the_time_of_the_first_sending():
    mark = rotation.marked(lost(5.0), now=NOW, by="process 2").mark
    assert mark == Mark(sent_at=NOW - 5.0, times=2, by="process 2")


def test_a_last_resort_opens_no_new_window():
    mark = rotation.marked(lost(5.0, times=2), now=NOW, by="process 2").mark
    assert mark == Mark(sent_at=NOW - 5.0, times=3, by="process 2")


def test_a_configured_refresh_token_begins_a_grant():
    record = rotation.working_record(None, Secret("seed"), "owner")
    assert record == Record(
        owner="owner", refresh_token=Secret("seed"), seeds=(rotation.digest(Secret("seed")),)
    )


def test_one_that_led_to_the_stored_grant_is_not_sent_again():
    stored = replace(RECORD, seeds=(rotation.digest(Secret("seed")),))
    assert rotation.working_record(stored, Secret("seed"), RECORD.owner) is stored


def test_another_one_is_a_new_login_and_the_former_is_kept_until_it_works():
    stored = replace(RECORD, seeds=(rotation.digest(Secret("seed")),))
    record = rotation.working_record(stored, Secret("new"), RECORD.owner)
    assert record is not None
    assert (record.refresh_token, record.superseded) == (Secret("new"), Secret("refresh-1"))
    assert rotation.renewed(record, None).superseded is None


def test_a_configured_refresh_token_that_is_refused_leaves_the_former_one():
    stored = replace(RECORD, seeds=("0" * 16,))
    record = rotation.working_record(stored, Secret("typo"), RECORD.owner)
    assert record is not None
    left = rotation.without_seed(record)
    assert left is not None
    assert left.refresh_token == Secret("refresh-1")
    assert rotation.working_record(left, Secret("typo"), RECORD.owner) is left


def test_without_either_there_is_nothing_to_renew():
    assert rotation.working_record(None, None, "owner") is None


def test_an_access_token_of_another_process_is_adopted_while_over_a_fifth_of_its_life_is_left():
    assert rotation.is_worth_adopting(RECORD, (), NOW)
    assert not rotation.is_worth_adopting(RECORD, (), NOW + 100.0)
    assert rotation.is_last_hope(RECORD, (), NOW + 100.0)
    assert not rotation.is_last_hope(RECORD, (), NOW + 800.0)


def test_one_that_this_process_had_already_is_neither():
    handed = (rotation.digest(Secret("access-1")),)
    assert not rotation.is_worth_adopting(RECORD, handed, NOW)
    assert not rotation.is_last_hope(RECORD, handed, NOW)


def test_one_of_unknown_life_is_adopted_within_an_hour():
    record = replace(RECORD, expires_at=None, received_at=NOW - 60.0)
    assert rotation.is_worth_adopting(record, (), NOW)
    assert not rotation.is_worth_adopting(record, (), NOW + 3_000.0)


def test_a_clock_that_was_set_back_gives_no_access_token_a_longer_life():
    record = replace(RECORD, received_at=NOW + DAY_S, expires_at=NOW + DAY_S + 100.0)
    assert rotation.adopted(record, NOW).expires_in == 100.0


def test_an_adopted_token_says_how_long_it_still_lives():
    assert rotation.adopted(RECORD, NOW) == Issued(secret=Secret("access-1"), expires_in=800.0)


def test_what_came_with_an_unusable_access_token_is_kept():
    expired = Issued(secret=Secret(mint(expires_at=NOW - 10.0, issued_at=NOW - 20.0)))
    record = rotation.with_token(rotation.renewed(lost(1.0), Secret("refresh-2")), expired, TERMS, NOW)
    assert (record.refresh_token, record.access_token, record.mark) == (Secret("refresh-2"), None, None)
    assert record.rotations == 1


def test_the_same_refresh_token_again_is_no_rotation():
    assert rotation.renewed(lost(1.0), Secret("refresh-1")) == RECORD
