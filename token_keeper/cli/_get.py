"""`token-keeper get`: a token on standard output."""

from __future__ import annotations

import os

import click

from token_keeper.cli._asking import (
    Name,
    ask_about,
    min_validity_option,
    query,
    secret_in,
    sidecar_at,
    socket_option,
    wait_option,
)
from token_keeper.cli._client import Sidecar
from token_keeper.cli._group import SafeUsageError
from token_keeper.cli._output import write_json
from token_keeper.cli._printing import write

MIN_VALIDITY_WAIT_S = 30.0
"""How long to wait for a token that lives long enough, unless it is said."""


@click.command()
@click.argument("name", type=Name())
@min_validity_option
@wait_option(
    None,
    "How long to wait for a usable token, and for the sidecar itself; "
    "default 30s with --min-validity, else not at all.",
)
@click.option("--raw", is_flag=True, help="Write no line end after the token.")
@click.option("--json", "as_json", is_flag=True, help="Write the sidecar's whole answer, as JSON.")
@socket_option
def get(  # noqa: PLR0913 # One per option.
    *,
    name: str,
    min_validity_s: float,
    wait_s: float | None,
    raw: bool,
    as_json: bool,
    socket_path: str | None,
) -> int:
    """Print the token NAME that the sidecar keeps.

    \b
        curl -H "Authorization: Bearer $(token-keeper get chat)" ...
        token-keeper get chat --min-validity 90s --wait 30s

    $(...) drops the line end by itself; --raw is for files and pipes.

    Exit codes: 0, 64 wrong usage, 65 no such token, 69 no sidecar, 75 no usable
    token now, 77 not allowed.
    """  # noqa: D301 # click looks for the character, not for its name.
    if raw and as_json:
        raise SafeUsageError("--raw and --json exclude each other", click.get_current_context())
    if wait_s is None:
        wait_s = MIN_VALIDITY_WAIT_S if min_validity_s else 0.0
    sidecar = sidecar_at(socket_path)
    document = ask_for(sidecar, name, min_validity_s=min_validity_s, wait_s=wait_s)
    if as_json:
        write_json(document)
        return os.EX_OK
    write(secret_in(document, sidecar.path).reveal() + ("" if raw else "\n"))
    return os.EX_OK


def ask_for(sidecar: Sidecar, name: str, *, min_validity_s: float, wait_s: float) -> dict[str, object]:
    """Return the sidecar's answer about the token *name*. Waits for the sidecar as well as for the token."""
    if wait_s:
        wait_s = sidecar.await_presence(wait_s)
    target = f"/v1/tokens/{name}{query(min_validity=min_validity_s, wait=wait_s)}"
    return ask_about(sidecar, "GET", target, wait_s=wait_s)
