"""The keys for TCP and their files, and the codes that the dashboard trades."""

from __future__ import annotations

import os
import re
import secrets
import stat
import subprocess
import sys

import pytest
from sidecar import a_directory

from token_keeper.sidecar._access import (
    CODE_S,
    CODES_MAX,
    VIEWERS_MAX,
    Access,
    KeyFileError,
    Keys,
)
from token_keeper.sidecar.server._sparing import PAUSE_S, SparingLog
from token_keeper.testing import VirtualClock

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
GOOD = "x" * 43


@pytest.fixture
def directory():
    with a_directory() as made:
        yield made


def written(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_missing_keys_are_made_each_one_different(directory):
    keys = Keys(directory / "access", directory / "metrics")
    assert keys.read()
    made = [(directory / name).read_text() for name in ("access", "metrics")]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}\n", text) for text in made)
    assert len(set(made)) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert sorted(path.name for path in directory.iterdir()) == ["access", "metrics"]
    assert [keys.access_of(text.strip().encode()) for text in made] == [Access.TOKENS, Access.STATUS]


def test_a_key_is_made_for_us_alone_whatever_the_umask(directory):
    former = os.umask(0)
    try:
        Keys(directory / "access").read()
    finally:
        os.umask(former)
    assert stat.S_IMODE((directory / "access").stat().st_mode) == 0o600


def test_processes_that_make_the_same_key_agree(directory):
    program = (
        "import sys, pathlib; from token_keeper.sidecar._access import Keys;"
        "Keys(pathlib.Path(sys.argv[1])).read(); print(pathlib.Path(sys.argv[1]).read_text(), end='')"
    )
    command = [sys.executable, "-c", program, str(directory / "access")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    assert len({process.communicate()[0] for process in processes}) == 1
    assert len(list(directory.iterdir())) == 1


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_key_that_is_there_is_taken(directory, end):
    keys = Keys(written(directory / "access", GOOD + end))
    keys.read()
    assert keys.access_of(GOOD.encode()) is Access.TOKENS
    assert keys.access_of(GOOD[:-1].encode()) is Access.NOTHING
    assert keys.access_of(b"") is Access.NOTHING


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o660, 0o666, 0o610])
def test_a_key_that_others_can_reach_is_refused(directory, mode):
    with pytest.raises(KeyFileError, match=f"{mode:04o}"):
        Keys(written(directory / "access", GOOD, mode)).read()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "short",
        GOOD + "y",
        GOOD + "\n" + GOOD,
        GOOD + "\n\n",
        " " + GOOD,
        "x" * 42 + "=",
        "x" * 42 + "+",
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(directory, text):
    with pytest.raises(KeyFileError, match="43 URL-safe") as caught:
        Keys(written(directory / "access", text)).read()
    assert "xxx" not in str(caught.value)
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    ours = [frame for frame in frames if frame.f_code.co_filename.endswith("_access.py")]
    assert not [name for frame in ours for name, value in frame.f_locals.items() if "xxx" in repr(value)]


def test_a_link_to_a_key_is_refused(directory):
    written(directory / "elsewhere", GOOD)
    (directory / "access").symlink_to("elsewhere")
    with pytest.raises(KeyFileError, match="cannot be read"):
        Keys(directory / "access").read()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_and_waited_for_by_nobody(directory, make):
    make(directory / "access")
    with pytest.raises(KeyFileError, match="is no file"):
        Keys(directory / "access").read()


@AS_ROOT
def test_a_key_of_another_user_is_refused(directory):
    os.chown(written(directory / "access", GOOD), 65_534, 65_534)
    with pytest.raises(KeyFileError, match="belongs to uid 65534"):
        Keys(directory / "access").read()


def test_a_place_where_no_key_can_be_made_is_an_error(directory):
    with pytest.raises(KeyFileError, match="cannot be made"):
        Keys(directory / "missing" / "access").read()


def test_one_key_for_two_purposes_is_refused(directory):
    keys = Keys(written(directory / "access", GOOD), written(directory / "metrics", GOOD))
    with pytest.raises(KeyFileError, match="a key of its own"):
        keys.read()


def test_a_file_that_cannot_be_used_any_more_leaves_the_keys_as_they_were(directory):
    keys = Keys(written(directory / "access", GOOD), directory / "metrics")
    keys.read()
    version = keys.version
    written(directory / "metrics", "nonsense")
    written(directory / "access", "y" * 43)
    with pytest.raises(KeyFileError):
        keys.read()
    assert keys.access_of(GOOD.encode()) is Access.TOKENS
    assert keys.version == version
    (directory / "metrics").unlink()
    assert keys.read()
    assert (keys.access_of(GOOD.encode()), keys.version) == (Access.NOTHING, version + 1)
    assert not keys.read()


def test_without_files_no_key_opens_anything():
    keys = Keys()
    keys.read()
    assert keys.access_of(b"") is Access.NOTHING
    assert keys.access_of(GOOD.encode()) is Access.NOTHING
    assert GOOD not in repr(keys)


def test_a_code_is_traded_once():
    clock = VirtualClock()
    keys = Keys(monotonic=clock.monotonic)
    code = keys.new_code()
    key = keys.redeem(code)
    assert keys.access_of(key.encode()) is Access.STATUS
    assert keys.redeem(code) is None
    late = keys.new_code()
    clock.advance(CODE_S + 0.1)
    assert keys.redeem(late) is None


@pytest.mark.parametrize("code", ["", "x", "\udcff", "\x00", "ä" * 43])
def test_what_is_no_code_is_traded_for_nothing(code):
    keys = Keys()
    keys.new_code()
    assert keys.redeem(code) is None


def test_only_so_many_codes_and_traded_keys_are_remembered():
    keys = Keys()
    codes = [keys.new_code() for _ in range(CODES_MAX + 1)]
    assert keys.redeem(codes[0]) is None
    assert keys.redeem(codes[1]) is not None
    traded = [keys.redeem(keys.new_code()).encode() for _ in range(VIEWERS_MAX + 1)]
    assert keys.access_of(traded[0]) is Access.NOTHING
    assert keys.access_of(traded[-1]) is Access.STATUS


def test_random_keys_open_nothing(directory):
    keys = Keys(directory / "access", directory / "metrics")
    keys.read()
    assert {keys.access_of(secrets.token_urlsafe(32).encode()) for _ in range(1000)} == {Access.NOTHING}


def test_a_log_that_strangers_fill_stays_short_and_says_how_many_there_were():
    said = []

    class Log:
        def warning(self, event, **values):
            said.append((event, values))

    clock = VirtualClock()
    log = SparingLog(Log(), clock.monotonic)
    for _ in range(100):
        log.warning("wrongKey", n=1)
    log.warning("peerRefused")
    clock.advance(PAUSE_S)
    log.warning("wrongKey", n=2)
    assert said == [("wrongKey", {"n": 1}), ("peerRefused", {}), ("wrongKey", {"n": 2, "left_out": 99})]
