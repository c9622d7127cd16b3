"""What `token-keeper doctor` says of TLS and of certificates."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from examining import examined, run, statuses

from token_keeper.doctor import Status
from token_keeper.doctor._probes import _in_the_clear
from token_keeper.testing import FakeBackend


@pytest.fixture(scope="module")
def authority():
    return trustme.CA(organization_name="Private Authority")


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def serving(certificate: trustme.LeafCert) -> FakeBackend:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    return FakeBackend(ssl_context=tls)


def hang_up(listener: socket.socket) -> None:
    """Take the connection of each of the two probes, and close it."""
    for _ in range(2):
        listener.accept()[0].close()


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_a_good_certificate_is_described(authority, ca_file):
    with serving(authority.issue_cert("127.0.0.1", not_after=in_days(90))) as backend:
        document = examined(backend.url, "--ca-file", ca_file)
    step = document["step"]["tls"]

    assert (document["ok"], step["status"], step["remedy"]) == (True, "ok", "")
    assert step["details"]["version"] == "TLS 1.3"
    assert step["details"]["issuer"] == "Private Authority"
    assert step["details"]["expires_in_days"] == pytest.approx(90, abs=0.2)
    assert step["details"]["names"] == ["127.0.0.1"]


def test_a_certificate_that_expires_within_two_weeks_is_a_warning(authority, ca_file):
    with serving(authority.issue_cert("127.0.0.1", not_after=in_days(5))) as backend:
        document = examined(backend.url, "--ca-file", ca_file)
        page = run(backend.url, "--ca-file", ca_file).stdout

    assert (document["ok"], statuses(document)["tls"]) == (True, "warning")
    assert "expires in 5 days" in document["step"]["tls"]["summary"]
    assert "Renew" in document["step"]["tls"]["remedy"]
    assert page.endswith("It works, with 1 warning.\n")


def test_an_expired_certificate_fails_with_its_dates(authority, ca_file):
    with serving(authority.issue_cert("127.0.0.1", not_after=in_days(-3))) as backend:
        document = examined(backend.url, "--ca-file", ca_file)
        page = run(backend.url, "--ca-file", ca_file).stdout
    step = document["step"]["tls"]

    assert (step["status"], statuses(document)["http"]) == ("failed", "skipped")
    assert step["summary"] == "the certificate has expired"
    assert step["details"]["expires_in_days"] == pytest.approx(-3, abs=0.2)
    assert "by Private Authority, and expired 3 days ago" in page
    assert backend.requests == type(backend.requests)()


def test_a_certificate_for_another_host_fails_with_the_names_that_it_is_for(authority, ca_file):
    with serving(authority.issue_cert("other.example", not_after=in_days(90))) as backend:
        by_address = examined(backend.url, "--ca-file", ca_file)["step"]["tls"]
        by_name = examined(backend.url.replace("127.0.0.1", "localhost"), "--ca-file", ca_file)["step"]["tls"]

    for step in (by_address, by_name):
        assert step["status"] == "failed"
        assert step["summary"] == "the certificate is for another host"
        assert step["details"]["names"] == ["other.example"]


def test_a_private_authority_is_not_trusted_without_its_file(authority):
    with serving(authority.issue_cert("127.0.0.1", not_after=in_days(90))) as backend:
        step = examined(backend.url)["step"]["tls"]

    assert step["status"] == "failed"
    assert "not signed by an authority" in step["summary"]
    assert step["details"]["issuer"] == "Private Authority"
    assert "--ca-file" in step["remedy"]


def test_a_port_that_speaks_no_tls_fails_at_tls():
    with FakeBackend() as backend:
        step = examined(backend.url.replace("http", "https"), "--timeout", "3")["step"]["tls"]

    assert step["status"] == "failed"
    assert step["remedy"]


def test_a_server_that_breaks_the_handshake_off_fails_at_tls():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hanging_up = threading.Thread(target=hang_up, args=(listener,), daemon=True)
        hanging_up.start()
        step = examined(f"https://127.0.0.1:{listener.getsockname()[1]}/", "--timeout", "3")["step"]["tls"]
        hanging_up.join(5)

    assert step["status"] == "failed"
    assert "broke the TLS handshake off" in step["summary"]


def test_a_server_that_says_nothing_fails_at_tls_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        step = examined(f"https://127.0.0.1:{listener.getsockname()[1]}/", "--timeout", "0.3")["step"]["tls"]

    assert step["status"] == "failed"
    assert "no TLS handshake within 300 ms" in step["summary"]


def test_http_to_another_machine_is_a_warning():
    step = _in_the_clear("192.0.2.1")

    assert step.status is Status.WARNING
    assert "https" in step.remedy


def test_a_file_that_holds_no_certificates_exits_66(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    result = run("https://backend.example/", "--ca-file", str(tmp_path / "ca.pem"))

    assert (result.exit_code, result.stdout) == (66, "")
    assert "PEM" in result.stderr
