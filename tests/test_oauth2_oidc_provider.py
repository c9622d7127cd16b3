"""Each grant works against a real OpenID provider, npm's oidc-provider, which revokes what is used twice."""

from __future__ import annotations

import asyncio

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from oidc_provider import DEVICE, SCOPE, SECRET, Provider, approve, deny, provider_program

from token_keeper import (
    AsyncTokenKeeper,
    OAuth2Source,
    RefreshPolicy,
    RefusedError,
    ResponseError,
    TransientFetchError,
)
from token_keeper.store import DirectoryStore, MemoryStore
from token_keeper.testing import VirtualLoop

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
JWK = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)


def a_machine(name, **metadata):
    return {"client_id": name, "grant_types": ["client_credentials"], **metadata}


MACHINES = [
    a_machine("b:c", client_secret=SECRET, token_endpoint_auth_method="client_secret_basic"),
    a_machine("post", client_secret=SECRET, token_endpoint_auth_method="client_secret_post"),
    a_machine(
        "key",
        token_endpoint_auth_method="private_key_jwt",
        token_endpoint_auth_signing_alg="ES256",
        jwks={"keys": [{**JWK, "kid": "k1", "use": "sig"}]},
    ),
]
PROOFS = {
    "b:c": {"client_secret": SECRET},
    "post": {"client_secret": SECRET, "auth_method": "post"},
    "key": {"private_key": PEM, "key_id": "k1"},
}
BRISK = RefreshPolicy(min_interval_s=0.1, splay=False)


@pytest.fixture(scope="module")
def program(request):
    yield from provider_program(request.config)


@pytest.fixture(scope="module")
def provider(program):
    """Tokens are JWTs for an hour; a refresh token that comes twice ends the grant."""
    return Provider(program, [*MACHINES, DEVICE], format="jwt")


def fetched(**words):
    async def fetch():
        source = OAuth2Source(**words)
        try:
            return await source.fetch(tries=1)
        finally:
            await source.aclose()

    return asyncio.run(fetch())


def claims(raw):
    return jwt.decode(raw, options={"verify_signature": False})


def a_login(provider, store, **words):
    """Return the words of a source whose grant starts with a login just now."""
    return {
        "issuer": provider.issuer,
        "grant": "refresh_token",
        "client_id": DEVICE["client_id"],
        "refresh_token": provider.logged_in(),
        "store": store,
        "stored_as": "api",
        **words,
    }


def assert_nothing_tripped(provider):
    counts = provider.counts()
    assert (counts.reused, counts.grantsRevoked) == (0, 0), counts
    return counts


@pytest.mark.parametrize("client_id", PROOFS)
def test_client_credentials_bring_a_token_however_the_client_shows_who_it_is(provider, client_id):
    issued = fetched(issuer=provider.issuer, client_id=client_id, scope="read write", **PROOFS[client_id])

    said = claims(issued.secret.reveal())
    assert (said["client_id"], said["scope"]) == (client_id, "read write")
    assert issued.expires_in == 3600


@pytest.mark.parametrize("client_id", PROOFS)
def test_no_discovery_is_needed(provider, client_id):
    issued = fetched(token_url=provider.token_url, client_id=client_id, **PROOFS[client_id])

    assert claims(issued.secret.reveal())["client_id"] == client_id


def test_a_token_is_for_the_resource_that_was_asked_for(provider):
    where = {"issuer": provider.issuer, "client_id": "b:c", **PROOFS["b:c"]}

    assert claims(fetched(**where, resource="https://other.example/x").secret.reveal())["aud"] == (
        "https://other.example/x"
    )


@pytest.mark.parametrize("client_id", PROOFS)
def test_a_wrong_proof_is_refused(provider, client_id):
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    wrong = {"client_secret": "wrong", "private_key": pem}
    proof = {word: wrong.get(word, value) for word, value in PROOFS[client_id].items()}

    with pytest.raises(RefusedError) as caught:
        fetched(issuer=provider.issuer, client_id=client_id, **proof)

    assert caught.value.reason == "invalid_client"


def test_the_document_of_another_issuer_is_not_believed(provider):
    elsewhere = provider.issuer.replace("127.0.0.1", "localhost")

    with pytest.raises(ResponseError, match="is of another issuer"):
        fetched(issuer=elsewhere, client_id="b:c", client_secret=SECRET)


def test_a_refresh_token_rotates_through_many_generations_and_restarts(program, tmp_path):
    provider = Provider(program, [DEVICE], format="jwt", accessSeconds=10)
    words = a_login(provider, DirectoryStore(tmp_path))
    tokens = []

    async def run():
        async with AsyncTokenKeeper(OAuth2Source(**words), policy=BRISK) as keeper:
            tokens.append(keeper.token)
            tokens.extend([await keeper.refresh() for _ in range(8)])

    for _ in range(3):
        asyncio.run(run())

    counts = assert_nothing_tripped(provider)
    # A keeper that starts takes over the last token of the one before.
    assert (tokens[9], tokens[18]) == (tokens[8], tokens[17])
    assert len({*tokens}) == counts.rotated == 25
    assert {claims(token)["sub"] for token in tokens} == {"alice"}


