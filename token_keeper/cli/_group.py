"""The group of all subcommands. A subcommand's module is imported when it is invoked."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from token_keeper import __version__

COMMANDS = {
    "demo": ("token_keeper.cli.demo._command:demo", "See a keeper at work, without any configuration."),
    "inspect": ("token_keeper.cli._inspect:inspect", "Say what a token is, and whether it can work."),
    "explain": ("token_keeper.cli._explain:explain", "Say why a server refuses tokens with a code."),
    "doctor": ("token_keeper.cli._doctor:doctor", "Go to a backend step by step, and say what is wrong."),
    "serve": ("token_keeper.cli._serve:serve", "Keep tokens fresh, and give them to other programs."),
    "check": ("token_keeper.cli._check:check", "Say what is wrong with a configuration, without starting."),
    "get": ("token_keeper.cli._get:get", "Print a token that the sidecar keeps."),
    "run": ("token_keeper.cli.run._command:run", "Run a program with a token that stays valid."),
    "status": ("token_keeper.cli.status._command:status", "Say how the sidecar's tokens are, once or live."),
    "events": ("token_keeper.cli._events:events", "Follow what happens to the sidecar's tokens."),
    "refresh": ("token_keeper.cli._refresh:refresh", "Have the sidecar fetch a token now."),
    "denied": ("token_keeper.cli._denied:denied", "Tell the sidecar that a server refused its token."),
    "login": ("token_keeper.cli.login._command:login", "Log in for a token whose source needs a person."),
    "dashboard": ("token_keeper.cli._dashboard:dashboard", "Open the sidecar's page in a browser."),
}
"""By name: where the command is, and what it is for."""

EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
"""As a program that SIGPIPE ends."""


class SafeUsageError(click.UsageError):
    """Wrong usage, in words that repeat no argument and may be printed."""


class Failure(click.ClickException):
    """What went wrong, in words that may be printed, and the exit code for it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _PipeClosedError(Exception):
    """Whoever read our output went away; click would turn the original into exit code 1."""


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports them when they are used.

    As a program it speaks the exit codes of sysexits.h, and a usage error
    never repeats an argument: it may be a token.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return all names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command *cmd_name*."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that *args* start with."""
        if args and args[0] not in COMMANDS:
            raise SafeUsageError(f"there is no such command; known are {', '.join(COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments; this also writes what `--help` and `--version` say."""
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:
            raise _PipeClosedError from None
        except OSError as error:
            fail_to_write(error)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _PipeClosedError from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 # As click declares it.
        **extra: Any,
    ) -> Any:
        """Run as a program and exit, or without *standalone_mode* as a function."""
        if standalone_mode:
            sys.exit(self.run(args, prog_name, complete_var=complete_var, **extra))
        return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)

    def run(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> int:
        """Run as a program, and return the exit code."""
        try:
            result = self.main(args, prog_name or "token-keeper", standalone_mode=False, **extra)
            _flush()
        except click.UsageError as wrong:
            return _say_usage(wrong)
        except click.Abort:
            return EXIT_INTERRUPTED
        except click.ClickException as failed:
            code = failed.code if isinstance(failed, Failure) else os.EX_SOFTWARE
            if code == os.EX_IOERR:
                _drop_output()
            return _say(failed.format_message(), code)
        except (_PipeClosedError, BrokenPipeError):
            _drop_output()
            return EXIT_PIPE_CLOSED
        return result if isinstance(result, int) else os.EX_OK


def fail(message: str, code: int) -> NoReturn:
    """Say *message* on standard error, and exit with *code*."""
    raise Failure(message, code)


def fail_to_write(error: OSError) -> NoReturn:
    """Say that standard output cannot be written, and exit 74."""
    fail(f"standard output cannot be written ({error.strerror})", os.EX_IOERR)


def _flush() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        fail_to_write(error)


def _say_usage(wrong: click.UsageError) -> int:
    path = wrong.ctx.command_path if wrong.ctx else "token-keeper"
    if isinstance(wrong, click.exceptions.NoArgsIsHelpError):
        click.echo(wrong.format_message(), err=True)
    return _say(f"{_usage_problem(wrong)}; see {path} --help", os.EX_USAGE)


def _usage_problem(wrong: click.UsageError) -> str:
    if isinstance(wrong, SafeUsageError):
        return wrong.message
    name = _name_of(wrong)
    if isinstance(wrong, click.MissingParameter):
        return f"{name} is missing"
    if isinstance(wrong, click.BadParameter):
        param = wrong.param
        choices = param.type.choices if param and isinstance(param.type, click.Choice) else ()
        known = f"; it is one of {', '.join(str(choice) for choice in choices)}" if choices else ""
        return f"the value of {name} cannot be used{known}"
    if isinstance(wrong, click.NoSuchOption):
        return "there is no such option"
    if isinstance(wrong, click.BadOptionUsage):
        return f"{wrong.option_name} has no value, or one that it does not take"
    if isinstance(wrong, click.exceptions.NoArgsIsHelpError):
        return f"name a command: {', '.join(COMMANDS)}"
    return "the arguments do not fit"


def _name_of(wrong: click.UsageError) -> str:
    param = wrong.param if isinstance(wrong, click.BadParameter) else None
    if param is None:
        return "an argument"
    return param.opts[-1] if isinstance(param, click.Option) else (param.name or "argument").upper()


def _say(message: str, code: int) -> int:
    click.echo(f"token-keeper: {message}", err=True)
    return code


def _drop_output() -> None:
    # Python flushes standard output once more at exit, and would complain then.
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # Standard output is no file: there is nothing to flush.
        pass
    finally:
        os.close(devnull)


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 # click's way.
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"token-keeper {__version__}")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Keep short-lived access tokens fresh, and find out why they are refused."""
