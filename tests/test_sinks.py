"""A file is replaced whole, with its mode and owner, or it stays as it was."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from delivering import mounted, names_in, needs_root

from token_keeper.sinks import NotWritten, replace_file, sweep

NOBODY = 65_534


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_made_with_its_content_and_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    replace_file(str(tmp_path / "token"), b"abc", mode=0o640)
    assert (tmp_path / "token").read_bytes() == b"abc"
    assert mode_of(tmp_path / "token") == 0o640
    assert names_in(tmp_path) == ["token"]


def test_without_a_mode_only_the_owner_can_read_it(tmp_path: Path) -> None:
    replace_file(str(tmp_path / "token"), b"abc")
    assert mode_of(tmp_path / "token") == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_umask_does_not_matter(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace_file(str(tmp_path / "token"), b"abc", mode=0o664)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "token") == 0o664


def test_a_new_mode_is_set_although_the_file_was_there(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o444)
    replace_file(str(path), b"new", mode=0o600)
    assert (path.read_text(), mode_of(path)) == ("new", 0o600)


@needs_root
def test_the_file_is_given_to_its_owner_and_group(tmp_path: Path) -> None:
    replace_file(str(tmp_path / "token"), b"abc", mode=0o440, owner=NOBODY, group=12)
    found = (tmp_path / "token").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (NOBODY, 12, 0o440)


def test_a_reader_that_has_the_old_file_open_reads_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "token"
    replace_file(str(path), b"old")
    with path.open("rb") as reader:
        replace_file(str(path), b"new")
        assert reader.read() == b"old"


def test_a_symbolic_link_in_the_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "token").symlink_to(outside)
    replace_file(str(inside / "token"), b"ours")
    assert outside.read_text() == "theirs"
    assert not (inside / "token").is_symlink()
    assert (inside / "token").read_text() == "ours"


def test_a_link_that_leads_to_the_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var-run").symlink_to("run")
    replace_file(str(tmp_path / "var-run" / "token"), b"abc")
    assert names_in(tmp_path / "run") == ["token"]


def test_the_longest_name_is_no_problem(tmp_path: Path) -> None:
    name = "n" * 255
    replace_file(str(tmp_path / name), b"abc")
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a directory"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "token")
    with pytest.raises(NotWritten, match="only regular files and symbolic links are replaced"):
        replace_file(str(tmp_path / "token"), b"abc")
    assert names_in(tmp_path) == ["token"]


def test_a_directory_that_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match=rf"No such file or directory.*create the directory {tmp_path}/no"):
        replace_file(str(tmp_path / "no" / "token"), b"abc")


def test_a_name_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match=r"name too long.*shorter path") as caught:
        replace_file(str(tmp_path / ("n" * 256)), b"abc")
    assert caught.value.number == errno.ENAMETOOLONG
    assert names_in(tmp_path) == []


@needs_root
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=16k") as small:
        replace_file(str(small / "token"), b"old")
        (small / "ballast").write_bytes(b"b" * 8_192)
        with pytest.raises(NotWritten, match=r"No space left.*make room") as caught:
            replace_file(str(small / "token"), b"n" * 16_384)
        assert caught.value.number == errno.ENOSPC
        assert (small / "token").read_bytes() == b"old"
        assert names_in(small) == ["ballast", "token"]


@needs_root
def test_a_read_only_file_system_is_told_apart(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "fixed", "ro") as fixed,
        pytest.raises(NotWritten, match=r"Read-only file system.*make the file system"),
    ):
        replace_file(str(fixed / "token"), b"abc")


def run_apart(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run *script* in a process of its own: it forks, or changes its user."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@needs_root
def test_another_user_cannot_write_a_directory_of_ours_and_is_told_what_to_do(tmp_path: Path) -> None:
    ended = run_apart(
        """
        import os, sys
        from token_keeper.sinks import NotWritten, replace_file
        os.chdir("/")
        os.mkdir(sys.argv[1], 0o755)
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            replace_file(sys.argv[1] + "/token", b"abc")
        except NotWritten as problem:
            print(problem)
        """,
        f"/tmp/{tmp_path.name}-{os.getpid()}",
    )
    Path(f"/tmp/{tmp_path.name}-{os.getpid()}").rmdir()
    assert "Permission denied. The file stays as it was; let uid 65534 write" in ended.stdout


@needs_root
def test_one_who_may_not_give_files_away_is_told_so(tmp_path: Path) -> None:
    ended = run_apart(
        """
        import os, sys
        from token_keeper.sinks import NotWritten, replace_file
        os.chdir("/")
        os.mkdir(sys.argv[1], 0o755)
        os.chown(sys.argv[1], 65534, 65534)
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            replace_file(sys.argv[1] + "/token", b"abc", owner=0, group=0)
        except NotWritten as problem:
            print(problem, os.listdir(sys.argv[1]))
        """,
        f"/tmp/{tmp_path.name}-{os.getpid()}",
    )
    Path(f"/tmp/{tmp_path.name}-{os.getpid()}").rmdir()
    assert "it cannot be given to owner 0 and group 0: Operation not permitted" in ended.stdout
    assert "run as root or with CAP_CHOWN" in ended.stdout
    assert ended.stdout.rstrip().endswith("[]")


def test_a_limit_on_the_size_of_files_leaves_nothing_half_written(tmp_path: Path) -> None:
    ended = run_apart(
        """
        import os, resource, sys
        from token_keeper.sinks import NotWritten, replace_file
        path = sys.argv[1] + "/token"
        replace_file(path, b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            replace_file(path, b"n" * 5000)
        except NotWritten as problem:
            print(problem, os.listdir(sys.argv[1]), open(path).read())
        """,
        str(tmp_path),
    )
    assert "File too large" in ended.stdout
    assert ended.stdout.rstrip().endswith("['token'] old")


def test_a_writer_that_is_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    # 150 forks of a small process: about 2 s, most of it the disk's.
    ended = run_apart(
        """
        import os, random, signal, stat, sys, time
        from token_keeper.sinks import replace_file, sweep
        directory = sys.argv[1]
        path = directory + "/token"
        whole = {bytes([letter]) * 9000 for letter in range(65, 91)}
        replace_file(path, b"A" * 9000, mode=0o640)
        swept = 0
        for kill in range(150):
            pid = os.fork()
            if not pid:
                try:
                    for letter in range(65, 91):
                        replace_file(path, bytes([letter]) * 9000, mode=0o640)
                finally:
                    os._exit(0)
            time.sleep(random.uniform(0, 0.008))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            with open(path, "rb") as file:
                assert file.read() in whole
                assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o640
            swept += sweep(directory)
            assert os.listdir(directory) == ["token"], os.listdir(directory)
        print(swept)
        """,
        str(tmp_path),
    )
    assert int(ended.stdout) > 0, "no kill hit a write in its middle"


def test_a_sweep_removes_what_a_killed_run_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".token-keeper.0123456789abcdef.tmp").write_text("left")
    (tmp_path / "token").write_text("theirs")
    (tmp_path / ".token-keeper.dir.tmp").mkdir()
    (tmp_path / ".token-keeper.link.tmp").symlink_to("token")
    assert sweep(str(tmp_path)) == 1
    assert names_in(tmp_path) == [".token-keeper.dir.tmp", ".token-keeper.link.tmp", "token"]


def test_a_sweep_leaves_what_a_living_process_writes_just_now(tmp_path: Path) -> None:
    with (tmp_path / ".token-keeper.0123456789abcdef.tmp").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert sweep(str(tmp_path)) == 0
    assert sweep(str(tmp_path)) == 1


@needs_root
def test_a_sweep_leaves_files_of_others_but_for_the_owners_of_sinks(tmp_path: Path) -> None:
    path = tmp_path / ".token-keeper.0123456789abcdef.tmp"
    path.write_text("left")
    os.chown(path, NOBODY, NOBODY)
    assert sweep(str(tmp_path)) == 0
    assert sweep(str(tmp_path), frozenset({NOBODY})) == 1


def test_a_sweep_at_the_same_time_costs_no_write(tmp_path: Path) -> None:
    ended = threading.Event()

    def keep_sweeping() -> None:
        while not ended.is_set():
            sweep(str(tmp_path))

    sweeper = threading.Thread(target=keep_sweeping)
    sweeper.start()
    try:
        failures = 0
        for number in range(200):
            try:
                replace_file(str(tmp_path / "token"), str(number).encode())
            except NotWritten:
                failures += 1
    finally:
        ended.set()
        sweeper.join()
    assert failures <= 2  # Three times in a row is rare, and only with a sweep that never ends.
    assert names_in(tmp_path) == ["token"]


def test_a_sweep_of_what_is_no_directory_does_nothing(tmp_path: Path) -> None:
    assert sweep(str(tmp_path / "missing")) == 0


def test_no_traceback_of_a_failed_write_shows_the_token(tmp_path: Path) -> None:
    with pytest.raises(NotWritten) as caught:
        replace_file(str(tmp_path / "no" / "token"), b"canary")
    frame = caught.value.__traceback__
    while frame is not None:
        if "sinks" in frame.tb_frame.f_code.co_filename and "test_" not in frame.tb_frame.f_code.co_filename:
            assert b"canary" not in frame.tb_frame.f_locals.values()
        frame = frame.tb_next
