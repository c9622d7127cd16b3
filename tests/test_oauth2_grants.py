"""Each grant works against Authlib's authorization server, over real sockets."""

from __future__ import annotations

import asyncio
import functools
import socket

import httpx
import pytest
from authorization_server import CLIENT_ID, CLIENT_SECRET, AuthorizationServer, Client, Fault
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fetching import failure, fetch, raw

from token_keeper import RefusedError, ResponseError, Secret, TransientFetchError
from token_keeper.sources import OAuth2Source
from token_keeper.store import MemoryStore, Record

IDS_AND_SECRETS = [
    ("a:b", "c:d"),
    ("50%", "%41%zz+"),
    ("two words", " blank "),
    ("é", "ß ☃"),
    ("a/b?c=d&e", "x&y=z/+="),
]


@functools.cache
def a_key(kind):
    """Return a private key in PEM, and its public key."""
    if kind == "RSA":
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def server():
    with AuthorizationServer() as running:
        yield running


def credentials(server, **words):
    return OAuth2Source(
        server.endpoint(), client_id=CLIENT_ID, **{"client_secret": CLIENT_SECRET, "scope": "read"} | words
    )


def test_client_credentials_bring_a_token_that_the_server_knows(server):
    issued = fetch(credentials(server))

    assert server.is_active(issued.secret.reveal())
    assert issued.expires_in == 3600
    assert server.posted()[0].form == {"grant_type": ["client_credentials"], "scope": ["read"]}


def test_each_fetch_asks_anew(server):
    source = credentials(server)

    assert raw(source) != raw(source)


def test_a_list_of_scopes_is_sent_as_one_field(server):
    fetch(credentials(server, scope=["read", "write"]))

    assert server.posted()[0]["scope"] == "read write"


def test_audience_resource_and_extra_are_sent(server):
    extra = {"prompt": "none", "level": 3, "many": ["a", "b"], "hidden": Secret("s"), "late": lambda: "l"}
    fetch(credentials(server, audience="api", resource=["https://a", "https://b"], extra=extra))

    form = server.posted()[0].form
    assert form["audience"] == ["api"]
    assert form["resource"] == ["https://a", "https://b"]
    assert form["many"] == ["a", "b"]
    assert [form[name] for name in ("prompt", "level", "hidden", "late")] == [["none"], ["3"], ["s"], ["l"]]


@pytest.mark.parametrize(("client_id", "secret"), IDS_AND_SECRETS, ids=range(len(IDS_AND_SECRETS)))
@pytest.mark.parametrize("method", ["basic", "post"])
def test_any_character_may_be_in_the_client_s_name_and_secret(client_id, secret, method):
    registered = Client(client_id, secret, methods=[f"client_secret_{method}"])
    with AuthorizationServer([registered]) as server:
        source = OAuth2Source(
            server.endpoint(), client_id=client_id, client_secret=secret, auth_method=method
        )

        assert server.is_active(raw(source))


def test_basic_sends_the_secret_in_the_header_only(server):
    fetch(credentials(server))

    asked = server.posted()[0]
    assert asked.headers["authorization"].startswith("Basic ")
    assert "client_secret" not in asked.form
    assert "client_id" not in asked.form


def test_a_secret_from_a_function_is_read_afresh(server):
    secrets = iter(["stale", CLIENT_SECRET])

    async def current() -> str:
        return next(secrets)

    source = credentials(server, client_secret=current)

    assert failure(source).reason == "invalid_client"
    assert server.is_active(raw(source))


@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_private_key_jwt_shows_who_the_client_is(kind):
    private, public = a_key(kind)
    client = Client(secret=None, methods=["client_assertion_jwt"], public_key=public)
    with AuthorizationServer([client]) as server:
        source = OAuth2Source(server.endpoint(), client_id=CLIENT_ID, private_key=lambda: private)

        # Authlib refuses a jti that it saw before.
        assert server.is_active(raw(source))
        assert server.is_active(raw(source))


def test_a_public_client_sends_its_name():
    client = Client(secret=None, methods=["none"])
    with AuthorizationServer([client]) as server:
        fetch(OAuth2Source(server.endpoint(), client_id=CLIENT_ID, auth_method="none"))

        assert server.posted()[0]["client_id"] == CLIENT_ID


def test_claims_are_signed_and_traded_for_a_token():
    private, public = a_key("EC")
    with AuthorizationServer([Client("app", public_key=public)]) as server:
        source = OAuth2Source(
            server.endpoint(),
            grant="jwt_bearer",
            private_key=private,
            assertion={"iss": "app", "sub": "alice"},
            scope="read",
        )

        assert server.is_active(raw(source))


