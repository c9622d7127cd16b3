"""What denials cause: every numbered point of the design's section on recovery."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise, repeat

import pytest
from helpers import DAY, HOUR, MINUTE, PLAIN, T0, a_token, backend, mint, minting

from token_keeper._errors import RefusedError, TransientFetchError
from token_keeper._inputs import Moment, TokenAccepted, TokenDenied
from token_keeper._model import DenialClass, EventKind, Phase, Status, Verdict
from token_keeper._recovery import judge
from token_keeper._state import MAX_DENIED, MAX_REPORTERS
from token_keeper.testing._simulation import Simulation

DOWN = TransientFetchError("the backend is down")


def a_kept_token(*more, policy=PLAIN, fetch_s: float = 0.0) -> Simulation:
    """Return a simulation that has had a token for a second; *more* follows it, then a new one each time."""
    sim = Simulation(chain([mint()], more, minting()), policy=policy, fetch_s=fetch_s)
    sim.run_for(fetch_s + 1)
    return sim


def exhaust(sim: Simulation, by: str = "bad") -> None:
    """Deny token after token until the bucket is empty; the last one stays withheld."""
    while sim.deny(by) is Verdict.DENIED:
        sim.run_for(20)


def told(sim: Simulation, kind: EventKind) -> list[str]:
    return [news.by for news in sim.announced if news.kind is kind]


def verdict_on(sim: Simulation, generation: int, by: str = "") -> Verdict:
    return judge(sim.state, TokenDenied(generation, by), Moment(sim.wall, sim.boot), sim.policy)


# 1. Superseded.


@pytest.mark.parametrize("generation", [0, 1, 3])
def test_a_denial_of_a_token_that_is_not_current_is_superseded_and_changes_nothing(generation: int) -> None:
    sim = a_kept_token()
    sim.refresh()
    sim.run_for(1)
    before = sim.state
    assert verdict_on(sim, generation) is Verdict.SUPERSEDED

    sim.post(TokenDenied(generation))
    assert sim.state == before


def test_a_denial_before_the_first_token_is_superseded() -> None:
    sim = Simulation([])

    assert sim.deny() is Verdict.SUPERSEDED


# 2 and 3. Throttled, forbidden.


@pytest.mark.parametrize(
    ("meaning", "verdict"),
    [(DenialClass.THROTTLED, Verdict.THROTTLED), (DenialClass.FORBIDDEN, Verdict.FORBIDDEN)],
)
def test_throttled_and_forbidden_keep_the_token_and_fetch_nothing(
    meaning: DenialClass, verdict: Verdict
) -> None:
    sim = a_kept_token()
    token = sim.usable()
    assert sim.deny(meaning=meaning) is verdict

    sim.run_for(10 * MINUTE)
    assert sim.usable() == token
    assert len(sim.fetches) == 1
    assert sim.names() == ["tokenUpdated"]


# 4. Denied.


def test_a_denied_token_is_withheld_from_its_reporter_alone_and_a_fetch_starts() -> None:
    sim = a_kept_token(fetch_s=5)
    token = sim.usable("chat")
    assert sim.deny("chat") is Verdict.DENIED

    assert sim.usable("chat") is None
    assert sim.usable() == sim.usable("voice") == token
    assert sim.snapshot.denied_by == ("chat",)
    assert sim.snapshot.phase is Phase.FETCHING


def test_with_a_single_reporter_a_denied_token_is_never_shown_again() -> None:
    token = a_token(expires_at=T0 + DAY)
    sim = Simulation(repeat(token), policy=PLAIN)
    sim.run_for(1)
    sim.deny()

    assert sim.snapshot.status is Status.DENIED
    for _ in range(1_000):
        sim.run_for(100)
        assert sim.usable() is None


def test_a_denial_is_announced_once_per_generation_and_reporter() -> None:
    sim = a_kept_token(fetch_s=5)
    for by in ("chat", "voice", "chat", "", "voice"):
        sim.deny(by)

    assert told(sim, EventKind.TOKEN_DENIED) == ["chat", "voice", ""]
    assert len(sim.fetches) == 2


def test_a_denial_while_fetching_joins_that_fetch() -> None:
    sim = a_kept_token(fetch_s=5)
    sim.refresh()
    sim.run_for(1)
    assert sim.deny() is Verdict.DENIED

    sim.run_for(MINUTE)
    assert len(sim.fetches) == 2
    assert sim.usable() is not None


def test_a_withheld_generation_fires_neither_about_to_expire_nor_expired() -> None:
    sim = Simulation([mint()], policy=PLAIN)
    sim.run_for(1)
    sim.deny()
    sim.run_for(2 * HOUR)

    assert not {"tokenAboutToExpire", "tokenExpired"} & set(sim.names())


def test_a_generation_that_another_reporter_was_refused_with_still_fires_them() -> None:
    sim = Simulation([mint()], policy=PLAIN)
    sim.run_for(1)
    sim.deny("chat")
    sim.run_for(2 * HOUR)

    assert {"tokenAboutToExpire", "tokenExpired"} <= set(sim.names())


def test_a_denied_token_is_not_published_again_later() -> None:
    denied, current = a_token(expires_at=T0 + DAY), a_token()
    sim = Simulation([denied, current, denied], policy=PLAIN)
    sim.run_for(1)
    sim.deny("chat")
    sim.run_for(1)
    sim.refresh()
    sim.run_for(0)

    assert sim.usable() == current
    assert sim.names()[-1] == "refreshFailed"


def test_the_last_sixteen_denied_tokens_are_remembered() -> None:
    sim = a_kept_token(policy=replace(PLAIN, denial_bucket=1_000))
    fingerprints = []
    for _ in range(MAX_DENIED + 4):
        fingerprints.append(sim.snapshot.fingerprint)
        sim.deny()
        sim.run_for(301)

    assert sim.state.recovery.denied == tuple(fingerprints[-MAX_DENIED:])


# 5. The same string again.


def test_the_same_string_again_is_not_progress_and_the_wait_doubles() -> None:
    token = a_token(expires_at=T0 + DAY)
    sim = Simulation(repeat(token), policy=PLAIN)
    sim.run_for(1)
    sim.deny()
    sim.run_for(30)

    waits = [after.started - before.ends for before, after in pairwise(sim.fetches[1:])]
    assert len(waits) == 4
    for waited, nominal in zip(waits, [1, 2, 4, 8], strict=True):
        assert max(nominal / 2, 1) <= waited <= nominal
    assert sim.snapshot.failures == 0


def test_another_denied_string_is_not_progress_either() -> None:
    first = a_token(expires_at=T0 + HOUR)
    sim = Simulation([first, mint(), first, first, mint()], policy=PLAIN)
    sim.run_for(1)
    sim.deny()
    sim.run_for(10)
    sim.deny()
    sim.run_for(30)

    assert sim.snapshot.generation == 3
    assert sim.usable() is not None


def test_a_source_that_returns_the_denied_string_for_ever_is_given_up_on_once() -> None:
    token = a_token(expires_at=T0 + DAY)
    sim = Simulation(repeat(token), policy=PLAIN)
    sim.run_for(1)
    sim.deny()
    sim.run_for(HOUR)

    assert sim.names().count("recoveryFailed") == 1
    assert sim.deny() is Verdict.GAVE_UP


# 6. A different token.


def test_a_different_token_is_published_to_all() -> None:
    sim = a_kept_token()
    sim.deny("chat")
    sim.run_for(1)

    assert sim.usable("chat") == sim.usable() is not None
    assert sim.snapshot.generation == 2
    assert sim.snapshot.denied_by == ()


def test_recovered_is_announced_when_that_reporter_is_accepted() -> None:
    sim = a_kept_token()
    sim.deny("chat")
    sim.run_for(1)
    sim.accept("voice")
    assert told(sim, EventKind.RECOVERED) == []

    sim.accept("chat")
    sim.accept("chat")
    sim.run_for(HOUR)
    assert told(sim, EventKind.RECOVERED) == ["chat"]


def test_recovered_is_announced_after_5_min_without_a_denial_from_that_reporter() -> None:
    sim = a_kept_token()
    sim.deny("chat")
    sim.run_for(0)
    sim.run_for(299)
    assert told(sim, EventKind.RECOVERED) == []

    sim.run_for(1)
    assert told(sim, EventKind.RECOVERED) == ["chat"]


def test_an_acceptance_of_the_withheld_token_does_not_count() -> None:
    sim = a_kept_token(fetch_s=5)
    sim.deny("chat")
    sim.accept("chat")

    assert sim.usable("chat") is None
    assert told(sim, EventKind.RECOVERED) == []


def test_an_acceptance_of_a_former_token_does_not_count() -> None:
    sim = a_kept_token()
    sim.deny("chat")
    sim.run_for(1)
    sim.post(TokenAccepted(1, "chat"))

    assert told(sim, EventKind.RECOVERED) == []


# 7. Denied again while recovering.


def test_each_denial_while_recovering_doubles_the_wait_before_the_next_fetch() -> None:
    sim = a_kept_token()
    waited = []
    for _ in range(5):
        sim.deny("chat")
        denied_at = sim.boot
        sim.run_for(20)
        waited.append(sim.fetches[-1].started - denied_at)

    assert waited[0] == 0
    for wait, nominal in zip(waited[1:], [1, 2, 4, 8], strict=True):
        assert nominal / 2 <= wait <= nominal


def test_acceptance_starts_the_waits_anew() -> None:
    sim = a_kept_token()
    for _ in range(3):
        sim.deny("chat")
        sim.run_for(20)
    sim.accept("chat")
    sim.deny("chat")
    sim.run_for(0)

    assert sim.fetches[-1].started == sim.boot


def test_one_reporters_strikes_do_not_make_another_one_wait() -> None:
    sim = a_kept_token()
    for _ in range(3):
        sim.deny("bad")
        sim.run_for(20)
    sim.deny("good")
    sim.run_for(0)

    assert sim.fetches[-1].started == sim.boot


# 8. The bucket.


@pytest.mark.parametrize("reporters", [1, 3, 300])
def test_denials_cause_at_most_17_fetches_in_any_hour(reporters: int) -> None:
    sim = Simulation(minting(365 * DAY), policy=PLAIN)
    for number in range(2_400):
        sim.run_for(3)
        sim.deny(f"reporter-{number % reporters}")

    started = [fetch.started for fetch in sim.fetches[1:]]
    per_hour = [sum(1 for other in started if at <= other <= at + HOUR) for at in started]
    assert max(per_hour) == 17


def test_only_time_refills_the_bucket() -> None:
    sim = a_kept_token()
    exhaust(sim)
    sim.supply(a_token(expires_at=T0 + DAY))
    sim.accept("bad")
    sim.accept()

    assert sim.deny("another") is Verdict.GAVE_UP


def test_an_empty_bucket_is_announced_once_and_the_verdict_is_gave_up() -> None:
    sim = a_kept_token()
    exhaust(sim)
    assert sim.deny("bad") is Verdict.GAVE_UP
    assert told(sim, EventKind.RECOVERY_FAILED) == ["bad"]

    for _ in range(5):
        sim.run_for(301)
        sim.deny("bad")
    assert told(sim, EventKind.RECOVERY_FAILED) == ["bad"]


def test_after_giving_up_the_next_fetch_starts_when_the_bucket_allows_it() -> None:
    sim = a_kept_token()
    started = sim.boot
    exhaust(sim)
    sim.run_for(10 * MINUTE)

    assert sim.fetches[-1].started == pytest.approx(started + 300)
    assert sim.usable("bad") is not None


def test_a_repeated_report_is_denied_again_while_its_fetch_is_in_flight() -> None:
    sim = a_kept_token(fetch_s=5)
    exhaust(sim)
    while sim.snapshot.phase is not Phase.FETCHING:
        sim.run_for(1)

    assert sim.deny("bad") is Verdict.DENIED


def test_a_reporter_that_was_given_up_on_gets_a_plain_verdict_once_the_bucket_allows() -> None:
    sim = a_kept_token(policy=replace(PLAIN, denial_refill_s=100))
    exhaust(sim)
    sim.run_for(250)
    assert sim.deny("bad") is Verdict.DENIED

    assert sim.deny("bad") is Verdict.DENIED
    assert told(sim, EventKind.RECOVERY_FAILED) == ["bad"]


def test_a_reporter_that_had_accepted_this_token_disputes_it_and_keeps_it() -> None:
    sim = a_kept_token()
    exhaust(sim)
    sim.supply(a_token(expires_at=T0 + HOUR))
    sim.accept("good")
    assert sim.deny("good") is Verdict.DISPUTED

    assert sim.usable("good") is not None
    assert told(sim, EventKind.RECOVERY_FAILED) == ["bad", "good"]
    assert "good" not in told(sim, EventKind.TOKEN_DENIED)


def test_a_disputed_token_is_denied_once_the_bucket_allows_a_fetch() -> None:
    sim = a_kept_token()
    exhaust(sim)
    sim.supply(a_token(expires_at=T0 + HOUR))
    sim.accept("good")
    sim.deny("good")
    sim.run_for(300)

    assert sim.deny("good") is Verdict.DENIED
    assert sim.snapshot.denied_by == ("good",)


def test_an_accepted_token_is_denied_as_any_other_while_the_bucket_allows_a_fetch() -> None:
    sim = a_kept_token(fetch_s=5)
    sim.accept()

    assert sim.deny() is Verdict.DENIED
    assert sim.usable() is None


def test_a_scheduled_refresh_draws_nothing_from_the_bucket() -> None:
    sim = a_kept_token()
    sim.run_for(2 * HOUR)

    assert sim.state.recovery.level == float("inf")


def test_retries_after_a_failed_fetch_draw_nothing_from_the_bucket() -> None:
    sim = a_kept_token(*[DOWN] * 10)
    sim.deny("chat")
    sim.run_for(20)

    assert len(sim.fetches) > 4
    assert sim.state.recovery.level == 4


# Codes of class config.


def test_a_config_code_gets_one_new_token_and_is_then_given_up_on() -> None:
    sim = a_kept_token()
    assert sim.deny("chat", meaning=DenialClass.CONFIG) is Verdict.DENIED
    sim.run_for(1)
    assert sim.usable("chat") is not None

    assert sim.deny("chat", meaning=DenialClass.CONFIG) is Verdict.GAVE_UP
    assert told(sim, EventKind.RECOVERY_FAILED) == ["chat"]
    assert sim.usable("chat") is None


def test_after_a_second_config_code_the_next_fetch_waits_for_minutes() -> None:
    sim = a_kept_token()
    sim.deny("chat", meaning=DenialClass.CONFIG)
    sim.run_for(1)
    sim.deny("chat", meaning=DenialClass.CONFIG)
    sim.run_for(10 * MINUTE)

    first, second = (fetch.started for fetch in sim.fetches[1:])
    assert 150 <= second - first <= 301


def test_a_config_code_repeated_for_the_same_token_is_the_same_denial() -> None:
    sim = a_kept_token(fetch_s=5)
    sim.deny("chat", meaning=DenialClass.CONFIG)

    assert sim.deny("chat", meaning=DenialClass.CONFIG) is Verdict.DENIED


# The others.


def test_a_reporter_that_is_always_denied_costs_the_others_nothing() -> None:
    for seed in range(3):
        sim = Simulation(minting(), seed=seed, fetch_s=2)
        sim.run_for(2)
        for _ in range(1_000):
            sim.run_for(30)
            sim.deny("bad")
            assert sim.usable() is not None
            assert sim.usable("good") is not None


@pytest.mark.parametrize("error", [DOWN, RefusedError("invalid_grant")])
def test_a_denial_in_an_outage_that_ends_in_time_costs_the_others_nothing(error) -> None:
    for seed in range(20):
        outage = backend(HOUR, is_up=lambda wall: not T0 + 60 < wall < T0 + 47 * MINUTE, error=error)
        sim = Simulation(outage, policy=PLAIN, seed=seed)
        sim.run_for(2 * MINUTE)
        sim.deny("bad")
        sim.run_for(DAY)

        assert "tokenExpired" not in sim.names()


def test_a_withheld_but_valid_token_is_refreshed_no_later_than_for_the_others() -> None:
    sim = Simulation([mint()], policy=PLAIN)
    sim.run_for(40 * MINUTE)
    sim.deny("bad")
    sim.run_for(20 * MINUTE)

    late = [fetch.started for fetch in sim.fetches if fetch.started >= 48 * MINUTE]
    assert max(after - before for before, after in pairwise([48 * MINUTE, *late, HOUR])) <= 120


def test_a_denial_cuts_a_retry_after_to_5_min() -> None:
    busy = TransientFetchError("busy", retry_after=HOUR)
    sim = Simulation([mint(DAY), busy, mint(DAY)], policy=PLAIN)
    sim.run_for(1)
    sim.refresh()
    sim.run_for(10)
    sim.deny()
    sim.run_for(300)

    assert sim.usable() is not None


def test_a_denial_probes_a_backend_that_refuses() -> None:
    sim = a_kept_token(RefusedError("invalid_grant"))
    sim.refresh()
    sim.run_for(2)
    assert sim.snapshot.phase is Phase.REFUSED

    sim.deny()
    sim.run_for(0)
    assert sim.usable() is not None


# Many reporters.


def test_reporters_that_have_no_trouble_are_not_kept() -> None:
    sim = a_kept_token()
    for number in range(1_000):
        sim.accept(f"reporter-{number}")
    sim.deny("chat")
    sim.run_for(1)
    sim.accept("chat")

    assert sim.state.recovery.reporters == {}


def test_happy_reporters_do_not_push_out_one_that_recovers() -> None:
    sim = a_kept_token()
    sim.deny("chat")
    sim.run_for(1)
    for number in range(1_000):
        sim.accept(f"reporter-{number}")
    sim.run_for(300)

    assert told(sim, EventKind.RECOVERED) == ["chat"]


def test_a_crowd_of_reporters_is_bounded_and_breaks_nothing() -> None:
    token = a_token(expires_at=T0 + HOUR)
    sim = Simulation(chain(repeat(token, 20), minting()), policy=PLAIN, fetch_s=1)
    sim.run_for(2)
    verdicts = [sim.deny(f"reporter-{number}") for number in range(MAX_REPORTERS + 50)]
    assert verdicts.count(Verdict.DENIED) == MAX_REPORTERS
    assert verdicts[-1] is Verdict.GAVE_UP

    sim.run_for(HOUR)
    assert len(sim.state.recovery.reporters) <= MAX_REPORTERS
    assert sim.usable("reporter-1") is not None


def test_the_reporter_that_was_quiet_longest_is_forgotten() -> None:
    sim = a_kept_token(policy=replace(PLAIN, denial_bucket=1_000))
    for number in range(MAX_REPORTERS + 1):
        sim.deny(f"reporter-{number}")
        sim.run_for(1)

    assert "reporter-0" not in sim.state.recovery.reporters
    assert f"reporter-{MAX_REPORTERS}" in sim.state.recovery.reporters


# A keeper without a source.


def test_without_a_source_a_denial_withholds_the_token_and_fetches_nothing() -> None:
    sim = Simulation(sourced=False)
    sim.supply(a_token())
    assert sim.deny("chat") is Verdict.DENIED
    sim.run_for(HOUR / 2)

    assert sim.usable("chat") is None
    assert sim.usable() is not None
    assert sim.fetches == []
    assert told(sim, EventKind.TOKEN_DENIED) == ["chat"]


def test_without_a_source_the_next_supplied_token_starts_the_recovery() -> None:
    sim = Simulation(sourced=False)
    sim.supply(a_token())
    sim.deny("chat")
    sim.supply(a_token())
    sim.accept("chat")

    assert told(sim, EventKind.RECOVERED) == ["chat"]


def test_without_a_source_denials_are_never_given_up_on() -> None:
    sim = Simulation(sourced=False)
    for _ in range(20):
        sim.supply(a_token())
        assert sim.deny() is Verdict.DENIED