def test_a_keeper_renews_short_tokens_by_itself(program, tmp_path):
    provider = Provider(program, [DEVICE], format="jwt", accessSeconds=2)
    source = OAuth2Source(**a_login(provider, DirectoryStore(tmp_path)))

    async def third_generation():
        reached = asyncio.Event()
        keeper = AsyncTokenKeeper(source, policy=RefreshPolicy(splay=False))
        keeper.on("tokenUpdated")(lambda event: event.generation == 3 and reached.set())
        async with keeper, asyncio.timeout(15):
            await reached.wait()

    asyncio.run(third_generation())

    assert assert_nothing_tripped(provider).rotated >= 3


def test_an_answer_that_was_lost_is_fetched_again_without_anybody_noticing(program, tmp_path):
    provider = Provider(program, [DEVICE], format="jwt", graceSeconds=30)
    source = OAuth2Source(**a_login(provider, DirectoryStore(tmp_path)))

    async def run():
        async with AsyncTokenKeeper(source, policy=BRISK) as keeper:
            provider.cut()
            return await keeper.refresh()

    assert claims(asyncio.run(run()))["sub"] == "alice"
    assert assert_nothing_tripped(provider).replayed == 1


def test_a_grant_that_was_revoked_is_refused_until_somebody_logs_in_again(program, tmp_path):
    provider = Provider(program, [DEVICE], format="jwt")
    words = a_login(provider, DirectoryStore(tmp_path))
    fetched(**words)
    stolen = words["refresh_token"]
    with pytest.raises(RefusedError):  # A thief uses the first one once more: the provider ends the grant.
        fetched(
            **{**words, "store": MemoryStore()},
        )
    source = OAuth2Source(**words)

    async def run():
        await source.fetch(tries=1)
        with pytest.raises(RefusedError) as caught:
            await source.fetch(tries=1)
        return caught.value

    assert asyncio.run(run()).reason == "invalid_grant"
    again = {**words, "refresh_token": provider.logged_in()}
    assert again["refresh_token"] != stolen
    assert claims(fetched(**again).secret.reveal())["sub"] == "alice"


def device_words(provider, store, **words):
    return {
        "issuer": provider.issuer,
        "grant": "device_code",
        "client_id": DEVICE["client_id"],
        "scope": SCOPE,
        "store": store,
        "stored_as": "tv",
        **words,
    }


def patient(coroutine):
    """Run it on a virtual clock: the provider asks for 5 s between two polls."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(io_grace=0.3)) as runner:
        return runner.run(coroutine)


def test_a_device_logs_in_and_lives_on_rotated_tokens(provider, tmp_path):
    source = OAuth2Source(**device_words(provider, DirectoryStore(tmp_path)))
    shown = []

    async def log_in():
        await source.login(shown.append)
        await source.aclose()

    async def run():
        waiting = asyncio.create_task(log_in())
        # Virtual time passes only while everybody sleeps.
        while not provider.counts().errors.get("authorization_pending"):  # noqa: ASYNC110
            await asyncio.sleep(1)
        with asyncio.get_running_loop().real_work():
            await asyncio.to_thread(approve, shown[0].verification_uri_complete)
        await waiting

    patient(run())

    again = OAuth2Source(**device_words(provider, DirectoryStore(tmp_path)))
    tokens = []

    async def fetch():
        async with AsyncTokenKeeper(again, policy=BRISK) as keeper:
            tokens.extend([keeper.token, await keeper.refresh(), await keeper.refresh()])

    asyncio.run(fetch())
    assert {claims(token)["sub"] for token in tokens} == {"alice"}
    assert len({*tokens}) == 3
    assert shown[0].verification_uri == f"{provider.issuer}/device"
    assert shown[0].user_code in shown[0].verification_uri_complete


def test_a_login_that_is_refused_says_so(provider):
    source = OAuth2Source(**device_words(provider, MemoryStore()))

    with pytest.raises(RefusedError) as caught:
        patient(source.login(lambda code: deny(code.verification_uri_complete)))

    assert caught.value.reason == "access_denied"


def test_a_login_that_nobody_answers_ends(program):
    provider = Provider(program, [DEVICE], deviceSeconds=7)
    source = OAuth2Source(**device_words(provider, MemoryStore()))

    with pytest.raises(TransientFetchError, match="nobody approved within 7 s"):
        patient(source.login(lambda _: None))


@pytest.mark.parametrize("what", ["access_token", "refresh_token"])
def test_at_its_end_a_keeper_gives_its_tokens_back_if_that_was_asked_for(program, tmp_path, what):
    provider = Provider(program, [DEVICE])
    store = DirectoryStore(tmp_path)
    source = OAuth2Source(**a_login(provider, store, revoke=what))

    async def run():
        async with AsyncTokenKeeper(source) as keeper:
            return keeper.token, provider.introspect(keeper.token, DEVICE["client_id"])

    token, before = asyncio.run(run())

    assert before["active"]
    assert not provider.introspect(token, DEVICE["client_id"])["active"]
    assert (store.slot("api").read() is None) == (what == "refresh_token")


def test_without_being_asked_it_gives_nothing_back(program, tmp_path):
    provider = Provider(program, [DEVICE])
    source = OAuth2Source(**a_login(provider, DirectoryStore(tmp_path)))

    async def run():
        async with AsyncTokenKeeper(source) as keeper:
            return keeper.token

    assert provider.introspect(asyncio.run(run()), DEVICE["client_id"])["active"]
