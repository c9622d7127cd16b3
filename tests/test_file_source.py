"""A file that another program writes as a source: as kubelet, Vault's agent and scripts do."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fetching import failure, fetch, raw, shown
from scripting import descriptors, until

from token_keeper import AsyncTokenKeeper, ConfigError, ResponseError, TokenKeeper, TransientFetchError
from token_keeper.sources import FileSource, Retiring, Source, Watched
from token_keeper.testing import VirtualClock, mint, run_virtual

CANARY = "canary-0123456789abcdef"
AS_ROOT = os.geteuid() == 0


class ProjectedVolume:
    """A directory as kubelet writes it: `token` is a link through `..data`, which is swapped atomically."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "token"
        self._count = 0

    def write(self, token: str) -> None:
        self._count += 1
        payload = self.directory / f"..2030_01_02_03_04_05.{self._count:09}"
        payload.mkdir()
        (payload / "token").write_text(token)
        data, following = self.directory / "..data", self.directory / "..data_tmp"
        before = data.readlink() if data.is_symlink() else None
        following.symlink_to(payload.name)
        following.rename(data)
        if not self.path.is_symlink():
            self.path.symlink_to("..data/token")
        if before is not None:
            (self.directory / before / "token").unlink()
            (self.directory / before).rmdir()


@pytest.mark.parametrize("text", ["opaque-1", "opaque-1\n", '{"data": {"jwt": "opaque-1"}}\n'], ids=str)
def test_a_file_may_hold_a_raw_token_or_json(tmp_path, text):
    (tmp_path / "token").write_text(text)

    assert raw(FileSource(tmp_path / "token")) == "opaque-1"
    assert raw(FileSource(str(tmp_path / "token"))) == "opaque-1"


def test_paths_and_the_default_lifetime_count(tmp_path):
    (tmp_path / "token").write_text('{"chat": {"v": "opaque-1", "ttl": 90}}')
    issued = fetch(
        FileSource(tmp_path / "token", token_path="chat.v", expires_path="chat.ttl", default_lifetime=5)
    )

    assert issued.secret.reveal() == "opaque-1"
    assert (issued.expires_in, issued.default_lifetime_s) == (90.0, 5)


def test_a_relative_path_stays_what_it_was_when_the_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("opaque-1")
    monkeypatch.chdir(tmp_path)
    source = FileSource("token")
    monkeypatch.chdir("/")

    assert raw(source) == "opaque-1"


def test_links_are_followed_anew_at_each_fetch(tmp_path):
    volume = ProjectedVolume(tmp_path)
    source = FileSource(volume.path)
    tokens = []
    for serial in range(3):
        volume.write(f"opaque-{serial}")
        tokens.append(raw(source))

    assert tokens == ["opaque-0", "opaque-1", "opaque-2"]


def as_directory(path: Path) -> None:
    path.mkdir()


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_loop(path: Path) -> None:
    path.symlink_to(path)


def as_text(text: str | bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return write


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "is not there; a valid token stays. Start what writes it"),
        (as_text(""), "is empty; a valid token stays. Let its writer replace it as a whole"),
        (as_text(" \n"), "is empty"),
        (as_text('{"token": "' + CANARY), "holds JSON that is cut off"),
        (as_text(f'"{CANARY}'), "holds JSON that is cut off"),
        (as_text("x" * 2_000_000), "a file of more than 1 MiB"),
        (as_text(b"\xff\xfe" + CANARY.encode()), "no text in UTF-8"),
        (as_directory, "no regular file"),
        (as_fifo, "no regular file"),
        (as_loop, "cannot be read (Too many levels of symbolic links)"),
    ],
    ids=["missing", "empty", "blank", "half", "half-string", "large", "binary", "directory", "fifo", "loop"],
)
def test_a_file_without_a_token_is_a_transient_failure_that_says_what_to_do(tmp_path, make, words):
    make(tmp_path / "token")
    problem = failure(FileSource(tmp_path / "token"))

    assert isinstance(problem, TransientFetchError)
    assert words in str(problem)
    assert f"the file {tmp_path}/token" in str(problem)
    assert CANARY not in shown(problem)


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_by_whom(tmp_path):
    (tmp_path / "token").touch(mode=0)

    assert f"may not be read by uid {os.geteuid()}" in str(failure(FileSource(tmp_path / "token")))


@pytest.mark.parametrize("text", ["two words", '{"no": "token"}', "<html>"])
def test_what_is_no_token_is_a_response_error_that_names_the_file(tmp_path, text):
    (tmp_path / "token").write_text(text)
    problem = failure(FileSource(tmp_path / "token"))

    assert isinstance(problem, ResponseError)
    assert str(problem).startswith(f"the file {tmp_path}/token: ")


