"""Where an issuer's endpoints are is read from its metadata, and only if they are its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from authorization_server import CLIENT_ID, CLIENT_SECRET, AuthorizationServer, Client, Fault
from fetching import failure, raw

from token_keeper import ResponseError, TransientFetchError
from token_keeper.sources import OAuth2Source
from token_keeper.sources.oauth2 import _discovery
from token_keeper.sources.oauth2._outcomes import Delivery, Granted, NotGranted
from token_keeper.testing import FakeBackend

BOTH = ("oauth-authorization-server", "openid-configuration")


def a_source(issuer, **words):
    return OAuth2Source(issuer=issuer, **{"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET} | words)


def paths(server):
    return [asked.path for asked in server.requests]


@pytest.mark.parametrize("path", ["", "/realms/one", "/slash/"])
@pytest.mark.parametrize("document", BOTH)
def test_the_token_endpoint_is_found(document, path):
    with AuthorizationServer(issuer_path=path.rstrip("/"), well_known=[document]) as server:
        server.metadata = {"issuer": f"{server.url}{path}"}

        assert server.is_active(raw(a_source(f"{server.url}{path}")))


def test_rfc_8414_is_asked_before_openid():
    with AuthorizationServer(issuer_path="/realms/one") as server:
        raw(a_source(server.issuer))

        assert paths(server) == ["/.well-known/oauth-authorization-server/realms/one", "/token"]


def test_openid_is_asked_if_the_other_does_not_exist():
    with AuthorizationServer(issuer_path="/realms/one", well_known=BOTH[1:]) as server:
        raw(a_source(server.issuer))

        assert paths(server)[1:] == ["/realms/one/.well-known/openid-configuration", "/token"]


def test_a_url_that_is_given_wins():
    with AuthorizationServer(metadata={"token_endpoint": "https://elsewhere.example"}) as server:
        source = a_source(server.issuer, token_url=server.endpoint())

        assert server.is_active(raw(source))
        assert paths(server) == ["/token"]


def test_metadata_are_read_once():
    with AuthorizationServer() as server:

        async def twice() -> None:
            source = a_source(server.issuer)
            await source.fetch()
            await source.fetch()
            await source.aclose()

        asyncio.run(twice())
        assert len(server.requests) == 3


def test_metadata_are_read_again_after_an_hour():
    with AuthorizationServer() as server:

        async def later() -> None:
            source = a_source(server.issuer)
            await source.fetch()
            discovery = source._endpoint._discovery
            read_at = discovery._known.read_at - _discovery._FRESH_S
            discovery._known = replace(discovery._known, read_at=read_at)
            await source.fetch()
            await source.aclose()

        asyncio.run(later())
        assert len(server.requests) == 4


def test_metadata_are_read_again_when_the_endpoint_has_moved():
    with AuthorizationServer() as server:

        async def moved() -> list:
            source = a_source(server.issuer)
            server.fail(Fault.GONE)
            found = [await source._endpoint.exchange({"grant_type": "client_credentials"}) for _ in range(2)]
            await source.aclose()
            return found

        first, second = asyncio.run(moved())
        assert isinstance(first, NotGranted)
        assert isinstance(second, Granted)
        assert paths(server) == ["/.well-known/oauth-authorization-server", "/token"] * 2


def test_old_metadata_are_better_than_none():
    with AuthorizationServer() as server:

        async def lost() -> None:
            source = a_source(server.issuer)
            await source.fetch()
            server.metadata = {"issuer": "https://somebody.example"}
            source._endpoint._discovery.doubt()
            issued = await source.fetch()
            assert server.is_active(issued.secret.reveal())
            await source.aclose()

        asyncio.run(lost())


@pytest.mark.parametrize(
    "named",
    ["https://somebody.example", "{}/", None, 5, "{}/other"],
    ids=["other", "slash", "none", "number", "path"],
)
def test_metadata_of_another_issuer_are_not_believed(named):
    with AuthorizationServer() as server:
        server.metadata = {"issuer": named.format(server.url) if isinstance(named, str) else named}
        error = failure(a_source(server.issuer))

        assert isinstance(error, ResponseError)
        assert "another issuer" in str(error)
        assert "/token" not in paths(server)


def test_an_endpoint_in_the_clear_is_not_used():
    with AuthorizationServer(metadata={"token_endpoint": "http://as.example/token"}) as server:
        error = failure(a_source(server.issuer))

    assert isinstance(error, ResponseError)
    assert "in the clear" in str(error)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "https://u:p@as.example/", "//as.example", 5, ""])
def test_an_endpoint_that_is_no_address_for_secrets_is_not_used(url):
    with AuthorizationServer(metadata={"token_endpoint": url}) as server:
        error = failure(a_source(server.issuer))

    assert isinstance(error, ResponseError)
    assert "token_endpoint" in str(error)
    assert "u:p" not in str(error)


def test_what_the_server_does_not_have_says_what_to_give():
    with AuthorizationServer(metadata={"token_endpoint": None}) as server:
        assert "give token_url" in str(failure(a_source(server.issuer)))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 404}, ResponseError),
        ({"body": "<html>"}, ResponseError),
        ({"body": "[]"}, ResponseError),
        ({"body": '{"issuer": "cut'}, ResponseError),
        ({"body": "a" * 2_000_000}, ResponseError),
        ({"status": 403}, ResponseError),
        ({"status": 503}, TransientFetchError),
        ({"status": 429}, TransientFetchError),
    ],
    ids=range(8),
)
def test_a_server_without_metadata_is_named(answer, kind):
    with FakeBackend() as backend:
        backend.answer(times=None, **answer)
        error = failure(a_source(backend.url.removesuffix("/token")))

    assert type(error) is kind
    assert "Check issuer, or give token_url" in str(error)
    assert [asked.path for asked in backend.requests] == [f"/.well-known/{name}" for name in BOTH]


def test_metadata_elsewhere_are_not_followed():
    with FakeBackend() as backend, FakeBackend() as elsewhere:
        backend.redirect(elsewhere.url)
        error = failure(a_source(backend.url.removesuffix("/token")))

        assert isinstance(error, ResponseError)
        assert not elsewhere.requests


def test_a_secret_is_never_sent_for_metadata():
    with AuthorizationServer() as server:
        raw(a_source(server.issuer))

        assert "authorization" not in server.requests[0].headers
        assert not server.requests[0].form


def test_what_cannot_be_discovered_was_never_sent():
    with FakeBackend() as backend:
        backend.down()

        async def asked():
            source = a_source(backend.url.removesuffix("/token"))
            try:
                return await source._endpoint.exchange({"grant_type": "client_credentials"})
            finally:
                await source.aclose()

        assert asyncio.run(asked()).delivery is Delivery.NEVER_SENT


@pytest.mark.parametrize(
    ("methods", "way"),
    [
        (None, "basic"),
        (["client_secret_basic", "client_secret_post"], "basic"),
        (["client_secret_post"], "post"),
        (["private_key_jwt"], "basic"),
        ("nonsense", "basic"),
    ],
    ids=range(5),
)
def test_the_secret_is_posted_if_the_server_does_not_take_it_in_the_header(methods, way):
    metadata = {"token_endpoint_auth_methods_supported": methods}
    client = Client(methods=[f"client_secret_{way}"])
    with AuthorizationServer([client], metadata=metadata) as server:
        assert server.is_active(raw(a_source(server.issuer)))


def test_a_chosen_way_is_kept_whatever_the_server_says():
    metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    with AuthorizationServer([Client(methods=["client_secret_basic"])], metadata=metadata) as server:
        assert server.is_active(raw(a_source(server.issuer, auth_method="basic")))


def test_revocation_is_discovered_too():
    with AuthorizationServer() as server:

        async def revoked() -> str:
            source = a_source(server.issuer, revoke="access_token")
            issued = await source.fetch()
            await source.retire()
            await source.aclose()
            return issued.secret.reveal()

        assert not server.is_active(asyncio.run(revoked()))
