"""Records and stores for tests, what was shown of them, and processes that use them."""

from __future__ import annotations

import base64
import itertools
import os
import subprocess
import sys
import textwrap
import time
import traceback
from pathlib import Path

from token_keeper import Secret
from token_keeper.store import DirectoryStore, Lease, Mark, Record, Slot, Store

NOBODY = 65_534
PATIENCE_S = 20.0
TESTS = str(Path(__file__).parent)
OWNER = "https://issuer.example/token client-1"

_serials = itertools.count(1)

PROGRAM = """
import os, signal, sys, time
from token_keeper import Secret
from token_keeper._errors import StoreError
from token_keeper.store import DirectoryStore, Mark, MemoryStore, Record

def a_record(text):
    return Record(owner="o", refresh_token=Secret(text), access_token=Secret("a" + text), rotations=len(text))

def tell(*words):
    print(*words, flush=True)
"""
"""What a process of `started` and `run_apart` begins with."""


def a_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def a_record(refresh_token: str | None = None, *, mark: Mark | None = None, **changed: object) -> Record:
    """Return a record with a value for every member, unlike any other."""
    serial = next(_serials)
    members: dict[str, object] = {
        "owner": OWNER,
        "refresh_token": Secret(refresh_token or f"canary-refresh-{serial}"),
        "access_token": Secret(f"canary-access-{serial}"),
        "received_at": 1_700_000_000.25,
        "expires_at": 1_700_003_600.5,
        "skew_s": -1.5,
        "rotations": serial,
        "seeds": ("0123456789abcdef", "fedcba9876543210"),
        "mark": mark,
    }
    return Record(**{**members, **changed})  # type: ignore[arg-type]


def a_mark() -> Mark:
    return Mark(sent_at=1_700_000_001.75, times=2, by="process 4711 on box")


def put(store: Store, record: Record, name: str = "chat") -> Slot:
    """Store *record*, and return its slot."""
    slot = store.slot(name)
    with leased(slot) as lease:
        lease.write(record)
    return slot


def leased(slot: Slot) -> Lease:
    lease = slot.try_lease()
    assert lease is not None, f"{slot.holder()} has it"
    return lease


def a_file(directory: Path, record: Record | None = None, name: str = "chat", **keys: str) -> Path:
    """Store a record in *directory*, and return its file."""
    put(DirectoryStore(directory, **keys), record or a_record(), name)  # type: ignore[arg-type]
    return directory / f"{name}.grant"


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def shown(error: BaseException | None) -> str:
    """Return everything that a program could show of *error*, but for the locals of the tests."""
    if error is None:
        return ""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if not frame.f_code.co_filename.startswith(TESTS)]
    assert ours, "it was raised by a test"
    parts = [repr(frame.f_locals) for frame in ours] + traceback.format_exception_only(error)
    parts += [shown(one) for one in (error.__cause__, error.__context__) if one and one.__traceback__]
    return "\n".join([*parts, repr(error), repr(vars(error)), repr(error.__cause__), repr(error.__context__)])


def run_apart(script: str, *arguments: object, timeout: float = 60) -> str:
    """Run *script* in a process of its own, and return what it printed: it forks, or changes its user."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM + textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.rstrip()


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start *script* in a process of its own, whose input and output are pipes."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM + textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    """Wait until *path* is there."""
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.005)
