"""The command `token-keeper check`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from configuring import CANARY, SOURCE, written

from token_keeper.cli._group import cli
from token_keeper.sidecar.config import schema


def check(*args, env=None):
    return CliRunner().invoke(
        cli, ["check", *map(str, args)], env={"TOKEN_KEEPER_CONFIG": None, **(env or {})}
    )


@pytest.fixture
def good(tmp_path):
    tmp_path.chmod(0o700)
    sink = f'[[tokens.chat.sinks]]\ntype = "file"\npath = "{tmp_path}/token"\nmode = "0644"\n'
    return written(tmp_path, f'{SOURCE}{sink}[[tokens.chat.hooks]]\nrun = ["true"]\n')


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "bad").mkdir()
    return written(
        tmp_path / "bad", f'[server]\nport = 1\n{SOURCE}headers = {{ Authorization = ["{CANARY}"] }}\n'
    )


def program(*args, cwd=None, **env):
    """Run the command as a process, and return it with the modules that it imported."""
    code = (
        "import sys; from token_keeper.cli import main; code = main();"
        "print(*sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env={**os.environ, **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_file_that_can_work_is_summed_up_with_its_warnings(good):
    result = check("--config", good)

    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split() for line in result.stdout.splitlines()[:4]] == [
        [str(good), "can", "work"],
        ["tokens", "1:", "chat"],
        ["sinks", "1"],
        ["hooks", "1"],
    ]
    assert "1 warning" in result.stdout
    assert "tokens.chat.sinks[0].mode" in result.stdout


def test_a_file_that_cannot_work_exits_78_with_every_problem_and_no_secret(bad):
    result = check("--config", bad)

    assert result.exit_code == os.EX_CONFIG
    assert "cannot work: 2 problems" in result.stdout
    assert "\n\nserver.port\n    is no key here" in result.stdout
    assert "\n\ntokens.chat.source.headers.Authorization\n    must be a string" in result.stdout
    assert CANARY not in result.output


def test_programs_get_json(good, bad):
    works, fails = check("--config", good, "--json"), check("--config", bad, "--json")
    document = json.loads(works.stdout)

    assert document["valid"] is True
    assert (document["tokens"], document["sinks"], document["hooks"]) == (["chat"], 1, 1)
    assert [warning["key"] for warning in document["warnings"]] == ["tokens.chat.sinks[0].mode"]
    assert fails.exit_code == os.EX_CONFIG
    assert [one["key"] for one in json.loads(fails.stdout)["problems"]] == [
        "server.port",
        "tokens.chat.source.headers.Authorization",
    ]


def test_the_schema_needs_no_file():
    result = check("--schema")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == schema()


def test_the_file_may_be_named_by_the_environment(good):
    assert check(env={"TOKEN_KEEPER_CONFIG": str(good)}).exit_code == 0


def test_a_file_that_lies_around_is_pointed_at_but_not_taken(good):
    done = program("check", cwd=good.parent, TOKEN_KEEPER_CONFIG="")

    assert done.returncode == os.EX_USAGE
    assert "--config keeper.toml would take the one that is here" in done.stderr


def test_a_file_that_cannot_be_read_exits_66(tmp_path):
    result = check("--config", tmp_path / "missing.toml")

    assert result.exit_code == os.EX_NOINPUT
    assert "cannot be read (No such file or directory)" in result.stderr


def test_a_file_without_a_token_can_work_but_is_warned_of(tmp_path):
    result = check("--config", written(tmp_path, ""))

    assert result.exit_code == 0
    assert "the sidecar will not be ready" in result.stdout


def test_many_tokens_are_counted_not_listed(tmp_path):
    path = written(tmp_path, "".join(SOURCE.replace("chat", f"t{number}") for number in range(12)))

    assert "12: t0, t1, t2, t3, t4, t5, t6, t7 and 4 more" in check("--config", path).stdout


def test_neither_httpx_nor_a_server_is_loaded(good):
    done = program("check", "--config", good)

    assert done.returncode == 0
    assert {"msgspec", "tomllib"} <= set(done.stderr.split())
    assert {"httpx", "uvicorn", "starlette", "jwt", "rich"} & set(done.stderr.split()) == set()


@pytest.mark.parametrize("command", [("check",), ("check", "--schema"), ("doctor", "chat")])
def test_without_msgspec_the_command_says_what_to_install(tmp_path, good, command):
    (tmp_path / "msgspec.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'msgspec'\", name='msgspec')"
    )
    done = program(*command, "--config", good, PYTHONPATH=str(tmp_path))

    assert done.returncode == os.EX_UNAVAILABLE
    assert "pip install 'token-keeper[sidecar]'" in done.stderr
    assert "Traceback" not in done.stderr
