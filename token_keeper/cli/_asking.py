"""What the commands that ask the sidecar have in common: their options, and how they name a token."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from token_keeper._secret import Secret
from token_keeper.cli._answers import document_of
from token_keeper.cli._client import Nonsense, Sidecar, UnknownToken, find_socket
from token_keeper.cli._group import SafeUsageError, fail
from token_keeper.cli._output import printable
from token_keeper.cli._wire import LIST_MAX, Answer

WAIT_MAX = "60s"
"""The longest that the sidecar lets one request wait."""
LISTED = 20
"""Most names that a message lists."""
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "": 1.0}

_LENGTH = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"[!#-&(-\[\]-~]{1,16384}")

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Length(click.ParamType[float]):
    """A length of time such as ``90s``, ``3m`` or ``1h``; a bare number is seconds.

    Args:
        longest: The most that it may be, as it would be written.
    """

    name = "length"

    def __init__(self, longest: str = "365d") -> None:
        self.longest = longest

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return *value* in seconds."""
        length_s = _seconds(str(value))
        if length_s is None or length_s > (_seconds(self.longest) or 0.0):
            option = param.opts[-1] if param else "it"
            raise SafeUsageError(
                f"{option} takes a length of time such as 90s or 3m, at most {self.longest}", ctx
            )
        return length_s


class Name(click.ParamType[str]):
    """The name of a token, or of a reporter."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return *value* if it can be a name. What cannot be one is never sent: it may be a token."""
        text = str(value)
        if _NAME.fullmatch(text) is None:
            self.fail("not a name", param, ctx)
        return text


def _seconds(text: str) -> float | None:
    match = _LENGTH.fullmatch(text)
    return float(match[1]) * UNITS[match[2]] if match else None


def socket_option(function: _Function) -> _Function:
    """Add the option `--socket`."""
    return click.option(
        "--socket",
        "socket_path",
        metavar="PATH",
        help="The sidecar's socket; else $TOKEN_KEEPER_SOCKET, $XDG_RUNTIME_DIR/token-keeper/api.sock, "
        "/run/token-keeper/api.sock: the first that is set.",
    )(function)


def wait_option(default: str | None, text: str) -> Callable[[_Function], _Function]:
    """Return the option `--wait`."""
    return click.option(
        "--wait",
        "wait_s",
        type=Length(WAIT_MAX),
        default=default,
        show_default=default is not None,
        metavar="LENGTH",
        help=text,
    )


def min_validity_option(function: _Function) -> _Function:
    """Add the option `--min-validity`."""
    return click.option(
        "--min-validity",
        "min_validity_s",
        type=Length(),
        default="0s",
        metavar="LENGTH",
        help="How long the token has to stay valid, such as 90s; a shorter one is refreshed first.",
    )(function)


def sidecar_at(socket_path: str | None) -> Sidecar:
    """Return the sidecar at *socket_path*, or at the usual place."""
    return Sidecar(find_socket(socket_path))


def all_tokens(sidecar: Sidecar) -> dict[str, Any]:
    """Return what the sidecar says of all its tokens."""
    return document_of(sidecar.ask("GET", "/v1/tokens", body_max=LIST_MAX), sidecar.path, 200)


def rows_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tokens that *document* lists."""
    rows = document.get("tokens")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def query(**parameters: float) -> str:
    """Return *parameters* as the end of a URL, without those that are 0."""
    parts = [f"{name}={value:.6f}".rstrip("0").rstrip(".") for name, value in parameters.items() if value]
    return f"?{'&'.join(parts)}" if parts else ""


def ask_about(
    sidecar: Sidecar, method: str, target: str, *, wait_s: float = 0.0, expected: tuple[int, ...] = (200,)
) -> dict[str, Any]:
    """Ask about one token, and return the document of the answer."""
    return document_about(sidecar, sidecar.ask(method, target, wait_s=wait_s), *expected)


def document_about(sidecar: Sidecar, answer: Answer, *expected: int) -> dict[str, Any]:
    """Return the document of an *answer* about one token; if its name is not known, say which are."""
    try:
        return document_of(answer, sidecar.path, *(expected or (200,)))
    except UnknownToken:
        fail_unknown([str(row.get("name")) for row in rows_of(all_tokens(sidecar))])


def fail_unknown(known: list[str]) -> NoReturn:
    """Say that a name is not among those that are *known*. It is not repeated: it may be a token."""
    if not known:
        fail("the sidecar keeps no token; add one to its configuration and reload it", os.EX_DATAERR)
    names = ", ".join(printable(name) for name in known[:LISTED])
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    fail(f"the sidecar keeps no token of this name; it keeps {names}{more}", os.EX_DATAERR)


def secret_in(document: dict[str, Any], path: str) -> Secret:
    """Return the raw token of an answer, which is not left in *document*."""
    raw = document.pop("token", None)
    if not isinstance(raw, str) or _TOKEN.fullmatch(raw) is None:
        raise Nonsense(path, "what it gives out as a token cannot be one")
    return Secret(raw)
