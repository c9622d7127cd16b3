"""The sinks of a token: what is written when, and that one which fails holds up nobody else."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from delivering import (
    LOOPS,
    Kept,
    Log,
    a_config,
    a_file,
    a_raw,
    eventually,
    keeping,
    keeping_parts,
    mounted,
    names_in,
    needs_root,
    parts_of,
    running,
)

from token_keeper import TransientFetchError
from token_keeper._model import EventKind
from token_keeper.sidecar._documents import token_answer
from token_keeper.sidecar._household import Household
from token_keeper.sidecar._threads import Threads
from token_keeper.sidecar.config._model import FileSinkConfig
from token_keeper.testing import VirtualClock, mint, run_virtual

DOWN = TransientFetchError("the backend is down")


@pytest.mark.parametrize("loop", LOOPS)
def test_the_first_generation_is_written_in_each_format(tmp_path: Path, loop: str) -> None:
    sinks = (
        a_file(tmp_path / "raw"),
        a_file(tmp_path / "json", format="json", mode=0o640),
        a_file(tmp_path / "env", format="env", variable="CHAT_TOKEN"),
        a_file(tmp_path / "text", format="template", template="{{name}} {{generation}}: {{token}}\n"),
    )

    async def main() -> None:
        async with keeping(*sinks) as kept:
            await kept.written(1)
            raw = kept.served.token
            assert (tmp_path / "raw").read_text() == raw
            document = json.loads((tmp_path / "json").read_text())
            answer = token_answer(kept.served, kept.household.start)
            assert answer is not None
            assert document | {"expires_in": 0} == answer | {"expires_in": 0}
            assert (tmp_path / "env").read_text() == f"CHAT_TOKEN={raw}\n"
            assert (tmp_path / "text").read_text() == f"chat 1: {raw}\n"
            assert stat.S_IMODE((tmp_path / "json").stat().st_mode) == 0o640
            assert [(sink.path, sink.generation, sink.error) for sink in kept.deliveries.sinks] == [
                (sink.path, 1, None) for sink in sinks
            ]
            assert {sink.behind_since for sink in kept.deliveries.sinks} == {None}

    running(main(), loop)


READER = """
import json, os, stat, sys
path, problems, seen = sys.argv[1], set(), set()
print("reading", flush=True)
while not seen or max(seen) < 51:
    try:
        with open(path, "rb") as file:
            problems |= {stat.S_IMODE(os.fstat(file.fileno()).st_mode)} - {0o640}
            seen.add(json.loads(file.read())["generation"])
    except (OSError, ValueError) as error:
        problems.add(repr(error))
