"""Tells a sidecar that runs about a login, so that it need not find out by itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from token_keeper.cli._asking import ask_about, query
from token_keeper.cli._client import Sidecar, find_socket
from token_keeper.cli._group import Failure
from token_keeper.cli._output import printable
from token_keeper.cli._refresh import successor_text
from token_keeper.cli.login._target import Target

WAIT_S = 15.0
"""How long a sidecar may take to fetch the token."""
ELSEWHERE = (
    "If it does not see the login, it keeps its grants elsewhere: "
    "write directory under [store], so that both look in one place"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a sidecar made of the news.

    Args:
        socket: Where it was looked for.
        is_there: Whether one runs.
        has_token: Whether it has the new token.
        generation: Of that token.
        text: All of it in a sentence that may be printed.
    """

    socket: str
    is_there: bool = True
    has_token: bool = False
    generation: int | None = None
    text: str = ""


def tell_sidecar(target: Target, configured: str | None) -> Told:
    """Have the sidecar fetch the token of *target*, if one runs.

    Args:
        target: For what somebody logged in.
        configured: The socket of the configuration.
    """
    path = configured or find_socket(None)
    where = printable(path)
    try:
        document: dict[str, Any] = ask_about(
            Sidecar(path),
            "POST",
            f"/v1/tokens/{target.name}/refresh{query(wait=WAIT_S)}",
            wait_s=WAIT_S,
            expected=(200, 202),
        )
    except Failure as failure:
        return _untold(path, failure)
    token = document.pop("token", None)
    if token is None:
        return Told(socket=path, text=f"the sidecar at {where} fetches the token now")
    # In a chain another source may come first.
    if target.link is None and not target.keeps(str(token)):
        return Told(socket=path, text=f"the sidecar at {where} has a token of another login. {ELSEWHERE}")
    generation = document.get("generation")
    return Told(
        socket=path,
        has_token=True,
        generation=generation if isinstance(generation, int) else None,
        text=f"the sidecar at {where} has the token: {successor_text(document)}",
    )


def _untold(path: str, failure: Failure) -> Told:
    where = printable(path)
    if failure.code == os.EX_UNAVAILABLE:
        return Told(
            socket=path,
            is_there=False,
            text=f"no sidecar answers at {where}; one that starts finds the login in the store",
        )
    if failure.code == os.EX_TEMPFAIL:
        text = f"the sidecar at {where} has no new token yet: {failure.message}. {ELSEWHERE}"
    elif failure.code == os.EX_DATAERR:
        text = f"the sidecar at {where} does not keep this token yet: reload its configuration"
    else:
        text = f"the sidecar at {where} was not told: {failure.message}"
    return Told(socket=path, text=text)
