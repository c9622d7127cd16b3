"""Finds and loads the configuration that a command is about."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from token_keeper._redact import redact_text
from token_keeper.cli._extra import sidecar_extra
from token_keeper.cli._group import SafeUsageError, fail
from token_keeper.cli._output import printable

if TYPE_CHECKING:
    from token_keeper.sidecar.config import Checked

VARIABLE = "TOKEN_KEEPER_CONFIG"
USUAL_NAME = "keeper.toml"

CommandT = TypeVar("CommandT", bound=Callable[..., object])


def config_option(command: CommandT) -> CommandT:
    """Add `--config FILE` to *command*, as the keyword ``config``."""
    return click.option(
        "--config",
        # Whether it can be read is found out by reading: that is exit code 66, not wrong usage.
        type=click.Path(path_type=Path, readable=False),
        metavar="FILE",
        help=f"The configuration. Default: ${VARIABLE}.",
    )(command)


def chosen(config: Path | None) -> Path:
    """Return the file that `--config` names, else `$TOKEN_KEEPER_CONFIG`.

    A file that merely lies in the working directory is never taken: it says what is run.

    Raises:
        SafeUsageError: If neither names one.
    """
    path = config or Path(os.environ.get(VARIABLE, ""))
    if path != Path():
        return path
    here = f"; --config {USUAL_NAME} would take the one that is here" if Path(USUAL_NAME).is_file() else ""
    raise SafeUsageError(
        f"name the configuration with --config FILE, or in ${VARIABLE}{here}", click.get_current_context()
    )


def loaded(path: Path) -> Checked:
    """Load *path*; exit 66 if it cannot be read, 78 if it cannot work, 69 without the extra `[sidecar]`."""
    with sidecar_extra():
        from token_keeper.sidecar.config import BadConfig  # noqa: PLC0415 # It may not be installed.
    try:
        return read(path)
    except BadConfig as bad:
        fail(f"the configuration cannot work:\n{bad}", os.EX_CONFIG)


def read(path: Path) -> Checked:
    """Load *path*; exit 66 if it cannot be read, 69 without the extra `[sidecar]`.

    Raises:
        BadConfig: If it cannot work.
    """
    with sidecar_extra():
        from token_keeper.sidecar.config import load  # noqa: PLC0415 # It may not be installed.
    try:
        return load(path)
    except OSError as error:
        # Like every argument it may be a token that landed in the wrong place.
        shown = printable(redact_text(str(path)))
        fail(
            f"the configuration {shown} cannot be read ({error.strerror}); "
            f"name a file that uid {os.geteuid()} can read with --config, or in ${VARIABLE}",
            os.EX_NOINPUT,
        )
