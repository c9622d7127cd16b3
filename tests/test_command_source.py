"""A program as a source: what it may print, and in which words it fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import uvloop
from fetching import failure, fetch, fetch_all, raw, shown
from scripting import children, descriptors, end, pid_in, runs, script, until

from token_keeper import (
    AsyncTokenKeeper,
    ConfigError,
    ResponseError,
    Secret,
    TokenKeeper,
    TransientFetchError,
)
from token_keeper.sources import CommandSource
from token_keeper.testing import VirtualClock, mint, run_virtual

CANARY = "canary-0123456789abcdef"
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
AWS = {"Version": 1, "AccessKeyId": "AKIAEXAMPLE", "SecretAccessKey": "s3cr3t", "SessionToken": "session-1"}


def printing(directory: Path, text: str) -> list[str]:
    """Return a command that prints *text*."""
    (directory / "printed").write_text(text)
    return ["/bin/cat", str(directory / "printed")]


@pytest.mark.parametrize(
    "text", ["opaque-1", "opaque-1\n", '{"data": {"token": "opaque-1"}}', '"opaque-1"'], ids=str
)
def test_a_program_may_print_a_raw_token_or_json(tmp_path, text):
    assert raw(CommandSource(printing(tmp_path, text))) == "opaque-1"


def test_paths_and_the_default_lifetime_count(tmp_path):
    run = printing(tmp_path, json.dumps({"chat": {"v": "opaque-1", "ttl": 90}}))
    issued = fetch(CommandSource(run, token_path="chat.v", expires_path="chat.ttl", default_lifetime=5))

    assert issued.secret.reveal() == "opaque-1"
    assert (issued.expires_in, issued.default_lifetime_s) == (90.0, 5)


@pytest.mark.parametrize("kind", ["auto", "exec_credential"])
@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_an_exec_credential_of_kubectl_is_read(tmp_path, kind, version):
    status = {"token": "k8s-1", "expirationTimestamp": "2030-01-02T03:04:05Z"}
    document = {**EXEC, "apiVersion": f"client.authentication.k8s.io/{version}", "status": status}
    issued = fetch(CommandSource(printing(tmp_path, json.dumps(document)), format=kind))

    assert issued.secret.reveal() == "k8s-1"
    assert issued.expires_at == 1_893_553_445.0


@pytest.mark.parametrize("kind", ["auto", "credential_process"])
def test_of_credentials_of_aws_the_session_token_is_kept(tmp_path, kind):
    document = {**AWS, "Expiration": "2030-01-02T03:04:05+00:00"}
    issued = fetch(CommandSource(printing(tmp_path, json.dumps(document)), format=kind))

    assert issued.secret.reveal() == "session-1"
    assert issued.expires_at == 1_893_553_445.0


def test_a_token_path_wins_over_what_is_known_of_documents(tmp_path):
    run = printing(tmp_path, json.dumps({**EXEC, "status": {"token": "k8s-1"}, "mine": "opaque-1"}))

    assert raw(CommandSource(run, token_path="mine")) == "opaque-1"


@pytest.mark.parametrize(
    ("kind", "printed", "words"),
    [
        ("auto", "", "the answer is empty"),
        ("auto", "two words", "blanks"),
        ("raw", '{"token": "x"}', "JSON document"),
        ("raw", "\n", "empty string"),
        ("json", "opaque-1", 'set format="raw"'),
        ("json", '{"no": "token"}', "an object with no"),
        ("exec_credential", "opaque-1", "not an ExecCredential"),
        ("exec_credential", json.dumps({**EXEC, "apiVersion": "v3"}), "v1 or v1beta1"),
        ("auto", json.dumps(EXEC), "no status.token"),
        ("auto", json.dumps({**EXEC, "status": {"clientCertificateData": "x"}}), "a client certificate"),
        ("auto", json.dumps({**EXEC, "status": {"token": 3}}), "a number, not a string"),
        (
            "auto",
            json.dumps({**EXEC, "status": {"token": "x", "expirationTimestamp": "soon"}}),
            "expirationTimestamp is no time",
        ),
        ("credential_process", json.dumps({**AWS, "Version": 2}), "not 1"),
        ("credential_process", "[]", "not credentials of AWS"),
        ("auto", json.dumps({**AWS, "SessionToken": None}), "no SessionToken"),
    ],
)
def test_what_is_no_token_is_a_response_error_that_says_so(tmp_path, kind, printed, words):
    problem = failure(CommandSource(printing(tmp_path, printed), format=kind))

    assert isinstance(problem, ResponseError)
    assert words in str(problem)
    assert str(problem).startswith("what cat printed cannot be used: ")


def test_output_that_is_no_text_is_said_to_be_none(tmp_path):
    (tmp_path / "printed").write_bytes(b"\xff\xfe\x00")

    assert "no text in UTF-8" in str(failure(CommandSource(["cat", str(tmp_path / "printed")])))


def test_a_shell_is_used_only_when_asked_for():
    assert raw(CommandSource("echo one two | cut -d ' ' -f 2", shell=True)) == "two"
    assert raw(CommandSource(["/bin/echo", "$HOME"])) == "$HOME"


def test_a_program_runs_where_it_is_told_to_and_is_found_from_there(tmp_path):
    script(tmp_path, "cat token")
    (tmp_path / "token").write_text("opaque-1")

    assert raw(CommandSource(["./give-token"], cwd=tmp_path)) == "opaque-1"


def test_the_environment_is_ours_and_what_is_given_and_nothing_of_the_supervisor(tmp_path, monkeypatch):
    monkeypatch.setenv("GIVEN_BY_US", "ours")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    count = iter(range(3))
    run = script(
        tmp_path, 'echo "$GIVEN_BY_US-$PLAIN-$HIDDEN-$CALLED-${NOTIFY_SOCKET-unset}-${CREDENTIALS_DIRECTORY}"'
    )
    source = CommandSource(
        [run], env={"PLAIN": "a", "HIDDEN": Secret("b"), "CALLED": lambda: f"c{next(count)}"}
    )

    assert [one.secret.reveal() for one in fetch_all(source, times=2)] == [
        "ours-a-b-c0-unset-/run/credentials/x",
        "ours-a-b-c1-unset-/run/credentials/x",
    ]


def test_a_program_is_found_by_the_path_that_it_is_given(tmp_path):
    script(tmp_path, "echo opaque-1", name="only-here")

    assert raw(CommandSource(["only-here"], env={"PATH": f"{tmp_path}:/bin:/usr/bin"})) == "opaque-1"


def test_an_exec_plugin_is_told_what_kubectl_tells_it(tmp_path):
    run = script(tmp_path, 'printf "%s" "$KUBERNETES_EXEC_INFO" > info; cat credential')
    (tmp_path / "credential").write_text(json.dumps({**EXEC, "status": {"token": "k8s-1"}}))

    assert raw(CommandSource([run], format="exec_credential", cwd=tmp_path)) == "k8s-1"
    assert json.loads((tmp_path / "info").read_text()) == {**EXEC, "spec": {"interactive": False}}


def test_standard_input_is_empty(tmp_path):
    assert raw(CommandSource([script(tmp_path, "read -r line; echo got-nothing$line")])) == "got-nothing"


def a_file(directory: Path, mode: int, text: str = "") -> str:
    path = directory / "it"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: ["no-such-program-here"], "was not found"),
        (lambda at: [f"{at}/no-such-program"], "was not found"),
        (lambda at: [f"{at}"], "is a directory"),
        (lambda at: [a_file(at, 0o644)], "is not executable for uid"),
        (lambda at: [script(at, "", first="#!/no/such/interpreter")], "the interpreter in its first line"),
        (lambda at: [a_file(at, 0o755, "\x01\x02\x03")], "it is no program"),
        (lambda at: [script(at, "exit 3")], "ended with exit status 3"),
        (lambda at: [script(at, "kill -TERM $$")], "was killed by SIGTERM"),
        (lambda at: [script(at, "kill -KILL $$")], "was killed by SIGKILL"),
        (lambda at: [script(at, f"echo {CANARY} >&2; exit 1")], "(24 bytes on its standard error are"),
        (lambda at: [script(at, f"echo {CANARY}; exit 1")], "ended with exit status 1"),
    ],
    ids=[
        "not-found", "no-file", "directory", "not-executable", "no-interpreter", "no-program",
        "status", "term", "kill", "stderr", "token-and-status",
    ],
)  # fmt: skip
def test_a_program_that_fails_is_a_transient_failure_in_words(tmp_path, make, words):
    problem = failure(CommandSource(make(tmp_path)))

    assert isinstance(problem, TransientFetchError)
    assert not problem.timed_out
    assert words in str(problem)
    assert "a valid token stays" in str(problem)
    assert CANARY not in shown(problem)


def test_a_directory_that_is_not_there_is_said_so(tmp_path):
    problem = failure(CommandSource(["/bin/true"], cwd=tmp_path / "gone"))

    assert f"there is no directory {tmp_path}/gone" in str(problem)
    assert "Correct cwd" in str(problem)


def test_what_a_function_for_env_raises_or_returns_is_a_failed_fetch():
    def broken() -> str:
        raise ValueError(CANARY)

    assert "env['K']" in str(failure(CommandSource(["/bin/true"], env={"K": broken})))
    assert "Let it return a string" in str(failure(CommandSource(["/bin/true"], env={"K": lambda: 3})))


def test_a_program_that_prints_without_end_is_ended_at_the_bound(tmp_path):
    problem = failure(CommandSource([script(tmp_path, "yes")]))

    assert "printed more than 1 MiB and was ended" in str(problem)
    assert not children()


def test_a_program_that_fills_its_standard_error_is_not_held_up_by_it(tmp_path):
    run = script(tmp_path, "head -c 3000000 /dev/zero >&2; echo opaque-1")

    assert raw(CommandSource([run])) == "opaque-1"


def test_a_megabyte_is_not_too_much(tmp_path):
    (tmp_path / "printed").write_text('{"token": "opaque-1", "x": "' + "x" * 1_000_000 + '"}')

    assert raw(CommandSource(["cat", str(tmp_path / "printed")])) == "opaque-1"


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    run = script(tmp_path, f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    began = time.monotonic()
    problem = failure(CommandSource([run], timeout=0.3))

    assert problem.timed_out
    assert "did not end within 0.3 s and was ended" in str(problem)
    assert time.monotonic() - began < 2
    assert not runs(pid_in(tmp_path / "pid"))


def test_a_program_that_ignores_sigterm_is_killed_a_moment_later(tmp_path):
    run = script(tmp_path, f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 60; done")
    began = time.monotonic()
    problem = failure(CommandSource([run], timeout=0.3))

    assert problem.timed_out
    assert 0.8 <= time.monotonic() - began < 3
    assert not runs(pid_in(tmp_path / "pid"))


def test_a_grandchild_that_holds_the_pipe_and_ignores_sigterm_is_killed_as_well(tmp_path):
    (tmp_path / "stubborn").write_text(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 60; done")
    run = script(tmp_path, f"/bin/sh {tmp_path}/stubborn & sleep 60")
    failure(CommandSource([run], timeout=0.3))

    assert not runs(pid_in(tmp_path / "pid"))


def test_what_a_program_leaves_behind_is_neither_waited_for_nor_ended(tmp_path):
    run = script(tmp_path, f"sleep 60 & echo $! > {tmp_path}/pid; echo opaque-1")
    began = time.monotonic()
    token = raw(CommandSource([run]))
    pid = pid_in(tmp_path / "pid")
    try:
        assert token == "opaque-1"
        assert time.monotonic() - began < 5
        assert runs(pid)
    finally:
        end(pid)


def test_a_program_that_closes_its_output_and_stays_is_ended(tmp_path):
    assert failure(
        CommandSource([script(tmp_path, "echo opaque-1; exec >&- 2>&-; sleep 60")], timeout=0.3)
    ).timed_out


def test_a_cancelled_fetch_has_ended_its_program_when_it_is_over(tmp_path):
    run = script(tmp_path, f"trap '' TERM; echo $$ > {tmp_path}/pid; sleep 60 & wait; sleep 60")

    async def main() -> int:
        task = asyncio.create_task(CommandSource([run]).fetch())
        pid = await asyncio.to_thread(pid_in, tmp_path / "pid")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    assert not runs(asyncio.run(main()))


def test_closing_the_source_ends_its_program(tmp_path):
    run = script(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 60")

    async def main() -> TransientFetchError:
        source = CommandSource([run])
        task = asyncio.create_task(source.fetch())
        await asyncio.to_thread(pid_in, tmp_path / "pid")
        await source.aclose()
        with pytest.raises(TransientFetchError, match="nobody waits for its token any more") as caught:
            await task
        return caught.value

    asyncio.run(main())


def test_there_is_never_a_second_one_while_the_first_still_runs(tmp_path):
    run = script(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 60")

    async def main() -> None:
        source = CommandSource([run])
        first = asyncio.create_task(source.fetch())
        await asyncio.to_thread(pid_in, tmp_path / "pid")
        with pytest.raises(TransientFetchError, match="has not ended since an earlier fetch"):
            await source.fetch()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    asyncio.run(main())


def test_neither_zombies_nor_descriptors_are_left(tmp_path):
    ways = [
        CommandSource(["/bin/echo", "opaque-1"]),
        CommandSource([script(tmp_path, "sleep 60", name="slow")], timeout=0.05),
        CommandSource([script(tmp_path, "yes", name="loud")]),
        CommandSource(["no-such-program"]),
        CommandSource([script(tmp_path, "", name="odd", first="#!/no/such")]),
    ]

    async def main() -> None:
        await asyncio.gather(*(way.fetch() for way in ways), return_exceptions=True)

    asyncio.run(main())
    before = descriptors()
    for _ in range(3):
        asyncio.run(main())

    assert descriptors() == before
    assert not children()


def test_it_works_in_a_thread_under_uvloop_and_in_the_keepers_own_thread(tmp_path):
    run = printing(tmp_path, mint(expires_at=time.time() + 3600))
    tokens = []

    def in_thread() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            tokens.append(runner.run(CommandSource(run).fetch()).secret.reveal())

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tokens.append(runner.run(CommandSource(run).fetch()).secret.reveal())
    with TokenKeeper(CommandSource(run)) as keeper:
        tokens.append(keeper.token)

    assert len(set(tokens)) == 1
    assert len(tokens) == 3


def test_no_virtual_time_passes_while_a_program_runs(tmp_path):
    clock = VirtualClock()
    run = printing(tmp_path, mint(expires_at=clock.wall() + 3600))

    async def main() -> tuple[float, str]:
        async with AsyncTokenKeeper(CommandSource(run), clock=clock) as keeper:
            return clock.monotonic(), keeper.snapshot.status

    assert run_virtual(main, clock) == (1_000.0, "fresh")


@pytest.mark.parametrize("disposition", [signal.SIG_IGN, lambda *_: reap_all()], ids=["ignored", "reaped"])
def test_a_host_program_that_reaps_all_children_itself_is_no_trouble(tmp_path, disposition):
    former = signal.signal(signal.SIGCHLD, disposition)
    try:
        assert raw(CommandSource(["/bin/echo", "opaque-1"])) == "opaque-1"
        assert failure(CommandSource([script(tmp_path, "sleep 60")], timeout=0.1)).timed_out
    finally:
        signal.signal(signal.SIGCHLD, former)


def reap_all() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def test_the_hosts_own_children_are_left_to_it():
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], os.environ)
    raw(CommandSource(["/bin/echo", "opaque-1"]))
    until(lambda: not runs(pid))

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_source_is_named_after_its_program_and_shows_no_argument_of_it():
    source = CommandSource(["/usr/bin/vault", "login", CANARY], env={"K": CANARY})

    assert repr(source) == "<CommandSource vault>"
    assert source.origin == "command:vault"
    assert CommandSource(f"echo {CANARY}", shell=True).origin == "command:sh"
    assert CANARY not in repr(vars(source).get("_running")) + repr(source)


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("run", {"run": "vault print token"}),
        ("run", {"run": []}),
        ("run", {"run": 3}),
        ("run", {"run": ["a", "b"], "shell": True}),
        ("run", {"run": " ", "shell": True}),
        ("run[0]", {"run": [""]}),
        ("run[1]", {"run": ["a", 3]}),
        ("run[1]", {"run": ["a", Secret(CANARY)]}),
        ("run[1]", {"run": ["a", "b\0"]}),
        ("shell", {"shell": 1}),
        ("format", {"format": "xml"}),
        ("format", {"format": "raw", "token_path": "a"}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": 29}),
        ("env", {"env": ["A=1"]}),
        ("env", {"env": {"A=": "1"}}),
        ("env['A']", {"env": {"A": 3}}),
        ("cwd", {"cwd": ""}),
        ("default_lifetime", {"default_lifetime": -1}),
        ("token_path", {"token_path": "a["}),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_that_names_it(key, settings):
    with pytest.raises(ConfigError) as caught:
        CommandSource(**({"run": ["true"], "env": {"K": CANARY}} | settings))

    assert caught.value.key == key
    assert CANARY not in shown(caught.value)
