"""The command as a program: processes, pipes, terminals."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from minting import NOW, minted

AT = ("--now", str(NOW))
PROGRAM = Path(sys.executable).with_name("token-keeper")


def test_the_program_answers_from_a_pipe():
    done = subprocess.run(
        [PROGRAM, "inspect", "--json", *AT],
        input=f"{minted()}\n",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["valid"]


def test_inspection_loads_nothing_that_it_does_not_need():
    program = (
        "import sys; from token_keeper.cli._group import cli; cli.run(['inspect', 'x']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}

    assert (
        loaded & {"httpx", "structlog", "jwt", "asyncio", "rich", "jmespath", "tenacity", "cryptography"}
        == set()
    )


def test_a_closed_pipe_ends_the_program_quietly():
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(
        [PROGRAM, "explain", "20151"], stdout=write, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as program:
        os.close(write)
        _, said = program.communicate(timeout=30)

    assert (program.returncode, said) == (141, b"")


def test_an_interrupt_ends_the_program_quietly():
    shown, code = in_terminal("inspect", typed=b"\x03")

    assert code == 130
    assert b"Traceback" not in shown


def test_without_click_the_program_says_what_to_install(tmp_path):
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(\"No module named 'click'\", name='click')")
    program = "import sys; from token_keeper.cli import main; sys.exit(main())"
    shadowed = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=shadowed, capture_output=True, text=True, check=False
    )

    assert done.returncode == os.EX_UNAVAILABLE
    assert "pip install 'token-keeper[cli]'" in done.stderr


def test_a_terminal_gets_colours():
    shown, _ = in_terminal("inspect", *AT, minted(identity="a@b"))

    assert b"\x1b[" in shown
    assert b"identity-reserved-characters" in shown


def test_a_terminal_gets_lines_that_fit_it():
    shown, _ = in_terminal("explain", "51215", columns=60)
    lines = re.sub(rb"\x1b\[[0-9;]*m", b"", shown).decode().splitlines()

    assert max(len(line) for line in lines) <= 60
    assert "  unknown  The token was signed with another API Key Secret," in lines
    assert "           or altered on the way" in lines


def test_a_narrow_terminal_gets_the_texts_below_their_labels():
    shown, _ = in_terminal("inspect", *AT, minted(), columns=36)
    lines = re.sub(rb"\x1b\[[0-9;]*m", b"", shown).decode().splitlines()

    assert "  signature-unchecked" in lines
    assert "    info: the signature was not" in lines


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_gets_no_colours_if_its_user_wants_none(setting):
    shown, _ = in_terminal("inspect", *AT, minted(), **setting)

    assert b"\x1b[" not in shown


def test_a_terminal_is_answered_without_loading_more_than_a_pipe():
    shown, code = in_terminal("inspect", *AT, minted(), PYTHONPROFILEIMPORTTIME="1")

    assert code == 0
    assert b"token_keeper.cli._output" in shown
    assert re.search(rb"\| +(rich|httpx|asyncio|jwt)\r?\n", shown) is None


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_output_that_cannot_be_written_exits_74(form):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [PROGRAM, "inspect", *form, minted()], stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert done.returncode == os.EX_IOERR
    assert done.stderr == b"token-keeper: standard output cannot be written (No space left on device)\n"


def test_help_that_cannot_be_written_exits_74():
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)

    assert (done.returncode, b"Traceback" in done.stderr) == (os.EX_IOERR, False)


def test_a_closed_standard_output_exits_74():
    command = f"{shlex.quote(str(PROGRAM))} inspect x >&-"
    done = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, check=False)

    assert done.returncode == os.EX_IOERR
    assert done.stderr == b"token-keeper: standard output is closed\n"


def test_help_into_a_closed_pipe_ends_the_program_quietly():
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen([PROGRAM, "--help"], stdout=write, stderr=subprocess.PIPE) as program:
        os.close(write)
        _, said = program.communicate(timeout=30)

    assert (program.returncode, said) == (141, b"")


def test_without_a_command_the_program_shows_its_help_and_exits_64():
    done = subprocess.run([PROGRAM], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (os.EX_USAGE, "")
    assert done.stderr.startswith("Usage: token-keeper")
    assert "name a command: demo, inspect, explain, doctor" in done.stderr


def test_a_token_that_is_typed_is_not_echoed():
    shown, _ = in_terminal("inspect", "--profile", "opaque", typed=b"typed-canary\n")

    assert b"canary" not in shown
    assert hashlib.sha256(b"typed-canary").hexdigest()[:8].encode() in shown


def in_terminal(*args, typed=b"", columns=100, **settings):
    """Run the program in a terminal of its own; return what it wrote and its exit code."""
    terminal, inside = pty.openpty()
    login = (
        "import os, sys; os.login_tty(os.open(sys.argv[1], os.O_RDWR)); os.execv(sys.argv[2], sys.argv[2:])"
    )
    environment = {
        **os.environ,
        "TERM": "xterm-256color",
        "COLUMNS": str(columns),
        "NO_COLOR": "",
        **settings,
    }
    shown = b""
    with subprocess.Popen(
        [sys.executable, "-c", login, os.ttyname(inside), PROGRAM, *args], env=environment
    ) as program:
        try:
            while chunk := os.read(terminal, 65536):
                shown += chunk
                os.close(inside) if inside >= 0 else None
                inside = -1
                if typed and b"not be shown" in shown:
                    os.write(terminal, typed)
                    typed = b""
        except OSError:  # Linux says so when nobody has the other end of a terminal any more.
            os.close(terminal)
        except BaseException:
            program.kill()  # Else the end of the `with` waits for it.
            raise
    return shown, program.returncode
