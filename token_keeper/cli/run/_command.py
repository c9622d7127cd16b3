"""`token-keeper run`: a program with a token that stays valid."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import click

from token_keeper._secret import Secret
from token_keeper.cli._asking import (
    Name,
    min_validity_option,
    secret_in,
    sidecar_at,
    socket_option,
    wait_option,
)
from token_keeper.cli._client import Sidecar
from token_keeper.cli._get import ask_for
from token_keeper.cli._group import SafeUsageError, fail
from token_keeper.cli._printing import say
from token_keeper.cli.run._child import ENDING, EXIT_KILLED, Child, Signals, stop_as_asked
from token_keeper.cli.run._file import PrivateFile
from token_keeper.cli.run._kernel import Signal
from token_keeper.cli.run._watch import Watch

DEFAULT_VARIABLE = "ACCESS_TOKEN"
STOP_S = 10.0
"""Seconds that a program may take to end for a restart, before it is killed."""
GAP_MIN_S, GAP_MAX_S = 1.0, 30.0
"""Seconds between two starts: doubled each time that a program lives less than twice as long."""
WRITE_AGAIN_S = 1.0
SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGINT", "SIGTERM", "SIGQUIT", "SIGALRM")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What to run, and what to do for it.

    Args:
        command: The program and its arguments.
        variable: Holds the token, or the path of its file.
        has_file: Whether the token is in a file.
        on_renewal: ``restart``, ``signal`` or ``nothing``.
        signal: To send if it is ``signal``.
    """

    command: tuple[str, ...]
    variable: str
    has_file: bool
    on_renewal: str
    signal: int


@click.command()
@click.argument("name", type=Name())
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--env", "env", metavar="VARIABLE", help=f"The variable for the token; default {DEFAULT_VARIABLE}."
)
@click.option(
    "--file",
    "file",
    metavar="VARIABLE",
    help="The variable for the path of a private file that is kept fresh.",
)
@click.option(
    "--on-renewal",
    type=click.Choice(["restart", "signal", "nothing"]),
    default="nothing",
    show_default=True,
    help="What to do when there is another token.",
)
@click.option(
    "--signal", "signal_name", type=click.Choice(SIGNALS), help="For --on-renewal signal; default SIGHUP."
)
@min_validity_option
@wait_option("30s", "How long to wait for the first token, and for the sidecar itself.")
@socket_option
def run(  # noqa: PLR0913 # One per option.
    *,
    name: str,
    command: tuple[str, ...],
    env: str | None,
    file: str | None,
    on_renewal: str,
    signal_name: str | None,
    min_validity_s: float,
    wait_s: float,
    socket_path: str | None,
) -> int:
    """Run COMMAND with the token NAME in its environment, or in a file.

    \b
        token-keeper run chat -- ./bot
        token-keeper run chat --env TOKEN --on-renewal restart -- ./bot --verbose
        token-keeper run chat --file TOKEN_FILE --on-renewal signal -- ./bot

    Signals are passed on. A sidecar that goes away does not end the program.

    Exit codes: those of COMMAND, 126 it cannot be executed, 127 it was not found,
    128+N signal N killed it; before it is started 64, 65, 69, 75 and 77 as for
    get, 73 no file can be made.
    """  # noqa: D301 # click looks for the character, not for its name.
    orders = Orders(
        command=command,
        variable=_variable(env, file),
        has_file=file is not None,
        on_renewal=on_renewal,
        signal=_signal_number(signal_name, on_renewal),
    )
    sidecar = sidecar_at(socket_path)
    document = ask_for(sidecar, name, min_validity_s=min_validity_s, wait_s=wait_s)
    token = secret_in(document, sidecar.path)
    generation = document.get("generation")
    watch = _watch_for(orders, sidecar, name, generation if isinstance(generation, int) else 0, token)
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        private = stack.enter_context(PrivateFile()) if orders.has_file else None
        if watch:
            stack.callback(watch.close)
        return _Run(orders, signals, private, watch, token).to_its_end()


def _variable(env: str | None, file: str | None) -> str:
    context = click.get_current_context()
    if env is not None and file is not None:
        raise SafeUsageError("--env and --file exclude each other", context)
    variable = env if env is not None else file
    if variable is None:
        return DEFAULT_VARIABLE
    if _VARIABLE.fullmatch(variable) is None:
        raise SafeUsageError("--env and --file take the name of a variable, such as ACCESS_TOKEN", context)
    return variable


def _signal_number(name: str | None, on_renewal: str) -> int:
    if name is not None and on_renewal != "signal":
        raise SafeUsageError("--signal goes with --on-renewal signal", click.get_current_context())
    return signal.Signals[name or "SIGHUP"]


