"""The Kubernetes clients, blocking and async, over real sockets."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import pytest
from cloud import calling_in_a_loop, shown
from guarding import FiveChecks, GuardedApi, keeping
from kubernetes import client
from kubernetes import watch as watching
from kubernetes.aio import client as aio
from kubernetes.aio.client.exceptions import ApiException as AioApiException

from token_keeper import ConfigError, TokenKeeper, TokenUnavailable
from token_keeper.adapters import kubernetes as adapter
from token_keeper.adapters import kubernetes_aio as aio_adapter
from token_keeper.testing import FakeBackend


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api(backend):
    with GuardedApi(backend) as api:
        yield api


def server(url, **settings):
    where = urlsplit(url)
    return {"_host": f"{where.scheme}://{where.netloc}", "auth_settings": ["BearerToken"], **settings}


@contextmanager
def calling(keeper, api, **options):
    with adapter.api_client(keeper, client.Configuration(host=api.origin), **options) as made:

        def call(url):
            request = made.param_serialize("GET", urlsplit(url).path, header_params={}, **server(url))
            response = made.call_api(*request)
            response.read()
            return response.status

        yield call


@asynccontextmanager
async def async_calling(keeper, api, **options):
    async with aio_adapter.api_client(keeper, aio.Configuration(host=api.origin), **options) as made:

        async def call(url):
            request = await made.param_serialize("GET", urlsplit(url).path, header_params={}, **server(url))
            response = await made.call_api(*request)
            await response.read()
            return response.status

        yield call


class TestClient(FiveChecks):
    def calling(self, keeper, api):
        return calling(keeper, api)


class TestAsyncClient(FiveChecks):
    def calling(self, keeper, api):
        return calling_in_a_loop(lambda: async_calling(keeper, api))


def pods(_):
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}


def test_pods_are_listed_although_the_token_was_revoked(backend, api):
    api.answer = pods
    with keeping(backend) as keeper:
        api.revoke_all()
        with adapter.api_client(keeper, client.Configuration(host=api.origin)) as made:
            assert client.CoreV1Api(made).list_namespaced_pod("default").items == []

    assert list(api.seen) == list(backend.issued)


def test_a_body_is_sent_again_whole(backend, api):
    api.answer = lambda _: {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "n"}}
    with keeping(backend) as keeper:
        api.revoke_all()
        with adapter.api_client(keeper, client.Configuration(host=api.origin)) as made:
            client.CoreV1Api(made).create_namespace({"metadata": {"name": "n"}})

    assert len(api.bodies) == 2
    assert len(set(api.bodies)) == 1


def test_a_watch_begins_with_another_token_if_the_first_is_refused(backend, api):
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "resourceVersion": "1"}}
    api.answer = lambda _: {"type": "ADDED", "object": pod}
    with keeping(backend) as keeper:
        api.revoke_all()
        with adapter.api_client(keeper, client.Configuration(host=api.origin)) as made:
            watch = watching.Watch()
            listing = client.CoreV1Api(made).list_namespaced_pod
            for event in watch.stream(listing, "default", timeout_seconds=1):
                assert event["object"].metadata.name == "p"
                watch.stop()

    assert list(api.seen) == list(backend.issued)


def test_a_configuration_alone_keeps_the_token_fresh(backend, api):
    api.answer = pods
    configuration = client.Configuration(host=api.origin, api_key={"BearerToken": "of old"})
    with keeping(backend) as keeper:
        adapter.configure(configuration, keeper)
        with client.ApiClient(configuration) as made:
            tokens = [keeper.token]
            client.CoreV1Api(made).list_namespaced_pod("default")
            tokens.append(keeper.refresh())
            client.CoreV1Api(made).list_namespaced_pod("default")

    assert list(api.seen) == tokens


def test_the_default_configuration_is_copied(backend, api):
    default = client.Configuration(host=api.origin)
    client.Configuration.set_default(default)
    try:
        with keeping(backend) as keeper, adapter.api_client(keeper) as made:
            assert made.configuration.host == api.origin
            assert default.refresh_api_key_hook is None
    finally:
        client.Configuration.set_default(None)


def test_a_key_of_the_caller_s_own_is_left_alone(backend, api):
    own = {"type": "api_key", "in": "header", "key": "authorization", "value": "Bearer own"}
    with keeping(backend) as keeper:
        with adapter.api_client(keeper, client.Configuration(host=api.origin)) as made:
            request = made.param_serialize(
                "GET", "/things", header_params={}, **server(api.url, _request_auth=own)
            )
            assert made.call_api(*request).status == 401

        assert list(api.seen) == ["own"]
        assert keeper.snapshot.denied_by == ()


def test_without_another_token_the_server_s_refusal_is_raised(backend, api):
    with keeping(backend) as keeper:
        configuration = client.Configuration(host=api.origin)
        with adapter.api_client(keeper, configuration, timeout=0.1) as made:
            backend.down()
            api.revoke_all()

            with pytest.raises(client.ApiException, match="401"):
                client.CoreV1Api(made).list_namespaced_pod("default")
            with pytest.raises(TokenUnavailable):
                client.CoreV1Api(made).list_namespaced_pod("default")


def test_without_another_token_the_server_s_refusal_is_raised_in_a_loop_too(backend, api):
    @asynccontextmanager
    async def listing(keeper):
        configuration = aio.Configuration(host=api.origin)
        async with aio_adapter.api_client(keeper, configuration, timeout=0.1) as made:
            yield lambda _: aio.CoreV1Api(made).list_namespaced_pod("default")

    with keeping(backend) as keeper, calling_in_a_loop(lambda: listing(keeper)) as call:
        backend.down()
        api.revoke_all()

        with pytest.raises(AioApiException, match="401"):
            call(api.url)
        with pytest.raises(TokenUnavailable):
            call(api.url)


def test_the_token_is_in_no_repr_log_or_error(backend, api, caplog):
    caplog.set_level(logging.DEBUG, "token_keeper")
    with keeping(backend) as keeper:
        token = keeper.token
        configuration = client.Configuration(host=api.origin)
        with adapter.api_client(keeper, configuration, timeout=0.1) as made:
            core = client.CoreV1Api(made)
            backend.down()
            api.refuse_all()
            with pytest.raises(client.ApiException) as refused:
                core.list_namespaced_pod("default")
            with pytest.raises(TokenUnavailable) as caught:
                core.list_namespaced_pod("default")

    told = repr(configuration.api_key) + shown(refused.value) + shown(caught.value) + caplog.text
    assert token not in told


def test_the_token_is_in_no_traceback_of_a_server_that_cannot_be_reached(backend, api):
    with keeping(backend) as keeper:
        with adapter.api_client(keeper, client.Configuration(host=api.origin, retries=False)) as made:
            api.__exit__()
            with pytest.raises(Exception, match="refused") as caught:
                client.CoreV1Api(made).list_namespaced_pod("default")

        assert keeper.token not in shown(caught.value)


@pytest.mark.parametrize("module", [adapter, aio_adapter], ids=["blocking", "async"])
@pytest.mark.parametrize(
    ("options", "key"), [({"timeout": -1}, "timeout"), ({"by": 7}, "by")], ids=["timeout", "by"]
)
def test_wrong_arguments_are_named(module, options, key):
    with pytest.raises(ConfigError, match=key):
        module.configure(client.Configuration(host="http://127.0.0.1"), TokenKeeper(), **options)


@pytest.mark.parametrize(
    "configuration", [object(), client.Configuration(host="nowhere")], ids=["another type", "no host"]
)
def test_a_configuration_that_cannot_work_is_named(configuration):
    with pytest.raises(ConfigError, match="configuration"):
        adapter.configure(configuration, TokenKeeper())
