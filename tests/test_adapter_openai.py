"""OpenAI's clients, over real sockets."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager

import openai
import pytest
from cloud import calling_in_a_loop, shown
from guarding import FiveChecks, GuardedApi, keeping
from openai import AsyncOpenAI, OpenAI

from token_keeper import ConfigError, TokenKeeper, TokenUnavailable
from token_keeper.adapters import openai as adapter
from token_keeper.testing import FakeBackend

UNAVAILABLE = (TokenUnavailable, openai.APIConnectionError)
"""What a request without a token raises: early releases of the SDK wrap it."""


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api(backend):
    with GuardedApi(backend) as api:
        yield api


@contextmanager
def calls_of(client):
    with client:

        def call(url):
            try:
                client.get(url, cast_to=object)
            except openai.APIStatusError as error:
                return error.status_code
            return 200

        yield call


@asynccontextmanager
async def async_calls_of(client):
    async with client:

        async def call(url):
            try:
                await client.get(url, cast_to=object)
            except openai.APIStatusError as error:
                return error.status_code
            return 200

        yield call


class OpenAiChecks(FiveChecks):
    def try_elsewhere(self, call, api, other):
        for url in (f"{api.origin}/away", f"{other.origin}/things", f"{other.origin}/open"):
            call(url)
        assert len(other.seen) == 3
        # What the SDK sends there in the place of a key is none.
        unkeyed = [None if token == adapter.STAND_IN else token for token in other.seen]
        other.seen.clear()
        other.seen.extend(unkeyed)


class TestClient(OpenAiChecks):
    def calling(self, keeper, api):
        return calls_of(adapter.openai(keeper, base_url=api.origin))


class TestAsyncClient(OpenAiChecks):
    def calling(self, keeper, api):
        return calling_in_a_loop(lambda: async_calls_of(adapter.async_openai(keeper, base_url=api.origin)))


def completion(_):
    message = {"role": "assistant", "content": "Hello"}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


def test_a_completion_survives_a_revoked_token(backend, api):
    api.answer = completion
    with keeping(backend) as keeper:
        api.revoke_all()
        with adapter.openai(keeper, base_url=api.origin) as client:
            made = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])

    assert made.choices[0].message.content == "Hello"
    assert api.bodies[0] == api.bodies[1]
    assert list(api.seen) == list(backend.issued)


def test_the_base_url_is_the_allowed_origin_whatever_is_called_first(backend, api):
    with (
        GuardedApi() as other,
        keeping(backend) as keeper,
        calls_of(adapter.openai(keeper, base_url=api.origin)) as call,
    ):
        assert call(f"{other.origin}/open") == 200
        assert call(api.url) == 200

        assert list(other.seen) == [adapter.STAND_IN]


def test_copies_of_a_client_keep_the_token_fresh_as_well(backend, api):
    with keeping(backend) as keeper, adapter.openai(keeper, base_url=api.origin) as client:
        api.revoke_all()

        client.with_options(max_retries=0).get("/things", cast_to=object)

    assert len(backend.issued) == 2


def test_an_api_key_is_asked_for_before_each_request(backend, api):
    with keeping(backend) as keeper:
        client = OpenAI(api_key=adapter.api_key(keeper), base_url=api.origin)
        with calls_of(client) as call:
            tokens = [keeper.token]
            call(api.url)
            tokens.append(keeper.refresh())
            call(api.url)

    assert list(api.seen) == tokens


def test_an_async_api_key_is_asked_for_before_each_request(backend, api):
    async def main(keeper):
        async with AsyncOpenAI(api_key=adapter.async_api_key(keeper), base_url=api.origin) as client:
            await client.get("/things", cast_to=object)

    with keeping(backend) as keeper:
        asyncio.run(main(keeper))

        assert list(api.seen) == [keeper.token]


def test_without_another_token_the_server_s_refusal_is_raised(backend, api):
    with keeping(backend) as keeper:
        made = adapter.openai(keeper, base_url=api.origin, token_timeout=0.1, max_retries=0)
        with calls_of(made) as call:
            backend.down()
            api.revoke_all()

            assert call(api.url) == 401
            with pytest.raises(UNAVAILABLE):
                call(api.url)


def test_the_token_is_in_no_repr_log_or_error(backend, api, caplog):
    caplog.set_level(logging.DEBUG, "token_keeper")
    with keeping(backend) as keeper:
        token = keeper.token
        made = adapter.openai(keeper, base_url=api.origin, token_timeout=0.1, max_retries=0)
        with calls_of(made) as call:
            call(api.url)
            backend.down()
            api.refuse_all()
            call(api.url)
            with pytest.raises(UNAVAILABLE) as caught:
                call(api.url)

        assert token not in repr(adapter.api_key(keeper)) + shown(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"token_timeout": -1}, "timeout"),
        ({"by": 7}, "by"),
        ({"origins": "nowhere"}, "origins"),
        ({"api_key": "raw"}, "api_key"),
        ({"http_client": None}, "http_client"),
    ],
    ids=["timeout", "by", "origins", "api_key", "http_client"],
)
def test_wrong_arguments_are_named(options, key):
    with pytest.raises(ConfigError, match=key):
        adapter.openai(TokenKeeper(), **options)