def _watch_for(orders: Orders, sidecar: Sidecar, name: str, generation: int, token: Secret) -> Watch | None:
    if not orders.has_file and orders.on_renewal == "nothing":
        return None
    return Watch(sidecar, name, generation=generation, fingerprint=token.fingerprint)


class _Run:
    """One run of a program, over all its restarts."""

    def __init__(
        self,
        orders: Orders,
        signals: Signals,
        private: PrivateFile | None,
        watch: Watch | None,
        token: Secret,
    ) -> None:
        self._orders = orders
        self._signals = signals
        self._private = private
        self._watch = watch
        self._token = token
        self._child: Child | None = None
        self._gap_s = GAP_MIN_S
        self._started_at = 0.0
        self._has_new = False
        self._kill_at: float | None = None
        self._is_ending = False
        self._write_at: float | None = None

    def to_its_end(self) -> int:
        """Start the program, and return its exit code."""
        if self._private is not None:
            try:
                self._private.write(self._token)
            except OSError as error:
                fail(f"the token's file cannot be written ({error.strerror})", os.EX_CANTCREAT)
        self._start()
        while True:
            code = self._turn()
            if code is not None:
                return code

    def _turn(self) -> int | None:
        ready = self._poll()
        if self._signals.descriptor in ready:
            for came in self._signals.read():
                code = self._bury() if came.number == signal.SIGCHLD else self._obey(came)
                if code is not None:
                    return code
        if self._watch is not None:
            token = self._watch.advance(is_readable=self._watch.descriptor in ready)
            if token is not None:
                self._renew(token)
        if self._write_at is not None and time.monotonic() >= self._write_at:
            self._renew(self._token)
        self._restart_if_due()
        return None

    def _poll(self) -> set[int | None]:
        poller = select.poll()
        poller.register(self._signals.descriptor, select.POLLIN)
        waits = [] if self._watch is None else [self._watch.timeout_s()]
        if self._watch is not None and self._watch.descriptor is not None:
            poller.register(self._watch.descriptor, select.POLLIN)
        now = time.monotonic()
        waits += [at - now for at in (self._kill_at, self._write_at, self._restart_at()) if at is not None]
        timeout_s = max(min(waits), 0.0) if waits else None
        return {
            descriptor for descriptor, _ in poller.poll(None if timeout_s is None else timeout_s * 1_000 + 1)
        }

    def _start(self) -> None:
        self._started_at = time.monotonic()
        self._child = Child(self._orders.command, self._environ(), self._signals.former)
        self._has_new, self._kill_at = False, None

    def _environ(self) -> Mapping[str, str]:
        value = self._token.reveal() if self._private is None else self._private.path
        return {**os.environ, self._orders.variable: value}

    def _bury(self) -> int | None:
        code = self._child.bury() if self._child else None
        if code is None:
            return None
        was_stopped = self._kill_at is not None and not self._is_ending
        self._child, self._kill_at = None, None
        return None if was_stopped else code

    def _obey(self, came: Signal) -> int | None:
        if came.number in ENDING:
            # Whoever ends us does not want another start.
            self._is_ending = True
            if self._child is None:
                return EXIT_KILLED + came.number
        if self._child is not None:
            self._child.pass_on(came)
        if came.number == signal.SIGTSTP:
            stop_as_asked()
        return None

    def _renew(self, token: Secret) -> None:
        self._token = token
        if self._private is not None and not self._write(self._private):
            return
        if self._orders.on_renewal == "signal" and self._child is not None:
            self._child.send(self._orders.signal)
        self._has_new = self._orders.on_renewal == "restart"

    def _write(self, private: PrivateFile) -> bool:
        try:
            private.write(self._token)
        except OSError as error:
            if self._write_at is None:
                say(f"the token's file cannot be written ({error.strerror}): it is tried again each second")
            self._write_at = time.monotonic() + WRITE_AGAIN_S
            return False
        self._write_at = None
        return True

    def _restart_at(self) -> float | None:
        """Return when the next step of a restart is due, if there is to be one."""
        is_stopping = self._child is not None and self._kill_at is not None
        if self._is_ending or is_stopping or not (self._has_new or self._child is None):
            return None
        return self._started_at + self._gap_s

    def _restart_if_due(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at and self._child is not None:
            self._child.send(signal.SIGKILL)
            self._kill_at = now + STOP_S
        at = self._restart_at()
        if at is None or now < at:
            return
        if self._child is None:
            self._start()
            return
        lived_s = now - self._started_at
        self._gap_s = min(2 * self._gap_s, GAP_MAX_S) if lived_s < 2 * self._gap_s else GAP_MIN_S
        self._child.send(signal.SIGTERM)
        self._kill_at = now + STOP_S
