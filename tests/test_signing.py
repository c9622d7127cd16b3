"""JWTs are signed with what the key can, and are good for headers of HTTP sources."""

from __future__ import annotations

import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from fetching import failure, raw

from token_keeper import ConfigError, FetchError, Secret
from token_keeper.sources import HttpSource, SignedJwt
from token_keeper.testing import FakeBackend

KEYS = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
KEY = ec.generate_private_key(ec.SECP256R1())


def pem(key, secrecy=None, form=PrivateFormat.PKCS8) -> str:
    return key.private_bytes(Encoding.PEM, form, secrecy or NoEncryption()).decode()


def claims_in(header, key=KEY, algorithm="ES256"):
    kind, token = header.split()
    assert kind == "Bearer"
    return jwt.decode(token, key.public_key(), algorithms=[algorithm], options={"verify_aud": False})


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_the_key_decides_how_it_signs(algorithm):
    key = KEYS[algorithm]()
    header = SignedJwt(private_key=pem(key), claims={"iss": "12345"})()

    assert claims_in(header, key, algorithm)["iss"] == "12345"


def test_another_algorithm_of_the_key_may_be_chosen():
    key = KEYS["RS256"]()
    header = SignedJwt(private_key=pem(key), claims={}, algorithm="PS384")()

    assert claims_in(header, key, "PS384")


def test_a_key_in_the_older_form_signs_too():
    key = KEYS["RS256"]()

    assert claims_in(
        SignedJwt(private_key=pem(key, form=PrivateFormat.TraditionalOpenSSL), claims={})(), key, "RS256"
    )


def test_it_was_issued_a_minute_ago_and_lives_as_long_as_was_said():
    claims = claims_in(SignedJwt(private_key=pem(KEY), claims={}, lifetime=120)())

    now = time.time()
    assert now - 65 < claims["iat"] <= now - 59
    assert now + 114 < claims["exp"] <= now + 120


def test_each_call_signs_anew():
    signed = SignedJwt(private_key=pem(KEY), claims={})

    assert claims_in(signed())["jti"] != claims_in(signed())["jti"]


def test_claims_and_headers_of_the_user_win():
    signed = SignedJwt(
        private_key=pem(KEY), claims={"iat": 1, "aud": ["a"]}, key_id="k", headers={"x5t": "y"}
    )
    token = signed().removeprefix("Bearer ")

    assert claims_in(signed())["iat"] == 1
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": "k", "x5t": "y"}


def test_the_key_is_read_at_each_call():
    keys = iter([pem(KEY), Secret(pem(KEYS["ES384"]()))])
    signed = SignedJwt(private_key=lambda: next(keys), claims={})
    algorithms = [jwt.get_unverified_header(signed().removeprefix("Bearer "))["alg"] for _ in range(2)]

    assert algorithms == ["ES256", "ES384"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ({"private_key": 5}, "private_key"),
        ({"private_key": "secret"}, "private_key"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nx"}, "private_key"),
        ({"private_key": pem(KEY, BestAvailableEncryption(b"p"))}, "private_key"),
        ({"private_key": pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))}, "private_key"),
        ({"private_key": pem(dsa.generate_private_key(2048))}, "private_key"),
        ({"private_key": pem(ec.generate_private_key(ec.SECP224R1()))}, "private_key"),
        ({"algorithm": "RS256"}, "algorithm"),
        ({"algorithm": "HS256"}, "algorithm"),
        ({"claims": "iss"}, "claims"),
        ({"claims": {5: 5}}, "claims"),
        ({"claims": {"a": float("nan")}}, "claims"),
        ({"claims": {"a": object()}}, "claims"),
        ({"lifetime": 0}, "lifetime"),
        ({"lifetime": 100_000}, "lifetime"),
        ({"key_id": ""}, "key_id"),
        ({"headers": []}, "headers"),
        ({"headers": {"alg": "none"}}, "headers['alg']"),
    ],
    ids=range(18),
)
def test_what_cannot_sign_is_named(words, key):
    with pytest.raises(ConfigError) as caught:
        SignedJwt(**{"private_key": pem(KEY), "claims": {}} | words)

    assert caught.value.key == key


def test_an_async_function_for_the_key_is_named():
    async def late() -> str:
        return pem(KEY)

    with pytest.raises(ConfigError, match=r"^private_key"):
        SignedJwt(private_key=late, claims={})


@pytest.mark.parametrize("value", ["", "no key", 5, None], ids=["empty", "text", "number", "none"])
def test_a_function_that_returns_no_key_fails_the_fetch(value):
    with pytest.raises(FetchError, match="private_key"):
        SignedJwt(private_key=lambda: value, claims={})()


def test_ed448_signs_too():
    key = ed448.Ed448PrivateKey.generate()

    assert claims_in(SignedJwt(private_key=pem(key), claims={"a": 1})(), key, "EdDSA")["a"] == 1


def test_an_http_source_sends_it_as_its_header():
    with FakeBackend() as backend:
        signed = SignedJwt(private_key=lambda: pem(KEY), claims={"iss": "12345"})

        assert raw(HttpSource(backend.url, method="POST", headers={"Authorization": signed}))
        assert claims_in(backend.requests[0].headers["authorization"])["iss"] == "12345"


def test_an_http_source_says_that_the_key_cannot_be_read():
    def missing() -> str:
        raise FileNotFoundError

    with FakeBackend() as backend:
        signed = SignedJwt(private_key=missing, claims={})
        error = failure(HttpSource(backend.url, headers={"Authorization": signed}))

        assert "private_key" in str(error)
        assert isinstance(error.__cause__, FileNotFoundError)
        assert not backend.requests
