"""A store remembers grants, and gives the right to change one to one at a time."""

from __future__ import annotations

import gc
import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from storing import PATIENCE_S, a_file, a_key, a_mark, a_record, leased, names_in, put, run_apart

from token_keeper import ConfigError, Secret
from token_keeper._errors import StoreError
from token_keeper.store import DirectoryStore, MemoryStore, Record, Store
from token_keeper.store._lock import locked, unlock

Making = Callable[[Path], Store]

STORES: dict[str, Making] = {
    "memory": lambda _: MemoryStore(),
    "plain": DirectoryStore,
    "sealed": lambda path: DirectoryStore(path, key=a_key()),
}


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path / "store")


@pytest.mark.parametrize(
    "record",
    [
        Record(owner="o"),
        a_record(),
        a_record(mark=a_mark()),
        a_record('all of "it" \\ \x00 \u20ac \U0001f511 \ud800'),
        a_record("r" * 16_384, access_token=Secret("\\" * 16_384)),
    ],
    ids=["nothing", "everything", "a mark", "odd characters", "long tokens"],
)
def test_what_was_written_is_read(store: Store, record: Record) -> None:
    slot = put(store, record)
    assert slot.read() == record
    with leased(slot) as lease:
        assert lease.read() == record


def test_what_was_never_written_is_nothing(store: Store) -> None:
    assert store.slot("chat").read() is None
    with leased(store.slot("chat")) as lease:
        assert lease.read() is None


def test_the_last_one_who_wrote_is_right(store: Store) -> None:
    first, second = a_record(), a_record()
    slot = put(store, first)
    put(store, second)
    assert slot.read() == second


def test_what_was_removed_is_gone_and_can_be_removed_again(store: Store) -> None:
    slot = put(store, a_record())
    with leased(slot) as lease:
        lease.remove()
        lease.remove()
        assert lease.read() is None
    assert slot.read() is None


def test_grants_do_not_meddle_with_each_other(store: Store) -> None:
    one, other = a_record(), a_record()
    with leased(store.slot("one")) as lease, leased(store.slot("other")) as beside:
        lease.write(one)
        beside.write(other)
    assert (store.slot("one").read(), store.slot("other").read()) == (one, other)


def test_one_has_the_right_to_change_it_until_it_is_released(store: Store) -> None:
    slot = store.slot("chat")
    lease = leased(slot)
    assert slot.try_lease() is None
    assert store.slot("chat").try_lease() is None
    assert slot.holder() == f"process {os.getpid()}"
    lease.release()
    assert slot.holder() == ""
    leased(slot).release()


def test_releasing_twice_takes_it_from_nobody(store: Store) -> None:
    first = leased(store.slot("chat"))
    first.release()
    second = leased(store.slot("chat"))
    first.release()
    assert store.slot("chat").try_lease() is None
    second.release()


def test_what_was_released_changes_nothing_any_more(store: Store) -> None:
    slot = put(store, a_record("kept"))
    lease = leased(slot)
    lease.release()
    for change in (lease.remove, lease.reserve, lambda: lease.write(a_record())):
        with pytest.raises(StoreError, match=r"given back\. Take it again"):
            change()
    with pytest.raises(StoreError, match="given back"):
        lease.read()
    found = slot.read()
    assert found is not None
    assert found.refresh_token == Secret("kept")


def test_a_lease_that_nobody_has_any_more_is_released(store: Store) -> None:
    leased(store.slot("chat"))
    gc.collect()
    leased(store.slot("chat")).release()


