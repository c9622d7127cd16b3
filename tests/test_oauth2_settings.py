"""What cannot work is said when the source is made, and names the word as it was written."""

from __future__ import annotations

import inspect

import httpx
import pytest
from test_oauth2_grants import a_key

from token_keeper import ConfigError
from token_keeper.sources import OAuth2Source, Retiring, Source, Watched
from token_keeper.sources.oauth2._words import Words
from token_keeper.store import MemoryStore

URL = "https://as.example/token"
KEY = a_key("EC")[0]
PLAIN = {"token_url": URL, "client_id": "robot", "client_secret": "s"}
KEYED = {"token_url": URL, "client_id": "robot", "private_key": KEY}
BEARER = {"token_url": URL, "grant": "jwt_bearer", "assertion": {"iss": "app"}, "private_key": KEY}
EXCHANGE = {"token_url": URL, "grant": "token_exchange", "subject_token": "t"}
STORED = {"store": MemoryStore(), "stored_as": "chat"}
REFRESH = PLAIN | STORED | {"grant": "refresh_token", "refresh_token": "r"}
DEVICE = PLAIN | STORED | {"grant": "device_code", "issuer": "https://as.example"}

WRONG = {
    "token_url missing": ({"client_id": "a", "client_secret": "s"}, "token_url"),
    "token_url in the clear": (PLAIN | {"token_url": "http://as.example/token"}, "token_url"),
    "token_url with a password": (PLAIN | {"token_url": "https://u:p@as.example"}, "token_url"),
    "token_url no text": (PLAIN | {"token_url": 5}, "token_url"),
    "issuer in the clear": (PLAIN | {"issuer": "http://as.example"}, "issuer"),
    "issuer with a query": (PLAIN | {"issuer": "https://as.example?a=b"}, "issuer"),
    "revocation_url": (PLAIN | {"revocation_url": "ftp://as.example"}, "revocation_url"),
    "device_authorization_url": (DEVICE | {"device_authorization_url": "x"}, "device_authorization_url"),
    "device_authorization_url missing": (DEVICE | {"issuer": None}, "device_authorization_url"),
    "grant": (PLAIN | {"grant": "password"}, "grant"),
    "grant no text": (PLAIN | {"grant": ["refresh_token"]}, "grant"),
    "client_id missing": ({"token_url": URL, "client_secret": "s"}, "client_id"),
    "client_id empty": (PLAIN | {"client_id": ""}, "client_id"),
    "client_id missing for a key": ({"token_url": URL, "private_key": KEY}, "client_id"),
    "client_secret missing": ({"token_url": URL, "client_id": "a"}, "client_secret"),
    "client_secret empty": (PLAIN | {"client_secret": ""}, "client_secret"),
    "client_secret no text": (PLAIN | {"client_secret": 5}, "client_secret"),
    "client_secret not sent": (PLAIN | {"auth_method": "none"}, "client_secret"),
    "client_secret beside a key": (KEYED | {"client_secret": "s"}, "private_key"),
    "client_secret missing for post": (KEYED | {"auth_method": "post"}, "client_secret"),
    "auth_method": (PLAIN | {"auth_method": "client_secret_basic"}, "auth_method"),
    "private_key missing": (PLAIN | {"client_secret": None, "auth_method": "private_key_jwt"}, "private_key"),
    "private_key no PEM": (KEYED | {"private_key": "s3cret"}, "private_key"),
    "private_key public": (KEYED | {"private_key": a_key("EC")[1].decode()}, "private_key"),
    "private_key no text": (KEYED | {"private_key": 5}, "private_key"),
    "private_key idle": (BEARER | {"assertion": "a.b.c"}, "private_key"),
    "private_key missing for claims": (BEARER | {"private_key": None}, "private_key"),
    "key_id without a key": (PLAIN | {"key_id": "k"}, "key_id"),
    "key_id no text": (KEYED | {"key_id": 5}, "key_id"),
    "algorithm without a key": (PLAIN | {"algorithm": "ES256"}, "algorithm"),
    "algorithm unknown": (KEYED | {"algorithm": "none"}, "algorithm"),
    "algorithm symmetric": (KEYED | {"algorithm": "HS256"}, "algorithm"),
    "algorithm of another key": (KEYED | {"algorithm": "RS256"}, "algorithm"),
    "assertion_headers without a key": (PLAIN | {"assertion_headers": {}}, "assertion_headers"),
    "assertion_headers no mapping": (KEYED | {"assertion_headers": "x5t"}, "assertion_headers"),
    "assertion_headers alg": (KEYED | {"assertion_headers": {"alg": "none"}}, "assertion_headers['alg']"),
    "assertion_audience idle": (PLAIN | {"assertion_audience": "a"}, "assertion_audience"),
    "assertion_audience no text": (KEYED | {"assertion_audience": ["a"]}, "assertion_audience"),
    "assertion_lifetime": (KEYED | {"assertion_lifetime": 0}, "assertion_lifetime"),
    "assertion_lifetime long": (KEYED | {"assertion_lifetime": 1e6}, "assertion_lifetime"),
    "assertion missing": (BEARER | {"assertion": None}, "assertion"),
    "assertion of another grant": (PLAIN | {"assertion": "a"}, "assertion"),
    "assertion no JSON": (BEARER | {"assertion": {"a": {1, 2}}}, "assertion"),
    "assertion no text": (BEARER | {"assertion": 5, "private_key": None}, "assertion"),
    "scope": (PLAIN | {"scope": 5}, "scope"),
    "scope empty": (PLAIN | {"scope": []}, "scope"),
    "audience": (PLAIN | {"audience": 5}, "audience"),
    "resource": (PLAIN | {"resource": [""]}, "resource"),
    "extra": (PLAIN | {"extra": "a=b"}, "extra"),
    "extra names": (PLAIN | {"extra": {5: "b"}}, "extra"),
    "extra values": (PLAIN | {"extra": {"a": None}}, "extra['a']"),
    "extra grant_type": (PLAIN | {"extra": {"grant_type": "password"}}, "extra['grant_type']"),
    "extra client_secret": (PLAIN | {"extra": {"client_secret": "s"}}, "extra['client_secret']"),
    "refresh_token of another grant": (PLAIN | {"refresh_token": "r"}, "refresh_token"),
    "refresh_token empty": (REFRESH | {"refresh_token": ""}, "refresh_token"),
    "subject_token missing": (EXCHANGE | {"subject_token": None}, "subject_token"),
    "subject_token of another grant": (PLAIN | {"subject_token": "t"}, "subject_token"),
    "subject_token_type": (EXCHANGE | {"subject_token_type": "jwtt"}, "subject_token_type"),
    "subject_token_type of another grant": (PLAIN | {"subject_token_type": "jwt"}, "subject_token_type"),
    "actor_token of another grant": (PLAIN | {"actor_token": "t"}, "actor_token"),
    "actor_token_type alone": (EXCHANGE | {"actor_token_type": "jwt"}, "actor_token_type"),
    "actor_token_type": (EXCHANGE | {"actor_token": "t", "actor_token_type": 5}, "actor_token_type"),
    "requested_token_type": (EXCHANGE | {"requested_token_type": "x"}, "requested_token_type"),
    "revoke": (PLAIN | {"revoke": True}, "revoke"),
    "revoke without a place": (PLAIN | {"revoke": "access_token"}, "revocation_url"),
    "revoke what there is not": (PLAIN | {"revoke": "refresh_token", "revocation_url": URL}, "revoke"),
    "store missing": (REFRESH | {"store": None, "stored_as": None}, "store"),
    "store missing for a login": (DEVICE | {"store": None}, "store"),
    "stored_as missing": (REFRESH | {"stored_as": None}, "stored_as"),
    "stored_as without a store": (PLAIN | {"stored_as": "chat"}, "stored_as"),
    "replay_window": (REFRESH | {"replay_window": -1}, "replay_window"),
    "replay_window no number": (REFRESH | {"replay_window": "30"}, "replay_window"),
    "replay_window a boolean": (REFRESH | {"replay_window": False}, "replay_window"),
    "replay_limit": (REFRESH | {"replay_limit": -1}, "replay_limit"),
    "replay_limit no number": (REFRESH | {"replay_limit": 0.5}, "replay_limit"),
    "token_path": (PLAIN | {"token_path": "["}, "token_path"),
    "expires_path": (PLAIN | {"expires_path": "["}, "expires_path"),
    "default_lifetime": (PLAIN | {"default_lifetime": -1}, "default_lifetime"),
    "timeout": (PLAIN | {"timeout": 31}, "timeout"),
    "client": (PLAIN | {"client": "httpx"}, "client"),
    "client_key": (PLAIN | {"client_key": "key.pem"}, "client_key"),
    "proxy": (PLAIN | {"proxy": "10.0.0.1"}, "proxy"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_cannot_work_is_named(case):
    words, key = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        OAuth2Source(**words)

    assert caught.value.key == key


def test_a_blocking_client_is_named():
    with httpx.Client() as client, pytest.raises(ConfigError, match=r"^client: would block"):
        OAuth2Source(**PLAIN, client=client)


def test_every_word_has_a_test_of_what_it_cannot_be():
    tested = {key.partition("[")[0] for _, key in WRONG.values()}

    # Files are looked at when they are used; allow_http is judged by its truth.
    assert set(Words.__slots__) - tested == {"ca_file", "client_cert", "allow_http"}


def test_the_words_are_those_of_the_constructor():
    assert list(inspect.signature(OAuth2Source).parameters) == list(Words.__slots__)


def test_a_missing_store_says_which_there_are():
    with pytest.raises(ConfigError, match=r"DirectoryStore\(\.\.\.\).*MemoryStore\(\)"):
        OAuth2Source(**REFRESH | {"store": None, "stored_as": None})


@pytest.mark.parametrize(
    "words",
    [
        PLAIN,
        KEYED,
        BEARER,
        EXCHANGE,
        REFRESH,
        DEVICE,
        BEARER | {"client_id": "app", "auth_method": "private_key_jwt", "assertion": "a.b.c"},
        BEARER | {"client_id": "app", "client_secret": "s"},
        KEYED | {"private_key": lambda: "later", "key_id": "k", "algorithm": "ES256"},
        PLAIN | {"client_secret": None, "client_cert": "client.pem"},
        PLAIN | {"client_secret": None, "auth_method": "none"},
        PLAIN | {"token_url": "http://127.0.0.1:1/token", "issuer": "http://localhost:1"},
        PLAIN | {"token_url": "http://as.example/token", "allow_http": True},
        EXCHANGE | {"subject_token_type": "https://example.com/types/ours"},
        REFRESH | {"refresh_token": None, "replay_window": 0, "replay_limit": 0},
        PLAIN | STORED,
    ],
    ids=range(16),
)
def test_what_can_work_is_taken_and_touches_nothing(words):
    source = OAuth2Source(**words)

    assert isinstance(source, Retiring)
    assert source.splay
    assert source.origin.startswith("http")


def test_only_a_grant_that_somebody_else_may_renew_is_watched():
    def is_watched(words) -> bool:
        source: Source = OAuth2Source(**words)
        return isinstance(source, Watched)

    assert is_watched(REFRESH)
    assert is_watched(DEVICE)
    assert not is_watched(PLAIN)
    assert not is_watched(PLAIN | STORED)


def test_a_login_is_for_devices_only():
    with pytest.raises(ConfigError, match=r"^grant: is client_credentials"):
        OAuth2Source(**PLAIN).login(print).send(None)
