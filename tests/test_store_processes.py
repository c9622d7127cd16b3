"""Processes on one store take turns, and whatever dies when, a record is whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from storing import PROGRAM, a_file, a_key, leased, run_apart, started

from token_keeper.store import DirectoryStore

HOLDS = """
lease = DirectoryStore(sys.argv[1]).slot("chat").try_lease()
tell(lease is not None)
sys.stdin.readline()
"""


def test_another_process_waits_until_the_lease_is_released(tmp_path: Path) -> None:
    slot = DirectoryStore(tmp_path).slot("chat")
    with started(HOLDS, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert slot.try_lease() is None
        assert slot.holder() == f"process {holder.pid}"
        holder.communicate("\n", timeout=20)
    assert slot.holder() == ""
    leased(slot).release()


def test_whoever_is_killed_has_released_the_lease(tmp_path: Path) -> None:
    slot = DirectoryStore(tmp_path).slot("chat")
    with started(HOLDS, tmp_path) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert slot.try_lease() is None
        holder.kill()
        holder.communicate()
    assert slot.holder() == "", "a process that is dead has nothing"
    leased(slot).release()


def test_a_forked_child_does_not_keep_the_lease_of_its_dead_parent(tmp_path: Path) -> None:
    told = run_apart(
        """
        slot = DirectoryStore(sys.argv[1]).slot("chat")
        is_forked, end = os.pipe(), os.pipe()
        parent = os.fork()
        if parent == 0:
            lease = slot.try_lease()
            lease.reserve()
            if os.fork() == 0:
                os.close(end[1])
                os.write(is_forked[1], b"x")
                os.read(end[0], 1)
                os._exit(0)
            time.sleep(60)
        os.read(is_forked[0], 1)
        tell(slot.try_lease() is None)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        with slot.try_lease() as lease:
            lease.write(a_record("r"))
        tell(slot.read() == a_record("r"), sorted(os.listdir(sys.argv[1])))
        """,
        tmp_path / "store",
    )
    assert told.splitlines() == ["True", "True ['chat.grant', 'chat.lock']"]


def test_a_forked_child_has_no_part_in_the_lease_of_its_living_parent(tmp_path: Path) -> None:
    told = run_apart(
        """
        slot = DirectoryStore(sys.argv[1]).slot("chat")
        lease = slot.try_lease()
        lease.reserve()
        if os.fork() == 0:
            for change in (lease.read, lease.reserve, lambda: lease.write(a_record("child"))):
                try:
                    change()
                except StoreError as problem:
                    tell(problem)
            tell(slot.try_lease())
            lease.release()
            os._exit(0)
        os.wait()
        tell(slot.try_lease())
        lease.write(a_record("r"))
        lease.release()
        tell(slot.read() == a_record("r"))
        """,
        tmp_path / "store",
    )
    lines = told.splitlines()
    assert len(lines) == 6
    assert all("the right to change it was given back" in line for line in lines[:3])
    assert lines[3:] == ["None", "None", "True"]


def test_a_program_that_is_started_meanwhile_does_not_inherit_the_lease(tmp_path: Path) -> None:
    with leased(DirectoryStore(tmp_path).slot("chat")) as lease:
        lease.reserve()
        listing = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in listing.stdout


def test_a_holder_on_another_machine_is_named_with_it(tmp_path: Path) -> None:
    path = a_file(tmp_path).with_suffix(".lock")
    path.write_text("4711 123456 other-machine\n")
    assert DirectoryStore(tmp_path).slot("chat").holder() == "process 4711 on other-machine"


@pytest.mark.parametrize("content", ["", "garbage", "1 2 3 4", "x 1 m", "1 0 \x1b[31m", "9" * 1_000])
def test_a_lock_file_that_holds_something_else_names_nobody(tmp_path: Path, content: str) -> None:
    a_file(tmp_path).with_suffix(".lock").write_text(content)
    assert DirectoryStore(tmp_path).slot("chat").holder() == ""


def test_eight_processes_change_one_record_without_losing_a_change(tmp_path: Path) -> None:
    told = run_apart(
        """
        from dataclasses import replace
        slot = DirectoryStore(sys.argv[1]).slot("chat")
        with slot.try_lease() as lease:
            lease.write(Record(owner="o"))
        for process in range(8):
            if os.fork() == 0:
                rounds = 0
                while rounds < 25:
                    lease = slot.try_lease()
                    if lease is None:
                        time.sleep(0.0005)
                        continue
                    with lease:
                        found = lease.read()
                        lease.write(replace(found, rotations=found.rotations + 1))
                    rounds += 1
                os._exit(0)
        for process in range(8):
            assert os.wait()[1] == 0
        tell(slot.read().rotations, sorted(os.listdir(sys.argv[1])))
        """,
        tmp_path / "store",
    )
    assert told == "200 ['chat.grant', 'chat.lock']"


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """Yield a directory that needs no disk: a kill does not care, and syncing takes most of the time."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as directory:
        yield Path(directory)