def test_claims_for_another_audience_are_refused():
    private, public = a_key("EC")
    with AuthorizationServer([Client("app", public_key=public)]) as server:
        claims = {"iss": "app", "sub": "alice", "aud": "https://elsewhere.example"}
        source = OAuth2Source(server.endpoint(), grant="jwt_bearer", private_key=private, assertion=claims)

        assert failure(source).reason == "invalid_grant"


def test_a_text_is_sent_as_the_assertion(server):
    source = OAuth2Source(server.endpoint(), grant="jwt_bearer", assertion=lambda: "no.jwt.really")
    error = failure(source)

    assert isinstance(error, RefusedError)
    assert server.posted()[0]["assertion"] == "no.jwt.really"


def test_a_refresh_token_brings_access_tokens_and_its_successor():
    with AuthorizationServer(rotate=True) as server:
        source = credentials(
            server,
            grant="refresh_token",
            refresh_token=server.login(),
            store=MemoryStore(),
            stored_as="chat",
        )

        assert server.is_active(raw(source))
        assert server.is_active(raw(source))
        sent = [asked["refresh_token"] for asked in server.posted()]
        assert len(set(sent)) == 2
        assert server.counts["reuses"] == 0


def test_a_device_login_is_shown_and_then_kept():
    async def logged_in(server) -> str:
        codes = []
        source = credentials(server, **device(server))

        async def show(code) -> None:
            codes.append(code)
            server.decide(approve=True)

        await source.login(show)
        issued = await source.fetch()
        await source.aclose()
        assert codes[0].verification_uri == f"{server.url}/activate"
        assert codes[0].user_code in (codes[0].verification_uri_complete or "")
        assert codes[0].user_code not in repr(codes[0])
        return issued.secret.reveal()

    with AuthorizationServer(rotate=True) as server:
        assert server.is_active(asyncio.run(logged_in(server)))


def test_a_denied_device_login_is_refused():
    async def denied(server) -> None:
        source = credentials(server, **device(server))
        try:
            await source.login(lambda _: server.decide(approve=False))
        finally:
            await source.aclose()

    with AuthorizationServer() as server, pytest.raises(RefusedError) as caught:
        asyncio.run(denied(server))
    assert caught.value.reason == "access_denied"


def device(server):
    return {
        "grant": "device_code",
        "device_authorization_url": server.endpoint("device_authorization"),
        "store": MemoryStore(),
        "stored_as": "chat",
    }


def test_what_the_server_does_not_offer_is_named(server):
    with AuthorizationServer([Client(grants=[])]) as strict:
        assert failure(credentials(strict)).reason == "unauthorized_client"

    source = OAuth2Source(server.endpoint(), grant="token_exchange", subject_token="t")
    error = failure(source)
    assert isinstance(error, ResponseError)
    assert "(unsupported_grant_type)" in str(error)
    assert "Check grant" in str(error)


def test_retiring_revokes_the_last_access_token(server):
    source = credentials(server, revoke="access_token", revocation_url=server.endpoint("revocation"))
    token = raw(source)

    asyncio.run(retired(source))

    assert not server.is_active(token)
    assert server.posted("revocation")[0].form == {"token": [token], "token_type_hint": ["access_token"]}


def test_retiring_revokes_nothing_unless_that_was_asked_for(server):
    source = credentials(server, revocation_url=server.endpoint("revocation"))
    token = raw(source)

    asyncio.run(retired(source))

    assert server.is_active(token)


def test_retiring_with_the_refresh_token_ends_the_grant_and_forgets_it():
    store = MemoryStore()
    with AuthorizationServer(rotate=True) as server:
        first = server.login()
        source = credentials(
            server,
            grant="refresh_token",
            refresh_token=first,
            store=store,
            stored_as="chat",
            revoke="refresh_token",
            revocation_url=server.endpoint("revocation"),
        )
        fetch(source)
        asyncio.run(retired(source))

        assert not server.is_alive(first)
    assert store.slot("chat").read() is None


def test_retiring_with_the_access_token_keeps_the_grant():
    store = MemoryStore()
    with AuthorizationServer(rotate=True) as server:
        words = {"grant": "refresh_token", "refresh_token": server.login(), "store": store}
        revoked = {"revoke": "access_token", "revocation_url": server.endpoint("revocation")}
        source = credentials(server, stored_as="chat", **words, **revoked)
        token = raw(source)
        asyncio.run(retired(source))

        assert not server.is_active(token)
        assert server.is_active(raw(credentials(server, stored_as="chat", **words)))


