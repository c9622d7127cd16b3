"""What becomes of what a source handed over."""

from __future__ import annotations

import math

import pytest
from minting import NOW, forged, minted

from token_keeper import InvalidToken, ResponseError
from token_keeper._model import Issued, Secret
from token_keeper._receive import clock_skew, receive, supplied
from token_keeper.profiles import profile_named

NO_EXP = forged(without="exp")
HOUR = 3600


def received(raw, *, profile="auto", expect=None, wall=NOW, **said):
    return receive(
        Issued(secret=Secret(raw), **said), profile=profile_named(profile), expect=expect, wall=wall
    )


def refusal(raw, **options):
    with pytest.raises(ResponseError) as raised:
        received(raw, **options)
    return raised.value


def handed_in(raw, *, profile="auto", expect=None, wall=NOW, expires_at=None):
    return supplied(raw, expires_at=expires_at, profile=profile_named(profile), expect=expect, wall=wall)


@pytest.mark.parametrize(
    ("said", "skew_s"),
    [
        ({"server_time": NOW + 2}, 0),
        ({"server_time": NOW - 2}, 0),
        ({"server_time": NOW + 3}, 3),
        ({"server_time": NOW - 3}, -3),
        ({"server_time": NOW + 86_400}, 86_400),
        ({"server_time": NOW - 86_401}, 0),
        ({"server_time": math.nan}, 0),
        ({"server_time": NOW, "issued_at": NOW + 100}, 0),
        ({"issued_at": NOW + 100}, 100),
        ({"issued_at": NOW - 100}, 0),
        ({"not_before": NOW + 100}, 100),
        ({"issued_at": NOW, "not_before": NOW + 100}, 0),
        ({"issued_at": NOW + 601}, 600),
        ({"issued_at": NOW * 1000}, 0),
        ({}, 0),
    ],
)
def test_the_clocks_are_compared_by_what_was_said(said, skew_s):
    assert clock_skew(wall=NOW, **said) == skew_s


def test_a_good_token_is_received_with_its_times():
    got = received(minted(), profile="twilio")

    assert got.token.secret.reveal() == minted()
    assert (got.token.expires_at, got.token.not_before, got.token.issued_at) == (NOW + HOUR, NOW, None)
    assert (got.skew_s, got.remaining_s) == (0, HOUR)


def test_a_token_from_a_clock_that_is_ahead_is_judged_by_that_clock():
    got = received(minted(), wall=NOW - 500, profile="twilio")

    assert (got.skew_s, got.remaining_s) == (500, HOUR)


def test_a_token_that_a_slow_clock_takes_for_valid_is_judged_by_the_servers_clock():
    assert "expired" in str(refusal(minted(), wall=NOW, server_time=NOW + HOUR + 1))


@pytest.mark.parametrize(
    ("said", "expires_at"),
    [
        ({}, None),
        ({"expires_in": 60}, NOW + 60),
        ({"expires_at": NOW + 61}, NOW + 61),
        ({"default_lifetime_s": 62}, NOW + 62),
        ({"expires_in": 60, "expires_at": NOW + 61, "default_lifetime_s": 62}, NOW + 60),
        ({"expires_at": NOW + 61, "default_lifetime_s": 62}, NOW + 61),
        ({"expires_in": 60, "server_time": NOW + 100}, NOW + 160),
    ],
)
@pytest.mark.parametrize("raw", ["opaque-token", NO_EXP])
def test_a_token_without_expiry_takes_the_one_that_was_said_beside_it(raw, said, expires_at):
    assert received(raw, **said).token.expires_at == expires_at


@pytest.mark.parametrize("said", [{"expires_in": 99_999}, {"expires_at": NOW - 9}, {"default_lifetime_s": 1}])
def test_the_expiry_of_a_jwt_wins_over_what_was_said_beside_it(said):
    assert received(minted(), **said).token.expires_at == NOW + HOUR


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"expires_in": 0}, "expired"),
        ({"expires_in": -5}, "expired"),
        ({"expires_in": math.nan}, "exp-not-a-number"),
        ({"expires_in": 10**400}, "exp-not-a-number"),
        ({"expires_in": "60"}, "exp-not-a-number"),
        ({"expires_at": NOW}, "expired"),
        ({"expires_at": NOW * 1000}, "exp-in-milliseconds"),
        ({"expires_at": True}, "exp-not-a-number"),
    ],
)
def test_an_expiry_beside_the_token_that_cannot_be_is_refused(said, code):
    error = refusal("opaque-token", **said)

    assert [finding.code for finding in error.findings] == [code]
    assert code in str(error)