@pytest.mark.parametrize("key", [None, a_key()], ids=["plain", "sealed"])
def test_a_kill_at_any_moment_leaves_the_old_record_or_the_new_one(in_memory: Path, key: str | None) -> None:
    # 1000 kills, 8 at a time, of small processes that write until then: about 7 s.
    told = run_apart(
        """
        import random
        key = sys.argv[2] if len(sys.argv) > 2 else None
        whole = {text: a_record(text) for text in (letter * 3000 for letter in "ABCDEFGH")}
        names = [f"grant-{number}" for number in range(8)]

        def write(name, records, ready):
            slot = DirectoryStore(sys.argv[1], key=key).slot(name)
            if ready is not None:
                os.write(ready, b"x")
            for record in records:
                with slot.try_lease() as lease:
                    lease.reserve()
                    lease.reserve()
                    lease.write(record)
                    lease.write(record)

        for name in names:
            write(name, [whole["A" * 3000]], None)
        files = sorted(os.listdir(sys.argv[1]))
        left, seen = 0, set()
        for kill in range(125):
            ready = os.pipe()
            children = []
            for name in names:
                child = os.fork()
                if child == 0:
                    write(name, list(whole.values()) * 1000, ready[1])
                children.append(child)
            for child in children:
                os.read(ready[0], 1)
            for child in children:
                time.sleep(random.uniform(0, 0.002))
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            os.close(ready[0]), os.close(ready[1])
            left += sum(name.endswith(".tmp") for name in os.listdir(sys.argv[1]))
            store = DirectoryStore(sys.argv[1], key=key)
            for name in names:
                found = store.slot(name).read()
                assert found == whole[found.refresh_token.reveal()], kill
                seen.add(found.refresh_token.reveal()[0])
                store.slot(name).try_lease().release()
            assert sorted(os.listdir(sys.argv[1])) == files
        tell(left, len(seen))
        """,
        in_memory / "store",
        *([key] if key else []),
    )
    left, seen = map(int, told.split())
    assert left > 100, "too few kills hit a write in its middle"
    assert seen > 1


def test_the_order_of_system_calls_survives_a_power_cut(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is missing: apt-get install strace")
    script = """
    with DirectoryStore(sys.argv[1]).slot("chat").try_lease() as lease:
        lease.reserve()
        lease.write(a_record("r"))
    """
    log = tmp_path / "log"
    ended = subprocess.run(
        [
            *(
                "strace",
                "-y",
                "-o",
                log,
                "-e",
                "trace=mkdir,flock,fallocate,ftruncate,write,fsync,rename,renameat",
            ),
            *(sys.executable, "-c", PROGRAM + textwrap.dedent(script), tmp_path / "store"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        pytest.skip(f"strace may not be used here: {ended.stderr[:200]}")
    calls = [
        line for line in log.read_text().splitlines() if str(tmp_path / "store") in line or "fsync" in line
    ]
    steps = [
        rf'mkdir\("{tmp_path}/store", 0700\)',
        rf"fsync\(\d+<{tmp_path}>\)",
        r"flock\(\d+<[^>]*chat\.lock>, LOCK_EX\|LOCK_NB",
        r"fallocate\(\d+<[^>]*\.tmp>, 0, 0, 1\d{5}\)",
        r"ftruncate\(\d+<[^>]*\.tmp>",
        r"write\(\d+<[^>]*\.tmp>",
        r"fsync\(\d+<[^>]*\.tmp>\)",
        r'renameat?\(.*\.tmp", .*"chat\.grant"\)',
        rf"fsync\(\d+<{tmp_path}/store>\)",
        r"flock\(\d+<[^>]*chat\.lock>, LOCK_UN",
    ]
    position = 0
    for step in steps:
        following = [place for place in range(position, len(calls)) if re.match(step, calls[place])]
        assert following, (step, calls[position:])
        position = following[0] + 1
