"""Which module may import which. A module that is not in the table fails the build."""

import ast
from pathlib import Path

import pytest

import token_keeper

PACKAGE = Path(token_keeper.__file__).parent
LAYERS = {
    0: {"_errors", "_finding", "_model", "_policy", "_secret"},
    1: {"_extract", "_lifetime", "_receive", "_redact", "_schedule", "_shape", "inspection", "profiles"},
    2: {"_failing", "_inputs", "_machine", "_recovery", "_state", "_view", "supervision"},
    3: {
        "_clock",
        "_fork",
        "_listeners",
        "_processes",
        "_threads",
        "logs",
        "sinks",
        "sources",
        "store",
        "twilsock",
    },
    4: {
        "_blocking",
        "_face",
        "_home",
        "_keeper",
        "_kept",
        "_questions",
        "_scheduler",
        "_share",
        "_slots",
        "_telling",
        "_waiting",
        "sessions",
    },
    5: {"adapters"},
    6: {"__main__", "cli", "doctor", "sidecar"},
    "testing": {"testing"},
    "face": {"__init__"},
}
MAY_IMPORT = {
    0: {0},
    1: {0, 1},
    2: {0, 1, 2},
    3: {0, 1, 3},
    4: {0, 1, 2, 3, 4},
    5: {0, 1, 4, 5},
    6: {0, 1, 2, 3, 4, 5, 6, "face"},
    "testing": {0, 1, 2, 3, 4, "testing"},
    "face": {0, 1, 2, 3, 4},
}
MAY_IMPORT_TESTING = ("cli/demo/", "cli/_simulate")
ACTING = {"asyncio", "threading", "time", "random", "logging", "structlog", "httpx", "tenacity", "os"}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def unit_of(file):
    """Return the module or package directly below token_keeper that *file* belongs to."""
    return file.partition("/")[0].removesuffix(".py")


def imports_of(file):
    """Return the dotted names that *file* imports anywhere, also in functions and for types."""
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively: write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def units_imported_by(file):
    for name in imports_of(file):
        if name.partition(".")[0] == "token_keeper":
            below = name.split(".")[1:2]
            yield below[0] if below and below[0] in LAYER_OF else "__init__"


@pytest.mark.parametrize("file", FILES)
def test_each_module_imports_only_what_its_layer_may(file):
    assert unit_of(file) in LAYER_OF, f"give {unit_of(file)} a layer in LAYERS"
    allowed = MAY_IMPORT[LAYER_OF[unit_of(file)]] | (
        {"testing"} if file.startswith(MAY_IMPORT_TESTING) else set()
    )
    assert {unit for unit in units_imported_by(file) if LAYER_OF[unit] not in allowed} == set()


@pytest.mark.parametrize("file", [file for file in FILES if LAYER_OF.get(unit_of(file)) in (0, 1, 2)])
def test_what_decides_imports_nothing_that_acts(file):
    assert {name.partition(".")[0] for name in imports_of(file)} & ACTING == set()