def test_of_many_threads_one_at_a_time_has_the_right(store: Store) -> None:
    inside: list[int] = []
    most: list[int] = []
    slot = put(store, a_record(rotations=0))

    def work() -> None:
        rounds = 0
        while rounds < 5:
            lease = slot.try_lease()
            if lease is None:
                continue
            with lease:
                inside.append(1)
                most.append(len(inside))
                found = lease.read()
                assert found is not None
                lease.write(replace(found, rotations=found.rotations + 1))
                inside.pop()
            rounds += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = slot.read()
    assert found is not None
    assert (max(most), found.rotations) == (1, 20)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "-x", "a b", "n" * 65, "\u00e9", "a\n", 7, None]
)
def test_what_is_no_name_is_refused(store: Store, name: object) -> None:
    with pytest.raises(ConfigError, match=r"^stored_as: must be 1 to 64 letters"):
        store.slot(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a", "chat.primary", "A-b_c.9", "n" * 64])
def test_what_is_a_name_is_taken(store: Store, name: str) -> None:
    record = a_record()
    assert put(store, record, name).read() == record


def test_nothing_is_touched_before_something_is_stored(tmp_path: Path) -> None:
    slot = DirectoryStore(tmp_path / "store", key=a_key()).slot("chat")
    assert (slot.read(), slot.holder()) == (None, "")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_its_owner_can_see_what_is_in_a_store(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        a_file(tmp_path / "store")
    finally:
        os.umask(before)
    paths = [tmp_path / "store", *sorted((tmp_path / "store").iterdir())]
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in paths} == {
        "store": 0o700,
        "chat.grant": 0o600,
        "chat.lock": 0o600,
    }


def test_a_person_recognises_a_record(tmp_path: Path) -> None:
    document = json.loads(a_file(tmp_path, a_record("the-token")).read_text())
    assert (document["format"], document["version"]) == ("token-keeper grant", 1)
    assert (document["grant"]["name"], document["grant"]["refresh_token"]) == ("chat", "the-token")


def test_a_slot_says_which_file_to_watch(tmp_path: Path) -> None:
    slot = DirectoryStore(tmp_path).slot("chat")
    assert slot.path == tmp_path / "chat.grant"
    assert slot.place == str(tmp_path / "chat.grant")
    assert MemoryStore().slot("chat").path is None
    assert MemoryStore().slot("chat").place == "memory (chat)"


def test_a_relative_directory_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = DirectoryStore("store")
    monkeypatch.chdir("/")
    assert store.slot("chat").place == str(tmp_path / "store" / "chat.grant")


@pytest.mark.parametrize("directory", ["", "a\0b", "~/store", b"bytes", None, 7])
def test_what_is_no_directory_is_refused(directory: object) -> None:
    with pytest.raises(ConfigError, match=r"^directory: (must be the path|starts with ~)"):
        DirectoryStore(directory)  # type: ignore[arg-type]


def test_a_temporary_file_that_a_killed_run_left_is_swept_with_the_first_lease(tmp_path: Path) -> None:
    (tmp_path / ".token-keeper.0123456789abcdef.tmp").write_text("left")
    put(DirectoryStore(tmp_path), a_record())
    assert names_in(tmp_path) == ["chat.grant", "chat.lock"]


def test_what_another_lease_has_reserved_is_not_swept(tmp_path: Path) -> None:
    with leased(DirectoryStore(tmp_path).slot("chat")) as lease:
        lease.reserve()
        put(DirectoryStore(tmp_path), a_record(), "other")
        record = a_record()
        lease.write(record)
        assert lease.read() == record


def test_a_reservation_that_was_not_used_goes_with_the_lease(tmp_path: Path) -> None:
    with leased(DirectoryStore(tmp_path).slot("chat")) as lease:
        lease.reserve()
        lease.reserve()
        lease.write(a_record())
    assert names_in(tmp_path) == ["chat.grant", "chat.lock"]


def test_a_lock_file_that_somebody_removed_is_made_anew_and_excludes_again(tmp_path: Path) -> None:
    slot = put(DirectoryStore(tmp_path), a_record())
    (tmp_path / "chat.lock").unlink()
    with leased(slot):
        assert slot.try_lease() is None


def test_who_waited_for_a_lock_file_that_was_removed_meanwhile_has_the_new_one(tmp_path: Path) -> None:
    directory, path = os.open(tmp_path, os.O_RDONLY), tmp_path / "one.lock"
    try:
        first = locked(directory, path.name, str(path))
        assert first is not None
        with ThreadPoolExecutor(1) as waiting:
            second = waiting.submit(locked, directory, path.name, str(path), wait=True)
            until_opened_twice(path)
            path.unlink()
            unlock(first)
            held = second.result(PATIENCE_S)
        assert held is not None
        assert os.path.samestat(os.fstat(held), path.stat())
        unlock(held)
    finally:
        os.close(directory)


def until_opened_twice(path: Path) -> None:
    """Wait until a second descriptor of ours leads to *path*."""
    end = time.monotonic() + PATIENCE_S
    while sum(os.path.realpath(one) == str(path) for one in Path("/proc/self/fd").iterdir()) < 2:
        assert time.monotonic() < end, "nobody waits for it"
        time.sleep(0.005)


def test_no_descriptor_is_left_open(store: Store) -> None:
    slot = put(store, a_record())
    slot.read()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with leased(slot) as lease:
            assert slot.try_lease() is None
            lease.reserve()
            lease.reserve()
            lease.write(a_record())
        slot.read()
        slot.holder()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_directory_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    put(DirectoryStore(tmp_path / "link"), a_record())
    assert "chat.grant" in names_in(tmp_path / "real")


def test_a_repr_says_where_and_no_more(tmp_path: Path) -> None:
    key = a_key()
    assert repr(DirectoryStore(tmp_path, key=key)) == f"DirectoryStore('{tmp_path}', sealed)"
    assert repr(DirectoryStore(tmp_path)) == f"DirectoryStore('{tmp_path}', not sealed)"
    slot = put(MemoryStore(), a_record())
    assert not re.search("canary", repr(slot) + repr(leased(slot)))


def test_a_child_of_a_fork_cannot_spend_what_its_parent_has_in_memory() -> None:
    told = run_apart(
        """
        used, unused = MemoryStore(), MemoryStore()
        with used.slot("chat").try_lease() as lease:
            lease.write(a_record("r"))
        if os.fork() == 0:
            with unused.slot("chat").try_lease() as lease:
                lease.write(a_record("s"))
            for call in (used.slot("chat").read, used.slot("chat").try_lease):
                try:
                    call()
                except StoreError as problem:
                    tell(problem)
            os._exit(0)
        os.wait()
        tell(used.slot("chat").read() == a_record("r"), unused.slot("chat").read())
        """
    )
    lines = told.splitlines()
    assert len(lines) == 3
    assert all("cannot be used after a fork" in line for line in lines[:2])
    assert lines[2] == "True None"


def test_a_store_without_keys_needs_neither_cryptography_nor_keyring(tmp_path: Path) -> None:
    told = run_apart(
        """
        with DirectoryStore(sys.argv[1]).slot("chat").try_lease() as lease:
            lease.write(a_record("r"))
        tell(sorted({"cryptography", "keyring", "httpx"} & set(sys.modules)))
        """,
        tmp_path / "store",
    )
    assert told == "[]"
