"""`token-keeper refresh`: have a token fetched now."""

from __future__ import annotations

import os
from typing import Any

import click

from token_keeper.cli._asking import Name, ask_about, query, sidecar_at, socket_option, wait_option
from token_keeper.cli._output import span, write_json
from token_keeper.cli._printing import write


@click.command()
@click.argument("name", type=Name())
@wait_option("30s", "How long to wait for the new token; 0s returns at once.")
@click.option(
    "--json", "as_json", is_flag=True, help="Write the sidecar's answer, without the token, as JSON."
)
@socket_option
def refresh(*, name: str, wait_s: float, as_json: bool, socket_path: str | None) -> int:
    """Have the sidecar fetch the token NAME now.

    A fetch in flight is joined. The current token serves on if the fetch fails.

    Exit codes: 0, 64 wrong usage, 65 no such token, 69 no sidecar, 75 no new
    token in time, 77 not allowed.
    """
    sidecar = sidecar_at(socket_path)
    target = f"/v1/tokens/{name}/refresh{query(wait=wait_s)}"
    document = ask_about(sidecar, "POST", target, wait_s=wait_s, expected=(200, 202))
    is_there = document.pop("token", None) is not None
    if as_json:
        write_json(document)
    elif is_there:
        write(f"{successor_text(document)}\n")
    else:
        write(
            f"a fetch was started; until it ends generation {document.get('generation')} is the current one\n"
        )
    return os.EX_OK


def successor_text(document: dict[str, Any]) -> str:
    """Return which token *document*, an answer about one, holds, without showing it."""
    expires_in = document.get("expires_in")
    left = (
        f"expires in {span(expires_in)}" if isinstance(expires_in, int | float) else "without a known expiry"
    )
    return f"generation {document.get('generation')}, {left}"
