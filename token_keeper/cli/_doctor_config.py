"""What `token-keeper doctor --config` examines: the source of a token, as the sidecar would ask it."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.core import ParameterSource

from token_keeper.cli._configuration import loaded
from token_keeper.cli._group import SafeUsageError, fail
from token_keeper.cli._input import read_secret
from token_keeper.cli._subjects import subject_in
from token_keeper.doctor import Connect, Order, Subject

ALSO = frozenset({"config", "url", "secret_file", "connect", "twilsock_url", "region", "as_json"})
"""The parameters that go with `--config`; what the others say stands in the file."""
MOST_NAMES = 8
TIMEOUT_S = 10.0
"""For a source that has no time limit of its own."""


def configured(  # noqa: PLR0913 # One per option.
    config: Path,
    name: str | None,
    *,
    secret_file: str | None,
    connect: bool,
    twilsock_url: str | None,
    region: str | None,
    **_others: object,
) -> Order:
    """Return what to examine of the token *name* of *config*; of the only one if *name* is None.

    Raises:
        SafeUsageError: If the options do not go together.
        ConfigError: If the source cannot be asked.
    """
    ctx = click.get_current_context()
    for param in ctx.command.params:
        if (
            param.name not in ALSO
            and ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        ):
            raise SafeUsageError(f"{param.opts[-1]} cannot be combined with --config, which says it", ctx)
    if not connect and (twilsock_url is not None or region is not None):
        raise SafeUsageError("--twilsock-url and --region need --connect", ctx)
    checked = loaded(config)
    by_name = {parts.name: parts for parts in checked.parts}
    if name is None and len(by_name) == 1:
        name = next(iter(by_name))
    if name is None or name not in by_name:
        fail(_which(list(by_name), is_named=name is not None), os.EX_DATAERR if name else os.EX_USAGE)
    parts = by_name[name]
    subject = subject_in(checked, name)
    return Order(
        request=subject,
        profile=parts.config.profile,
        expect=parts.expect,
        policy=parts.policy,
        key=read_secret(secret_file),
        connect=_connect(subject, twilsock_url, region) if connect else None,
    )


def _connect(subject: Subject, url: str | None, region: str | None) -> Connect:
    words = subject.words
    return Connect(
        url=url, region=region, timeout=words.get("timeout", TIMEOUT_S), ca_file=words.get("ca_file")
    )


def _which(names: list[str], *, is_named: bool) -> str:
    if not names:
        return "the configuration has no token: write a table [tokens.NAME]"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    known = f"{', '.join(names[:MOST_NAMES])}{more}"
    return f"there is no such token; known are {known}" if is_named else f"say which token: {known}"
