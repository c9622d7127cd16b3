"""`token-keeper serve`: keep tokens fresh, and give them to other programs."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any, Literal

import click

from token_keeper.cli._configuration import chosen, config_option, loaded
from token_keeper.cli._extra import sidecar_extra
from token_keeper.cli._group import fail


@click.command()
@config_option
@click.option(
    "--socket",
    type=click.Path(path_type=Path, readable=False),
    metavar="PATH",
    help="Where the Unix socket is made, instead of server.socket.",
)
@click.option("--listen", metavar="HOST:PORT", help="Adds TCP on loopback, instead of server.listen.")
@click.option("--log-format", type=click.Choice(["json", "console"]), help="How log lines look.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="The least that is logged."
)
def serve(
    *,
    config: Path | None,
    socket: Path | None,
    listen: str | None,
    log_format: Literal["json", "console"] | None,
    log_level: Literal["debug", "info", "warning", "error"] | None,
) -> int:
    """Keep the tokens of a configuration fresh, and give them to other programs.

    It stays in the foreground and logs to standard error: as lines in a
    terminal, else as JSON. Options win over the file.

    Signals: TERM and INT end it within 5 s, HUP reads the configuration again.

    Exit codes: 0 ended by a signal, 64 wrong usage, 66 the file cannot be read,
    69 without the packages of the sidecar, 70 a mistake of ours, 73 the socket is
    held by a living server, 77 not allowed to listen there, 78 the configuration
    cannot work, 128+N a second signal N ended it at once.
    """
    gc.disable()
    with sidecar_extra():
        from token_keeper.sidecar._lean import import_leanly  # noqa: PLC0415 # Not installed?

        import_leanly()
        from token_keeper.sidecar._hardening import keep_memory_private  # noqa: PLC0415 # As above.
        from token_keeper.sidecar._logging import sidecar_logger  # noqa: PLC0415 # As above.
        from token_keeper.sidecar._serve import exit_now, run  # noqa: PLC0415 # As above.
        from token_keeper.sidecar.server._sockets import CannotListenError  # noqa: PLC0415 # As above.
    # What was imported stays. Looking for garbage in it would make requests wait.
    gc.freeze()
    gc.enable()
    keep_memory_private()
    checked = loaded(chosen(config))
    server = _server_of(
        checked.config.server, socket=socket, listen=listen, log_format=log_format, log_level=log_level
    )
    logger = sidecar_logger(server.log_format, server.log_level)
    try:
        code = run(checked, server, logger)
    except CannotListenError as error:
        fail(str(error), error.code)
    except Exception:
        logger.exception("sidecarCrashed")
        code = os.EX_SOFTWARE
    exit_now(code)


def _server_of(configured: Any, *, socket: Path | None, **options: object) -> Any:
    """Return `[server]` with what the command line says instead."""
    import msgspec  # noqa: PLC0415 # Not installed without the extra.

    said = {name: value for name, value in options.items() if value is not None}
    if socket is not None:
        said["socket"] = str(Path.cwd() / socket)
    return msgspec.structs.replace(configured, **said)
