"""Who is at the other end of a Unix socket, and whether they may be: by the kernel's word alone."""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import NamedTuple

SO_PEERGROUPS = 59
"""As in Linux's asm-generic/socket.h; Python has no name for it."""
USUAL_GROUPS = 256
GROUPS_MAX = 65_536
"""As many as Linux allows a process."""
_CREDENTIALS = struct.Struct("iII")


class Peer(NamedTuple):
    """A process that connected, as it was at that moment."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class PeerRule:
    """Which peers may connect: root and *own* always.

    Args:
        own: Our own uid.
        uids: Further users.
        gids: Groups whose members may, by their main group or another.
    """

    own: int
    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()

    def admits(self, peer: Peer, connection: socket.socket) -> bool:
        """Whether *peer*, at the other end of *connection*, may connect."""
        if peer.uid in {0, self.own} or peer.uid in self.uids:
            return True
        return bool(self.gids) and (peer.gid in self.gids or not self.gids.isdisjoint(groups_of(connection)))

    def is_owner(self, peer: Peer) -> bool:
        """Whether *peer* may do what only the operator does."""
        return peer.uid in {0, self.own}


def own_rule(uids: tuple[int, ...] = (), gids: tuple[int, ...] = ()) -> PeerRule:
    """Return the rule of this process, with allow-lists."""
    return PeerRule(os.geteuid(), frozenset(uids), frozenset(gids))


def peer_of(connection: socket.socket) -> Peer:
    """Return who opened *connection*, a Unix socket."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(packed))


def groups_of(connection: socket.socket) -> frozenset[int]:
    """Return the supplementary groups of the peer; empty if the kernel does not say."""
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * USUAL_GROUPS)
    except OSError as error:
        packed = _many_groups(connection.fileno()) if error.errno == errno.ERANGE else b""
    return frozenset(group for (group,) in struct.iter_unpack("I", packed))


def _many_groups(descriptor: int) -> bytes:
    import ctypes  # noqa: PLC0415 - For users in hundreds of groups only.

    # Python's getsockopt returns at most 1024 bytes, and a user of a large directory has more groups.
    packed = ctypes.create_string_buffer(4 * GROUPS_MAX)
    length = ctypes.c_uint32(len(packed))
    libc = ctypes.CDLL(None)
    failed = libc.getsockopt(descriptor, socket.SOL_SOCKET, SO_PEERGROUPS, packed, ctypes.byref(length))
    return b"" if failed else packed.raw[: length.value]
