"""A user's function as a source: whatever it does, the keeper goes on."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import subprocess
import sys
import threading

import pytest
from fetching import failure, fetch, fetch_all, raw, shown

from token_keeper._errors import ConfigError, RefusedError, ResponseError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper.sources import CallableSource

CANARY = "canary-0123456789abcdef"


def raising(error: BaseException):
    def function() -> str:
        secret = CANARY + "-local"
        if secret:
            raise error
        return ""

    return function


def raising_later(error: BaseException):
    async def function() -> str:
        raising(error)()
        return ""

    return function


@pytest.mark.parametrize(
    "answer",
    ["opaque-1", '{"token": "opaque-1"}', {"data": {"jwt": "opaque-1"}}, Issued(secret=Secret("opaque-1"))],
)
def test_a_function_may_return_a_token_a_text_json_or_what_is_issued(answer):
    async def later() -> object:
        await asyncio.sleep(0)
        return answer

    assert raw(CallableSource(lambda: answer)) == "opaque-1"
    assert raw(CallableSource(later)) == "opaque-1"
    assert raw(CallableSource(lambda: later())) == "opaque-1"  # noqa: PLW0108 - A sync function, on purpose.
    assert raw(CallableSource(functools.partial(later))) == "opaque-1"


def test_an_object_with_an_async_call_is_a_function():
    class Fetcher:
        async def __call__(self) -> str:
            return "opaque-1"

    assert raw(CallableSource(Fetcher())) == "opaque-1"


def test_paths_and_the_default_lifetime_count():
    answer = {"chat": {"v": "opaque-1", "ttl": 90}}
    issued = fetch(
        CallableSource(lambda: answer, token_path="chat.v", expires_path="chat.ttl", default_lifetime=5)
    )

    assert issued.secret.reveal() == "opaque-1"
    assert (issued.expires_in, issued.default_lifetime_s) == (90.0, 5)


def test_what_is_issued_keeps_its_own_default_lifetime():
    own = Issued(secret=Secret("a"), default_lifetime_s=7)

    assert fetch(CallableSource(lambda: own, default_lifetime=5)).default_lifetime_s == 7
    assert (
        fetch(CallableSource(lambda: Issued(secret=Secret("a")), default_lifetime=5)).default_lifetime_s == 5
    )


@pytest.mark.parametrize("answer", [None, 3, b"bytes", object(), "", {}, {"token": None}, "two words"])
def test_what_is_no_token_is_a_response_error(answer):
    assert isinstance(failure(CallableSource(lambda: answer)), ResponseError)


def test_a_sync_function_runs_in_a_daemon_thread_with_the_context_of_its_caller():
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def function() -> str:
        seen.append((threading.current_thread().daemon, threading.current_thread().name, variable.get()))
        return "opaque-1"

    variable.set("set")
    raw(CallableSource(function))

    assert seen == [(True, "token-keeper-callback", "set")]


ANY = [
    ValueError(CANARY),
    StopIteration(CANARY),
    SystemExit(CANARY),
    KeyboardInterrupt(CANARY),
    asyncio.CancelledError(CANARY),
    TimeoutError(CANARY),
]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (raising, GeneratorExit(CANARY)),
        *((make, error) for make in (raising, raising_later) for error in ANY),
    ],
)
def test_whatever_a_function_raises_is_a_failed_fetch(make, error):
    problem = failure(CallableSource(make(error)))

    assert isinstance(problem, TransientFetchError)
    assert CANARY not in str(problem)
    assert problem.__cause__ is not None
    assert problem.__cause__.__traceback__ is None


@pytest.mark.parametrize("error", [RefusedError("invalid_grant"), ResponseError("no token")])
def test_a_fetch_error_of_the_function_passes_through(error):
    assert failure(CallableSource(raising(error))) is error
    assert failure(CallableSource(raising_later(error))) is error


def test_no_frame_of_a_function_that_failed_is_kept():
    def function() -> str:
        try:
            json.loads(f'{{"token": "{CANARY}')
        except ValueError:
            raise RuntimeError("while parsing") from ZeroDivisionError("inner")
        return ""

    problem = failure(CallableSource(function))

    assert CANARY not in shown(problem)
    assert isinstance(problem.__cause__, RuntimeError)
    assert isinstance(problem.__cause__.__cause__, ZeroDivisionError)


def test_an_exception_that_holds_a_body_is_not_kept():
    problem = failure(CallableSource(lambda: json.loads(f'{{"token": "{CANARY}')))

    assert "raised JSONDecodeError" in str(problem)
    assert problem.__cause__ is None
    assert problem.__context__ is None


def test_a_mapping_that_cannot_be_read_is_a_failed_fetch():
    class Broken(dict):
        def get(self, *_: object) -> object:
            raise ValueError(CANARY)

    problem = failure(CallableSource(lambda: Broken(token="x")))

    assert isinstance(problem, ResponseError)
    assert "Let it return a string, a mapping or an Issued" in str(problem)
    assert CANARY not in str(problem)


def test_a_function_that_hangs_times_out_and_is_not_called_again_until_it_returns():
    release, calls = threading.Event(), []

    def function() -> str:
        calls.append(1)
        release.wait(10)
        return "opaque-1"

    async def story() -> tuple[TransientFetchError, TransientFetchError, str]:
        source = CallableSource(function, timeout=0.05)
        errors = [(await asyncio.gather(source.fetch(), return_exceptions=True))[0] for _ in range(2)]
        release.set()
        for thread in threading.enumerate():
            if thread.name == "token-keeper-callback":
                await asyncio.to_thread(thread.join, 5)
        return *errors, (await source.fetch()).secret.reveal()

    first, second, token = asyncio.run(story())

    assert "did not return within 0.05 s" in str(first)
    assert "raise timeout" in str(first)
    assert first.timed_out
    assert "has not returned since an earlier fetch" in str(second)
    assert (token, len(calls)) == ("opaque-1", 2)


def test_an_async_function_that_hangs_times_out():
    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    assert failure(CallableSource(hang, timeout=0.05)).timed_out


def test_a_cancelled_fetch_leaves_the_thread_alone():
    begun, release, over = threading.Event(), threading.Event(), threading.Event()

    def function() -> str:
        begun.set()
        release.wait(10)
        over.set()
        return "opaque-1"

    async def cancel() -> None:
        task = asyncio.create_task(CallableSource(function).fetch())
        await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    release.set()

    assert over.wait(5)


def test_a_hanging_function_does_not_keep_the_interpreter_from_exiting():
    program = (
        "import asyncio, threading\n"
        "from token_keeper.sources import CallableSource\n"
        "source = CallableSource(threading.Event().wait, timeout=0.05)\n"
        "asyncio.run(source.fetch())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=10, check=False
    )

    assert "TransientFetchError" in done.stderr


def test_a_result_that_comes_after_its_loop_is_ignored():
    release, over = threading.Event(), threading.Event()

    def function() -> str:
        release.wait(10)
        over.set()
        return "opaque-1"

    source = CallableSource(function, timeout=0.05)
    failure(source)
    release.set()

    assert over.wait(5)


def test_a_source_is_named_after_its_function_and_shows_no_argument_of_it():
    def fetch_token(key: str) -> str:
        return key

    source = CallableSource(functools.partial(fetch_token, CANARY))

    assert "fetch_token" in repr(source)
    assert source.origin.startswith("callable:")
    assert CANARY not in repr(source) + source.origin


def test_a_source_fetches_again_and_again():
    count = iter(range(3))

    assert [
        issued.secret.reveal()
        for issued in fetch_all(CallableSource(lambda: f"token-{next(count)}"), times=3)
    ] == [
        "token-0",
        "token-1",
        "token-2",
    ]


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("function", {"function": "https://backend.example"}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": 60}),
        ("default_lifetime", {"default_lifetime": -1}),
        ("token_path", {"token_path": "a["}),
        ("expires_path", {"expires_path": "a["}),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_that_names_it(key, settings):
    with pytest.raises(ConfigError) as caught:
        CallableSource(**({"function": str} | settings))

    assert caught.value.key == key
