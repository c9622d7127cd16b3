"""Tokens are exchanged (RFC 8693) with idpyoidc's server, over real sockets."""

from __future__ import annotations

import jwt
import pytest
from authorization_server import CLIENT_ID, CLIENT_SECRET
from fetching import failure, fetch, raw
from token_exchange_server import ACCESS_TOKEN, AUDIENCE, RESOURCE, TokenExchangeServer

from token_keeper import ResponseError
from token_keeper.sources import OAuth2Source
from token_keeper.testing import FakeBackend


@pytest.fixture(scope="module")
def server():
    with TokenExchangeServer() as running:
        yield running


@pytest.fixture
def subject(server):
    return server.subject_token()


def a_source(server, subject, **words):
    given = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "subject_token": subject}
    return OAuth2Source(server.token_url, grant="token_exchange", **given | words)


def test_a_token_is_traded_for_another_of_the_same_person(server, subject):
    token = raw(a_source(server, lambda: subject))

    assert token != subject
    assert server.is_known(token)
    assert server.forms[-1]["subject_token_type"] == [ACCESS_TOKEN]


def test_the_audience_and_the_resource_are_asked_for(server, subject):
    token = raw(a_source(server, subject, audience=AUDIENCE, resource=RESOURCE, scope=["read"]))

    claims = jwt.decode(token, options={"verify_signature": False})
    assert AUDIENCE in claims["aud"]
    assert claims["scope"] == "read"


def test_a_token_for_somewhere_else_is_not_to_be_had(server, subject):
    error = failure(a_source(server, subject, audience="https://elsewhere.example"))

    assert isinstance(error, ResponseError)
    assert "(invalid_target)" in str(error)
    assert "Check audience and resource" in str(error)


def test_several_resources_are_several_fields(server, subject):
    error = failure(a_source(server, subject, resource=[RESOURCE, "https://elsewhere.example"]))

    assert server.forms[-1]["resource"] == [RESOURCE, "https://elsewhere.example"]
    assert "(invalid_target)" in str(error)


def test_a_token_that_is_none_is_refused(server):
    error = failure(a_source(server, "made-up"))

    assert isinstance(error, ResponseError)
    assert "(invalid_request)" in str(error)


def test_the_requested_type_may_be_a_word_or_a_urn(server, subject):
    for kind in ("access_token", ACCESS_TOKEN):
        assert server.is_known(raw(a_source(server, subject, requested_token_type=kind)))
        assert server.forms[-1]["requested_token_type"] == [ACCESS_TOKEN]

    error = failure(a_source(server, subject, requested_token_type="refresh_token"))
    assert "(invalid_request)" in str(error)


def test_an_actor_is_sent_with_its_type(server, subject):
    error = failure(a_source(server, subject, actor_token="somebody", actor_token_type="jwt"))

    assert server.forms[-1]["actor_token"] == ["somebody"]
    assert server.forms[-1]["actor_token_type"] == ["urn:ietf:params:oauth:token-type:jwt"]
    # This server lets nobody act for others.
    assert "(invalid_request)" in str(error)


def test_an_actor_is_an_access_token_unless_it_is_said():
    with FakeBackend(wrap=lambda token: {"access_token": token}) as backend:
        words = {"grant": "token_exchange", "subject_token": "a", "actor_token": "b"}
        fetch(OAuth2Source(backend.url, subject_token_type="saml2", **words))

        body = backend.requests[0].body.decode()
    assert "actor_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token" in body
    assert "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Asaml2" in body
