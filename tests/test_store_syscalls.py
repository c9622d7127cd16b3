"""What a store does when the system says no, or the process dies, at one certain system call."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from storing import PROGRAM, a_file, a_record, leased, names_in

from token_keeper.store import DirectoryStore

WRITES = """
try:
    with DirectoryStore(sys.argv[1]).slot("chat").try_lease() as lease:
        lease.reserve()
        lease.write(a_record("new"))
        tell("stored")
except StoreError as problem:
    tell(problem)
"""


def traced(store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program that stores a record, under `strace`."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: apt-get install strace")
    command = [sys.executable, "-c", PROGRAM + textwrap.dedent(WRITES), str(store)]
    ended = subprocess.run(
        ["strace", "-f", "-o", str(store.parent / "log"), *options, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in ended.stderr:
        pytest.skip(f"strace may not be used here: {ended.stderr[:200]}")
    return ended


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return a_file(tmp_path / "store", a_record("old")).parent


def kept(store: Path) -> str:
    found = DirectoryStore(store).slot("chat").read()
    assert found is not None
    assert found.refresh_token is not None
    return found.refresh_token.reveal()


FAULTS = {
    "no locks": ("flock:error=ENOLCK", "chat.lock: cannot be locked: its file system has no locks", "old"),
    "locks unknown": ("flock:error=EOPNOTSUPP", "put the store on a local disk", "old"),
    "a device that fails": (
        "fsync:error=EIO:when=1",
        "was not written: Input/output error.*as it was",
        "old",
    ),
    "a directory that fails": ("fsync:error=EIO:when=2", "was written, but its directory.*power cut", "new"),
    "a directory that cannot be synced": ("fsync:error=EINVAL:when=2", "^stored$", "new"),
    "no room to reserve": ("fallocate:error=ENOSPC", "has no room for a new token: No space left", "old"),
    "over the quota": ("fallocate:error=EDQUOT", "has no room.*raise the quota of uid", "old"),
    "no reservations": ("fallocate:error=EOPNOTSUPP", "^stored$", "new"),
    "a file that cannot be moved": ("rename,renameat,renameat2:error=EACCES", "was not written: Perm", "old"),
}


@pytest.mark.parametrize(("fault", "told", "held"), FAULTS.values(), ids=FAULTS.keys())
def test_what_the_system_refuses_is_said_and_leaves_a_whole_record(
    store: Path, fault: str, told: str, held: str
) -> None:
    calls = fault.partition(":")[0]
    ended = traced(store, "--seccomp-bpf", "-e", f"trace={calls}", "-e", f"inject={fault}")
    assert re.search(told, ended.stdout.rstrip())
    assert kept(store) == held
    assert names_in(store) == ["chat.grant", "chat.lock"]


STEPS = {
    "the lease": ("flock:when=1", "old"),
    "the lock of the new file": ("flock:when=2", "old"),
    "the reservation": ("fallocate:when=1", "old"),
    "the shortening": ("ftruncate:when=2", "old"),
    "the syncing": ("fsync:when=1", "old"),
    "the move": ("rename,renameat,renameat2:when=1", "old"),
    "the syncing of the directory": ("fsync:when=2", "new"),
    "the release": ("flock:when=3", "new"),
}


@pytest.mark.parametrize(("step", "held"), STEPS.values(), ids=STEPS.keys())
def test_a_kill_before_each_step_leaves_a_whole_record_and_a_free_lock(
    store: Path, step: str, held: str
) -> None:
    calls, _, which = step.partition(":")
    # The process dies as it enters the call, which is not carried out. About 1 s: each call stops it.
    ended = traced(store, "-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:{which}")
    assert ended.returncode == -signal.SIGKILL
    assert kept(store) == held
    leased(DirectoryStore(store).slot("chat")).release()
    assert names_in(store) == ["chat.grant", "chat.lock"], "the next lease sweeps"