def test_an_expiry_that_is_missing_or_years_ahead_is_a_warning():
    years = {"expires_in": 20 * 365 * 86_400}

    assert [finding.code for finding in received(NO_EXP).findings] == ["exp-missing"]
    assert [finding.code for finding in received("opaque-token", **years).findings] == ["lifetime-too-long"]
    assert received(NO_EXP, expires_in=60).findings == ()


def test_twilio_tokens_need_an_expiry_of_their_own():
    assert "exp-missing" in str(refusal(NO_EXP, profile="twilio", expires_in=60))


@pytest.mark.parametrize(
    "raw", ["", "a b", minted(valid_until=NOW), f'{{"token": "{minted()}"}}', "x" * 20_000]
)
def test_a_token_that_cannot_work_is_refused_with_its_findings(raw):
    error = refusal(raw)

    assert error.findings
    assert all(finding.code in str(error) for finding in error.findings)
    assert error.retry_within is None


def test_a_token_unlike_what_is_expected_is_refused():
    assert "identity-mismatch" in str(refusal(minted(), profile="twilio", expect={"identity": "bob"}))


def test_a_token_that_only_has_to_wait_says_for_how_long():
    early = forged(claims={"iat": NOW, "nbf": NOW + 300})

    assert refusal(early).retry_within == 300
    assert received(early, wall=NOW + 295).token.not_before == NOW + 300
    assert refusal(early, profile="twilio", expect={"identity": "bob"}).retry_within is None


def test_expiry_has_no_leeway():
    assert "expired" in str(refusal(minted(), wall=NOW + HOUR))


def test_a_token_handed_in_is_taken_with_its_times():
    assert handed_in(minted(), profile="twilio").expires_at == NOW + HOUR
    assert handed_in("opaque-token").expires_at is None
    assert handed_in("opaque-token", expires_at=NOW + 60).expires_at == NOW + 60
    assert handed_in(minted(), expires_at=NOW + 60).expires_at == NOW + HOUR
    assert handed_in(minted(), wall=NOW - 60).expires_at == NOW + HOUR


@pytest.mark.parametrize(
    ("raw", "options", "code"),
    [
        ("", {}, "empty"),
        (minted(valid_until=NOW), {}, "expired"),
        (minted(), {"profile": "twilio", "expect": {"identity": "bob"}}, "identity-mismatch"),
        ("opaque-token", {"expires_at": NOW}, "expired"),
        ("opaque-token", {"expires_at": math.inf}, "exp-not-a-number"),
        (minted(), {"expires_at": NOW - 1}, "expired"),
        (minted(), {"expires_at": NOW * 1000}, "exp-in-milliseconds"),
    ],
)
def test_a_token_handed_in_that_cannot_work_is_an_invalid_token(raw, options, code):
    with pytest.raises(InvalidToken) as raised:
        handed_in(raw, **options)

    assert [finding.code for finding in raised.value.findings if finding.severity == "error"] == [code]
    assert code in str(raised.value)


def frames_of(error):
    traceback = error.__traceback__
    while traceback:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def receive_it(secret):
    return receive(Issued(secret=secret), profile=profile_named("twilio"), expect=None, wall=NOW)


def hand_it_in(secret):
    return supplied(secret, profile=profile_named("twilio"), wall=NOW)


@pytest.mark.parametrize("take", [receive_it, hand_it_in])
def test_no_error_and_no_frame_of_ours_holds_the_token(take):
    secret = Secret(minted(valid_until=NOW - 1))

    with pytest.raises((ResponseError, InvalidToken)) as raised:
        take(secret)

    ours = [frame for frame in frames_of(raised.value) if "token_keeper" in frame.f_code.co_filename]
    held = repr([frame.f_locals for frame in ours]) + repr((raised.value, vars(raised.value)))
    assert not [part for part in secret.reveal().split(".") if part in held]
