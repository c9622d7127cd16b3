"""`token-keeper denied`: report that a server refused a token."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import click

from token_keeper.cli._asking import (
    Name,
    ask_about,
    document_about,
    query,
    sidecar_at,
    socket_option,
    wait_option,
)
from token_keeper.cli._client import Sidecar
from token_keeper.cli._group import SafeUsageError
from token_keeper.cli._input import read_value
from token_keeper.cli._output import printable, span, write_json
from token_keeper.cli._printing import write
from token_keeper.cli._refresh import successor_text
from token_keeper.cli._wire import Answer

MEANINGS = {
    "denied": "this token is withheld from whoever reported it, and another one is fetched",
    "superseded": "there is a newer token already: use that one; nothing is fetched",
    "throttled": "the token is fine: slow down and keep it; nothing is fetched",
    "forbidden": "another token would be refused too: the right is missing; nothing is fetched",
    "gave_up": "too many tokens were denied lately, nothing is fetched for now: ask token-keeper explain why",
    "disputed": "too many tokens were denied lately, and this reporter accepted this one before: keep it",
}
GENERATION_MAX = 10**15
CODE_MAX, REASON_MAX = 64, 1_000
"""Characters."""

_FINGERPRINT = re.compile(r"[0-9a-f]{8}")


@click.command()
@click.argument("name", type=Name())
@click.option(
    "--code", required=True, metavar="CODE", help="What the server said: 51215, 401, invalid_token ..."
)
@click.option(
    "--by", type=Name(), metavar="NAME", help="Who was refused: one of several clients of the token."
)
@click.option("--reason", metavar="TEXT", help="More of what the server said; for the log.")
@click.option(
    "--generation",
    type=click.IntRange(1, GENERATION_MAX),
    metavar="N",
    help="Which token was refused, by its generation.",
)
@click.option("--fingerprint", metavar="F", help="Which, by its fingerprint.")
@click.option("--token", metavar="-", help="Which: - reads it from standard input.")
@wait_option("0s", "How long to wait for another token.")
@click.option(
    "--json", "as_json", is_flag=True, help="Write the sidecar's answer, without the token, as JSON."
)
@socket_option
def denied(  # noqa: PLR0913 # One per option.
    *,
    name: str,
    code: str,
    by: str | None,
    reason: str | None,
    generation: int | None,
    fingerprint: str | None,
    token: str | None,
    wait_s: float,
    as_json: bool,
    socket_path: str | None,
) -> int:
    """Tell the sidecar that a server refused its token NAME.

    \b
        token-keeper denied chat --code 51215
        token-keeper denied chat --code 401 --generation 7 --by worker-3 --wait 10s

    Without --generation, --fingerprint or --token the current token is meant.

    Exit codes: 0 reported, 64 wrong usage, 65 no such token, 69 no sidecar,
    75 no other token in time, or too many were denied, 77 not allowed.
    """  # noqa: D301 # click looks for the character, not for its name.
    _check_usage(generation, fingerprint, token, code, reason)
    sidecar = sidecar_at(socket_path)
    which = _which(sidecar, name, generation, fingerprint, token)
    said = {"code": _code(code), "reason": reason, "by": by}
    body = {**which, **{key: value for key, value in said.items() if value is not None}}
    return _report(sidecar, name, body, wait_s=wait_s, as_json=as_json)


def _check_usage(
    generation: int | None, fingerprint: str | None, token: str | None, code: str, reason: str | None
) -> None:
    context = click.get_current_context()
    if sum(each is not None for each in (generation, fingerprint, token)) > 1:
        raise SafeUsageError("--generation, --fingerprint and --token exclude each other", context)
    if token not in {None, "-"}:
        raise SafeUsageError(
            "--token takes only -, which reads it from standard input: arguments are public", context
        )
    if fingerprint is not None and _FINGERPRINT.fullmatch(fingerprint) is None:
        raise SafeUsageError(
            "--fingerprint takes 8 hex digits, as status --json and events show them", context
        )
    if not code or len(code) > CODE_MAX or len(reason or "") > REASON_MAX:
        raise SafeUsageError(
            f"--code takes up to {CODE_MAX} characters, --reason up to {REASON_MAX}", context
        )


def _which(
    sidecar: Sidecar, name: str, generation: int | None, fingerprint: str | None, token: str | None
) -> dict[str, object]:
    if generation is not None:
        return {"generation": generation}
    if fingerprint is not None:
        return {"fingerprint": fingerprint}
    if token is not None:
        return {"token": read_value(token).secret.reveal()}
    current = ask_about(sidecar, "GET", f"/v1/tokens/{name}")
    return {"generation": current.get("generation"), "start": current.get("start")}


def _code(code: str) -> int | str:
    return int(code) if code.isascii() and code.isdigit() and len(code) <= 9 else code


def _report(sidecar: Sidecar, name: str, body: dict[str, object], *, wait_s: float, as_json: bool) -> int:
    target = f"/v1/tokens/{name}/denied{query(wait=wait_s)}"
    answer = sidecar.ask("POST", target, body, wait_s=wait_s)
    document = _verdict_in(answer) or document_about(sidecar, answer)
    has_other = document.pop("token", None) is not None
    if as_json:
        write_json(document)
    else:
        write(f"{_sentence(document, has_other=has_other)}\n")
    is_stuck = document.get("verdict") == "gave_up" or answer.status != 200
    return os.EX_TEMPFAIL if is_stuck else os.EX_OK


def _verdict_in(answer: Answer) -> dict[str, Any] | None:
    """Return the document if it has a verdict, whatever the status: 503 may have one."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    is_verdict = isinstance(document, dict) and isinstance(document.get("verdict"), str)
    return document if is_verdict and answer.status in {200, 503} else None


def _sentence(document: dict[str, Any], *, has_other: bool) -> str:
    verdict = str(document.get("verdict", "?"))
    parts = [f"{printable(verdict)}: {MEANINGS.get(verdict, 'see docs/commands.md')}"]
    retry_after = document.get("retry_after")
    if isinstance(retry_after, int | float) and retry_after > 0:
        parts.append(f"the next try is in {span(retry_after)}")
    if has_other:
        parts.append(f"now there is {successor_text(document)}")
    return "; ".join(parts)
