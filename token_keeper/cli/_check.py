"""`token-keeper check`: what is wrong with a configuration, without starting."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from token_keeper._errors import ConfigError
from token_keeper._redact import redact_text
from token_keeper.cli._configuration import chosen, config_option, read
from token_keeper.cli._extra import sidecar_extra
from token_keeper.cli._output import Row, Section, write_json, write_page

if TYPE_CHECKING:
    from token_keeper.sidecar.config import Checked

MOST_NAMES = 8
"""Names of tokens that the summary lists."""


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option("--schema", "as_schema", is_flag=True, help="Write the JSON Schema of the file, for editors.")
def check(*, config: Path | None, as_json: bool, as_schema: bool) -> int:
    """Say everything that is wrong with a configuration, without starting.

    \b
        token-keeper check --config keeper.toml
        token-keeper check --schema > keeper.schema.json

    It looks up the variables, files, users and directories that the file
    names, as `serve` does, so run it as the user that will serve. Nothing is
    sent, written or started, and no secret is shown.

    Exit codes: 0 it can work, 78 it cannot, 64 wrong usage, 66 the file cannot be read,
    69 without the packages of the sidecar.
    """  # noqa: D301 # click looks for the character, not for its name.
    with sidecar_extra():
        from token_keeper.sidecar.config import BadConfig, schema  # noqa: PLC0415 # It may not be installed.
    if as_schema:
        write_json(schema())
        return os.EX_OK
    path = chosen(config)
    try:
        checked = read(path)
    except BadConfig as bad:
        problems: Sequence[ConfigError] = bad.problems
    else:
        _write(path, checked, as_json=as_json)
        return os.EX_OK
    if as_json:
        write_json({"path": str(path), "valid": False, "problems": _documents(problems)})
    else:
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        heading = Section(f"{_name(path)} cannot work: {count}", style="error")
        write_page([heading, *(_section(problem) for problem in problems)])
    return os.EX_CONFIG


def _write(path: Path, checked: Checked, *, as_json: bool) -> None:
    if as_json:
        write_json({"path": str(path), "valid": True, **_summary(checked)})
    else:
        write_page(_page(path, checked))


def _summary(checked: Checked) -> Mapping[str, object]:
    tokens = checked.config.tokens
    return {
        "tokens": list(tokens),
        "sinks": sum(len(token.sinks) for token in tokens.values()),
        "hooks": sum(len(token.hooks) for token in tokens.values()),
        "problems": [],
        "warnings": _documents(checked.warnings),
    }


def _page(path: Path, checked: Checked) -> Iterator[Section]:
    summary = _summary(checked)
    names = list(checked.config.tokens)
    listed = ", ".join(names[:MOST_NAMES])
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    yield Section(
        f"{_name(path)} can work",
        [
            Row("tokens", f"{len(names)}{f': {listed}{more}' if names else ''}", style="quiet"),
            Row("sinks", str(summary["sinks"]), style="quiet"),
            Row("hooks", str(summary["hooks"]), style="quiet"),
        ],
        "good",
    )
    if checked.warnings:
        count = len(checked.warnings)
        yield Section(f"{count} warning{'s' * (count != 1)}", style="warning")
        yield from (_section(warning) for warning in checked.warnings)


def _section(problem: ConfigError) -> Section:
    # Keys are of any length: a column of them would leave no room for the texts.
    return Section(problem.key, [Row("", problem.problem)])


def _documents(problems: Sequence[ConfigError]) -> list[Mapping[str, str]]:
    return [{"key": problem.key, "problem": problem.problem} for problem in problems]


def _name(path: Path) -> str:
    return redact_text(str(path))
