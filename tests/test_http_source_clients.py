"""Which client a source uses, how clients are shared, and who closes them."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl

import httpx
import httpx2
import pytest
import trustme
from fetching import failure, fetch_all, raw, server_tls

from token_keeper.sources import HttpSource
from token_keeper.sources._clients import _shared
from token_keeper.testing import FakeBackend


@pytest.fixture
def authority():
    return trustme.CA()


def secure_backend(authority: trustme.CA, *, asks_for_certificate: bool = False) -> FakeBackend:
    tls = server_tls(authority)
    if asks_for_certificate:
        tls.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(tls)
    return FakeBackend(ssl_context=tls)


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_passed_in_client_is_used_with_its_settings_and_hooks_and_stays_open(package):
    seen = []

    async def hook(response) -> None:
        await response.aread()
        seen.append(response.status_code)

    async def with_client() -> list[str]:
        client = package.AsyncClient(headers={"X-Mine": "yes"}, event_hooks={"response": [hook]})
        source = HttpSource(backend.url, client=client)
        tokens = [(await source.fetch()).secret.reveal()]
        await source.aclose()
        assert not client.is_closed
        tokens.append((await source.fetch()).secret.reveal())
        await client.aclose()
        return tokens

    with FakeBackend() as backend:
        tokens = asyncio.run(with_client())

        assert tokens == list(backend.issued)
        assert backend.requests[0].headers["x-mine"] == "yes"
        assert seen == [200, 200]


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_passed_in_client_has_the_same_bounds(package):
    async def with_client(fault: str) -> str:
        backend.fail(fault)
        async with package.AsyncClient() as client:
            source = HttpSource(backend.url, client=client, timeout=0.3)
            return str((await asyncio.gather(source.fetch(), return_exceptions=True))[0])

    with FakeBackend() as backend:
        for fault, said in {
            "gzip_bomb": "larger than 1 MiB",
            "huge": "larger than 1 MiB",
            "drip": "timed out",
            "reset": "broke the connection off",
            "html": "HTML",
        }.items():
            assert said in asyncio.run(with_client(fault))
        backend.down()
        assert "refused the connection" in asyncio.run(with_client("html"))


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_the_auth_of_a_passed_in_client_is_used_unless_the_source_has_its_own(package):
    async def with_client(**settings: object) -> None:
        async with package.AsyncClient(auth=("client", "one")) as client:
            await HttpSource(backend.url, client=client, **settings).fetch()

    with FakeBackend() as backend:
        asyncio.run(with_client())
        asyncio.run(with_client(auth=("source", "two")))
        first, second = (request.headers["authorization"] for request in backend.requests)

    assert first.startswith("Basic ")
    assert first != second


def test_a_passed_in_client_that_is_closed_says_so():
    async def with_client() -> str:
        client = httpx.AsyncClient()
        await client.aclose()
        return str(
            (await asyncio.gather(HttpSource(backend.url, client=client).fetch(), return_exceptions=True))[0]
        )

    with FakeBackend() as backend:
        assert "is it open" in asyncio.run(with_client())


def test_sources_of_one_loop_share_a_client_which_the_last_one_closes():
    async def two_sources() -> None:
        one, two = HttpSource(backend.url), HttpSource(backend.url)
        await one.fetch()
        await two.fetch()
        client = _shared.client(asyncio.get_running_loop())
        await one.aclose()
        await one.aclose()
        assert not client.is_closed
        await two.fetch()
        await two.aclose()
        assert client.is_closed
        await one.fetch()
        await one.aclose()

    with FakeBackend() as backend:
        asyncio.run(two_sources())
        assert len(backend.requests) == 4


def test_connections_are_kept_between_fetches(authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = server_tls(authority)
    with FakeBackend(ssl_context=tls) as backend:
        fetch_all(HttpSource(backend.url, ca_file=str(tmp_path / "ca.pem")), times=3)
        assert len(backend.requests) == 3

    assert tls.session_stats()["accept_good"] == 1


def test_a_private_authority_is_trusted_by_ca_file(authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with secure_backend(authority) as backend:
        assert raw(HttpSource(backend.url, ca_file=str(tmp_path / "ca.pem"))) == backend.issued[-1]


def test_a_client_certificate_is_shown(authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    identity = authority.issue_cert("client.example")
    identity.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    identity.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    files = {"ca_file": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"}
    settings = {key: str(tmp_path / name) for key, name in files.items()}
    with secure_backend(authority, asks_for_certificate=True) as backend:
        assert raw(HttpSource(backend.url, **settings)) == backend.issued[-1]
        anonymous = failure(HttpSource(backend.url, ca_file=settings["ca_file"]))

    assert "TLS" in str(anonymous) or "broke the connection off" in str(anonymous)


def test_files_for_tls_are_read_again_when_they_change(authority, tmp_path):
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    authority.cert_pem.write_to_path(str(tmp_path / "new.pem"))

    async def rotate() -> None:
        source = HttpSource(backend.url, ca_file=str(path))
        error = (await asyncio.gather(source.fetch(), return_exceptions=True))[0]
        assert "certificate" in str(error)
        shutil.copy(tmp_path / "new.pem", tmp_path / "next.pem")
        os.replace(tmp_path / "next.pem", path)  # noqa: PTH105 - Atomically, as tools rotate files.
        await source.fetch()
        await source.aclose()

    with secure_backend(authority) as backend:
        asyncio.run(rotate())
        assert len(backend.issued) == 1


@pytest.mark.parametrize("content", [None, b"not PEM"])
def test_a_file_for_tls_that_cannot_be_used_is_a_failed_fetch_with_advice(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    error = failure(HttpSource("https://backend.example/", ca_file=str(path)))

    assert "ca_file" in str(error)
    assert "PEM" in str(error)


def test_a_key_with_a_passphrase_does_not_ask_for_it(authority, tmp_path):
    from cryptography.hazmat.primitives import serialization as pem

    identity = authority.issue_cert("client.example")
    identity.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    key = pem.load_pem_private_key(identity.private_key_pem.bytes(), None)
    sealed = pem.BestAvailableEncryption(b"passphrase")
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, sealed))
    files = {"client_cert": str(tmp_path / "cert.pem"), "client_key": str(tmp_path / "key.pem")}

    assert "passphrase" in str(failure(HttpSource("https://backend.example/", **files)))


def test_a_proxy_gets_the_request():
    with FakeBackend() as proxy:
        source = HttpSource("http://backend.example/token", proxy=proxy.url, allow_http=True)
        assert raw(source) == proxy.issued[-1]
        assert proxy.requests[0].path == "http://backend.example/token"


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    with FakeBackend() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        source = HttpSource("http://backend.example/token", allow_http=True)
        assert raw(source) == proxy.issued[-1]


def test_a_proxy_that_says_no_is_a_failed_fetch():
    with FakeBackend() as proxy:
        proxy.answer(status=407)
        error = failure(HttpSource("https://backend.example/token", proxy=proxy.url))

    assert "the proxy did not let the request through" in str(error)


def test_many_fetches_run_in_one_loop_at_once():
    async def together() -> int:
        sources = [HttpSource(backend.url) for _ in range(8)]
        issued = await asyncio.gather(*(source.fetch() for source in sources))
        await asyncio.gather(*(source.aclose() for source in sources))
        return len({token.secret.fingerprint for token in issued})

    with FakeBackend() as backend:
        assert asyncio.run(together()) == 8


def test_a_source_with_files_closes_its_own_client(authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with secure_backend(authority) as backend:
        source = HttpSource(backend.url, ca_file=str(tmp_path / "ca.pem"))
        fetch_all(source, times=2)
        fetch_all(source, times=2)

        assert len(backend.issued) == 4
