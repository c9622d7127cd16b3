"""Signatures, checked with a secret, a public key or a set of keys."""

from __future__ import annotations

import json
import string
from base64 import urlsafe_b64decode

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from minting import NOW, SECRET, altered, base64url, minted

from token_keeper.profiles import inspect

CLAIMS = {"sub": "alice", "exp": NOW + 3600}
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS = {
    "RS256": RSA,
    "PS256": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def pem(key):
    public = key.public_key()
    encoded = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded.decode()


def jwk(name, key, **fields):
    algorithm = jwt.get_algorithm_by_name(name)
    return {**json.loads(algorithm.to_jwk(key.public_key())), **fields}


def token_by(name, kid=None):
    return jwt.encode(CLAIMS, KEYS[name], name, headers={"kid": kid} if kid else None)


def verdict(token, secret):
    return set(inspect(token, "jwt", now=NOW, secret=secret).codes)


@pytest.mark.parametrize("name", KEYS)
def test_a_public_key_checks_the_signatures_of_its_private_key(name):
    token = token_by(name)

    assert verdict(token, pem(KEYS[name])) == set()
    assert verdict(altered(token), pem(KEYS[name])) == {"signature-invalid"}


@pytest.mark.parametrize("name", KEYS)
def test_a_set_of_keys_checks_with_the_key_that_the_token_names(name):
    keys = {
        "keys": [
            jwk("ES256", ec.generate_private_key(ec.SECP256R1()), kid="a"),
            jwk(name, KEYS[name], kid="b"),
        ]
    }

    assert verdict(token_by(name, "b"), keys) == set()
    assert verdict(token_by(name, "a"), keys) == {"signature-invalid"}
    assert verdict(token_by(name, "c"), keys) == {"signature-invalid"}
    assert verdict(token_by(name), keys) == set()


def test_a_set_of_keys_may_be_given_as_text_and_a_single_key_as_a_set():
    key = jwk("RS256", RSA)

    assert verdict(token_by("RS256"), json.dumps({"keys": [key]})) == set()
    assert verdict(token_by("RS256"), json.dumps(key)) == set()


def test_a_public_key_is_never_taken_for_a_shared_secret():
    key = pem(RSA)
    signing_input = jwt.encode(CLAIMS, "x" * 32, "HS256").rpartition(".")[0]
    signature = jwt.get_algorithm_by_name("HS256").sign(signing_input.encode(), key.encode())
    forged = f"{signing_input}.{base64url(signature).decode()}"

    assert verdict(forged, key) == {"signature-invalid"}
    assert verdict(forged, jwk("RS256", RSA)) == {"signature-invalid"}


def test_a_shared_secret_checks_no_other_algorithm():
    assert verdict(token_by("RS256"), SECRET) == {"signature-invalid"}


@pytest.mark.parametrize(
    "key",
    [
        "-----BEGIN PUBLIC KEY-----\nbroken\n-----END PUBLIC KEY-----",
        '{"keys": 7}',
        '{"keys": [7, {"kty": "RSA"}]}',
        "{broken",
        {"keys": []},
        {},
        "é" * 40,
        "\udc80",
        "",
    ],
)
def test_a_key_that_cannot_be_used_verifies_nothing(key):
    assert verdict(token_by("RS256"), key) == {"signature-invalid"}
    assert "signature-invalid" in inspect(minted(), "twilio", now=NOW, secret=key).codes


@pytest.mark.parametrize("alg", ["HS384", "HS512"])
def test_the_other_lengths_of_hmac_are_checked_too(alg):
    token = jwt.encode(CLAIMS, SECRET * 2, alg)

    assert verdict(token, SECRET * 2) == set()
    assert verdict(token, SECRET * 3) == {"signature-invalid"}


def test_a_signature_whose_spare_bits_were_changed_does_not_match():
    good = minted()
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    twin = good[:-1] + alphabet[alphabet.index(good[-1]) + 1]

    assert urlsafe_b64decode(f"{twin[-43:]}=") == urlsafe_b64decode(f"{good[-43:]}=")
    assert verdict(twin, SECRET) == {"signature-invalid"}
