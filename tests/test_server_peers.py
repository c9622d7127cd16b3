"""Who may connect to the Unix socket: by the kernel's word, before a byte is read. With real users."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from letting_in import HOT, serving
from sidecar import a_config, a_request, eventually, running

from token_keeper.sidecar.server._peers import PeerRule, groups_of, peer_of
from token_keeper.testing import FakeBackend

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
STRANGER, GROUP, OTHER_GROUP = 65_534, 65_533, 65_532

CLIENT = """
import os, socket, sys
path, uid, gid, groups, request = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
os.setgroups([int(group) for group in groups.split(",") if group])
os.setgid(gid)
os.setuid(uid)
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(5)
    sock.connect(path)
    received = b""
    try:
        sock.sendall(request.encode())
        while chunk := sock.recv(65536):
            received += chunk
            if b"\\r\\n\\r\\n" in received:
                break
    except ConnectionError:
        pass
sys.stdout.buffer.write(received)
"""


def asked_as(sidecar, *, uid=STRANGER, gid=STRANGER, groups=(), request=None):
    """Send a request as another user, and return all that came back."""
    request = (request or a_request("GET", "/v1/tokens/chat")).decode()
    told = [str(sidecar.socket_path), str(uid), str(gid), ",".join(map(str, groups)), request]
    done = subprocess.run([sys.executable, "-c", CLIENT, *told], capture_output=True, check=True)
    return done.stdout


def opened(sidecar):
    """Let other users reach the directories above the socket, as /run is."""
    for place in (sidecar.directory, sidecar.directory / "run"):
        place.chmod(0o711)
    return sidecar


@AS_ROOT
def test_another_user_is_kept_out_by_the_modes():
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        opened(sidecar)
        sidecar.socket_path.parent.chmod(0o700)
        with pytest.raises(subprocess.CalledProcessError) as caught:
            asked_as(sidecar)
        assert b"PermissionError" in caught.value.stderr


@AS_ROOT
@pytest.mark.parametrize("path", ["/v1/tokens/chat", "/healthz", "/metrics", "/"])
def test_another_user_who_gets_past_the_modes_gets_no_byte(path):
    with FakeBackend() as backend, running(a_config(backend.url)) as sidecar:
        opened(sidecar).until_token()
        sidecar.socket_path.parent.chmod(0o711)
        sidecar.socket_path.chmod(0o666)
        assert asked_as(sidecar, request=a_request("GET", path)) == b""
        lines = eventually(lambda: sidecar.logged("peerRefused"))
        assert lines[0]["uid"] == STRANGER


@AS_ROOT
def test_allowed_users_read_tokens_and_do_not_reload():
    server = f"allow_uids = [{STRANGER}]"
    with FakeBackend() as backend, running(a_config(backend.url, server=server)) as sidecar:
        opened(sidecar).until_token()
        reload = a_request("POST", "/v1/reload", json_body={})
        assert asked_as(sidecar).startswith(b"HTTP/1.1 200")
        assert asked_as(sidecar, request=reload).startswith(b"HTTP/1.1 403")
        assert asked_as(sidecar, uid=STRANGER - 1) == b""
        assert sidecar.ask("POST", "/v1/reload", json_body={}).status == 200


@AS_ROOT
@pytest.mark.parametrize(
    ("gid", "groups", "gets_in"),
    [
        (GROUP, (), True),
        (OTHER_GROUP, (GROUP,), True),
        (OTHER_GROUP, (*range(1000, 1500), GROUP), True),
        (OTHER_GROUP, (1000, OTHER_GROUP), False),
        (OTHER_GROUP, (), False),
    ],
    ids=["main group", "another group", "one of 500 groups", "other groups", "no group"],
)
def test_members_of_allowed_groups_get_in(gid, groups, gets_in):
    server = f"allow_gids = [{GROUP}]"
    with FakeBackend() as backend, running(a_config(backend.url, server=server)) as sidecar:
        opened(sidecar).until_token()
        answer = asked_as(sidecar, gid=gid, groups=groups)
        assert answer.startswith(b"HTTP/1.1 200") if gets_in else answer == b""


def test_our_own_user_and_root_are_always_let_in():
    rule = PeerRule(own=1000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
        assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
        for uid in (0, 1000):
            assert rule.admits(peer._replace(uid=uid), ours)
            assert rule.is_owner(peer._replace(uid=uid))
        assert not rule.admits(peer._replace(uid=1001), ours)
        assert not PeerRule(own=1000, uids=frozenset({1001})).is_owner(peer._replace(uid=1001))
        assert groups_of(ours) == frozenset(os.getgroups())


def test_a_stranger_is_gone_before_a_request_is_read():
    async def test(site):
        line = await site.unix()
        line.send(a_request("GET", HOT))
        assert await line.rest() == b""
        assert not site.server.crowd.guests
        assert [line["event"] for line in site.logged].count("peerRefused") == 1
        for _ in range(20):
            assert await (await site.unix()).rest() == b""
        assert [line["event"] for line in site.logged].count("peerRefused") == 1

    class Nobody(PeerRule):
        def admits(self, _peer, _connection):
            return False

    serving(test, peers=Nobody(own=0))
