"""The small pure parts of the doctor: forecast, timeline, words, references."""

from __future__ import annotations

import ssl

import pytest
from helpers import DAY, HOUR, MINUTE, T0, a_token
from hypothesis import given
from hypothesis import strategies as st

from token_keeper._model import Finding, Issued, Secret, Severity
from token_keeper._policy import RefreshPolicy
from token_keeper._schedule import stale_after_s
from token_keeper.doctor import Mark, forecast, timeline
from token_keeper.doctor._certificates import certificate_of, verdict
from token_keeper.doctor._findings import clock_step, examine_token
from token_keeper.doctor._forecast import schedule_step
from token_keeper.doctor._report import Status, worst
from token_keeper.doctor._timeline import LEAST_WIDTH
from token_keeper.doctor._words import length, listed, whole
from token_keeper.profiles import profile_named
from token_keeper.sources._references import BadReferenceError, has_reference, resolved
from token_keeper.testing._mint import mint

POLICY = RefreshPolicy()


def predicted(lifetime_s: float | None, *, age_s: float = 0.0, skew_s: float = 0.0, policy=POLICY):
    expires_at = None if lifetime_s is None else T0 + skew_s + lifetime_s - age_s
    token = a_token(expires_at=expires_at, issued_at=T0 + skew_s - age_s)
    return forecast(token, now=T0, skew_s=skew_s, policy=policy)


def test_one_attempt_is_written_in_the_singular():
    [said] = [note for note in schedule_step(predicted(2.0)).notes if "outage budget" in note]

    assert said.endswith("; 1 attempt fits")


@pytest.mark.parametrize("lifetime_s", [20.0, 5 * MINUTE, HOUR, 12 * HOUR])
def test_the_forecast_is_what_the_schedule_decides(lifetime_s):
    found = predicted(lifetime_s)

    assert found.latest == pytest.approx(T0 + stale_after_s(lifetime_s, 0.0, POLICY))
    assert found.earliest == pytest.approx(T0 + stale_after_s(lifetime_s, 1.0, POLICY))
    assert found.splayed_earliest == pytest.approx(T0 + 0.1 * lifetime_s)
    assert found.budget_s == pytest.approx(found.lead_s)


def test_the_forecast_is_by_our_clock_although_the_token_is_by_the_issuers():
    assert predicted(HOUR, skew_s=5 * MINUTE).as_dict() == predicted(HOUR).as_dict()


def test_five_attempts_fit_in_before_any_token_of_half_a_minute_expires():
    assert predicted(30.0).attempts >= 5


def test_a_token_of_days_is_refreshed_daily_and_its_outage_budget_is_the_rest():
    found = predicted(3 * DAY)

    assert found.latest == pytest.approx(T0 + DAY)
    assert found.budget_s == pytest.approx(2 * DAY)
    assert found.formula[0].endswith("but every 1 d")


@pytest.mark.parametrize(
    ("lifetime_s", "said"),
    [
        (HOUR, "lead = 20% of the 3600 s that are left = 720 s"),
        (100.0, "= 20 s, raised to 30 s"),
        (20.0, "= 4 s, cut to half of what is left"),
        (40 * HOUR, "= 28800 s, cut to 6 h"),
    ],
)
def test_the_formula_names_the_bound_that_counts(lifetime_s, said):
    assert predicted(lifetime_s).formula[1].endswith(said)


def test_a_token_without_an_expiry_is_refreshed_hourly():
    found = predicted(None)

    assert found.earliest == pytest.approx(T0 + HOUR / 2)
    assert found.latest == pytest.approx(T0 + HOUR)
    assert schedule_step(found).status is Status.WARNING


@pytest.mark.parametrize(
    ("age_s", "status"), [(0.0, Status.OK), (0.4 * HOUR, Status.OK), (0.5 * HOUR, Status.WARNING)]
)
def test_a_token_whose_life_is_half_over_was_cached(age_s, status):
    assert schedule_step(predicted(HOUR, age_s=age_s)).status is status


def test_a_token_of_seconds_is_too_short_for_an_outage():
    assert schedule_step(predicted(4.0)).status is Status.WARNING


def test_a_timeline_shows_what_was_and_what_will_be():
    marks = [
        Mark(name="iat", at=-HOUR / 2),
        Mark(name="now", at=0.0),
        Mark(name="refresh", at=HOUR / 4, until=HOUR / 3),
        Mark(name="exp", at=HOUR / 2),
    ]

    assert timeline(marks, 60) == [
        "iat                          now            refresh      exp",
        "|=============================|-------------######---------|",
        "30 min ago                   0 s      in 15 min .. 20 min",
        "                                                   in 30 min",
    ]


def test_marks_at_one_column_share_a_label():
    marks = [Mark(name="iat", at=-1.0), Mark(name="now", at=0.0), Mark(name="exp", at=HOUR)]

    assert timeline(marks, 60)[0].startswith("iat, now")


def test_a_timeline_without_a_span_of_time_is_empty():
    assert timeline([], 80) == timeline([Mark(name="now", at=0.0)], 80) == []


