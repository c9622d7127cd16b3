"""The sidecar within the limits of the unit and of the image: read-only, another user, from its wheel."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from confinement import APP_UID, GROUP, UID, Confinement, calls_allowed_by, install, why_not
from sidecar import PATIENCE_S, a_config, a_directory, eventually
from test_deployment import values_of

from token_keeper.testing import FakeBackend

ROOT = Path(__file__).parent.parent
SERVE = ("/opt/token-keeper/bin/token-keeper", "serve", "--log-format", "json", "--config")
ASK = ("/opt/token-keeper/bin/token-keeper",)

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be confined")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image has at /opt/token-keeper, built from a wheel. Takes some seconds, once."""
    out = tmp_path_factory.mktemp("image")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    install(next(out.glob("*.whl")), out / "tree")
    return out / "tree"


@pytest.fixture
def place() -> Iterator[Path]:
    """The directory that the sidecar may write, as a volume or `RuntimeDirectory=` would be."""
    with a_directory() as directory:
        directory.chmod(0o755)
        run = directory / "run"
        run.mkdir()
        os.chown(run, UID, UID)
        run.chmod(0o711)
        yield run


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as backend:
        yield backend


@pytest.fixture
def tls_backend(place: Path) -> Iterator[FakeBackend]:
    """One with TLS, as a real one: OpenSSL has to live within the limits, too."""
    authority = trustme.CA()
    trusted = place.parent / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    trusted.chmod(0o644)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with FakeBackend(ssl_context=tls) as backend:
        yield backend


def configure(place: Path, text: str) -> str:
    """Write the configuration where the sidecar can only read it, and return its path."""
    file = place.parent / "keeper.toml"
    file.write_text(text)
    file.chmod(0o644)
    return str(file)


@contextmanager
def a_manager(path: Path) -> Iterator[socket.socket]:
    """What systemd listens on for what a service says of itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE_S)
        manager.bind(str(path))
        path.chmod(0o666)
        yield manager


def has_answer(confinement: Confinement, path: Path) -> str:
    asked = confinement.run(*ASK, "get", "chat", "--wait", "5s", "--socket", str(path))
    return asked.stdout.strip()


def log_of(tree: Path) -> str:
    return (tree.parent / "log").read_text()


def test_the_image_serves_from_a_read_only_system_as_another_user_without_capabilities(
    tree: Path, place: Path, backend: FakeBackend
) -> None:
    inside = Confinement(tree, place)
    config = configure(place, a_config(backend.url, socket_path=place / "api.sock"))
    with inside.running(*SERVE, config) as server:
        assert has_answer(inside, place / "api.sock") == backend.issued[-1], log_of(tree)
        healthy = inside.run(*ASK, "status", "--live", "--quiet", TOKEN_KEEPER_SOCKET=str(place / "api.sock"))
        assert (healthy.returncode, healthy.stdout, healthy.stderr) == (0, "", "")
        server.terminate()
        assert server.wait(10) == 0, log_of(tree)
    assert not (place / "api.sock").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_sidecar_lives_with_the_system_calls_that_the_unit_leaves_it(
    tree: Path, place: Path, tls_backend: FakeBackend
) -> None:
    backend = tls_backend
    calls = calls_allowed_by(values_of("token-keeper.service", "SystemCallFilter"))
    families = tuple(values_of("token-keeper.service", "RestrictAddressFamilies")[0].split())
    inside = Confinement(tree, place, groups=(GROUP,), calls=calls, families=families)
    key = place.parent / "backend-key"
    key.write_text("s3cret\n")
    key.chmod(0o444)
    config = a_config(
        backend.url,
        socket_path=place / "api.sock",
        server='listen = "127.0.0.1:0"',
        extra=f"""
            [[tokens.chat.sinks]]
            type = "file"
            path = "{place}/chat.token"
            mode = "0640"
            group = {GROUP}
            [[tokens.chat.hooks]]
            run = ["/bin/sh", "-c", "echo $TOKEN_KEEPER_GENERATION > {place}/hooked"]
        """,
    )
    config += f'ca_file = "{place.parent}/authority.pem"\n'
    config += 'headers = { Authorization = "Bearer ${credential:backend-key}" }\n'
    with (
        a_manager(place / "notify") as manager,
        inside.running(
            *SERVE,
            configure(place, config),
            CREDENTIALS_DIRECTORY=str(place.parent),
            NOTIFY_SOCKET=str(place / "notify"),
            WATCHDOG_USEC="2000000",
        ) as server,
    ):
        assert manager.recv(1_024).startswith(b"READY=1"), log_of(tree)
        assert manager.recv(1_024) == b"WATCHDOG=1", log_of(tree)
        token = has_answer(inside, place / "api.sock")
        assert token == backend.issued[-1], log_of(tree)
        assert backend.requests[-1].headers["authorization"] == "Bearer s3cret"
        eventually((place / "hooked").exists, what=log_of(tree))
        written = place / "chat.token"
        assert written.read_text() == token
        state = written.stat()
        assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (UID, GROUP, 0o640)
        server.terminate()
        assert server.wait(10) == 0, log_of(tree)
    assert "s3cret" not in log_of(tree)


def test_an_app_of_another_user_that_is_in_the_group_connects_through_a_read_only_volume(
    tree: Path, place: Path, backend: FakeBackend
) -> None:
    # As in Kubernetes: the volume is anybody's, the socket one deeper.
    os.chown(place, 0, GROUP)
    place.chmod(0o2777)
    path = place / "keeper" / "api.sock"
    config = a_config(backend.url, socket_path=path, server=f"allow_gids = [{GROUP}]")
    inside = Confinement(tree, place, groups=(GROUP,))
    app = replace(inside, uid=APP_UID, is_read_only=True)
    with inside.running(*SERVE, configure(place, config)):
        assert has_answer(inside, path), log_of(tree)
        assert has_answer(app, path) == backend.issued[-1], log_of(tree)
        stranger = replace(app, groups=())
        refused = stranger.run(*ASK, "get", "chat", "--socket", str(path))
        assert (refused.returncode, refused.stdout) == (os.EX_NOPERM, "")
        assert path.parent.stat().st_mode & 0o7777 == 0o711
    assert json.dumps(backend.issued[-1]) not in log_of(tree)


def test_the_sidecar_refuses_a_volume_in_which_anybody_could_replace_its_socket(
    tree: Path, place: Path, backend: FakeBackend
) -> None:
    os.chown(place, 0, 0)
    place.chmod(0o777)
    inside = Confinement(tree, place)
    ended = inside.run(*SERVE, configure(place, a_config(backend.url, socket_path=place / "api.sock")))
    assert ended.returncode == os.EX_NOPERM, ended.stderr
    assert "others can write to the directory" in ended.stderr
