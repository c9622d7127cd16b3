"""What a backend can answer wrongly: each its own clear error, and the old token kept. Real sockets."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from token_keeper import FetchError, HttpSource, RefreshPolicy, RefusedError, ResponseError, TokenKeeper
from token_keeper.testing import FakeBackend, mint

QUICK = RefreshPolicy(min_interval_s=0.1)


@pytest.fixture(scope="module")
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as backend:
        yield backend


def refresh_against(backend: FakeBackend, **options: Any) -> FetchError:
    """Refresh once, with one bad answer ordered before. Return the error; the old token stayed."""
    source = HttpSource(backend.url, timeout=0.5, **options)
    keeper = TokenKeeper(source, policy=QUICK)
    keeper.update(mint(expires_at=time.time() + 3600, jti="old"))
    with keeper:
        old = keeper.token
        with pytest.raises(FetchError) as failure:
            keeper.refresh()
        assert keeper.token == old
        assert keeper.snapshot.generation == 1
        assert keeper.snapshot.last_error == str(failure.value)
    return failure.value


def issue(backend: FakeBackend, token: str) -> None:
    backend.answer(body=json.dumps({"token": token}).encode())


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("html", "HTML"),
        ("empty", "empty"),
        ("not_json", "JSON"),
        ("huge", "1 MiB"),
        ("gzip_bomb", "1 MiB"),
        ("endless", "1 MiB"),
    ],
)
def test_an_answer_that_is_no_token_says_what_it_is(backend: FakeBackend, fault: str, says: str) -> None:
    backend.recover()
    backend.fail(fault, times=None)
    error = refresh_against(backend)
    assert isinstance(error, ResponseError)
    assert says in str(error)


@pytest.mark.parametrize("fault", ["stall_headers", "stall_body", "drip"])
def test_a_backend_that_stalls_is_given_up_in_time(backend: FakeBackend, fault: str) -> None:
    backend.recover()
    backend.fail(fault, times=None)
    error = refresh_against(backend)
    assert error.timed_out
    assert "0.5 s" in str(error)


def test_a_reset_in_mid_body_is_told_as_such(backend: FakeBackend) -> None:
    backend.recover()
    backend.fail("reset", times=None)
    error = refresh_against(backend)
    assert "broke the connection off" in str(error)


@pytest.mark.parametrize(
    ("body", "path", "says"),
    [
        ({"user": "alice"}, None, "user"),
        ({"data": {"token": "abc"}}, "result.token", "result.token"),
        ({"token": "abc", "jwt": "xyz"}, None, "token_path"),
        ({"token": "with blanks"}, None, "blank"),
        ({"token": {"value": "abc"}}, None, "token"),
    ],
    ids=["no token in it", "wrong path", "two candidates", "blanks", "an object"],
)
def test_json_without_one_token_in_it_names_the_paths(
    backend: FakeBackend, body: object, path: str | None, says: str
) -> None:
    backend.recover()
    backend.answer(body=json.dumps(body).encode(), times=None)
    error = refresh_against(backend, token_path=path)
    assert isinstance(error, ResponseError)
    assert says in str(error)


@pytest.mark.parametrize(
    ("claims", "finding"),
    [
        ({"exp": 1_500_000_000}, "expired"),
        ({"exp": 4_000_000_000_000}, "exp-in-milliseconds"),
        ({"exp": "4000000000"}, "exp-not-a-number"),
        ({"exp": float("nan")}, "exp-not-a-number"),
        ({"exp": 4_000_000_000, "iat": 4_000_000_001}, "issued-after-expiry"),
        ({"exp": 4_000_000_000, "nbf": 3_900_000_000}, "not-yet-valid"),
    ],
)
def test_a_token_whose_times_cannot_work_is_kept_out_and_its_finding_named(
    backend: FakeBackend, claims: dict[str, Any], finding: str
) -> None:
    backend.recover()
    issue(backend, mint(**claims))
    error = refresh_against(backend)
    assert isinstance(error, ResponseError)
    assert finding in {found.code for found in error.findings}
    assert f"{finding}: " in str(error)


@pytest.mark.parametrize(
    ("claims", "usable_for"),
    [({}, float("inf")), ({"exp": int(time.time() + 20 * 365 * 86_400)}, 20 * 365 * 86_400)],
    ids=["missing", "years ahead"],
)
def test_an_expiry_that_is_missing_or_far_away_is_published_with_a_warning(
    backend: FakeBackend, claims: dict[str, Any], usable_for: float, caplog: pytest.LogCaptureFixture
) -> None:
    backend.recover()
    issue(backend, mint(**claims))
    with TokenKeeper(HttpSource(backend.url), policy=QUICK) as keeper:
        assert keeper.snapshot.usable_for == pytest.approx(usable_for, rel=0.01)
        assert (keeper.snapshot.refresh_at or 0) - time.time() <= 86_400
    assert any("tokenUnwise" in record.getMessage() for record in caplog.records)


def test_an_opaque_token_lives_as_long_as_the_answer_says(backend: FakeBackend) -> None:
    backend.recover()
    backend.answer(body=b'{"access_token": "opaque-1", "expires_in": "120", "token_type": "Bearer"}')
    with TokenKeeper(HttpSource(backend.url)) as keeper:
        assert keeper.token == "opaque-1"
        assert keeper.snapshot.usable_for == pytest.approx(120, abs=3)


def test_an_opaque_token_without_a_lifetime_gets_the_configured_one(backend: FakeBackend) -> None:
    backend.recover()
    backend.answer(body=b"opaque-2")
    with TokenKeeper(HttpSource(backend.url, default_lifetime=90)) as keeper:
        assert keeper.snapshot.usable_for == pytest.approx(90, abs=3)


def test_a_refusal_names_its_code_and_the_old_token_stays(backend: FakeBackend) -> None:
    backend.recover()
    backend.answer(status=400, body=b'{"error": "invalid_grant"}')
    error = refresh_against(backend)
    assert isinstance(error, RefusedError)
    assert "(invalid_grant)" in str(error)
