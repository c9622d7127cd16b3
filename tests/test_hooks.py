"""Hooks: when they run, what they are given, and that none of them can harm the rest."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest
from delivering import (
    LOOPS,
    Kept,
    a_config,
    a_file,
    a_raw,
    a_script,
    children,
    eventually,
    keeping,
    lines_of,
    parts_of,
    running,
    state_of,
)

from token_keeper import TransientFetchError
from token_keeper._model import EventKind
from token_keeper.sidecar.config._model import HookConfig

DOWN = TransientFetchError("the backend is down")


@pytest.fixture(autouse=True)
def _leaves_no_process() -> object:
    before = children()
    yield
    until = time.monotonic() + 5
    while left := children() - before:
        assert time.monotonic() < until, {pid: state_of(pid) for pid in left}
        time.sleep(0.01)


async def pid_in(path: Path) -> int:
    return int((await eventually(lambda: lines_of(path)))[0])


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hook_runs_after_all_sinks_of_each_generation_also_of_the_first(tmp_path: Path, loop: str) -> None:
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "out"
    hook = a_script(f"cat {first} {second} >> {out}; echo $TOKEN_KEEPER_GENERATION >> {out}")

    async def main() -> None:
        async with keeping(a_file(first), a_file(second, format="env", variable="T"), hooks=(hook,)) as kept:
            await eventually(lambda: len(lines_of(out)) == 2)
            raw = kept.served.token
            assert lines_of(out) == [f"{raw}T={raw}", "1"]
            raw = kept.renew()
            await eventually(lambda: len(lines_of(out)) == 4)
            assert lines_of(out)[2:] == [f"{raw}T={raw}", "2"]
            assert kept.deliveries.hook_failures == 0

    running(main(), loop)


def test_a_hook_runs_also_if_a_sink_could_not_be_written(tmp_path: Path) -> None:
    hook = a_script(f"echo $TOKEN_KEEPER_EVENT >> {tmp_path}/out")

    async def main() -> None:
        async with keeping(a_file(tmp_path / "missing" / "token"), hooks=(hook,)) as kept:
            await eventually(lambda: lines_of(tmp_path / "out") == ["tokenUpdated"])
            assert kept.deliveries.sinks[0].error is not None

    running(main())


def test_a_hook_hears_only_of_the_events_that_it_asked_for_in_their_order(tmp_path: Path) -> None:
    hook = a_script(f"echo $TOKEN_KEEPER_EVENT >> {tmp_path}/out", on=("tokenDenied", "tokenExpired"))

    async def main() -> None:
        async with keeping(hooks=(hook,)) as kept:
            kept.tell(EventKind.TOKEN_DENIED)
            kept.tell(EventKind.REFRESH_FAILED)
            kept.tell(EventKind.TOKEN_EXPIRED)
            await eventually(lambda: len(lines_of(tmp_path / "out")) == 2)
            assert lines_of(tmp_path / "out") == ["tokenDenied", "tokenExpired"]

    running(main())


def test_a_hook_hears_that_the_token_expired(tmp_path: Path) -> None:
    hook = a_script(f"echo $TOKEN_KEEPER_EVENT >> {tmp_path}/out", on=("tokenExpired",))

    async def main() -> None:
        async with keeping(hooks=(hook,), script=(DOWN,)) as kept:
            kept.renew(lifetime_s=2.0)
            await eventually(lambda: lines_of(tmp_path / "out") == ["tokenExpired"])

    running(main())


# What it is given.


@pytest.mark.parametrize("loop", LOOPS)
def test_environment_arguments_and_logs_hold_no_token(tmp_path: Path, loop: str) -> None:
    hook = a_script(
        f"cat /proc/$$/environ > {tmp_path}/environ; cat /proc/$$/cmdline > {tmp_path}/cmdline; pwd > "
        f"{tmp_path}/cwd; ls -l /proc/$$/fd > {tmp_path}/fds; cat > {tmp_path}/stdin; cat {tmp_path}/stdin; "
        "exit 3",
        stdin="token",
    )

    async def main() -> None:
        async with keeping(hooks=(hook,)) as kept:
            await eventually(lambda: kept.log.of("hookFailed"))
            raw = kept.served.token
            assert (tmp_path / "stdin").read_text() == raw
            environ = (tmp_path / "environ").read_text()
            assert dict(pair.split("=", 1) for pair in environ.split("\0") if pair) == {
                "PATH": os.environ["PATH"],
                "HOME": os.environ.get("HOME", "/"),
                "LANG": os.environ.get("LANG", "C.UTF-8"),
                "TOKEN_KEEPER_EVENT": "tokenUpdated",
                "TOKEN_KEEPER_NAME": "chat",
                "TOKEN_KEEPER_GENERATION": "1",
            }
            assert raw not in (tmp_path / "cmdline").read_text()
            assert lines_of(tmp_path / "cwd") == ["/"]
            assert len([line for line in lines_of(tmp_path / "fds") if "->" in line]) <= 4
            assert raw not in kept.log.text
            assert kept.served.snapshot.fingerprint in kept.log.of("hookFailed")[0].getMessage()

    running(main(), loop)


def test_an_opaque_token_in_a_hooks_output_is_masked_also_where_the_output_was_cut() -> None:
    raw = "opaque-" + "0123456789abcdefghijklmnopqrstuvwxyz" * 4
    hook = a_script(
        "read -r t || true; i=0; while [ $i -lt 300 ]; do printf %s $t; i=$((i+1)); done; "
        "printf %s $t | head -c 60; exit 1",
        stdin="token",
    )

    async def main() -> None:
        async with keeping(hooks=(hook,), script=(DOWN,)) as kept:
            kept.served.update(raw, expires_at=time.time() + 60)
            record = (await eventually(lambda: kept.log.of("hookFailed")))[0]
            pieces = (raw[at : at + 12] for at in range(len(raw) - 12))
            assert not [piece for piece in pieces if piece in kept.log.text]
            assert len(record.__dict__["output"]) <= 2_048

    running(main())


def test_a_command_that_does_not_read_its_input_is_no_problem() -> None:
    async def main() -> None:
        hooks = (HookConfig(run=("true",), stdin="token"), a_script("exit 4", stdin="token"))
        async with keeping(hooks=hooks, script=("t" * 16_384,)) as kept:
            await eventually(lambda: kept.deliveries.hook_failures)
            assert "exited with code 4" in kept.log.of("hookFailed")[0].getMessage()

    running(main())


def test_without_a_usable_token_the_input_is_empty(tmp_path: Path) -> None:
    hook = a_script(
        f"cat > {tmp_path}/stdin; echo done > {tmp_path}/out", stdin="token", on=("refreshFailed",)
    )

    async def main() -> None:
        async with keeping(hooks=(hook,), script=(DOWN,)):
            await eventually(lambda: lines_of(tmp_path / "out"))
            assert (tmp_path / "stdin").read_text() == ""

    running(main())


# How it fails.


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (("/bin/sh", "-c", "echo oh dear >&2; exit 7"), "exited with code 7"),
        (("/bin/sh", "-c", "kill -9 $$"), "was killed by SIGKILL"),
        (("no-such-program-here",), "there is no program no-such-program-here"),
        (("/etc/passwd",), "may not execute /etc/passwd"),
        (("etc/passwd",), "may not execute /etc/passwd"),
        (("/bin/sh", "a\0b"), "holds a NUL"),
    ],
)
def test_a_hook_that_fails_is_counted_and_logged(run: tuple[str, ...], problem: str) -> None:
    async def main() -> None:
        async with keeping(hooks=(HookConfig(run=run),)) as kept:
            await eventually(lambda: kept.deliveries.hook_failures == 1)
            record = kept.log.of("hookFailed")[0]
            assert problem in record.__dict__["error"]
            assert record.__dict__["hook"].startswith("hooks[0] ")
            assert record.__dict__.get("output") == ("oh dear" if "oh dear" in run[-1] else None)

    running(main())


def test_a_hook_that_writes_without_end_is_read_and_only_its_last_words_are_kept() -> None:
    hook = a_script("yes no-end; true", timeout=1.0)

    async def main() -> None:
        async with keeping(hooks=(hook,)) as kept:
            lags = []
            while not kept.log.of("hookFailed"):
                at = time.monotonic()
                await asyncio.sleep(0.01)
                lags.append(time.monotonic() - at)
            assert sorted(lags)[len(lags) // 2] < 0.1
            output = kept.log.of("hookFailed")[0].__dict__["output"]
            assert 1_000 < len(output.replace("\\n", "\n")) <= 2_048

    running(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hook_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path, loop: str) -> None:
    hook = a_script(f"sleep 60 & echo $! > {tmp_path}/pid; wait", timeout=0.3)

    async def main() -> None:
        async with keeping(hooks=(hook,)) as kept:
            pid = await pid_in(tmp_path / "pid")
            await eventually(lambda: kept.log.of("hookFailed"))
            assert "was ended: it took longer than 0.3 s" in kept.log.of("hookFailed")[0].getMessage()
            assert state_of(pid) in {"", "Z"}

    running(main(), loop)


def test_a_hook_that_ignores_sigterm_is_killed_5_s_later(tmp_path: Path) -> None:
    # Real seconds: those between SIGTERM and SIGKILL.
    hook = a_script(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done", timeout=0.3)

    async def main() -> None:
        async with keeping(hooks=(hook,)) as kept:
            pid = await pid_in(tmp_path / "pid")
            began = time.monotonic()
            await eventually(lambda: kept.log.of("hookFailed"))
            assert 4.5 < time.monotonic() - began < 7
            assert state_of(pid) == ""

    running(main())


def test_a_process_that_a_hook_leaves_behind_holds_nothing_up(tmp_path: Path) -> None:
    hook = a_script(f"sleep 60 & echo $! >> {tmp_path}/pid")

    async def main() -> None:
        async with keeping(hooks=(hook,)) as kept:
            left = await pid_in(tmp_path / "pid")
            try:
                await eventually(lambda: kept.deliveries._hooks[0].run is None, within_s=3)
                assert state_of(left) not in {"", "Z"}
            finally:
                os.kill(left, signal.SIGKILL)

    running(main())


# How often.


@pytest.mark.parametrize("loop", LOOPS)
def test_of_a_storm_of_events_a_few_runs_come_and_one_after_the_last_event(tmp_path: Path, loop: str) -> None:
    # Real seconds: starts are one second apart.
    out = tmp_path / "out"
    hook = a_script(f"echo $TOKEN_KEEPER_GENERATION >> {out}", on=("refreshFailed", "tokenDenied"))

    async def main() -> None:
        async with keeping(hooks=(hook,)) as kept:
            for number in range(1, 1_001):
                kept.tell(EventKind.REFRESH_FAILED, number)
                kept.tell(EventKind.TOKEN_DENIED, number)
            await eventually(lambda: lines_of(out).count("1000") == 2)
            await eventually(lambda: kept.deliveries._hooks[0].run is None)
            assert len(lines_of(out)) == 3

    running(main(), loop)


def test_runs_of_one_hook_never_overlap_and_start_a_second_apart(tmp_path: Path) -> None:
    out = tmp_path / "out"
    hook = a_script(f"date +%s.%N >> {out}; sleep 0.1; date +%s.%N >> {out}")

    async def main() -> None:
        async with keeping(hooks=(hook,)) as kept:
            await eventually(lambda: kept.served.snapshot.generation)
            kept.renew()
            await eventually(lambda: len(lines_of(out)) == 2)
            kept.renew()
            await eventually(lambda: len(lines_of(out)) == 4)

    running(main())
    first, ended, second, _ = map(float, lines_of(out))
    assert second >= ended
    assert second - first > 0.9


def test_a_hook_that_hangs_delays_no_sink_no_other_hook_and_no_token(tmp_path: Path) -> None:
    hooks = (a_script("sleep 60"), a_script(f"echo $TOKEN_KEEPER_GENERATION >> {tmp_path}/out"))

    async def main() -> None:
        async with keeping(a_file(tmp_path / "token"), hooks=hooks) as kept:
            await eventually(lambda: lines_of(tmp_path / "out") == ["1"])
            raw = kept.renew()
            await kept.written(2)
            assert (tmp_path / "token").read_text() == raw
            await eventually(lambda: lines_of(tmp_path / "out") == ["1", "2"])

    running(main())


def test_at_most_eight_hooks_run_at_once_and_the_others_get_their_turn(tmp_path: Path) -> None:
    hooks = tuple(
        a_script(f"echo + >> {tmp_path}/out; sleep 0.2; echo - >> {tmp_path}/out; : {number}")
        for number in range(20)
    )

    async def main() -> None:
        async with keeping(hooks=hooks):
            await eventually(lambda: len(lines_of(tmp_path / "out")) == 40)

    running(main())
    level, most = 0, 0
    for line in lines_of(tmp_path / "out"):
        level += 1 if line == "+" else -1
        most = max(most, level)
    assert most == 8


# Reload and end.


async def become(kept: Kept, *hooks: HookConfig) -> None:
    await kept.household.apply((parts_of(a_config(hooks=hooks)),))


def test_after_a_reload_the_new_hooks_run_and_a_running_one_runs_to_its_end(tmp_path: Path) -> None:
    former = a_script(f"echo begun >> {tmp_path}/out; sleep 0.4; echo ended >> {tmp_path}/out")
    later = a_script(f"echo later >> {tmp_path}/out")

    async def main() -> None:
        async with keeping(hooks=(former,)) as kept:
            await eventually(lambda: lines_of(tmp_path / "out") == ["begun"])
            await become(kept, later)
            await eventually(lambda: len(lines_of(tmp_path / "out")) == 3)
            assert sorted(lines_of(tmp_path / "out")) == ["begun", "ended", "later"]

    running(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_at_the_end_a_hook_may_finish_and_what_waits_runs(tmp_path: Path, loop: str) -> None:
    hook = a_script(f"sleep 0.3; echo $TOKEN_KEEPER_GENERATION >> {tmp_path}/out")

    async def main() -> None:
        async with keeping(a_file(tmp_path / "token"), hooks=(hook,)) as kept:
            await eventually(lambda: kept.deliveries._hooks[0].run)
            kept.renew()
            await eventually(lambda: kept.deliveries._hooks[0]._pending)

    running(main(), loop)
    assert lines_of(tmp_path / "out") == ["1", "2"]


@pytest.mark.parametrize("loop", LOOPS)
def test_at_the_end_a_hook_that_goes_on_is_ended_within_a_few_seconds(tmp_path: Path, loop: str) -> None:
    # Real seconds: the two that hooks get.
    hook = a_script(f"trap '' TERM; sleep 60 & echo $$ $! > {tmp_path}/pid; while :; do sleep 0.1; done")

    async def main() -> float:
        async with keeping(hooks=(hook,)):
            await eventually(lambda: lines_of(tmp_path / "pid"))
            began = time.monotonic()
        return time.monotonic() - began

    took_s = running(main(), loop)
    assert 1.9 < took_s < 4
    assert [state_of(int(pid)) for pid in lines_of(tmp_path / "pid")[0].split()] in (["", ""], ["", "Z"])


def test_at_the_end_what_waits_for_a_free_place_is_dropped(tmp_path: Path) -> None:
    hooks = (*(a_script(f"sleep 60; : {n}") for n in range(8)), a_script(f"echo late > {tmp_path}/out"))

    async def main() -> None:
        async with keeping(hooks=hooks) as kept:
            await eventually(lambda: all(hook.run for hook in kept.deliveries._hooks))

    running(main())
    assert not (tmp_path / "out").exists()


def test_a_hook_can_ask_who_it_is_by_its_event_alone(tmp_path: Path) -> None:
    script = (
        'printf \'{"event": "%s", "name": "%s", "generation": %s}\' "$TOKEN_KEEPER_EVENT" '
        f'"$TOKEN_KEEPER_NAME" "$TOKEN_KEEPER_GENERATION" > {tmp_path}/out'
    )

    async def main() -> None:
        async with keeping(hooks=(a_script(script),), script=(a_raw(),)) as kept:
            await eventually(lambda: lines_of(tmp_path / "out"))
            assert json.loads((tmp_path / "out").read_text()) == {
                "event": "tokenUpdated",
                "name": "chat",
                "generation": kept.served.snapshot.generation,
            }

    running(main())
