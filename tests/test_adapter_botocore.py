"""botocore's clients of a service with bearer tokens, over TLS on loopback."""

from __future__ import annotations

import io
import logging
import threading
from contextlib import contextmanager

import botocore.session
import pytest
import trustme
from botocore.config import Config
from botocore.exceptions import ClientError
from cloud import TlsGuardedApi, shown
from guarding import FiveChecks, keeping

from token_keeper import ConfigError, TokenKeeper, TokenUnavailable
from token_keeper.adapters.botocore import authenticate
from token_keeper.testing import FakeBackend


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(autouse=True)
def _no_aws_of_ours(monkeypatch, tmp_path):
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api(ca, backend):
    with TlsGuardedApi(ca, backend) as api:
        yield api


@pytest.fixture
def other(ca):
    with TlsGuardedApi(ca) as other:
        yield other


class Clients:
    """The clients of one session, one for each endpoint."""

    def __init__(self, session, ca_file, mode="legacy"):
        self._session, self._ca_file, self._mode = session, ca_file, mode
        self._made = {}
        self._lock = threading.Lock()

    def at(self, url, service="codecatalyst", **config):
        with self._lock:
            if (url, service) not in self._made:
                self._made[url, service] = self._session.create_client(
                    service,
                    region_name="us-east-1",
                    endpoint_url=url,
                    verify=self._ca_file,
                    config=Config(retries={"mode": self._mode}, max_pool_connections=20, **config),
                )
            return self._made[url, service]

    def close(self):
        for client in self._made.values():
            client.close()

    def __call__(self, url):
        try:
            answer = self.at(url).get_user_details(id="x")
        except ClientError as error:
            answer = error.response
        return answer["ResponseMetadata"]["HTTPStatusCode"]


@contextmanager
def calling(keeper, ca_file, mode="legacy", **options):
    clients = Clients(authenticate(botocore.session.Session(), keeper, **options), ca_file, mode)
    try:
        yield clients
    finally:
        clients.close()


class TestClient(FiveChecks):
    mode = "legacy"

    @pytest.fixture
    def api(self, ca, backend):
        with TlsGuardedApi(ca, backend) as api:
            yield api

    @pytest.fixture(autouse=True)
    def _trusted(self, ca_file):
        self.ca_file = ca_file

    def calling(self, keeper, _api):
        return calling(keeper, self.ca_file, self.mode)

    def test_another_origin_never_sees_the_token(self, backend, api, other):
        with keeping(backend) as keeper, self.calling(keeper, api) as call:
            assert call(api.url) == 200
            api.elsewhere = f"{other.origin}/open"

            assert [call(f"{other.origin}/open"), call(other.url), call(f"{api.origin}/away")] == [
                200,
                401,
                307,
            ]

            assert list(other.seen) == [None, None]
            assert keeper.snapshot.denied_by == ()


class TestClientWithStandardRetries(TestClient):
    mode = "standard"


def test_a_service_that_signs_with_keys_by_default_can_be_told_otherwise(backend, api, ca_file):
    with keeping(backend) as keeper, calling(keeper, ca_file) as clients:
        api.revoke_all()
        api.answer = lambda _: {"body": "x"}
        client = clients.at(api.origin, "bedrock-runtime", signature_version="bearer")

        client.invoke_model(modelId="m", body=io.BytesIO(b"{}"))

    assert list(api.seen) == list(backend.issued)
    assert list(api.bodies) == [b"{}", b"{}"]


def test_an_expired_token_is_known_by_its_code_too(backend, api, ca_file):
    with keeping(backend) as keeper, calling(keeper, ca_file) as call:
        held = keeper.token
        judge = api._judge

        def judged(path, sent):
            if sent == held:
                return 403, {}, {"__type": "ExpiredTokenException", "message": "The token has expired"}
            return judge(path, sent)

        api._judge = judged

        assert call(api.url) == 200
    assert len(backend.issued) == 2


def test_without_another_token_the_server_s_refusal_is_raised(backend, api, ca_file):
    with keeping(backend) as keeper, calling(keeper, ca_file, timeout=0.1) as call:
        backend.down()
        api.revoke_all()

        assert call(api.url) == 401
        with pytest.raises(TokenUnavailable):
            call(api.url)


def test_the_token_is_in_no_repr_log_or_error(backend, api, ca_file, caplog):
    caplog.set_level(logging.DEBUG, "token_keeper")
    with keeping(backend) as keeper:
        token = keeper.token
        session = authenticate(botocore.session.Session(), keeper, timeout=0.1)
        clients = Clients(session, ca_file)
        clients(api.url)
        backend.down()
        api.refuse_all()
        clients(api.url)
        with pytest.raises(TokenUnavailable) as caught:
            clients(api.url)
        clients.close()

    assert token not in repr(session.get_auth_token()) + shown(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("options", "key"),
    [({"timeout": -1}, "timeout"), ({"by": 7}, "by"), ({"origins": "nowhere"}, "origins")],
    ids=["timeout", "by", "origins"],
)
def test_wrong_arguments_are_named(options, key):
    with pytest.raises(ConfigError, match=key):
        authenticate(botocore.session.Session(), TokenKeeper(), **options)


def test_what_is_no_session_is_named():
    with pytest.raises(ConfigError, match="session"):
        authenticate(object(), TokenKeeper())
