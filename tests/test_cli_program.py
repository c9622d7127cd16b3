"""The command as a program: processes, pipes, terminals."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

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


def test_a_token_that_is_typed_is_not_echoed():
    shown, _ = in_terminal("inspect", "--profile", "opaque", typed=b"typed-canary\n")

    assert b"canary" not in shown
    assert hashlib.sha256(b"typed-canary").hexdigest()[:8].encode() in shown


def in_terminal(*args, typed=b""):
    """Run the program in a terminal of its own; return what it wrote and its exit code."""
    terminal, inside = pty.openpty()
    login = (
        "import os, sys; os.login_tty(os.open(sys.argv[1], os.O_RDWR)); os.execv(sys.argv[2], sys.argv[2:])"
    )
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
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
    return shown, program.returncode