print(problems or "none", len(seen))
"""


def test_a_reader_at_full_speed_over_50_renewals_finds_a_whole_file_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token.json"

    async def main() -> str:
        async with keeping(a_file(path, format="json", mode=0o640)) as kept:
            await kept.written(1)
            command = (sys.executable, "-c", READER, str(path))
            reader = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            assert reader.stdout is not None
            assert await reader.stdout.readline() == b"reading\n"
            for _ in range(50):
                kept.renew()
                await kept.written()
            said, _ = await reader.communicate()
            return said.decode()

    problems, seen = running(main()).split()
    assert problems == "none"
    assert int(seen) > 10
    assert names_in(tmp_path) == ["token.json"]


def test_generations_that_come_faster_than_they_can_be_written_are_left_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(a_file(tmp_path / "token")) as kept:
            await kept.written(1)
            renewed = [kept.renew() for _ in range(200)]
            await kept.written()
            assert (tmp_path / "token").read_text() == renewed[-1]
            assert kept.deliveries.sinks[0].generation == 201

    running(main())


def test_a_sink_that_fails_holds_up_no_other_and_recovers(tmp_path: Path) -> None:
    missing = tmp_path / "missing"

    async def main() -> None:
        async with keeping(a_file(missing / "token"), a_file(tmp_path / "token")) as kept:
            failing, working = kept.deliveries.sinks
            await eventually(lambda: working.generation == 1)
            await eventually(lambda: failing.error)
            assert f"create the directory {missing}" in str(failing.error)
            assert failing.generation == 0
            assert failing.behind_since is not None
            missing.mkdir()
            raw = kept.renew()  # It is tried again with the next token, however long the wait was.
            await eventually(lambda: failing.generation == 2, within_s=0.9)
            assert (missing / "token").read_text() == raw
            assert (failing.error, failing.behind_since) == (None, None)
            assert len(kept.log.of("sinkFailed")) == 1
            assert len(kept.log.of("sinkRecovered")) == 1

    running(main())


def test_a_failed_sink_is_tried_again_after_growing_waits_and_logged_once(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def main() -> None:
        log = Log()
        raw = mint(expires_at=clock.wall() + 86_400)
        parts = parts_of(a_config(a_file(tmp_path / "missing" / "token")), raw)
        async with Household((parts,), clock=clock, logger=log.logger()) as household:
            sink = household.deliveries("chat")._sinks[0]
            began = clock.monotonic()
            failed_at: list[float] = []
            while len(failed_at) < 8:
                await asyncio.sleep(0.5)
                if sink._failures > len(failed_at):
                    failed_at.append(round(clock.monotonic() - began))
            waits = [after - before for before, after in itertools.pairwise(failed_at)]
            assert waits == pytest.approx([1, 2, 4, 8, 16, 30, 30], abs=1)
            assert len(log.of("sinkFailed")) == 1
            (tmp_path / "missing").mkdir()
            await asyncio.sleep(31)
            assert (tmp_path / "missing" / "token").read_text() == raw
            assert len(log.of("sinkRecovered")) == 1

    run_virtual(main, clock)


def test_a_failure_of_another_kind_is_logged_anew(tmp_path: Path) -> None:
    directory = tmp_path / "directory"

    async def main() -> None:
        async with keeping(a_file(directory / "token")) as kept:
            await eventually(lambda: kept.log.of("sinkFailed"))
            directory.write_text("not a directory")
            kept.renew()
            await eventually(lambda: len(kept.log.of("sinkFailed")) == 2)
            assert "Not a directory" in kept.log.of("sinkFailed")[1].getMessage()

    running(main())


@needs_root
def test_a_full_disk_is_told_with_a_remedy_and_the_old_token_stays(tmp_path: Path) -> None:
    async def main() -> None:
        with mounted(tmp_path / "small", "size=16k") as small:
            async with keeping(a_file(small / "token")) as kept:
                await kept.written(1)
                first = kept.served.token
                (small / "ballast").write_bytes(b"b" * 12_288)
                kept.renew()
                sink = kept.deliveries.sinks[0]
                await eventually(lambda: sink.error)
                assert "No space left on device" in str(sink.error)
                assert "make room" in str(sink.error)
                assert (small / "token").read_text() == first
                assert sink.generation == 1
                (small / "ballast").unlink()
                await kept.written(2)
                assert (small / "token").read_text() == kept.served.token

    running(main())


@needs_root
def test_a_file_system_that_hangs_makes_its_sink_behind_and_no_other(tmp_path: Path) -> None:
    # Real seconds: a write that hangs is told from a slow one after 5 s.
    async def main() -> None:
        frozen = frozen_disk(tmp_path)
        slow = [a_file(frozen / f"token-{number}") for number in range(6)]
        async with keeping(*slow, a_file(tmp_path / "token")) as kept:
            *hanging, working = kept.deliveries.sinks
            await kept.written(1)
            freeze("-f", frozen)
            try:
                kept.renew()
                await eventually(lambda: working.generation == 2, within_s=8)
                assert {sink.generation for sink in hanging} == {1}
                assert all(sink.behind_since is not None for sink in hanging)
                await eventually(lambda: any(sink.error for sink in hanging), within_s=8)
                assert "does not answer" in kept.log.of("sinkFailed")[0].getMessage()
            finally:
                freeze("-u", frozen)
            await kept.written(2)
            assert {sink.error for sink in hanging} == {None}

    try:
        running(main())
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "frozen")], capture_output=True, check=False)


def frozen_disk(tmp_path: Path) -> Path:
    """Mount a disk that can be frozen; skip where that is not possible."""
    image, where = tmp_path / "image", tmp_path / "frozen"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(4 << 20)
    for command in (
        ["mkfs.ext4", "-q", str(image)],
        ["mount", "-o", "loop", str(image), str(where)],
    ):
        program = shutil.which(command[0])
        if program is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no loop device can be mounted here")
    return where


def freeze(option: str, where: Path) -> None:
    subprocess.run(["fsfreeze", option, str(where)], check=True)


def test_threads_that_hang_are_replaced_by_others() -> None:
    gate = threading.Event()
    threads = Threads(2, "test")
    try:
        hanging = [threads.submit(gate.wait) for _ in range(2)]
        waiting = threads.submit(lambda: "done")
        threads.relieve(0.0)
        assert waiting.result(timeout=5) == "done"
        assert not any(job.done() for job in hanging)
    finally:
        gate.set()
    assert [job.result(timeout=5) for job in hanging] == [True, True]


def test_what_a_job_raises_reaches_whoever_waits_and_ends_no_thread() -> None:
    threads = Threads(1, "test")
    failed = threads.submit(lambda: 1 // 0)
    assert threads.submit(lambda: 2).result(timeout=5) == 2
    assert isinstance(failed.exception(timeout=5), ZeroDivisionError)


def test_the_file_of_an_expired_token_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(a_file(tmp_path / "token"), script=(DOWN,)) as kept:
            raw = kept.renew(lifetime_s=2.0)
            await kept.written(1)
            await eventually(lambda: kept.served.snapshot.status == "expired")
            assert (tmp_path / "token").read_text() == raw

    running(main())


def test_the_file_of_a_denied_token_stays_until_its_successor_comes(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(a_file(tmp_path / "token"), script=(a_raw(), DOWN)) as kept:
            await kept.written(1)
            raw = kept.served.token
            kept.served.report_denied(raw, code=401)
            await eventually(lambda: kept.served.snapshot.status == "denied")
            assert (tmp_path / "token").read_text() == raw

    running(main())


def test_nothing_is_written_before_there_is_a_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(a_file(tmp_path / "token"), script=(DOWN,)) as kept:
            kept.tell(EventKind.REFRESH_FAILED)
            await eventually(lambda: kept.served.snapshot.failures)
        assert names_in(tmp_path) == []

    running(main())


def test_what_a_killed_run_left_is_removed_at_the_start(tmp_path: Path) -> None:
    left = tmp_path / ".token-keeper.0123456789abcdef.tmp"
    left.write_text("half a tok")

    async def main() -> None:
        async with keeping(a_file(tmp_path / "token"), script=(DOWN,)):
            await eventually(lambda: not left.exists())

    running(main())


# Reload. The backend is down by then, so that what is written is the current token.


async def become(kept: Kept, *sinks: FileSinkConfig, **more: Any) -> None:
    await kept.household.apply((parts_of(a_config(*sinks, **more), DOWN),))


def test_after_a_reload_a_new_sink_is_written_at_once_and_a_removed_ones_file_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(a_file(tmp_path / "old"), a_file(tmp_path / "kept")) as kept:
            await kept.written(1)
            raw = kept.served.token
            inode = (tmp_path / "kept").stat().st_ino
            await become(kept, a_file(tmp_path / "kept"), a_file(tmp_path / "new"))
            await kept.written(1)
            assert (tmp_path / "new").read_text() == (tmp_path / "old").read_text() == raw
            assert (tmp_path / "kept").stat().st_ino == inode
            assert [sink.path for sink in kept.deliveries.sinks] == [
                str(tmp_path / "kept"),
                str(tmp_path / "new"),
            ]

    running(main())


def test_after_a_reload_a_sink_that_looks_otherwise_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "token"

    async def main() -> None:
        async with keeping(a_file(path)) as kept:
            await kept.written(1)
            raw = kept.served.token
            await become(kept, a_file(path, format="env", variable="TOKEN", mode=0o640))
            await eventually(lambda: path.read_text() == f"TOKEN={raw}\n")
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
            await eventually(lambda: kept.deliveries.sinks[0].behind_since is None)

    running(main())


def test_after_a_reload_a_token_that_does_not_fit_any_more_is_written_nowhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(script=(a_raw(iss="here"),)) as kept:
            await eventually(lambda: kept.served.snapshot.generation == 1)
            await become(kept, a_file(tmp_path / "token"), profile="twilio")
            await eventually(lambda: kept.served.snapshot.failures)
            assert names_in(tmp_path) == []
            assert kept.deliveries.sinks[0].behind_since is None

    running(main())


# The end.


def test_at_the_end_what_is_due_is_written(tmp_path: Path) -> None:
    async def main() -> str:
        async with keeping(a_file(tmp_path / "token")) as kept:
            await kept.written(1)
            return kept.renew()

    assert running(main()) == (tmp_path / "token").read_text()


def test_at_the_end_a_failed_sink_is_tried_once_more(tmp_path: Path) -> None:
    async def main() -> str:
        async with keeping(a_file(tmp_path / "missing" / "token")) as kept:
            await eventually(lambda: kept.deliveries.sinks[0].error)
            (tmp_path / "missing").mkdir()
            return kept.served.token

    assert running(main()) == (tmp_path / "missing" / "token").read_text()


def test_a_second_close_does_nothing_and_what_comes_after_it_neither(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(a_file(tmp_path / "token")) as kept:
            await kept.written(1)
            raw = kept.served.token
            await kept.deliveries.close()
            await kept.deliveries.close()
            kept.renew()
            kept.tell(EventKind.TOKEN_UPDATED)
            await asyncio.sleep(0)
            assert (tmp_path / "token").read_text() == raw

    running(main())


# Adoption.


def formerly(path: Path, raw: str, **more: object) -> None:
    """Leave a file as a former run would."""
    document = {"token": raw, "token_type": "Bearer", "expires_at": time.time() + 600, "generation": 7}
    path.write_text(json.dumps({**document, **more}))
    path.chmod(0o600)


def test_the_token_of_a_former_run_serves_while_the_backend_is_down(tmp_path: Path) -> None:
    raw = a_raw(600)
    formerly(tmp_path / "token.json", raw)
    sinks = (a_file(tmp_path / "token.json", format="json", adopt=True), a_file(tmp_path / "raw"))

    async def main() -> None:
        async with keeping(*sinks, script=(DOWN,)) as kept:
            assert kept.served.token == raw
            await kept.written(1)
            assert (tmp_path / "raw").read_text() == raw
            document = json.loads((tmp_path / "token.json").read_text())
            assert (document["generation"], document["start"]) == (1, kept.household.start)
            assert len(kept.log.of("sinkAdopted")) == 1

    running(main())


def test_an_opaque_token_is_adopted_with_the_expiry_that_stands_beside_it(tmp_path: Path) -> None:
    formerly(tmp_path / "token.json", "opaque-0123456789")

    async def main() -> None:
        sink = a_file(tmp_path / "token.json", format="json", adopt=True)
        async with keeping(sink, script=(DOWN,)) as kept:
            assert kept.served.token == "opaque-0123456789"
            assert 590 < kept.served.snapshot.usable_for <= 600

    running(main())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"expires_at": 1_000_000_000.0, "token": "opaque-0123456789"}, "expired"),
        ({"expires_at": None}, "does not say when"),
        ({"token": "with\nline-feed"}, "cannot work"),
        ({"token": ""}, "cannot work"),
        ({"token": "\ud800"}, "cannot work"),
    ],
)
def test_a_file_that_cannot_be_believed_is_ignored_and_the_log_says_why(
    tmp_path: Path, more: dict[str, object], why: str
) -> None:
    formerly(tmp_path / "token.json", **({"raw": a_raw(600)} | more))  # type: ignore[arg-type]

    async def main() -> None:
        sink = a_file(tmp_path / "token.json", format="json", adopt=True)
        async with keeping(sink, script=(DOWN,)) as kept:
            assert kept.served.snapshot.generation == 0
            assert why in kept.log.of("sinkNotAdopted")[0].getMessage()

    running(main())


def test_a_token_that_is_not_what_is_expected_is_not_adopted(tmp_path: Path) -> None:
    formerly(tmp_path / "token.json", a_raw(600))
    sink = a_file(tmp_path / "token.json", format="json", adopt=True)

    async def main() -> None:
        async with keeping_parts(parts_of(a_config(sink, profile="twilio"), DOWN)) as kept:
            assert kept.served.snapshot.generation == 0
            assert len(kept.log.of("sinkNotAdopted")) == 1

    running(main())


def test_without_adopt_a_former_file_is_not_looked_at(tmp_path: Path) -> None:
    formerly(tmp_path / "token.json", a_raw(600))

    async def main() -> None:
        async with keeping(a_file(tmp_path / "token.json", format="json"), script=(DOWN,)) as kept:
            assert kept.served.snapshot.generation == 0

    running(main())


def test_the_second_sink_is_asked_if_the_first_has_nothing(tmp_path: Path) -> None:
    raw = a_raw(600)
    formerly(tmp_path / "second", raw)
    sinks = [a_file(tmp_path / name, format="json", adopt=True) for name in ("first", "second")]

    async def main() -> None:
        async with keeping(*sinks, script=(DOWN,)) as kept:
            assert kept.served.token == raw
            assert kept.log.of("sinkNotAdopted") == []

    running(main())


def test_no_token_is_in_any_log_line_of_sinks(tmp_path: Path) -> None:
    canary = "canary-0123456789-canary"
    formerly(tmp_path / "token.json", canary)
    sinks = (
        a_file(tmp_path / "token.json", format="json", adopt=True),
        a_file(tmp_path / "missing" / "token"),
        a_file(tmp_path / "a-pipe"),
    )
    os.mkfifo(tmp_path / "a-pipe")

    async def main() -> Log:
        async with keeping(*sinks, script=(DOWN,)) as kept:
            await eventually(lambda: len(kept.log.of("sinkFailed")) == 2)
            return kept.log

    assert "canary" not in running(main()).text
