"""How a token looks in a file, read back by those who read such files."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from delivering import needs_root
from hypothesis import given, settings
from hypothesis import strategies as st

from token_keeper.sinks import Reread, as_env, as_json, as_raw, as_template, reread
from token_keeper.testing import mint

TOKENS = st.text(
    alphabet=[chr(code) for code in range(0x21, 0x7F) if chr(code) not in "\"'\\"], min_size=1, max_size=40
)


def an_answer(token: str = "abc", **more: object) -> dict[str, Any]:
    return {
        "token": token,
        "token_type": "Bearer",
        "expires_at": 1_800_000_000.0,
        "expires_in": 60,
        "generation": 3,
        "start": "0a1b2c3d",
        "status": "fresh",
        **more,
    }


def test_raw_is_the_token_and_not_one_byte_more() -> None:
    assert as_raw(an_answer("abc")) == b"abc"


def test_json_is_the_answer_of_the_api_in_one_line() -> None:
    written = as_json(an_answer("abc"))
    assert written.endswith(b"}\n")
    assert written.count(b"\n") == 1
    assert json.loads(written) == an_answer("abc")


def test_env_leaves_tokens_bare_that_nobody_can_misread() -> None:
    token = mint(expires_at=1_800_000_000)
    assert as_env(an_answer(token), "TOKEN") == f"TOKEN={token}\n".encode()


@settings(max_examples=40, deadline=None)
@given(TOKENS)
def test_a_shell_reads_from_env_what_was_written(token: str) -> None:
    line = as_env(an_answer(token), "TOKEN").decode()
    shell = subprocess.run(
        ["/bin/sh", "-c", f'{line}printf %s "$TOKEN"'], capture_output=True, text=True, check=True
    )
    assert shell.stdout == token


def test_a_template_is_filled_in_one_pass() -> None:
    answer = an_answer("a{{name}}b")
    text = "t={{token}} e={{expires_at}} g={{generation}} n={{name}} {{other}} {{ token }}"
    assert as_template(answer, "chat", text) == b"t=a{{name}}b e=1800000000 g=3 n=chat {{other}} {{ token }}"


def test_an_expiry_that_is_not_known_is_empty_in_a_template() -> None:
    assert as_template(an_answer(expires_at=None), "chat", "[{{expires_at}}]") == b"[]"


def written(directory: Path, content: bytes | None = None, mode: int = 0o600) -> str:
    path = directory / "token.json"
    path.write_bytes(as_json(an_answer(expires_at=time.time() + 60)) if content is None else content)
    path.chmod(mode)
    return str(path)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    found = reread(written(tmp_path))
    assert isinstance(found, Reread)
    assert found.secret.reveal() == "abc"
    assert found.expires_at > time.time()


def test_a_file_that_is_not_there_is_nothing_to_speak_of(tmp_path: Path) -> None:
    assert reread(str(tmp_path / "token.json")) is None
    assert reread(str(tmp_path / "no" / "token.json")) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"token": "canary', "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"[]", "holds no token"),
        (b'{"token": 1}', "holds no token"),
        (b'{"token": "abc"}', "does not say when"),
        (b'{"token": "abc", "expires_at": null}', "does not say when"),
        (b'{"token": "abc", "expires_at": true}', "not a number"),
        (b'{"token": "abc", "expires_at": "soon"}', "not a number"),
        (b'{"token": "abc", "expires_at": NaN}', "not a time"),
        (b'{"token": "abc", "expires_at": 1' + b"0" * 400 + b"}", "not a time"),
        (b" " * 70_000, "too large"),
    ],
)
def test_garbage_is_not_believed(tmp_path: Path, content: bytes, why: str) -> None:
    found = reread(written(tmp_path, content))
    assert isinstance(found, str)
    assert why in found
    assert "canary" not in found


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_file_that_others_can_write_is_not_believed(tmp_path: Path, mode: int) -> None:
    assert "others can write it" in str(reread(written(tmp_path, mode=mode)))


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_directory_that_others_can_write_makes_its_files_unbelievable(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path)
    tmp_path.chmod(mode)
    assert "others can write its directory" in str(reread(path))


@needs_root
def test_a_file_of_another_user_is_not_believed(tmp_path: Path) -> None:
    path = written(tmp_path)
    os.chown(path, 65_534, 65_534)
    assert "belongs to uid 65534" in str(reread(path))


@needs_root
def test_a_directory_of_another_user_is_not_believed(tmp_path: Path) -> None:
    path = written(tmp_path)
    os.chown(tmp_path, 65_534, 65_534)
    assert "directory belongs to uid 65534" in str(reread(path))


def test_a_link_and_a_pipe_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(written(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    assert "cannot be read" in str(reread(str(tmp_path / "link")))
    assert "not a regular file" in str(reread(str(tmp_path / "pipe")))
