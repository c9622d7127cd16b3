"""Where we listen: whose place it is, what may be replaced, and who may reach it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading

import pytest
from sidecar import a_directory, eventually

from token_keeper.sidecar.server._sockets import (
    CannotListenError,
    UnixListener,
    bind_tcp,
    loopback_address,
    usual_path,
)

CANNOT_CREATE, NOT_ALLOWED, BAD_CONFIG = 73, 77, 78
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def directory():
    with a_directory() as made:
        yield made


def bound(path, *, is_open=False):
    return UnixListener.bind(path, is_open=is_open)


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


def refused(path, code):
    with pytest.raises(CannotListenError) as caught:
        bound(path)
    assert caught.value.code == code
    return str(caught.value)


@pytest.mark.parametrize(("is_open", "modes"), [(False, (0o700, 0o600)), (True, (0o711, 0o666))])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177])
def test_modes_are_what_they_should_be_whatever_the_umask(directory, is_open, modes, umask):
    path = directory / "run" / "api.sock"
    former = os.umask(umask)
    try:
        listener = bound(path, is_open=is_open)
        assert os.umask(umask) == umask
    finally:
        os.umask(former)
    assert (mode_of(path.parent), mode_of(path)) == modes
    assert not os.get_inheritable(listener.socket.fileno())
    listener.close()


def test_no_moment_has_a_socket_that_others_can_reach(directory):
    path, seen, ended = directory / "api.sock", set(), threading.Event()

    def look():
        while not ended.is_set():
            try:
                seen.add(mode_of(path))
            except FileNotFoundError:
                continue

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(50):
        bound(path).close()
    ended.set()
    watcher.join()
    assert seen <= {0o600}


def test_a_directory_that_is_there_keeps_its_mode(directory):
    directory.chmod(0o750)
    listener = bound(directory / "api.sock")
    assert mode_of(directory) == 0o750
    listener.close()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_directory_that_others_can_write_is_refused(directory, mode):
    place = directory / "open"
    place.mkdir()
    place.chmod(mode)
    assert "others can write" in refused(place / "api.sock", NOT_ALLOWED)
    assert not list(place.iterdir())


@AS_ROOT
def test_a_directory_of_another_user_is_refused(directory):
    place = directory / "theirs"
    place.mkdir()
    os.chown(place, 65534, 65534)
    os.chown(directory, 65534, 65534)
    child = (
        # Everything is imported first: our interpreter may be in a place that is closed to others.
        "import sys, os, pathlib; from token_keeper.sidecar.server._sockets import *\n"
        "os.setgid(65533); os.setuid(65533)\n"
        "try: UnixListener.bind(pathlib.Path(sys.argv[1]), is_open=False)\n"
        "except CannotListenError as error: print(error); sys.exit(error.code)"
    )
    directory.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", child, str(place / "api.sock")], capture_output=True, text=True, check=False
    )
    assert done.returncode == NOT_ALLOWED, done
    assert "belongs to uid 65534" in done.stdout


def test_what_a_killed_server_left_is_replaced(directory):
    path = directory / "api.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    assert path.is_socket()
    listener = bound(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert not path.exists()


def test_the_place_of_a_living_server_is_its_own_and_it_is_named(directory):
    path = directory / "api.sock"
    listener = bound(path)
    assert f"process {os.getpid()}" in refused(path, CANNOT_CREATE)
    listener.close()
    bound(path).close()


def test_a_living_server_that_holds_no_lock_is_not_pushed_aside(directory):
    path = directory / "api.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert "somebody answers" in refused(path, CANNOT_CREATE)
        assert path.is_socket()


def test_a_living_server_whose_queue_is_full_is_not_pushed_aside(directory):
    path = directory / "api.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as first:
        other.bind(str(path))
        other.listen(0)
        first.connect(str(path))
        assert "somebody answers" in refused(path, CANNOT_CREATE)


def a_file(path):
    path.write_text("precious")


def a_link(path):
    path.with_name("target").write_text("precious")
    path.symlink_to("target")


def a_dangling_link(path):
    path.symlink_to("nowhere")


def a_link_to_a_socket(path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path.with_name("other.sock")))
    path.symlink_to("other.sock")


@pytest.mark.parametrize(
    "squat",
    [a_file, a_link, a_dangling_link, a_link_to_a_socket, lambda path: path.mkdir(), os.mkfifo],
    ids=["file", "link", "dangling link", "link to a socket", "directory", "pipe"],
)
def test_whatever_else_is_in_the_place_stays(directory, squat):
    path = directory / "api.sock"
    squat(path)
    before = path.lstat()
    assert "is no socket; it stays" in refused(path, CANNOT_CREATE)
    assert path.lstat().st_ino == before.st_ino


@AS_ROOT
def test_a_socket_of_another_user_stays(directory):
    path = directory / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    os.chown(path, 65534, 65534)
    assert "uid 65534" in refused(path, CANNOT_CREATE)
    assert path.is_socket()


def test_a_lock_that_is_a_link_is_not_followed(directory):
    path = directory / "api.sock"
    target = directory / "precious"
    target.write_text("precious")
    path.with_name("api.sock.lock").symlink_to(target)
    refused(path, CANNOT_CREATE)
    assert target.read_text() == "precious"


def test_only_the_socket_that_is_still_ours_is_removed(directory):
    path = directory / "api.sock"
    listener = bound(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        listener.close()
        assert path.is_socket()
    listener.close()


def test_a_path_that_no_address_holds_is_an_error_of_the_configuration(directory):
    assert "107 bytes" in refused(directory / ("x" * 108), BAD_CONFIG)


def test_a_path_in_a_place_that_is_no_directory_is_an_error(directory):
    (directory / "file").write_text("")
    refused(directory / "file" / "api.sock", CANNOT_CREATE)


def test_the_lock_ends_with_its_process(directory):
    path = directory / "api.sock"
    child = (
        "import sys, pathlib, time; from token_keeper.sidecar.server._sockets import *;"
        "kept = UnixListener.bind(pathlib.Path(sys.argv[1]), is_open=False); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", child, str(path)]) as process:
        try:
            eventually(path.exists)
            assert f"process {process.pid}" in refused(path, CANNOT_CREATE)
        finally:
            process.kill()
    bound(path).close()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.9.8.7", "127.9.8.7"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("localhost", "127.0.0.1"),
        ("LOCALHOST", "127.0.0.1"),
        ("0.0.0.0", None),
        ("", None),
        ("::", None),
        ("10.0.0.1", None),
        ("169.254.169.254", None),
        ("example.com", None),
        ("localhost.example.com", None),
        ("::ffff:127.0.0.1", None),
        ("::1%lo", None),
        ("127.1", None),
        ("0x7f000001", None),
    ],
)
def test_tcp_is_on_loopback_or_not_at_all(host, address):
    assert loopback_address(host) == address
    if address is None:
        with pytest.raises(CannotListenError, match="not on loopback") as caught:
            bind_tcp(host, 0)
        assert caught.value.code == BAD_CONFIG


def test_a_port_that_is_taken_is_an_error_with_its_number():
    with bind_tcp("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(CannotListenError, match=f"port {port}") as caught:
            bind_tcp("127.0.0.1", port)
        assert caught.value.code == CANNOT_CREATE


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/token-keeper/api.sock"),
        ({}, "/run/token-keeper/api.sock"),
        ({"XDG_RUNTIME_DIR": ""}, "/run/token-keeper/api.sock"),
        ({"XDG_RUNTIME_DIR": "relative"}, "/run/token-keeper/api.sock"),
    ],
)
def test_the_usual_place(environ, path):
    assert str(usual_path(environ)) == path
