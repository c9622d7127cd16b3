"""What is wrong with a store is said clearly, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from delivering import mounted, needs_root
from storing import NOBODY, a_file, a_key, a_mark, a_record, leased, names_in, put, run_apart, shown

from token_keeper import Secret
from token_keeper._errors import StoreError
from token_keeper.store import DirectoryStore, Record

KEY = a_key()
KINDS: dict[str, dict[str, str]] = {"plain": {}, "sealed": {"key": KEY}}


def refused(directory: Path, **keys: str) -> StoreError:
    """Return why the record cannot be used: the same for each who reads, and nobody changes it."""
    path = directory / "chat.grant"
    before = path.read_bytes() if path.is_file() else None
    slot = DirectoryStore(directory, **keys).slot("chat")  # type: ignore[arg-type]
    with pytest.raises(StoreError) as reading:
        slot.read()
    with leased(slot) as lease:
        for change in (lease.read, lease.reserve, lease.remove, lambda: lease.write(a_record())):
            with pytest.raises(StoreError) as changing:
                change()
            assert str(changing.value) == str(reading.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert not [name for name in names_in(directory) if name.endswith(".tmp")]
    assert reading.value.place == str(path)
    return reading.value


@pytest.fixture(params=sorted(KINDS))
def keys(request: pytest.FixtureRequest) -> dict[str, str]:
    return KINDS[request.param]


def test_a_record_that_was_cut_off_anywhere_is_not_taken(tmp_path: Path, keys: dict[str, str]) -> None:
    path = a_file(tmp_path, a_record(mark=a_mark()), **keys)
    whole = path.read_bytes()
    slot = DirectoryStore(tmp_path, **keys).slot("chat")  # type: ignore[arg-type]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match="move it away to start anew"):
            slot.read()
    path.write_bytes(whole[: len(whole) // 2])
    assert "was cut off. It was left as it is" in str(refused(tmp_path, **keys))


def test_a_record_of_which_any_bit_was_flipped_is_not_taken(tmp_path: Path, keys: dict[str, str]) -> None:
    path = a_file(tmp_path, Record(owner="o", refresh_token=Secret("canary")), **keys)
    whole = path.read_bytes()
    slot = DirectoryStore(tmp_path, **keys).slot("chat")  # type: ignore[arg-type]
    for place in range(len(whole)):
        # Each byte, and of it another bit each time: all would take minutes.
        for bit in {place % 8, (place + 3) % 8}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(StoreError, match="left as it is"):
                slot.read()
    path.write_bytes(whole.replace(b"canary", b"sparrow") if not keys else whole.replace(b"gA", b"gB"))
    assert "is damaged: its content is not what its checksum says" in str(refused(tmp_path, **keys))


def test_whatever_is_appended_is_noticed(tmp_path: Path, keys: dict[str, str]) -> None:
    path = a_file(tmp_path, **keys)
    path.write_bytes(path.read_bytes() + b" ")
    assert "is damaged" in str(refused(tmp_path, **keys))


FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "a line feed": b"\n",
    "zeros": bytes(4_096),
    "text": b"canary-refresh-token\n",
    "no text": b"\xff\xfe\x00canary",
    "another JSON": b'{"refresh_token": "canary"}',
    "a list": b"[1, 2]",
    "another format": b'{"format": "canary", "version": 1}',
    "no version": b'{"format": "token-keeper grant"}',
    "a version that is none": b'{"format": "token-keeper grant", "version": true, "grant": {}}',
    "an older version": b'{"format": "token-keeper grant", "version": 0, "grant": {}}',
    "no checksum": b'{"format": "token-keeper grant", "version": 1, "grant": {"name": "chat"}}',
    "deep": b'{"format":' * 100_000,
    "a huge number": b'{"format": "token-keeper grant", "version": 1' + b"0" * 5_000 + b"}",
    "an infinite number": b'{"format": "token-keeper grant", "version": 1, "grant": 1e999}',
    "too large": b"{" + b" " * 1_100_000 + b"}",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_another_program_wrote_is_neither_used_nor_overwritten(
    tmp_path: Path, content: bytes, keys: dict[str, str]
) -> None:
    path = a_file(tmp_path)
    path.write_bytes(content)
    problem = refused(tmp_path, **keys)
    assert "was left as it is; move it away to start anew" in str(problem)
    assert "canary" not in shown(problem)


def test_what_was_garbled_after_it_was_read_under_a_lease_is_not_overwritten(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    with leased(DirectoryStore(tmp_path).slot("chat")) as lease:
        lease.read()
        path.write_bytes(b"garbage")
        with pytest.raises(StoreError):
            lease.read()
        with pytest.raises(StoreError):
            lease.write(a_record())
    assert path.read_bytes() == b"garbage"


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"name": "chat"},
        {"refresh_token": 7},
        {"owner": None},
        {"rotations": -1},
        {"rotations": 1.5},
        {"expires_at": "soon"},
        {"expires_at": True},
        {"expires_at": 10**400},
        {"seeds": [1]},
        {"seeds": None},
        {"mark": {"sent_at": 1.0}},
        {"mark": "sent"},
        {"name": 7},
    ],
    ids=lambda body: json.dumps(body)[:40],
)
def test_a_record_with_a_right_checksum_and_wrong_content_is_not_taken(tmp_path: Path, body: object) -> None:
    from token_keeper.store._format import _laid_out

    path = a_file(tmp_path)
    whole = json.loads(path.read_bytes())["grant"]
    path.write_bytes(_laid_out("grant", {**whole, **body} if isinstance(body, dict) and len(body) else body))
    if body == {"name": "chat"}:
        path.write_bytes(_laid_out("grant", body))
    assert "is no record of token_keeper" in str(refused(tmp_path))


def test_a_record_of_a_newer_version_says_so(tmp_path: Path, keys: dict[str, str]) -> None:
    path = a_file(tmp_path)
    path.write_text('{"format": "token-keeper grant", "version": 2, "else": 1}')
    problem = str(refused(tmp_path, **keys))
    assert "was written by a newer token_keeper (format 2, this one knows 1)" in problem
    assert "update this one" in problem


def test_a_record_under_another_name_is_not_taken(tmp_path: Path, keys: dict[str, str]) -> None:
    shutil.copy(a_file(tmp_path, name="mail", **keys), tmp_path / "chat.grant")
    problem = str(refused(tmp_path, **keys))
    assert "holds the grant mail, not chat: it was renamed or copied. It was left as it is" in problem


def test_two_sealed_records_cannot_be_swapped(tmp_path: Path) -> None:
    one, other = (a_file(tmp_path, name=name, key=KEY) for name in ("chat", "mail"))
    content = other.read_bytes()
    other.write_bytes(one.read_bytes())
    one.write_bytes(content)
    assert "holds the grant mail, not chat" in str(refused(tmp_path, key=KEY))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_record_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    a_file(tmp_path).chmod(mode)
    problem = str(refused(tmp_path))
    assert f"can be read by others (mode {mode:04o}). It was left as it is; chmod 600 it" in problem


def test_a_link_in_the_place_of_a_record_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    aside = a_file(tmp_path / "there").rename(tmp_path / "aside")
    (tmp_path / "chat.grant").symlink_to(aside)
    assert "is a symbolic link, and none is followed" in str(refused(tmp_path))
    assert (tmp_path / "chat.grant").is_symlink()


def test_a_link_that_is_swapped_in_after_the_reading_is_replaced_and_not_followed(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    with leased(DirectoryStore(tmp_path).slot("chat")) as lease:
        lease.reserve()
        path.unlink()
        (tmp_path / "victim").write_text("theirs")
        path.symlink_to("victim")
        lease.write(a_record())
    assert (tmp_path / "victim").read_text() == "theirs"
    assert not path.is_symlink()


def _a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, _a_socket], ids=["a pipe", "a directory", "a socket"]
)
def test_what_is_no_file_is_no_record(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The path of a socket may not be long.
    monkeypatch.chdir(tmp_path)
    make(Path("chat.grant"))
    assert re.search(r"is no regular file|cannot be opened: No such device", str(refused(tmp_path)))


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: path.symlink_to("chat.grant")], ids=["directory", "link"]
)
def test_what_is_no_file_is_no_lock(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "chat.lock")
    with pytest.raises(StoreError, match=r"chat\.lock: is a (directory|symbolic link)"):
        DirectoryStore(tmp_path).slot("chat").try_lease()
    assert names_in(tmp_path) == ["chat.lock"]


def test_a_lock_that_others_can_open_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "chat.lock").touch(0o644)
    with pytest.raises(StoreError, match=r"chat\.lock: can be read by others .mode 0644.*chmod 600"):
        DirectoryStore(tmp_path).slot("chat").try_lease()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_directory_that_others_can_write_is_not_used(tmp_path: Path, mode: int) -> None:
    a_file(tmp_path)
    tmp_path.chmod(mode)
    slot = DirectoryStore(tmp_path).slot("chat")
    for use in (slot.read, slot.try_lease, slot.holder):
        with pytest.raises(StoreError, match=rf"others\. Nothing was changed; chmod go-w {tmp_path}"):
            use()


def test_a_directory_that_others_can_only_look_into_is_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    record = a_record()
    assert put(DirectoryStore(tmp_path), record).read() == record


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    slot = DirectoryStore(tmp_path / "no" / "store").slot("chat")
    with pytest.raises(
        StoreError, match=rf"cannot be made: No such file.*create the directory {tmp_path}/no"
    ):
        slot.try_lease()


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    slot = DirectoryStore(tmp_path / "store").slot("chat")
    with pytest.raises(StoreError, match=r"cannot be opened: Not a directory"):
        slot.read()


def test_a_link_to_nowhere_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to("nowhere")
    with pytest.raises(StoreError, match=r"broken symbolic link"):
        DirectoryStore(tmp_path / "store").slot("chat").try_lease()


def test_a_directory_that_vanishes_under_a_lease_is_an_error_and_not_a_success(tmp_path: Path) -> None:
    path = a_file(tmp_path / "store")
    with leased(DirectoryStore(path.parent).slot("chat")) as lease:
        lease.reserve()
        shutil.rmtree(path.parent)
        with pytest.raises(StoreError, match=r"was not written: No such file"):
            lease.write(a_record())


def test_a_record_that_is_too_large_is_not_written(tmp_path: Path) -> None:
    slot = put(DirectoryStore(tmp_path), a_record("kept"))
    with leased(slot) as lease, pytest.raises(StoreError, match="over 1048576 bytes") as caught:
        lease.write(a_record("canary" * 200_000))
    assert "canary" not in shown(caught.value)
    found = slot.read()
    assert found is not None
    assert found.refresh_token == Secret("kept")


def test_a_time_that_is_no_number_is_not_written(tmp_path: Path, keys: dict[str, str]) -> None:
    slot = put(DirectoryStore(tmp_path, **keys), a_record("kept"))  # type: ignore[arg-type]
    with leased(slot) as lease, pytest.raises(StoreError, match="no number") as caught:
        lease.write(a_record(expires_at=float("nan")))
    assert "canary" not in shown(caught.value)
    assert slot.read() is not None


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "size=512k,mode=0700") as disk:
        yield disk


def fill(disk: Path) -> None:
    """Take all room that is left."""
    with (disk / "ballast").open("ab", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4_096))
    assert os.statvfs(disk).f_bavail == 0


@needs_root
def test_a_full_disk_is_met_before_a_token_is_spent(small_disk: Path, keys: dict[str, str]) -> None:
    record = a_record()
    slot = put(DirectoryStore(small_disk, **keys), record)  # type: ignore[arg-type]
    fill(small_disk)
    with leased(slot) as lease:
        with pytest.raises(StoreError, match=r"has no room for a new token: No space left.*make room on"):
            lease.reserve()
        with pytest.raises(StoreError, match=r"was not written: No space left.*stays as it was; make room"):
            lease.write(a_record(mark=a_mark()))
    assert slot.read() == record
    assert names_in(small_disk) == ["ballast", "chat.grant", "chat.lock"]


@needs_root
def test_what_was_reserved_is_there_however_full_the_disk_gets(
    small_disk: Path, keys: dict[str, str]
) -> None:
    slot = put(DirectoryStore(small_disk, **keys), a_record())  # type: ignore[arg-type]
    largest = a_record("\\" * 16_384, access_token=Secret('"' * 16_384), mark=a_mark())
    with leased(slot) as lease:
        lease.reserve()
        lease.reserve()
        fill(small_disk)
        lease.write(a_record(mark=a_mark()))
        fill(small_disk)
        lease.write(largest)
    assert slot.read() == largest


@needs_root
def test_a_disk_on_which_no_file_can_be_made_is_named_by_the_lease(tmp_path: Path) -> None:
    # The directory of the mount is the first file.
    with mounted(tmp_path / "disk", "nr_inodes=1,mode=0700") as disk:
        with pytest.raises(StoreError, match=r"chat\.lock: cannot be opened: No space left.*make room"):
            DirectoryStore(disk).slot("chat").try_lease()
        with pytest.raises(StoreError, match=r"cannot be made: No space left.*make room"):
            DirectoryStore(disk / "store").slot("chat").try_lease()


@needs_root
def test_a_disk_that_became_read_only_is_read_and_not_written(tmp_path: Path) -> None:
    record = a_record()
    with mounted(tmp_path / "disk", "size=1m,mode=0700") as disk:
        slot = put(DirectoryStore(disk), record)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert slot.read() == record
        with pytest.raises(StoreError, match=r"Read-only file system.*make the file system of"):
            slot.try_lease()
        with pytest.raises(StoreError, match=r"cannot be made: Read-only file system"):
            DirectoryStore(disk / "new").slot("chat").try_lease()


def test_a_limit_on_the_size_of_files_is_met_before_a_token_is_spent(tmp_path: Path) -> None:
    told = run_apart(
        """
        import resource
        slot = DirectoryStore(sys.argv[1]).slot("chat")
        with slot.try_lease() as lease:
            lease.write(a_record("kept"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            for attempt in (lease.reserve, lambda: lease.write(a_record("lost"))):
                try:
                    attempt()
                except StoreError as problem:
                    tell(problem)
            tell(lease.read() == a_record("kept"), sorted(os.listdir(sys.argv[1])))
        """,
        tmp_path / "store",
    )
    lines = told.splitlines()
    assert len(lines) == 3
    assert "has no room for a new token: File too large" in lines[0]
    assert "was not written: File too large" in lines[1]
    assert "raise the limit of file sizes (ulimit -f)" in lines[1]
    assert lines[2] == "True ['chat.grant', 'chat.lock']"


# Users

BECOME = "os.chdir('/'); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
USE = """
slot = DirectoryStore(sys.argv[1]).slot("chat")
for use in (slot.read, slot.try_lease):
    try:
        use()
    except StoreError as problem:
        tell(problem)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """Yield the path of a store that is yet to be made, where any user may look."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "store"


@needs_root
def test_a_store_of_another_user_is_not_used_and_who_may_is_said(shared: Path) -> None:
    shared.mkdir(mode=0o700)
    os.chown(shared, NOBODY, NOBODY)
    for use in (DirectoryStore(shared).slot("chat").read, DirectoryStore(shared).slot("chat").try_lease):
        with pytest.raises(StoreError, match=r"belongs to uid 65534, not to uid 0 or root.*sudo -u '#65534'"):
            use()


@needs_root
def test_a_record_of_another_user_is_not_used(shared: Path) -> None:
    path = a_file(shared)
    os.chown(path, NOBODY, NOBODY)
    assert "belongs to uid 65534. It was left as it is; run as that user" in str(refused(shared))


@needs_root
def test_what_root_stored_for_a_user_is_named_with_its_owner(shared: Path) -> None:
    a_file(shared)
    os.chown(shared, NOBODY, NOBODY)
    told = run_apart(BECOME + USE, shared).splitlines()
    assert len(told) == 2
    for line, name in zip(told, ("grant", "lock"), strict=True):
        assert f"chat.{name}: cannot be opened: Permission denied. It was left as it is" in line
        assert "check its owner and mode (uid 0, mode 0600): we are uid 65534" in line


@needs_root
def test_a_directory_that_we_may_not_enter_is_named(shared: Path) -> None:
    a_file(shared)
    told = run_apart(BECOME + USE, shared).splitlines()
    assert len(told) == 2
    assert all(f"{shared}: cannot be opened: Permission denied" in line for line in told)


@needs_root
def test_a_directory_that_we_may_not_write_is_named(shared: Path) -> None:
    shared.mkdir(mode=0o755)
    told = run_apart(BECOME + USE, shared)
    assert "chat.lock: cannot be opened: Permission denied" in told
    assert f"let uid 65534 write, read and search the directory {shared}" in told


# Secrets


def test_no_error_shows_a_token_or_a_key(tmp_path: Path, keys: dict[str, str]) -> None:
    path = a_file(tmp_path, a_record("canary-refresh"), **keys)
    whole = path.read_bytes()
    slot = DirectoryStore(tmp_path, **keys).slot("chat")  # type: ignore[arg-type]
    for content in (whole[:-30], whole.replace(b"256", b"257"), whole + b" ", b"canary", b'{"canary": 1}'):
        path.write_bytes(content)
        with pytest.raises(StoreError) as caught:
            slot.read()
        told = shown(caught.value)
        assert "canary" not in told
        assert KEY not in told


@needs_root
def test_no_error_of_a_disk_shows_a_token_or_a_key(small_disk: Path, keys: dict[str, str]) -> None:
    slot = put(DirectoryStore(small_disk, **keys), a_record())  # type: ignore[arg-type]
    fill(small_disk)
    with leased(slot) as lease, pytest.raises(StoreError) as caught:
        lease.write(a_record())
    told = shown(caught.value)
    assert "canary" not in told
    assert KEY not in told
