"""Takes from this process what a hardened service does not have, shows it, and becomes the service.

Runs inside the mounts that `confinement.py` makes, on the standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN = 65, 1
ALLOW = 0x7FFF0000
EPERM = 0x00050000 | errno.EPERM
EQUALS = 4


class _Compare(ctypes.Structure):
    """libseccomp's `scmp_arg_cmp`."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("mask", ctypes.c_uint64),
    )


def filter_calls(allowed: list[str], families: list[str]) -> None:
    """Let no other system calls pass, and no other families of sockets."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(EPERM)))
    for name in allowed:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if name != "socket" and number >= 0:
            assert library.seccomp_rule_add_array(rules, ctypes.c_uint32(ALLOW), number, 0, None) == 0, name
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in families:
        only = _Compare(0, EQUALS, getattr(socket, family), 0)
        assert (
            library.seccomp_rule_add_array(rules, ctypes.c_uint32(ALLOW), number, 1, ctypes.byref(only)) == 0
        )
    assert library.seccomp_load(rules) == 0


def forbid_writable_code() -> None:
    """As `MemoryDenyWriteExecute=`; the programs that we start inherit it."""
    library = ctypes.CDLL(None, use_errno=True)
    assert library.prctl(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())


def errno_of(call: Callable[..., object], *arguments: object) -> int:
    """Return the number of the error that *call* raises, or 0."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def show(*, is_filtered: bool) -> None:
    """Fail unless all of it is gone."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert os.getuid() != 0
    assert os.getgroups() == json.loads(os.environ["CONFINED_GROUPS"])
    for place in ("/tmp", "/opt/token-keeper", "/opt/python"):
        assert errno_of(os.open, f"{place}/written", os.O_CREAT | os.O_WRONLY) in {errno.EROFS, errno.EACCES}
        assert os.statvfs(place).f_flag & os.ST_RDONLY, f"{place} can be written"
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    assert errno_of(mmap.mmap, -1, 4096, mmap.MAP_PRIVATE, everything) == errno.EACCES
    if is_filtered:
        assert errno_of(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW) == errno.EPERM


def main() -> None:
    """Run `confine.py COMMAND...`."""
    allowed = json.loads(os.environ["CONFINED_CALLS"])
    forbid_writable_code()
    if allowed:
        filter_calls(allowed, json.loads(os.environ["CONFINED_FAMILIES"]))
    show(is_filtered=bool(allowed))
    os.execv(sys.argv[1], sys.argv[1:])


main()
