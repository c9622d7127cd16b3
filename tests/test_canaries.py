"""Planted tokens and secrets, looked for wherever something is shown."""

import copy
import json
import logging
import pickle
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import structlog
from fetching import shown

from token_keeper import (
    CallableSource,
    ConfigError,
    FetchError,
    HttpSource,
    InvalidToken,
    RefreshPolicy,
    Secret,
    TokenKeeper,
    TokenUnavailable,
)
from token_keeper.testing import FakeBackend, mint

SECRET = "canary-5ecret-0f-the-backend-0123456789"
QUICK = RefreshPolicy(min_interval_s=0.1)


def pickle_of(thing: object) -> bytes:
    try:
        return pickle.dumps(thing)
    except TypeError as refusal:
        return str(refusal).encode()


def raised_by(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as failure:  # noqa: PT011 - any error at all is looked through.
        call()
    return failure.value


def parts(token: str) -> list[str]:
    """Return what must not be shown of a token: itself, its claims, its signature."""
    return [token, *token.split(".")[1:]]


def test_nothing_that_is_shown_holds_a_token_or_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[Any] = []
    screen: list[str] = []
    with FakeBackend() as backend, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        source = HttpSource(
            backend.url + f"?key={SECRET}",
            headers={"Authorization": f"Bearer {SECRET}", "X-Key": lambda: SECRET},
            json={"secret": SECRET},
            params={"api_key": SECRET},
        )
        keeper = TokenKeeper(source, policy=QUICK, expect={})
        keeper.on()(told.append)
        with keeper:
            screen += [repr(keeper), repr(source), repr(keeper.snapshot), repr(keeper._kept.held)]
            screen += [repr(keeper.reader("chat")), str(pickle_of(keeper.snapshot))]
            for fault in ("html", "not_json", "reset", "gzip_bomb"):
                backend.fail(fault, times=3)
                screen.append(shown(raised_by(keeper.refresh)))
                backend.recover()
            backend.answer(status=400, body=json.dumps({"error": "invalid_grant", "hint": SECRET}).encode())
            screen.append(shown(raised_by(keeper.refresh)))
            backend.answer(body=json.dumps({"token": SECRET + " with blanks"}).encode())
            screen.append(shown(raised_by(keeper.refresh)))
            wrapped = Secret(mint(expires_at=time.time() + 60, secret=SECRET))
            json_text = Secret(json.dumps({"token": wrapped.reveal()}))
            screen.append(shown(raised_by(lambda: keeper.update(json_text.reveal()))))
            backend.recover()
            keeper.refresh()
            denied = Secret(keeper.token)
            backend.down()
            keeper.report_denied(denied.reveal(), code=51215, reason=f"token {denied.reveal()} was denied")
            screen.append(shown(raised_by(lambda: keeper.get(timeout=0.3))))
            screen.append(shown(raised_by(lambda: keeper.update(denied.reveal()))))
            screen += [shown(raised_by(lambda: copy.copy(keeper))), str(pickle_of(keeper))]
        screen.append(shown(raised_by(lambda: keeper.token)))
        tokens = [*backend.issued, wrapped.reveal()]
    screen += [repr(told), str(pickle_of(told)), repr([str(warning.message) for warning in warned])]
    screen += [record.getMessage() + repr(vars(record)) for record in caplog.records]
    everything = "\n".join(screen)
    assert len(tokens) >= 3
    assert len(caplog.records) >= 8
    assert SECRET not in everything
    for token in tokens:
        for part in parts(token):
            assert part not in everything


def test_an_exception_of_a_users_function_is_told_without_its_frames_and_text() -> None:
    def broken() -> str:
        password = SECRET
        raise ValueError(f"cannot log in with {password}")

    keeper = TokenKeeper(CallableSource(broken), start_timeout=0.2)
    error = raised_by(keeper.start)
    assert isinstance(error, TokenUnavailable)
    assert isinstance(error.__cause__, FetchError)
    assert "ValueError" in str(error)
    assert SECRET not in str(error)
    assert SECRET not in repr(keeper.snapshot)


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"Authorization": f"Bearer {SECRET}\n"}},
        {"headers": {"Authorization": f"Bearer {SECRET}"}, "timeout": -1},
        {"json": {"password": SECRET}, "data": {"password": SECRET}},
        {"json": {"password": SECRET, "when": object()}},
        {"data": f"password={SECRET}"},
        {"auth": SECRET},
        {"proxy": f"ftp://user:{SECRET}@proxy.example"},
    ],
)
def test_a_wrong_setting_of_a_source_shows_no_secret_in_the_frames_of_its_error(settings: Any) -> None:
    error = raised_by(partial(HttpSource, "https://backend.example/token", **settings))
    assert isinstance(error, ConfigError)
    assert not [
        frame.f_code.co_name
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if "token_keeper" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename
        for value in frame.f_locals.values()
        if SECRET in repr(value)
    ]


def test_an_opaque_token_that_a_server_quotes_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keeper = TokenKeeper()
    keeper.update(SECRET, expires_at=time.time() + 60)
    keeper.report_denied(SECRET, code=f"bad {SECRET}", reason=f"the token {SECRET} is unknown")
    assert "denialReported" in caplog.text
    assert SECRET not in caplog.text


def test_an_answer_that_is_taken_for_something_else_is_no_attribute_of_the_cause() -> None:
    def confused() -> object:
        answer: Any = SECRET
        return answer.json

    error = raised_by(TokenKeeper(CallableSource(confused), start_timeout=0.2).start)  # type: ignore[arg-type]
    assert isinstance(error.__cause__, FetchError)
    assert isinstance(error.__cause__.__cause__, AttributeError)
    assert error.__cause__.__cause__.obj is None


def test_a_structlog_logger_of_the_host_sees_no_secret_either() -> None:
    capture = structlog.testing.LogCapture()
    logger = structlog.wrap_logger(None, processors=[capture])
    with FakeBackend() as backend:
        source = HttpSource(backend.url, headers={"Authorization": SECRET})
        with TokenKeeper(source, logger=logger, policy=QUICK) as keeper:
            backend.fail("html", times=3)
            raised_by(keeper.refresh)
            raised_by(lambda: keeper.update("Bearer " + keeper.token))
        tokens = list(backend.issued)
    assert {"tokenUpdated", "refreshFailed"} <= {entry["event"] for entry in capture.entries}
    assert SECRET not in repr(capture.entries)
    assert not [part for token in tokens for part in parts(token) if part in repr(capture.entries)]


def test_a_secret_shows_itself_only_to_reveal() -> None:
    secret = Secret(SECRET)
    assert secret.reveal() == SECRET
    assert SECRET not in f"{secret} {secret!r} {[secret]}"
    assert secret == Secret(SECRET) != Secret("other")
    assert hash(secret) == hash(Secret(SECRET))
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_an_invalid_token_error_survives_pickling_with_its_findings() -> None:
    keeper = TokenKeeper()
    error = raised_by(lambda: keeper.update("Bearer x.y.z"))
    assert isinstance(error, InvalidToken)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.findings) == (str(error), error.findings)
