"""`run`: children, signals, terminals, files, restarts; against the real sidecar."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commanding import (
    PROGRAM,
    InTerminal,
    begun,
    command,
    environ,
    is_running,
    json_answer,
    line_of,
    speaking,
)
from sidecar import a_config, a_directory, eventually, running

from token_keeper.testing import FakeBackend

TELLS_SIGNALS = """
import os, signal, sys, time
def tell(number, frame):
    print("got", signal.Signals(number).name, flush=True)
for name in sys.argv[1:]:
    signal.signal(signal.Signals[name], tell)
print("ready", os.getpid(), flush=True)
while True:
    time.sleep(0.02)
"""
"""A program that says which signals it gets, and survives those that are named."""


@pytest.fixture(scope="module")
def backend():
    with FakeBackend() as backend:
        yield backend


@pytest.fixture(scope="module")
def sidecar(backend):
    with running(a_config(backend.url)) as sidecar:
        sidecar.until_token()
        yield sidecar


@pytest.fixture(scope="module")
def at(sidecar):
    return sidecar.socket_path


def refresh(sidecar):
    """Have another token fetched; return it."""
    answer = sidecar.ask("POST", "/v1/tokens/chat/refresh?wait=20", json_body={})
    assert answer.status == 200
    return answer.json["token"]


def shell(*options, script):
    return ("run", "chat", *options, "--", "/bin/sh", "-c", script)


def python(*options, script, args=()):
    return ("run", "chat", *options, "--", sys.executable, "-c", script, *args)


def test_the_token_is_in_the_usual_variable(sidecar, at):
    done = command(*shell(script="echo $ACCESS_TOKEN"), at=at)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == sidecar.until_token().json["token"] + "\n"


def test_the_variable_can_be_named(sidecar, at):
    done = command(*shell("--env", "MY_TOKEN", script="echo $MY_TOKEN$ACCESS_TOKEN"), at=at)

    assert done.stdout == sidecar.until_token().json["token"] + "\n"


@pytest.mark.parametrize("options", [(), ("--file", "F")])
def test_the_token_is_neither_in_arguments_nor_in_our_own_environment(sidecar, at, options):
    with begun(*shell(*options, script="echo $PPID; exec sleep 30"), at=at) as runner:
        assert int(line_of(runner.stdout)) == runner.pid
        seen = (
            Path(f"/proc/{runner.pid}/cmdline").read_bytes()
            + Path(f"/proc/{runner.pid}/environ").read_bytes()
        )
        child = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()[0]
        seen += Path(f"/proc/{child}/cmdline").read_bytes()
        runner.terminate()
        runner.wait(20)

    assert sidecar.until_token().json["token"].encode() not in seen


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
def test_the_exit_code_is_the_programs(at, script, code):
    assert command(*shell(script=script), at=at).returncode == code


def test_a_command_that_does_not_exist_exits_127(at):
    done = command("run", "chat", "--", "no-such-command-here", at=at)

    assert done.returncode == 127
    assert done.stderr == "token-keeper: the command was not found; check its name, and $PATH\n"


def test_a_command_that_is_no_program_exits_126(at, tmp_path):
    file = tmp_path / "file"
    file.write_text("text")

    assert command("run", "chat", "--", str(file), at=at).returncode == 126
    file.chmod(0o755)
    assert command("run", "chat", "--", str(file), at=at).returncode == 126
    assert command("run", "chat", "--", str(tmp_path), at=at).returncode == 126


def test_arguments_input_and_output_pass_through(at):
    done = command(
        "run", "chat", "--", "/bin/sh", "-c", 'cat; echo "$1" >&2', "-", "--wait", at=at, stdin="in\n"
    )

    assert (done.stdout, done.stderr) == ("in\n", "--wait\n")


def test_the_program_ends_by_a_closed_pipe_as_without_us(at):
    done = command(
        *shell(script="trap : PIPE; trap - PIPE; (sleep 0.2; echo x) | true; yes | head -1"), at=at
    )

    assert (done.stdout, done.stderr) == ("y\n", "")


@pytest.mark.parametrize(
    "args",
    [
        ("run", "chat"),
        ("run", "chat", "--env", "A", "--file", "B", "--", "true"),
        ("run", "chat", "--env", "A=B", "--", "true"),
        ("run", "chat", "--env", "", "--", "true"),
        ("run", "chat", "--signal", "SIGHUP", "--", "true"),
        ("run", "chat", "--on-renewal", "signal", "--signal", "SIGKILL", "--", "true"),
        ("run", "chat", "--on-renewal", "jump", "--", "true"),
    ],
)
def test_wrong_usage_exits_64(at, args):
    assert command(*args, at=at).returncode == os.EX_USAGE


def test_an_unknown_token_exits_65_and_starts_nothing(at):
    done = command("run", "nope", "--", "/bin/sh", "-c", "echo started", at=at)

    assert (done.returncode, done.stdout) == (os.EX_DATAERR, "")


def test_without_a_sidecar_in_time_nothing_is_started():
    done = command(*shell("--wait", "0.2s", script="echo started"), at="/nowhere/api.sock")

    assert (done.returncode, done.stdout) == (os.EX_UNAVAILABLE, "")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"])
def test_signals_are_passed_on(at, name):
    with begun(*python(script=TELLS_SIGNALS, args=[name]), at=at) as runner:
        child = int(line_of(runner.stdout).split()[1])
        runner.send_signal(signal.Signals[name])

        assert line_of(runner.stdout) == f"got {name}\n"
        assert runner.poll() is None
        os.kill(child, signal.SIGKILL)
        assert runner.wait(20) == 137


def test_a_signal_that_we_were_told_to_ignore_stays_ignored_in_the_program(at):
    script = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    outer = f"trap '' HUP; exec {PROGRAM} run chat -- {sys.executable} -c '{script}'"
    done = subprocess.run(
        ["/bin/sh", "-c", outer], env=environ(at), capture_output=True, text=True, check=False, timeout=20
    )

    assert done.stdout == "True\n"


def test_no_signal_is_blocked_in_the_program(at):
    script = "grep -E 'Sig(Blk|Ign)' /proc/self/status"
    done = command(*shell(script=script), at=at)

    # Whoever started the tests may have had signals ignored: that is passed on.
    usual = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == usual.stdout
    assert done.stdout.split()[:2] == ["SigBlk:", "0" * 16]


def test_an_interrupt_from_the_terminal_reaches_the_program_once(at):
    args = python(script=TELLS_SIGNALS, args=["SIGINT", "SIGUSR1"])
    with InTerminal(*args, at=at) as shown:
        place = shown.until("ready")
        shown.type("\x03")
        place = shown.until("got SIGINT", after=place)
        shown.process.send_signal(signal.SIGUSR1)
        shown.until("got SIGUSR1", after=place)

        assert shown.raw.count("got SIGINT") == 1


def test_a_program_with_a_process_group_of_its_own_gets_the_interrupt_too(at):
    script = "import os; os.setpgid(0, 0)\n" + TELLS_SIGNALS
    with InTerminal(*python(script=script, args=["SIGINT"]), at=at) as shown:
        place = shown.until("ready")
        shown.type("\x03")

        shown.until("got SIGINT", after=place)


def test_ctrl_z_stops_both_and_both_go_on(at):
    args = python(script="input('type: ')\nraise SystemExit(5)")
    with InTerminal(*args, at=at, in_shell=True) as shown:
        place = shown.until("type: ")
        shown.type("\x1a")
        shown.until("STOPPED", after=place)
        shown.type("\n")

        assert shown.ended() == 5


def test_ctrl_z_stops_nothing_if_nobody_could_continue_it(at):
    with InTerminal(*python(script=TELLS_SIGNALS, args=["SIGUSR1"]), at=at) as shown:
        place = shown.until("ready")
        shown.type("\x1a")
        shown.process.send_signal(signal.SIGUSR1)

        shown.until("got SIGUSR1", after=place)


def test_the_program_ends_when_we_are_killed(at):
    with begun(*shell(script="echo $$; exec sleep 60"), at=at) as runner:
        child = int(line_of(runner.stdout))
        runner.kill()
        runner.wait(20)

        eventually(lambda: not is_running(child))


def test_orphans_of_the_program_are_buried_if_we_are_process_1(at):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can make a process namespace")
    # The grandchild outlives its parent and becomes ours; it must not stay a zombie.
    script = "(sh -c 'sleep 0.2 & exit') ; sleep 0.8; cat /proc/[0-9]*/stat | grep -c ' Z '; exit 3"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", PROGRAM, *shell(script=script)],
        env=environ(at),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    if "unshare" in done.stderr:
        pytest.skip("process namespaces cannot be made here")

    assert (done.returncode, done.stdout) == (3, "0\n")


def test_the_file_is_private_and_holds_the_token_and_nothing_else(sidecar, at):
    script = "echo $F; stat -c '%a %u' $F $(dirname $F); cat $F"
    lines = command(*shell("--file", "F", script=script), at=at).stdout.splitlines()

    assert lines[1:3] == [f"600 {os.getuid()}", f"700 {os.getuid()}"]
    assert lines[3] == sidecar.until_token().json["token"]
    assert not Path(lines[0]).parent.exists()


def test_the_file_is_made_in_the_runtime_directory(at, tmp_path):
    done = command(
        *shell("--file", "F", script="umask; echo $F"), env=environ(at, XDG_RUNTIME_DIR=str(tmp_path))
    )

    assert done.stdout.splitlines()[1].startswith(f"{tmp_path}/token-keeper-")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_private_whatever_the_umask_is(at):
    inner = f"umask 777; exec {PROGRAM} run chat --file F -- /bin/sh -c 'stat -c %a $F'"
    done = subprocess.run(
        ["/bin/sh", "-c", inner], env=environ(at), capture_output=True, text=True, check=False, timeout=20
    )

    assert done.stdout == "600\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_file_is_gone_after_a_signal(at, number):
    with begun(*shell("--file", "F", script="echo $F; exec sleep 60"), at=at) as runner:
        path = Path(line_of(runner.stdout).strip())
        assert path.exists()
        runner.send_signal(number)

        assert runner.wait(20) == 128 + number
    assert not path.parent.exists()


def test_the_file_is_gone_if_the_command_cannot_be_started(at, tmp_path):
    done = command("run", "chat", "--file", "F", "--", "nope", env=environ(at, XDG_RUNTIME_DIR=str(tmp_path)))

    assert (done.returncode, list(tmp_path.iterdir())) == (127, [])


def test_the_file_follows_the_token_and_is_never_half_written(sidecar, at):
    with begun(*shell("--file", "F", script="echo $F; exec sleep 60"), at=at) as runner:
        path = Path(line_of(runner.stdout).strip())
        seen = {path.read_text()}
        token = refresh(sidecar)
        eventually(lambda: seen.add(path.read_text()) or path.read_text() == token)
        runner.terminate()
        runner.wait(20)

    assert token in seen
    assert all(each.count(".") == 2 and len(each) > 100 for each in seen)


def test_a_renewal_sends_the_signal_after_the_file_was_written(sidecar, at):
    script = TELLS_SIGNALS.replace('print("got"', 'print(open(os.environ["F"]).read(), "got"')
    args = python(
        "--file", "F", "--on-renewal", "signal", "--signal", "SIGUSR1", script=script, args=["SIGUSR1"]
    )
    with begun(*args, at=at) as runner:
        line_of(runner.stdout)
        token = refresh(sidecar)

        assert line_of(runner.stdout) == f"{token} got SIGUSR1\n"
        runner.terminate()
        assert runner.wait(20) == 143


def test_a_renewal_restarts_the_program_with_the_new_token(sidecar, at):
    with begun(
        *shell("--on-renewal", "restart", script="echo $ACCESS_TOKEN; exec sleep 60"), at=at
    ) as runner:
        first = line_of(runner.stdout).strip()
        token = refresh(sidecar)
        second = line_of(runner.stdout).strip()
        runner.terminate()

        assert runner.wait(20) == 143
    assert (second == token, first == token) == (True, False)


def test_a_program_that_ends_by_itself_is_not_restarted(at):
    with begun(*shell("--on-renewal", "restart", script="echo a; read x; exit 4"), at=at, stdin=-1) as runner:
        line_of(runner.stdout)
        runner.stdin.close()

        assert runner.wait(20) == 4


def test_many_renewals_cause_few_restarts(sidecar, at):
    # Three seconds, since a storm is one only in real time.
    with begun(*shell("--on-renewal", "restart", script="echo start; exec sleep 60"), at=at) as runner:
        line_of(runner.stdout)
        ends_at = time.monotonic() + 3
        while time.monotonic() < ends_at:
            refresh(sidecar)
        runner.terminate()
        output, _ = runner.communicate(timeout=20)

    assert 1 <= output.count("start") <= 3


def test_an_end_during_a_restart_is_the_end(sidecar, at):
    script = "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"
    with begun(*shell("--on-renewal", "restart", script=script), at=at) as runner:
        line_of(runner.stdout)
        refresh(sidecar)
        line_of(runner.stdout, containing="asked")
        runner.send_signal(signal.SIGINT)

        assert runner.wait(20) == 130


def test_the_program_outlives_the_sidecar_and_gets_tokens_from_the_next_one(backend):
    with a_directory() as directory:
        with running(a_config(backend.url), directory=directory) as sidecar:
            sidecar.until_token()
            args = shell("--file", "F", script="echo $F; exec sleep 60")
            runner = subprocess.Popen(
                [PROGRAM, *args], env=environ(sidecar.socket_path), stdout=subprocess.PIPE, text=True
            )
            path = Path(line_of(runner.stdout).strip())
            first = path.read_text()
        try:
            with running(a_config(backend.url), directory=directory) as sidecar:
                token = sidecar.until_token().json["token"]
                eventually(lambda: path.read_text() == token)
            assert (runner.poll(), token == first) == (None, False)
        finally:
            runner.terminate()
            runner.wait(20)
            runner.stdout.close()


def test_the_same_token_from_another_sidecar_is_no_renewal():
    answers = [
        json_answer(f'{{"token": "{token}", "generation": {generation}, "start": "{start}"}}')
        for token, generation, start in [("aaa", 3, "x"), ("aaa", 1, "y"), ("bbb", 2, "y")]
    ]
    args = shell("--on-renewal", "restart", "--wait", "0s", script="echo $ACCESS_TOKEN; exec sleep 60")
    with (
        a_directory() as directory,
        speaking(directory / "s", *answers),
        begun(*args, at=directory / "s") as runner,
    ):
        started = [line_of(runner.stdout), line_of(runner.stdout)]
        runner.terminate()
        runner.wait(20)

    assert started == ["aaa\n", "bbb\n"]


def test_a_file_that_cannot_be_replaced_is_tried_again(sidecar, at):
    with begun(*shell("--file", "F", script="echo $F; exec sleep 60"), at=at) as runner:
        path = Path(line_of(runner.stdout).strip())
        # A directory in the place of the next file: also root cannot write over it.
        (path.parent / "next").mkdir()
        token = refresh(sidecar)
        assert "cannot be written" in line_of(runner.stderr)
        (path.parent / "next").rmdir()
        eventually(lambda: path.read_text() == token)
        runner.terminate()
        runner.wait(20)

    assert stat.S_ISDIR(path.parent.parent.stat().st_mode)
