"""Azure's pipelines, with their stock policy and with ours, over real sockets."""

from __future__ import annotations

import base64
import io
import json
import logging
from contextlib import asynccontextmanager, contextmanager

import pytest
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.credentials import SupportsTokenInfo, TokenCredential
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.core.pipeline.policies import (
    AsyncBearerTokenCredentialPolicy,
    AsyncRedirectPolicy,
    BearerTokenCredentialPolicy,
    RedirectPolicy,
    SensitiveHeaderCleanupPolicy,
)
from azure.core.rest import HttpRequest
from cloud import calling_in_a_loop, shown
from guarding import FiveChecks, GuardedApi, keeping

from token_keeper import ConfigError, TokenKeeper, TokenUnavailable
from token_keeper.adapters.azure_core import (
    AsyncKeeperCredential,
    AsyncKeeperPolicy,
    KeeperCredential,
    KeeperPolicy,
)
from token_keeper.testing import FakeBackend


@contextmanager
def piping(*policies):
    with PipelineClient("", policies=[RedirectPolicy(), *policies]) as client:

        def call(url, **request):
            method = "POST" if request else "GET"
            # Loopback without TLS: the policies insist on TLS elsewhere.
            with client.send_request(HttpRequest(method, url, **request), enforce_https=False) as response:
                return response.status_code

        yield call


@asynccontextmanager
async def async_piping(*policies):
    async with AsyncPipelineClient("", policies=[AsyncRedirectPolicy(), *policies]) as client:

        async def call(url):
            response = await client.send_request(HttpRequest("GET", url), enforce_https=False)
            await response.close()
            return response.status_code

        yield call


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api(backend):
    with GuardedApi(backend) as api:
        yield api


def claims_challenge(**asked):
    claims = base64.urlsafe_b64encode(json.dumps({"access_token": asked}).encode()).decode().rstrip("=")
    return f'Bearer realm="", error="insufficient_claims", claims="{claims}"'


LATER = {"nbf": {"essential": True, "value": "1604106651"}}
STEP_UP = {"acrs": {"essential": True, "value": "c1"}}


class TestPolicy(FiveChecks):
    def calling(self, keeper, _api):
        return piping(KeeperPolicy(keeper), SensitiveHeaderCleanupPolicy())


class TestAsyncPolicy(FiveChecks):
    def calling(self, keeper, _api):
        return calling_in_a_loop(lambda: async_piping(AsyncKeeperPolicy(keeper)))


class StockPolicyChecks(FiveChecks):
    """The stock policy tells a credential only of claims challenges, and sends the token where it is told."""

    @pytest.fixture
    def api(self, backend):
        with GuardedApi(backend) as api:
            api.challenge = claims_challenge(**LATER)
            yield api

    test_another_origin_never_sees_the_token = None


class TestStockPolicy(StockPolicyChecks):
    def calling(self, keeper, _api):
        return piping(BearerTokenCredentialPolicy(KeeperCredential(keeper)), SensitiveHeaderCleanupPolicy())

    def test_a_redirect_takes_the_token_nowhere_else(self, backend, api):
        with GuardedApi() as other, keeping(backend) as keeper, self.calling(keeper, api) as call:
            api.elsewhere = f"{other.origin}/open"

            # Two loopback servers differ in the port: the SDK's cleanup compares hosts with their ports.
            assert call(f"{api.origin}/away") == 200
            assert len(other.seen) == 1


class TestAsyncStockPolicy(StockPolicyChecks):
    def calling(self, keeper, _api):
        policy = AsyncBearerTokenCredentialPolicy
        return calling_in_a_loop(lambda: async_piping(policy(AsyncKeeperCredential(keeper))))


def test_the_stock_policy_asks_the_credential_before_each_request(backend, api):
    with keeping(backend) as keeper, piping(BearerTokenCredentialPolicy(KeeperCredential(keeper))) as call:
        call(api.url)
        renewed = keeper.refresh()
        call(api.url)

    assert api.seen[-1] == renewed


def test_a_credential_is_what_azure_calls_one(backend):
    with keeping(backend) as keeper:
        credential = KeeperCredential(keeper)

        assert isinstance(credential, TokenCredential)
        assert isinstance(credential, SupportsTokenInfo)
        told = credential.get_token_info("https://vault.azure.net/.default")
        assert (told.token, told.expires_on) == (keeper.token, int(keeper.snapshot.expires_at))
        assert credential.get_token("scope").expires_on <= told.expires_on