TIMES = st.floats(min_value=-1e10, max_value=1e10)


@given(
    times=st.dictionaries(st.sampled_from(["iat", "nbf", "exp"]), TIMES),
    spans=st.lists(st.tuples(TIMES, st.floats(min_value=0, max_value=1e9)), max_size=1),
    width=st.integers(min_value=-5, max_value=200),
)
def test_any_timeline_fits_its_width_and_names_every_mark(times, spans, width):
    marks = [Mark(name=name, at=at) for name, at in {**times, "now": 0.0}.items()]
    spanned = [Mark(name="refresh", at=at, until=at + more) for at, more in spans]
    lines = timeline([*marks, *spanned], width)

    assert all(len(line) <= max(width, LEAST_WIDTH) for line in lines)
    assert all(mark.name in "\n".join(lines) for mark in (*marks, *spanned) if lines)
    assert sum(set(line) <= set("|=-#") for line in lines) == bool(lines)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0, "0 s"), (0.0042, "4 ms"), (1.26, "1.3 s"), (8.0, "8 s"), (60, "1 min"), (61, "1 min 1 s")),
        *((3600, "1 h"), (3601, "1 h"), (5400, "1 h 30 min"), (90_000, "1 d 1 h"), (-60, "1 min")),
        (1e12, "over a hundred years"),
    ],
)
def test_lengths_of_time_are_written_in_two_units(seconds, words):
    assert length(seconds) == words


def test_numbers_and_lists_are_short():
    assert (whole(3599.7), whole(4.04), whole(4.0)) == ("3600 s", "4 s", "4 s")
    assert listed(list("abcde"), most=4) == "a, b, c, d and 1 more"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("Bearer ${env:KEY}", "Bearer of-the-environment"),
        ("${file:/a}", "of /a"),
        ("$$5 and $5", "$5 and $5"),
        ("$${env:KEY}", "${env:KEY}"),
        ("${env:KEY}${file:/b}", "of-the-environmentof /b"),
    ],
)
def test_references_are_replaced_once(text, value):
    secret = resolved(
        text, environ={"KEY": "of-the-environment", "NEST": "${env:KEY}"}, read=lambda path: f"of {path}\n"
    )

    assert secret.reveal() == value


def test_what_a_reference_brings_is_not_looked_through_for_more():
    secret = resolved("${env:NEST}", environ={"NEST": "${env:KEY} $$"}, read=str)

    assert secret.reveal() == "${env:KEY} $$"


@pytest.mark.parametrize("text", ["${env:MISSING}", "${canary}", "${env:}", "a ${", "${file:x"])
def test_a_reference_that_leads_nowhere_is_an_error_that_does_not_repeat_it(text):
    with pytest.raises(BadReferenceError) as caught:
        resolved(text, environ={}, read=str)

    assert text not in str(caught.value)
    assert "MISSING" not in str(caught.value)


def test_only_what_stands_elsewhere_is_a_reference():
    assert has_reference("Bearer ${env:KEY}")
    assert not has_reference("$$ and $${env:KEY}"[:5])


def test_the_worst_finding_decides():
    def a(severity: Severity) -> Finding:
        return Finding(code="x", severity=severity, message="")

    assert worst([a(Severity.INFO)]) is worst([]) is Status.OK
    assert worst([a(Severity.INFO), a(Severity.WARNING)]) is Status.WARNING
    assert worst([a(Severity.WARNING), a(Severity.ERROR)]) is Status.FAILED


@pytest.mark.parametrize(
    ("ahead_s", "status", "said"),
    [
        (None, Status.SKIPPED, "does not say"),
        (-0.9, Status.OK, "agree"),
        (10.0, Status.OK, "10 s ahead"),
        (-31.5, Status.WARNING, "31 s behind"),
        (2 * DAY, Status.WARNING, "too far to correct"),
    ],
)
def test_clocks_are_judged_by_how_far_they_are_apart(ahead_s, status, said):
    step = clock_step(ahead_s)

    assert step.status is status
    assert said in step.summary


def test_a_token_is_judged_by_the_issuers_clock():
    raw = mint(iat=T0 + 300, nbf=T0 + 300, exp=T0 + 300 + HOUR)
    examined = examine_token(
        Issued(secret=Secret(raw), server_time=T0 + 300),
        profile=profile_named("jwt"),
        expect=None,
        key=None,
        wall=T0,
    )

    assert (examined.skew_s, examined.now, examined.findings) == (300, T0 + 300, ())
    assert examined.token is not None


def test_a_certificate_without_organization_is_named_by_its_common_name():
    peer = {"notAfter": "Jan  1 00:00:00 2030 GMT", "issuer": ((("commonName", "My CA"),),)}
    found = certificate_of(peer)

    assert found is not None
    assert (found.issuer, found.names) == ("My CA", ())
    assert certificate_of({}) is certificate_of(None) is None


def test_an_unknown_problem_of_a_certificate_has_a_remedy_too():
    error = ssl.SSLCertVerificationError(1, "unknown")
    error.verify_code = 999

    assert all(verdict(error))
