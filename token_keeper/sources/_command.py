"""A source that runs a program. How that is run is in `_program`, what it may print in `_outputs`."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from token_keeper._errors import ConfigError, FetchError, ResponseError, TransientFetchError
from token_keeper._model import Issued, Secret
from token_keeper._redact import redact_text
from token_keeper.sources import _outputs as outputs
from token_keeper.sources._aside import Aside, StillRunningError
from token_keeper.sources._place import TokenPlace
from token_keeper.sources._program import KILL_AFTER_S, REAP_S, Ended, Running
from token_keeper.sources._source import FETCH_TIMEOUT_S, check_seconds, cleanly, without_traces
from token_keeper.sources._start import Program
from token_keeper.sources._values import Values

END_S: Final = 0.8
"""How long a fetch that was cancelled waits for the end of its program."""
_START_S: Final = 2.0
"""How long the start may take, on a file system that is slow."""
_SHELL: Final = "/bin/sh"
_SHOWN: Final = 64
_VARIABLE: Final = re.compile(r"[^=\0]+")
_EXEC_INFO: Final = json.dumps(
    {
        "kind": "ExecCredential",
        "apiVersion": f"{outputs.EXEC_API}{outputs.EXEC_VERSIONS[0]}",
        "spec": {"interactive": False},
    }
)
# Between a service and whoever supervises it. A program could speak for us with them.
_SUPERVISION: Final = frozenset(
    {"LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}
)


class CommandSource:
    """Run a program that prints a token.

        source = CommandSource(["gcloud", "auth", "print-access-token"], default_lifetime=3000)

    It is run once per fetch, without a shell unless *shell* is set, in a session
    of its own and with nothing on its standard input. It gets our environment,
    less what is between a service and its supervisor (`NOTIFY_SOCKET` and the
    like). While one runs there is no second one. It may print 1 MiB; what it
    writes to its standard error is never shown, as that may hold secrets.

    When its time is up, or the fetch is cancelled, it is ended together with all
    that it has started: with SIGTERM, half a second later with SIGKILL. What it
    leaves behind when it ends by itself is left alone, and not waited for.

    Everybody on the machine can read the arguments of programs: give secrets in *env*.

    Args:
        run: The program and its arguments, a list; with *shell* one string.
        shell: Let `/bin/sh` run it.
        format: ``raw``: what is printed is the token. ``json``: it is searched as
            an HTTP answer is. ``exec_credential``: what kubectl's exec plugins
            print, whose token and time of expiry count; the program gets
            KUBERNETES_EXEC_INFO, as from kubectl. ``credential_process``: what AWS's
            credential_process prints. Of that the SessionToken is kept, and nothing
            else: a keeper keeps one string, and whoever signs requests needs the
            keys that belong to it, too. ``auto`` knows the last two by their own
            marks; anything else it reads as an HTTP answer.
        timeout: Seconds for the program, at most 28.
        env: More variables. A value may be a `Secret`, or a function of no
            arguments, sync or async, that is called afresh for each run.
        cwd: Where to run it.
        token_path: JMESPath of the token in JSON. Without it the usual names are tried.
        expires_path: JMESPath of the lifetime in seconds, or of the time of expiry.
        default_lifetime: Seconds, for opaque tokens that do not say theirs.

    Raises:
        ConfigError: If a setting cannot work.
    """

    splay = True

    def __init__(  # noqa: PLR0913 - All but the first are keywords, and have a default.
        self,
        run: Sequence[str | os.PathLike[str]] | str,
        *,
        shell: bool = False,
        format: str = "auto",  # noqa: A002 - The word of the configuration.
        timeout: float = 10.0,
        env: Mapping[str, Any] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        token_path: str | None = None,
        expires_path: str | None = None,
        default_lifetime: float | None = None,
    ) -> None:
        try:
            self._run = _checked_run(run, shell=shell)
            self._name = _name(self._run[0])
            self._format = _checked_format(
                format, has_path=token_path is not None or expires_path is not None
            )
            check_seconds("timeout", timeout, most=FETCH_TIMEOUT_S - _START_S)
            _check_env(env)
            self._env = Values("env", dict(env or {}))
            self._directory = _checked_directory(cwd)
            self._place = TokenPlace(
                token_path=token_path, expires_path=expires_path, default_lifetime=default_lifetime
            )
            self._timeout = timeout
            self._aside = Aside(f"token_keeper command {self._name}")
            self._running: Running | None = None
        except ConfigError as error:
            problem = without_traces(error)
        else:
            return
        # A traceback shows the locals of its frames.
        del self, run, env
        raise problem

    def __repr__(self) -> str:
        return f"<CommandSource {self._name}>"

    @property
    def origin(self) -> str:
        """The program, by its name alone."""
        return f"command:{self._name}"

    async def fetch(self, *, tries: int = 1) -> Issued:  # noqa: ARG002 - A program has its own tries.
        """Run the program once, whatever *tries* is.

        Raises:
            TransientFetchError: If it did not run, or failed, or took too long.
            ResponseError: If what it printed is not a token.
        """
        return await cleanly(self._outcome())

    async def aclose(self) -> None:
        """End a program that still runs."""
        if self._running is not None:
            self._running.stop()

    async def _outcome(self) -> Issued | FetchError:
        try:
            ended = await self._ended(await self._program())
            if ended.output is not None:
                return outputs.token_in(ended.output.reveal(), self._format, self._place)
        except ResponseError as error:
            return ResponseError(f"what {self._name} printed cannot be used: {error.message}")
        except FetchError as error:
            return without_traces(error)
        return self._problem(ended)

    async def _program(self) -> Program:
        try:
            async with asyncio.timeout(self._timeout):
                given = await self._env.resolve()
        except TimeoutError:
            raise TransientFetchError(
                f"a function for env did not return within {self._timeout:g} s; "
                "a valid token stays. If it usually takes longer, raise timeout",
                timed_out=True,
            ) from None
        assert isinstance(given, dict)  # noqa: S101 - As it was made.
        for name, value in given.items():
            if not isinstance(value, str) or "\0" in value:
                raise TransientFetchError(
                    f"env[{name!r}]: the function returned what no variable can hold; "
                    "a valid token stays. Let it return a string"
                )
        ours = {name: value for name, value in os.environ.items() if name not in _SUPERVISION}
        if self._format == "exec_credential":
            ours["KUBERNETES_EXEC_INFO"] = _EXEC_INFO
        return Program(
            run=self._run, environment=ours | given, directory=self._directory, timeout_s=self._timeout
        )

    async def _ended(self, program: Program) -> Ended:
        """Run *program* in a thread. Whoever is cancelled ends it first."""
        running = Running(program)
        try:
            work = self._aside.begin(running.ended)
        except StillRunningError:
            running.close()
            return Ended(
                problem="has not ended since an earlier fetch, so it was not run again",
                advice="Find out what it waits for",
                timed_out=True,
            )
        except BaseException:
            running.close()
            raise
        self._running = running
        try:
            await asyncio.wait({work}, timeout=self._timeout + _START_S + KILL_AFTER_S + REAP_S)
        except asyncio.CancelledError:
            running.stop()
            await asyncio.wait({work}, timeout=END_S)
            raise
        if work.done():
            self._running = None
            return work.result()
        running.stop()
        return Ended(
            problem="could not even be started in time",
            advice="Check the file system that it is on",
            timed_out=True,
        )

    def _problem(self, ended: Ended) -> TransientFetchError:
        unseen = f" ({ended.unseen} bytes on its standard error are not shown)" if ended.unseen else ""
        return TransientFetchError(
            f"the program {self._name} {ended.problem}{unseen}; a valid token stays. {ended.advice}",
            timed_out=ended.timed_out,
        )


def _checked_run(run: object, *, shell: object) -> tuple[str, ...]:
    if not isinstance(shell, bool):
        raise ConfigError("shell", "must be True or False")
    if shell:
        if not isinstance(run, str) or not run.strip() or "\0" in run:
            raise ConfigError(
                "run", 'must be one string with shell=True, such as "pass show token | head -1"'
            )
        return (_SHELL, "-c", run)
    if isinstance(run, str):
        raise ConfigError(
            "run", 'must be a list, such as ["vault", "print", "token"]; with shell=True it is a string'
        )
    if not isinstance(run, Sequence) or isinstance(run, bytes | bytearray) or not run:
        raise ConfigError("run", 'must be a list, such as ["vault", "print", "token"]')
    for place, word in enumerate(run):
        if isinstance(word, Secret) or callable(word):
            raise ConfigError(
                f"run[{place}]", "would be shown to everybody on the machine: give secrets in env"
            )
        if not isinstance(word, str | os.PathLike) or "\0" in os.fspath(word):
            raise ConfigError(f"run[{place}]", "must be a string")
    words = tuple(os.fspath(word) for word in run)
    if not words[0].strip():
        raise ConfigError("run[0]", "must name a program")
    return words


def _checked_format(kind: object, *, has_path: bool) -> str:
    if not isinstance(kind, str) or kind not in outputs.FORMATS:
        raise ConfigError("format", f"unknown; known are {', '.join(outputs.FORMATS)}")
    if has_path and kind not in {"auto", "json"}:
        raise ConfigError(
            "format", f"is {kind}, in which nothing is searched: leave out token_path, expires_path"
        )
    return kind


def _check_env(env: object) -> None:
    if env is not None and not isinstance(env, Mapping):
        raise ConfigError("env", "must be a mapping of names to values")
    for name, value in (env or {}).items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise ConfigError("env", "has a name that no variable can have")
        if isinstance(value, Secret) or callable(value):
            continue
        if not isinstance(value, str) or "\0" in value:
            raise ConfigError(f"env[{name!r}]", "must be a string, a Secret, or a function")


def _checked_directory(cwd: object) -> str | None:
    if cwd is None:
        return None
    if not isinstance(cwd, str | os.PathLike) or not os.fspath(cwd) or "\0" in os.fspath(cwd):
        raise ConfigError("cwd", "must be a directory")
    return os.fspath(cwd)


def _name(program: str) -> str:
    """Return what a program is called. Whatever was written by mistake, it is no secret."""
    return redact_text(PurePath(program).name or program)[:_SHOWN]
