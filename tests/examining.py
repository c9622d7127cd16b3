"""Runs `token-keeper doctor`, and finds what it says of a step."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result
from minting import CHAT, minted

from token_keeper.cli._group import cli

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NO_PROXY: dict[str, str | None] = dict.fromkeys(_PROXIES)


def run(*args: str, env: dict[str, str | None] | None = None) -> Result:
    settings = {"TOKEN_KEEPER_SECRET": None, **NO_PROXY, **(env or {})}
    return CliRunner().invoke(cli, ["doctor", *args], env=settings)


def examined(*args: str, env: dict[str, str | None] | None = None) -> dict[str, Any]:
    """Return the document, with the steps by name as `step`."""
    result = run("--json", *args, env=env)
    document: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if document["ok"] else 1)
    return {**document, "step": {step["step"]: step for step in document["steps"]}}


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["status"] for step in document["steps"]}


def for_twilio(*grants: Any, lifetime: int = 3600, age: int = 0, **options: Any) -> Any:
    """Return what mints tokens for Twilio that are *age* seconds old."""

    def mint(now: float) -> str:
        start = int(now) - age
        return minted(*(grants or (CHAT,)), nbf=start, valid_until=start + lifetime, **options)

    return mint
