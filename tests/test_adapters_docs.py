"""docs/adapters.md names every adapter, and every use that it shows exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pages import blocks_of

from token_keeper import adapters

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
MODULES = {module.name for module in pkgutil.iter_modules(adapters.__path__) if module.name[0] != "_"}
GIVEN = {"keeper", "session", "channel", "target", "credentials", "engine", "shown", "dsn", "conninfo"}
"""What the reader has already."""
NOT_OURS = {
    "AuthorizedSession": "google.auth.transport.requests",
    "Anthropic": "anthropic",
    "ConnectionPool": "psycopg_pool",
    "Producer": "confluent_kafka",
    "CallbackAPIVersion": "paho.mqtt.enums",
}
"""Where names of the table come from that are neither an adapter's nor a package."""


@dataclass(frozen=True, slots=True)
class Row:
    package: str
    since: str
    module: str
    uses: tuple[str, ...]


def rows() -> list[Row]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines()]
    found = []
    for package, module, use, *_ in (row for row in cells if len(row) == 5 and row[0].startswith("[")):
        named = re.fullmatch(r"\[([\w.-]+)\]\(#[\w-]+\) ([\d.]+)(, .*)?", package)
        assert named, package
        found.append(Row(named[1], named[2], module.strip("`"), tuple(re.findall(r"`([^`]+)`", use))))
    return found


def adapter(name: str) -> Any:
    return importlib.import_module(f"token_keeper.adapters.{name}")


def bind(call: ast.Call, called: Any) -> None:
    """Raise `TypeError` if *called* does not take the arguments of *call*."""
    named = [keyword.arg for keyword in call.keywords if keyword.arg is not None]
    with suppress(ValueError):  # What is written in C may not tell.
        signature = inspect.signature(called)
        signature.bind(*call.args, **dict.fromkeys(named))


def resolved(name: str, module: str) -> Any:
    ours = adapter(module)
    if hasattr(ours, name):
        return getattr(ours, name)
    if name in NOT_OURS:
        return getattr(importlib.import_module(NOT_OURS[name]), name)
    return importlib.import_module(name)


def test_the_table_has_every_adapter_and_no_other():
    assert {row.module for row in rows()} == MODULES


def test_the_table_says_from_which_version_on_as_the_metadata_does():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["adapted"]]
    bounds = dict(re.match(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)", one).groups() for one in wanted)

    assert {row.package: row.since for row in rows()} == {
        row.package: bounds[row.package] for row in rows() if row.package in bounds
    }


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.module}-{row.uses[0].partition('(')[0]}")
def test_every_use_in_the_table_is_real(row):
    assert row.uses
    for use in row.uses:
        tree = ast.parse(use)
        own = [name for name in names_in(tree) if hasattr(adapter(row.module), name)]
        assert own or "shown" in use, f"{use} uses nothing of {row.module}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id not in GIVEN:
                    assert hasattr(resolved(node.value.id, row.module), node.attr), use
            elif isinstance(node, ast.Name) and node.id not in GIVEN:
                assert resolved(node.id, row.module) is not None, use
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                bind(node, resolved(node.func.id, row.module))


def names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_every_call_of_an_adapter_on_the_page_takes_its_arguments():
    """Also where the page's programs define what they do not call: that needs a server."""
    checked = set()
    known: dict[str, Any] = {}
    for block in blocks_of(PAGE):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("token_keeper.adapters."):
                ours = importlib.import_module(str(node.module))
                known |= {alias.name: getattr(ours, alias.name) for alias in node.names}
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
                bind(node, known[node.func.id])
                checked.add(known[node.func.id].__module__)

    assert {name.rpartition(".")[2] for name in checked} >= MODULES - {"httpx2", "kubernetes_aio"}


def test_every_adapter_has_a_section_with_a_use_of_it_first():
    for row in rows():
        anchor = re.search(rf"\[{re.escape(row.package)}\]\(#([\w-]+)\)", PAGE)
        titles = {
            re.sub(r"[^\w -]", "", line[4:].lower()).replace(" ", "-"): line for line in titles_of(PAGE)
        }
        section = PAGE.partition(f"\n{titles[anchor[1]]}\n")[2]
        assert section.startswith("\n```python\n"), row.package


def titles_of(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("### ")]
