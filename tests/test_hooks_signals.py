"""A signal reaches the process of the pid file, and never another one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from delivering import eventually, keeping, lines_of, needs_root, running

from token_keeper.sidecar.config._model import HookConfig
from token_keeper.sidecar.deliveries._signals import NotSent, send_signal

SERVICE = """
import os, signal, sys, time
def heard(number, _):
    with open(sys.argv[2], "a") as out:
        print(signal.Signals(number).name, file=out)
signal.signal(signal.SIGHUP, heard)
with open(sys.argv[1], "w") as file:
    print(os.getpid(), file=file)
while True:
    signal.pause()
"""


@contextmanager
def a_service(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service that writes its pid file and notes each SIGHUP in `out`."""
    command = [sys.executable, "-c", SERVICE, str(directory / "pid"), str(directory / "out")]
    with subprocess.Popen(command) as service:
        try:
            until = time.monotonic() + 10
            while not lines_of(directory / "pid"):
                assert time.monotonic() < until
                time.sleep(0.01)
            yield service
        finally:
            service.kill()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


def a_pid_file(directory: Path, content: str | int, mode: int = 0o644) -> str:
    path = directory / "pid"
    path.write_text(f"{content}\n")
    path.chmod(mode)
    return str(path)


def test_a_service_gets_its_signal_at_each_generation(directory: Path) -> None:
    async def main() -> None:
        hook = HookConfig(signal="SIGHUP", pid_file=str(directory / "pid"))
        async with keeping(hooks=(hook,)) as kept:
            await eventually(lambda: lines_of(directory / "out") == ["SIGHUP"])
            kept.renew()
            await eventually(lambda: lines_of(directory / "out") == ["SIGHUP", "SIGHUP"])
            assert kept.deliveries.hook_failures == 0

    with a_service(directory):
        running(main())


def test_a_service_that_is_gone_is_a_failure_with_a_hint(directory: Path) -> None:
    with a_service(directory):
        pass

    async def main() -> None:
        hook = HookConfig(signal="SIGHUP", pid_file=str(directory / "pid"))
        async with keeping(hooks=(hook,)) as kept:
            await eventually(lambda: kept.deliveries.hook_failures == 1)
            assert "is the service running?" in kept.log.of("hookFailed")[0].getMessage()

    running(main())


def test_a_process_that_is_newer_than_the_file_is_left_alone(directory: Path) -> None:
    with a_service(directory) as service:
        an_hour_ago = time.time() - 3_600
        os.utime(directory / "pid", (an_hour_ago, an_hour_ago))
        with pytest.raises(NotSent, match="so it is another one"):
            send_signal("SIGTERM", str(directory / "pid"))
        assert service.poll() is None


@pytest.mark.parametrize("content", ["1", "0", "-1", "", "one", "99999999", "4194305", "+2", "2 3", "²"])
def test_what_is_no_number_of_a_process_is_refused(directory: Path, content: str) -> None:
    with pytest.raises(NotSent, match="no number of a process above 1"):
        send_signal("SIGTERM", a_pid_file(directory, content))


def test_the_sidecar_never_signals_itself(directory: Path) -> None:
    with pytest.raises(NotSent, match="this sidecar itself"):
        send_signal("SIGTERM", a_pid_file(directory, os.getpid()))


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_can_write_is_not_believed(directory: Path, mode: int) -> None:
    with pytest.raises(NotSent, match="others can write"):
        send_signal("SIGTERM", a_pid_file(directory, os.getppid(), mode))


def test_a_directory_in_which_others_can_replace_files_is_not_believed(directory: Path) -> None:
    path = a_pid_file(directory, os.getppid())
    directory.chmod(0o777)
    with pytest.raises(NotSent, match="others can replace files"):
        send_signal("SIGTERM", path)


@needs_root
def test_a_file_of_another_user_is_not_believed(directory: Path) -> None:
    path = a_pid_file(directory, os.getppid())
    os.chown(path, 65_534, 65_534)
    with pytest.raises(NotSent, match="belongs to uid 65534"):
        send_signal("SIGTERM", path)


def test_a_link_a_pipe_and_a_missing_file_are_not_read(directory: Path) -> None:
    (directory / "link").symlink_to(a_pid_file(directory, os.getppid()))
    os.mkfifo(directory / "pipe")
    for name, why in (("link", "cannot be read"), ("pipe", "not a regular file"), ("no", "cannot be read")):
        with pytest.raises(NotSent, match=why):
            send_signal("SIGTERM", str(directory / name))


@needs_root
def test_one_who_may_not_signal_the_process_is_told_so(directory: Path) -> None:
    script = (
        "import os, sys\n"
        "from token_keeper.sidecar.deliveries._signals import NotSent, send_signal\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: send_signal('SIGHUP', sys.argv[1])\n"
        "except NotSent as problem: print(problem)\n"
    )
    with a_service(directory):
        for path in (directory, *directory.parents):
            if path.stat().st_uid == os.geteuid() and path != Path("/"):
                path.chmod(path.stat().st_mode | 0o011)
        ended = subprocess.run(
            [sys.executable, "-c", script, str(directory / "pid")], capture_output=True, text=True, check=True
        )
        assert "uid 65534 may not signal process" in ended.stdout
        assert lines_of(directory / "out") == []
