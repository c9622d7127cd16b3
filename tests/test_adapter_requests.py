"""`token_keeper.adapters.requests` with the real requests."""

import asyncio
import io
import traceback
from contextlib import contextmanager

import pytest
import requests
from guarding import FiveChecks, GuardedApi, keeping
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from token_keeper import ConfigError, KeeperClosed, TokenUnavailable
from token_keeper.adapters.requests import KeeperAuth
from token_keeper.testing import FakeBackend


@contextmanager
def session_of(keeper, **options):
    with requests.Session() as session:
        session.trust_env = False
        session.auth = KeeperAuth(keeper, **options)
        yield session


class TestRequests(FiveChecks):
    @contextmanager
    def calling(self, keeper, api):  # noqa: ARG002 - the first origin is found out
        with session_of(keeper) as session:
            yield lambda url: session.get(url).status_code


@pytest.fixture
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def api(backend):
    with GuardedApi(backend) as api:
        yield api


BODIES = {
    "bytes": lambda _: {"data": b"the-whole"},
    "JSON": lambda _: {"json": "the-whole"},
    "a form": lambda _: {"data": {"body": "the-whole"}},
    "a file in a form": lambda _: {"files": {"file": io.BytesIO(b"the-whole")}},
    "a file": lambda path: {"data": path.open("rb")},
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_can_be_sent_again_comes_whole_with_the_other_token(backend, api, tmp_path, body):
    (tmp_path / "body").write_bytes(b"not this: the-whole")
    options = BODIES[body](tmp_path / "body")
    with keeping(backend) as keeper, session_of(keeper) as session:
        if body == "a file":
            options["data"].seek(len("not this: "))
        api.revoke_all()

        assert session.post(api.url, **options).status_code == 200

        first, second = api.bodies
        assert first == second
        assert b"the-whole" in second
        assert b"not this" not in second
    if body == "a file":
        options["data"].close()


def test_a_body_that_is_gone_is_not_sent_again_but_the_denial_is_reported(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        refused = keeper.token
        api.revoke_all()

        assert session.post(api.url, data=(part for part in [b"a", b"b"])).status_code == 401

        assert session.get(api.url).status_code == 200
        assert refused not in list(api.seen)[1:]


def test_the_refusal_is_in_the_history_and_its_cookies_are_sent(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        session.cookies.set("session", "of-before")
        api.revoke_all()

        answer = session.get(api.url)

        assert [refusal.status_code for refusal in answer.history] == [401]
        assert "session=of-before" in answer.request.headers["Cookie"]


def test_a_session_that_streams_gets_the_second_answer_unread(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        api.revoke_all()

        with session.get(api.url, stream=True) as answer:
            assert answer.raw.read(1) == b"{"


def test_a_redirect_after_the_retry_goes_on_with_a_good_token(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        api.elsewhere = api.url
        api.revoke_all()

        assert session.get(f"{api.origin}/away").status_code == 200
        assert len(backend.issued) == 2


def test_a_prepared_request_that_is_sent_late_gets_the_current_token(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        prepared = session.prepare_request(requests.Request("GET", api.url))
        api.revoke_all()
        keeper.refresh()

        assert session.send(prepared).status_code == 200
        assert len(backend.issued) == 2


def test_it_works_beside_the_retries_of_urllib3(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(3, status_forcelist=[503])))
        api.revoke_all()

        assert session.get(api.url).status_code == 200


def test_the_servers_refusal_stands_if_no_other_token_comes(backend, api):
    with keeping(backend) as keeper, session_of(keeper, timeout=0.1) as session:
        backend.down()
        api.revoke_all()

        answer = session.get(api.url)

        assert (answer.status_code, answer.json()) == (401, {"error": "no"})


def test_a_request_without_any_token_says_so(backend, api):
    backend.down()
    with keeping(backend, start_timeout=0) as keeper, session_of(keeper, timeout=0.05) as session:
        with pytest.raises(TokenUnavailable):
            session.get(api.url)
        assert len(api.seen) == 0


def test_in_an_event_loop_it_gets_the_refusal_instead_of_blocking_the_loop(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        api.revoke_all()

        async def call():
            return session.get(api.url).status_code

        assert asyncio.run(call()) == 401


def test_after_the_end_of_the_keeper_it_says_that_it_is_closed(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        session.get(api.url)
        keeper.close()

        with pytest.raises(KeeperClosed):
            session.get(api.url)


def test_the_token_takes_the_place_of_a_header(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        session.get(api.url, headers={"Authorization": "Bearer own"})

        assert list(api.seen) == [keeper.token]


def test_credentials_of_netrc_for_the_redirects_target_are_no_token(backend, api, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with GuardedApi() as other, keeping(backend) as keeper, session_of(keeper) as session:
        session.trust_env = True
        api.elsewhere = other.url

        assert session.get(f"{api.origin}/away").status_code == 401
        assert keeper.snapshot.denied_by == ()


def test_a_server_that_is_lost_at_the_retry_shows_no_token_in_the_traceback(backend):
    with GuardedApi(backend) as api, keeping(backend) as keeper, session_of(keeper) as session:
        api.revoke_all()

        class Lost(HTTPAdapter):
            sent = 0

            def send(self, *args, **options):
                self.sent += 1
                if self.sent == 2:
                    raise requests.ConnectionError
                return super().send(*args, **options)

        session.mount("http://", Lost())
        with pytest.raises(requests.ConnectionError) as caught:
            session.get(api.url)

    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "token_keeper/adapters/requests.py" in shown
    assert [token for token in backend.issued if token in shown] == []


def test_nothing_of_it_shows_the_token(backend, api):
    with keeping(backend) as keeper, session_of(keeper) as session:
        answer = session.get(api.url)

        assert keeper.token not in repr(session.auth)
        assert keeper.token not in repr(vars(session.auth)) + repr(answer.request.hooks)


def test_an_argument_that_cannot_work_is_named(backend):
    with keeping(backend) as keeper, pytest.raises(ConfigError, match="origins"):
        KeeperAuth(keeper, origins="nowhere")
