"""Anthropic's clients, over real sockets."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from cloud import calling_in_a_loop, shown
from guarding import FiveChecks, GuardedApi, keeping

from token_keeper import ConfigError, TokenKeeper, TokenUnavailable
from token_keeper.adapters.anthropic import AsyncKeeperCredentials, KeeperCredentials
from token_keeper.testing import FakeBackend


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api(backend):
    with GuardedApi(backend) as api:
        yield api


@contextmanager
def client_of(credentials, base_url):
    with Anthropic(credentials=credentials, base_url=base_url) as client:

        def call(url):
            try:
                client.get(url, cast_to=object)
            except anthropic.APIStatusError as error:
                return error.status_code
            return 200

        yield call


@asynccontextmanager
async def async_client_of(credentials, base_url):
    async with AsyncAnthropic(credentials=credentials, base_url=base_url) as client:

        async def call(url):
            try:
                await client.get(url, cast_to=object)
            except anthropic.APIStatusError as error:
                return error.status_code
            return 200

        yield call


class AnthropicChecks(FiveChecks):
    """The provider is told neither the status nor the server."""

    test_a_missing_right_is_no_denial = None

    def try_elsewhere(self, call, api, other):
        assert call(f"{api.origin}/away") == 200
        assert len(other.seen) == 1


class TestClient(AnthropicChecks):
    def calling(self, keeper, api):
        return client_of(KeeperCredentials(keeper), api.origin)


class TestAsyncClient(AnthropicChecks):
    def calling(self, keeper, api):
        return calling_in_a_loop(lambda: async_client_of(AsyncKeeperCredentials(keeper), api.origin))


def test_a_message_is_made_with_the_token(backend, api):
    api.answer = lambda _: {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    with keeping(backend) as keeper:
        api.revoke_all()
        with Anthropic(credentials=KeeperCredentials(keeper), base_url=api.origin) as client:
            made = client.messages.create(
                model="m", max_tokens=1, messages=[{"role": "user", "content": "Hello"}]
            )

    assert made.content[0].text == "Hello"
    assert api.bodies[0] == api.bodies[1]
    assert list(api.seen) == list(backend.issued)


def test_without_another_token_the_error_says_why(backend, api):
    with keeping(backend) as keeper, client_of(KeeperCredentials(keeper, timeout=0.1), api.origin) as call:
        backend.down()
        api.revoke_all()

        with pytest.raises(anthropic.APIConnectionError) as caught:
            call(api.url)

    assert isinstance(caught.value.__cause__, TokenUnavailable)


def test_the_token_is_in_no_repr_log_or_error(backend, api, caplog):
    caplog.set_level(logging.DEBUG, "token_keeper")
    with keeping(backend) as keeper:
        token = keeper.token
        credentials = KeeperCredentials(keeper, timeout=0.1)
        with client_of(credentials, api.origin) as call:
            call(api.url)
            backend.down()
            api.refuse_all()
            with pytest.raises(anthropic.APIError) as caught:
                call(api.url)

    assert token not in repr(credentials) + shown(caught.value) + caplog.text


@pytest.mark.parametrize(("options", "key"), [({"timeout": -1}, "timeout"), ({"by": 7}, "by")])
def test_wrong_arguments_are_named(options, key):
    with pytest.raises(ConfigError, match=key):
        KeeperCredentials(TokenKeeper(), **options)