def test_claims_that_no_renewal_meets_are_no_denial(backend, api):
    api.challenge = claims_challenge(**STEP_UP)
    with keeping(backend) as keeper:
        api.refuse_all()
        with (
            piping(BearerTokenCredentialPolicy(KeeperCredential(keeper))) as call,
            pytest.raises(ClientAuthenticationError, match="other claims") as caught,
        ):
            call(api.url)
        with piping(KeeperPolicy(keeper)) as call:
            assert call(api.url) == 401

        assert keeper.snapshot.denied_by == ()
    assert caught.value.__cause__.response.status_code == 401
    assert len(backend.issued) == 1


def test_claims_that_a_later_token_meets_are_a_denial_for_the_policy(backend, api):
    api.challenge = claims_challenge(**LATER)
    with keeping(backend) as keeper, piping(KeeperPolicy(keeper)) as call:
        api.revoke_all()

        assert call(api.url) == 200
    assert len(backend.issued) == 2


@pytest.mark.parametrize(
    "content", [b"a body", io.BytesIO(b"a body"), {"json": {"a": 1}}], ids=["bytes", "file", "json"]
)
def test_a_body_is_sent_again_whole(backend, api, content):
    request = content if isinstance(content, dict) else {"content": content}
    with keeping(backend) as keeper, piping(KeeperPolicy(keeper)) as call:
        api.revoke_all()

        assert call(api.url, **request) == 200
    assert len(api.bodies) == 2
    assert len(set(api.bodies)) == 1


def test_a_body_that_cannot_be_sent_twice_is_not(backend, api):
    with keeping(backend) as keeper, piping(KeeperPolicy(keeper)) as call:
        api.revoke_all()

        assert call(api.url, content=iter([b"one", b"two"])) == 401
        assert call(api.url) == 200
    assert len(api.bodies) == 2


def test_without_another_token_the_server_s_refusal_is_returned(backend, api):
    with keeping(backend) as keeper, piping(KeeperPolicy(keeper, timeout=0.1)) as call:
        backend.down()
        api.revoke_all()

        assert call(api.url) == 401
        with pytest.raises(TokenUnavailable):
            call(api.url)


def test_without_another_token_the_stock_policy_raises_what_azure_raises(backend, api):
    api.challenge = claims_challenge(**LATER)
    credential = KeeperCredential
    with keeping(backend) as keeper:
        backend.down()
        api.revoke_all()
        with (
            piping(BearerTokenCredentialPolicy(credential(keeper, timeout=0.1))) as call,
            pytest.raises(ClientAuthenticationError),
        ):
            call(api.url)


def test_no_token_is_sent_without_tls(backend, api):
    with (
        keeping(backend) as keeper,
        PipelineClient("", policies=[KeeperPolicy(keeper)]) as client,
        pytest.raises(ServiceRequestError, match="TLS"),
    ):
        client.send_request(HttpRequest("GET", api.url))

    assert not api.seen


def test_the_token_is_in_no_repr_log_or_error(backend, api, caplog):
    caplog.set_level(logging.DEBUG, "token_keeper")
    with keeping(backend) as keeper:
        token = keeper.token
        credential, policy = KeeperCredential(keeper), KeeperPolicy(keeper, timeout=0.1)
        with piping(policy) as call:
            call(api.url)
            backend.down()
            api.refuse_all()
            call(api.url)
            with pytest.raises(TokenUnavailable) as caught:
                call(api.url)
        with pytest.raises(ClientAuthenticationError) as challenged:
            credential.get_token("s", claims=json.dumps({"access_token": STEP_UP}))

    told = (repr(credential), repr(policy), shown(caught.value), shown(challenged.value), caplog.text)
    assert token not in "".join(told)


@pytest.mark.parametrize(
    ("made", "key"),
    [
        (lambda keeper: KeeperCredential(keeper, timeout=-1), "timeout"),
        (lambda keeper: KeeperCredential(keeper, by=7), "by"),
        (lambda _: KeeperCredential("raw"), "keeper"),
        (lambda keeper: KeeperPolicy(keeper, origins="nowhere"), "origins"),
    ],
    ids=["timeout", "by", "keeper", "origins"],
)
def test_wrong_arguments_are_named(made, key):
    with pytest.raises(ConfigError, match=key):
        made(TokenKeeper())