def test_retiring_shows_the_server_no_token_of_another_owner(server):
    store = MemoryStore()
    record = Record(owner="https://elsewhere.example robot", refresh_token=Secret("not-theirs"))
    with store.slot("chat").try_lease() as lease:
        lease.write(record)
    revoking = {"revoke": "refresh_token", "revocation_url": server.endpoint("revocation")}
    source = credentials(
        server, grant="refresh_token", refresh_token="seed", store=store, stored_as="chat", **revoking
    )

    asyncio.run(retired(source))

    assert not server.requests
    assert store.slot("chat").read() == record


def test_a_revocation_that_fails_is_logged_and_raises_nothing(server, caplog):
    source = credentials(server, revoke="access_token", revocation_url=f"{server.url}/nowhere")
    fetch(source)

    asyncio.run(retired(source))

    assert "tokenNotRevoked" in caplog.text
    assert "404" in caplog.text


async def retired(source) -> None:
    await source.retire()
    await source.aclose()


def test_a_client_that_was_passed_in_is_used_with_our_credentials(server):
    async def fetched() -> str:
        async with httpx.AsyncClient(auth=("somebody", "else")) as client:
            issued = await credentials(server, client=client).fetch()
            assert not client.is_closed
            return issued.secret.reveal()

    assert server.is_active(asyncio.run(fetched()))


def rotating(server, **words):
    given = {"grant": "refresh_token", "store": MemoryStore(), "stored_as": "chat"}
    return credentials(server, **given | {"refresh_token": server.login()} | words)


def test_an_answer_that_was_lost_is_asked_for_again_while_the_server_forgives_that():
    with AuthorizationServer(rotate=True, reuse_window_s=30) as server:
        source = rotating(server)
        server.fail(Fault.DROPPED_AFTER)

        assert server.is_active(fetch(source, tries=2).secret.reveal())
        assert server.counts["replays"] == 1
        assert server.counts["reuses"] == 0


def test_a_server_that_forgives_nothing_ends_the_grant_when_it_is_asked_again():
    with AuthorizationServer(rotate=True) as server:
        first = server.login()
        source = rotating(server, refresh_token=first)
        server.fail(Fault.DROPPED_AFTER)
        error = failure(source, tries=2)

        assert error.reason == "invalid_grant"
        assert not server.is_alive(first)
        assert server.counts["families_revoked"] == 1


def test_what_was_never_acted_on_costs_nothing():
    with AuthorizationServer(rotate=True) as server:
        source = rotating(server)
        server.fail(Fault.DROPPED_BEFORE, Fault.BUSY, Fault.BROKEN_BEFORE)

        failure(source)
        assert server.is_active(fetch(source, tries=3).secret.reveal())
        assert server.counts["reuses"] == 0


def test_tokens_that_are_kept_are_shared_by_all_who_ask_for_the_same(server):
    store = MemoryStore()

    def token(**words) -> str:
        return raw(credentials(server, store=store, stored_as="chat", **words))

    first = token()
    assert token() == first
    assert token(scope="write") != first
    assert len(server.posted()) == 2


def test_a_login_at_a_server_that_is_away_says_so(server):
    words = device(server) | {"device_authorization_url": f"{server.url}/nowhere"}

    async def login() -> None:
        source = credentials(server, **words)
        try:
            await source.login(print)
        finally:
            await source.aclose()

    with pytest.raises(TransientFetchError, match="404"):
        asyncio.run(login())


def test_a_login_says_what_it_is_for_and_its_refreshes_do_not():
    async def refreshed(server) -> None:
        source = credentials(server, **device(server), extra={"prompt": "login"})
        await source.login(lambda _: server.decide(approve=True))
        await source.fetch()
        await source.fetch()
        await source.aclose()

    with AuthorizationServer(rotate=True) as server:
        asyncio.run(refreshed(server))
        begun, refresh = server.posted("device_authorization")[0], server.posted()[-1]

    assert (begun["scope"], begun["prompt"]) == ("read", "login")
    assert refresh["prompt"] == "login"
    assert "scope" not in refresh.form


@pytest.mark.parametrize("value", [None, True, {"a": "b"}], ids=["none", "boolean", "mapping"])
def test_an_extra_field_that_no_form_can_hold_fails_the_fetch(server, value):
    error = failure(credentials(server, extra={"late": lambda: value}))

    assert "extra['late']" in str(error)
    assert not server.requests


def test_claims_that_are_no_json_fail_the_fetch(server):
    claims = {"iss": "app", "late": object}
    source = OAuth2Source(server.endpoint(), grant="jwt_bearer", private_key=a_key("EC")[0], assertion=claims)

    assert "JSON" in str(failure(source))


def test_a_revocation_that_takes_too_long_is_given_up(server, caplog):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        source = credentials(server, revoke="access_token", revocation_url=url)
        fetch(source)
        asyncio.run(retired(source))

    assert "tokenNotRevoked" in caplog.text