def test_a_writer_that_truncates_first_is_waited_for_inside_the_fetch(tmp_path):
    path = tmp_path / "token"
    path.write_text("")

    async def main() -> str:
        task = asyncio.create_task(FileSource(path).fetch(tries=3))
        await asyncio.sleep(0.1)
        path.write_text("opaque-1")
        return (await task).secret.reveal()

    assert run_virtual(main) == "opaque-1"


def test_no_descriptor_stays_open(tmp_path):
    (tmp_path / "token").write_text("opaque-1")
    raw(FileSource(tmp_path / "token"))
    before = descriptors()
    for name in ("token", "gone", "."):
        asyncio.run(attempt(FileSource(tmp_path / name)))

    assert descriptors() == before


async def attempt(source: FileSource) -> None:
    await asyncio.gather(source.fetch(), return_exceptions=True)


def test_a_new_token_in_a_projected_volume_is_published_within_seconds(tmp_path):
    volume = ProjectedVolume(tmp_path)
    tokens = [mint(expires_at=time.time() + 3600, jti=str(serial)) for serial in range(3)]
    volume.write(tokens[0])
    with TokenKeeper(FileSource(volume.path)) as keeper:
        for token in tokens[1:]:
            volume.write(token)
            until(lambda token=token: keeper.token == token, within_s=4)
        assert keeper.snapshot.generation == 3


def test_a_file_that_comes_late_is_used_as_soon_as_it_is_there(tmp_path):
    path = tmp_path / "token"

    async def main(clock: VirtualClock) -> float:
        async with AsyncTokenKeeper(FileSource(path), clock=clock, start_timeout=0) as keeper:
            # By now the keeper waits for minutes between two tries.
            await asyncio.sleep(900)
            assert keeper.snapshot.phase == "backing_off"
            came = clock.monotonic()
            path.write_text(mint(expires_at=clock.wall() + 3600))
            await keeper.get()
            return clock.monotonic() - came

    clock = VirtualClock()
    assert run_virtual(main(clock), clock) <= 2.0


def test_a_file_is_read_again_when_its_token_is_due_and_is_left_alone_while_it_is_the_same(tmp_path):
    clock = VirtualClock()
    path = tmp_path / "token"

    async def main() -> None:
        path.write_text(mint(expires_at=clock.wall() + 600))
        failures = []
        async with AsyncTokenKeeper(FileSource(path), clock=clock) as keeper:
            keeper.on("refreshFailed")(failures.append)
            await asyncio.sleep(590)
            assert keeper.snapshot.generation == 1
            assert keeper.snapshot.unchanged > 0
            path.write_text(mint(expires_at=clock.wall() + 600))
            await asyncio.sleep(2)
            assert (keeper.snapshot.generation, keeper.snapshot.unchanged) == (2, 0)
        assert failures == []

    run_virtual(main, clock)


def test_a_half_written_raw_token_is_replaced_when_the_rest_came(tmp_path):
    clock = VirtualClock()
    path = tmp_path / "token"

    async def main() -> None:
        path.write_text("opaque-")
        async with AsyncTokenKeeper(FileSource(path, default_lifetime=600), clock=clock) as keeper:
            with path.open("a") as file:
                file.write("1")
            await asyncio.sleep(2)
            assert keeper.token == "opaque-1"

    run_virtual(main, clock)


def test_the_token_is_served_on_when_the_file_is_removed(tmp_path):
    clock = VirtualClock()
    path = tmp_path / "token"

    async def main() -> None:
        path.write_text(mint(expires_at=clock.wall() + 600))
        async with AsyncTokenKeeper(FileSource(path), clock=clock) as keeper:
            path.unlink()
            await asyncio.sleep(5)
            assert keeper.snapshot.status == "fresh"
            assert "is not there" in str(keeper.snapshot.last_error)

    run_virtual(main, clock)


def test_it_is_a_source_that_is_watched_and_spreads_nothing(tmp_path):
    source: Source = FileSource(tmp_path / "token")

    assert isinstance(source, Watched)
    assert not isinstance(source, Retiring)
    assert source.splay is False
    assert source.origin == f"file:{tmp_path}/token"
    assert repr(source) == f"<FileSource {tmp_path}/token>"


def test_a_token_that_is_taken_for_a_path_is_not_shown():
    token = mint(expires_at=2_000_000_000)
    source = FileSource(token)

    assert token not in repr(source) + source.origin + shown(failure(source))


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("path", {"path": ""}),
        ("path", {"path": 3}),
        ("path", {"path": "a\0b"}),
        ("path", {"path": b"token"}),
        ("default_lifetime", {"default_lifetime": -1}),
        ("token_path", {"token_path": "a["}),
        ("expires_path", {"expires_path": "a["}),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_that_names_it(key, settings):
    with pytest.raises(ConfigError) as caught:
        FileSource(**({"path": "token"} | settings))

    assert caught.value.key == key
