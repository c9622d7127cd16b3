"""Writes configurations, and loads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from token_keeper.sidecar.config import BadConfig, Checked, load

CANARY = "canary-7f3a9c51e2d84b06"
"""Stands where a secret can stand; never in what is shown."""

SOURCE = '[tokens.chat.source]\ntype = "http"\nurl = "https://backend.example/token"\n'


def written(directory: Path, text: str) -> Path:
    """Write *text* to a file that only we can read, in *directory*."""
    path = directory / "keeper.toml"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def loaded(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> Checked:
    return load(written(directory, text), environ=environ or {})


def problems(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what is wrong with *text*, by key, in order. Nothing, if nothing is."""
    try:
        loaded(directory, text, environ)
    except BadConfig as bad:
        found = bad
    else:
        return {}
    assert str(found) == "\n".join(f"{one.key}: {one.problem}" for one in found.problems)
    return {one.key: one.problem for one in found.problems}


def warnings(directory: Path, text: str) -> dict[str, str]:
    return {one.key: one.problem for one in loaded(directory, text).warnings}
