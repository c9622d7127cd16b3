"""Google's sessions and its gRPC plugin, over real sockets."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import grpc
import pytest
import requests
from cloud import calling_in_a_loop, shown
from google.auth.aio.transport.sessions import AsyncAuthorizedSession
from google.auth.credentials import TokenState
from google.auth.exceptions import RefreshError
from google.auth.transport.grpc import AuthMetadataPlugin
from google.auth.transport.requests import AuthorizedSession, Request
from guarding import FiveChecks, GuardedApi, keeping

from token_keeper import ConfigError, TokenKeeper, TokenUnavailable
from token_keeper.adapters.google_auth import AsyncKeeperCredentials, KeeperCredentials
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
def session_of(credentials):
    with AuthorizedSession(credentials, max_refresh_attempts=1) as session:

        def call(url):
            with session.get(url) as response:
                return response.status_code

        yield call


@asynccontextmanager
async def async_session_of(credentials):
    session = AsyncAuthorizedSession(credentials)

    async def call(url):
        response = await session.get(url)
        status = response.status_code
        await response.read()
        await response.close()
        return status

    try:
        yield call
    finally:
        await session.close()


class GoogleChecks(FiveChecks):
    """`refresh()` is told neither the status nor the server: what a 401 means is not seen."""

    test_a_missing_right_is_no_denial = None

    def try_elsewhere(self, call, api, other):
        for url in (f"{api.origin}/away", f"{other.origin}/things", f"{other.origin}/open"):
            call(url)
        # The async session follows no redirects.
        assert len(other.seen) >= 2


class TestSession(GoogleChecks):
    def calling(self, keeper, _api):
        return session_of(KeeperCredentials(keeper))


class TestAsyncSession(GoogleChecks):
    def calling(self, keeper, _api):
        return calling_in_a_loop(lambda: async_session_of(AsyncKeeperCredentials(keeper)))

    def test_a_server_that_refuses_everything_gets_one_retry_for_a_call(self, backend, api):
        """This session retries twice, and cannot be told otherwise."""
        with keeping(backend) as keeper, self.calling(keeper, api) as call:
            api.refuse_all()

            assert call(api.url) == 401
            assert len(api.seen) == len(set(api.seen)) == 3


class TestBlockingCredentialsInAnAsyncSession(GoogleChecks):
    def calling(self, keeper, _api):
        return calling_in_a_loop(lambda: async_session_of(KeeperCredentials(keeper)))

    test_a_server_that_refuses_everything_gets_one_retry_for_a_call = None


def test_google_s_grpc_plugin_sends_the_live_token(backend):
    seen = []

    class Service(grpc.GenericRpcHandler):
        def service(self, details):
            seen.append(dict(details.invocation_metadata)["authorization"].removeprefix("Bearer "))
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Service()])
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    server.start()
    try:
        with keeping(backend) as keeper, requests.Session() as session:
            plugin = AuthMetadataPlugin(KeeperCredentials(keeper), Request(session))
            credentials = grpc.composite_channel_credentials(
                grpc.local_channel_credentials(), grpc.metadata_call_credentials(plugin)
            )
            with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
                call = channel.unary_unary("/Things/Get")
                tokens = [keeper.token]
                call(b"", timeout=10)
                tokens.append(keeper.refresh())
                call(b"", timeout=10)
    finally:
        server.stop(0).wait()

    assert seen == tokens


def test_what_google_s_clients_read_is_live(backend):
    with keeping(backend) as keeper:
        credentials = KeeperCredentials(keeper)
        first = credentials.token
        renewed = keeper.refresh()

        assert (first != renewed, credentials.token) == (True, renewed)
        assert (credentials.valid, credentials.expired, credentials.token_state) == (
            True,
            False,
            TokenState.FRESH,
        )
        assert credentials.expiry.timestamp() != 0
        headers = {}
        credentials.apply(headers)
        assert headers == {"authorization": f"Bearer {renewed}"}


def test_a_refresh_before_anything_was_sent_denies_nothing(backend):
    with keeping(backend) as keeper:
        KeeperCredentials(keeper).refresh(None)

        assert keeper.snapshot.denied_by == ()
    assert len(backend.issued) == 1


def test_several_servers_are_named(backend, api):
    with GuardedApi(backend) as other, keeping(backend) as keeper:
        credentials = KeeperCredentials(keeper, origins=[api.origin, other.origin])
        with session_of(credentials) as call:
            assert [call(api.url), call(other.url)] == [200, 200]


def test_without_another_token_the_blocking_session_raises_what_google_raises(backend, api):
    with keeping(backend) as keeper, session_of(KeeperCredentials(keeper, timeout=0.1)) as call:
        backend.down()
        api.revoke_all()

        with pytest.raises(RefreshError, match="refused"):
            call(api.url)
        with pytest.raises(TokenUnavailable):
            call(api.url)


def test_without_another_token_the_async_session_returns_the_server_s_refusal(backend, api):
    with keeping(backend) as keeper:
        credentials = AsyncKeeperCredentials(keeper, timeout=0.1)
        with calling_in_a_loop(lambda: async_session_of(credentials)) as call:
            backend.down()
            api.revoke_all()

            assert call(api.url) == 401


def test_the_token_is_in_no_repr_log_or_error(backend, api, caplog):
    caplog.set_level(logging.DEBUG, "token_keeper")
    with keeping(backend) as keeper:
        token = keeper.token
        credentials = KeeperCredentials(keeper, timeout=0.1)
        with session_of(credentials) as call:
            call(api.url)
            backend.down()
            api.refuse_all()
            with pytest.raises(RefreshError) as caught:
                call(api.url)

    assert token not in repr(credentials) + shown(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("options", "key"),
    [({"timeout": -1}, "timeout"), ({"by": 7}, "by"), ({"origins": "nowhere"}, "origins")],
    ids=["timeout", "by", "origins"],
)
def test_wrong_arguments_are_named(options, key):
    with pytest.raises(ConfigError, match=key):
        KeeperCredentials(TokenKeeper(), **options)
