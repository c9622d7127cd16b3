"""Foreign packages are imported by who uses their adapter, and by nobody else."""

from __future__ import annotations

import ast
import json
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import token_keeper
from token_keeper import adapters

PACKAGE = Path(token_keeper.__file__).parent
FOLDER = PACKAGE / "adapters"
MODULES = sorted(module.name for module in pkgutil.iter_modules(adapters.__path__) if module.name[0] != "_")
IMPORTS = {
    "aiokafka": "aiokafka",
    "azure_core": "azure",
    "confluent_kafka": "confluent_kafka",
    "google_auth": "google",
    "kubernetes_aio": "kubernetes",
    "paho_mqtt": "paho",
}
"""What a module imports, where that has another name."""
ALSO = {"httpx": {"httpx2"}, "openai": {"openai", "httpx2"}, "requests": {"requests", "urllib3"}}
"""One class serves httpx and httpx2; openai needs httpx2 itself, and requests urllib3."""
CORE = {"httpx", "idna"}
"""What token_keeper needs itself: httpx, and that needs idna."""
TRY_ALL = """
import importlib, json
told = {}
for name in MODULES:
    try:
        importlib.import_module(f"token_keeper.adapters.{name}")
        told[name] = None
    except ImportError as error:
        told[name] = [type(error).__name__, error.name, str(error)]
print(json.dumps(told))
"""


def own(module: str) -> str:
    return IMPORTS.get(module, module)


def foreign_imports(file: Path) -> set[str]:
    """Return the packages that *file* imports, also by its neighbours, beyond what token_keeper needs."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        for name in names:
            neighbour = FOLDER / f"{name.rpartition('.')[2]}.py"
            if name.startswith("token_keeper.adapters.") and neighbour != file:
                found |= foreign_imports(neighbour)
            elif name.partition(".")[0] != "token_keeper":
                found.add(name.partition(".")[0])
    return found - sys.stdlib_module_names - CORE


@pytest.mark.parametrize("module", MODULES)
def test_an_adapter_imports_its_own_package_only(module):
    assert foreign_imports(FOLDER / f"{module}.py") <= ALSO.get(module, {own(module)})


@pytest.mark.parametrize("module", [file.stem for file in sorted(FOLDER.glob("_*.py"))])
def test_what_adapters_share_imports_at_most_the_package_of_its_name(module):
    assert foreign_imports(FOLDER / f"{module}.py") <= {module.split("_")[1]}


@pytest.mark.parametrize(
    "program",
    [
        "import token_keeper.adapters",
        "from token_keeper import TokenKeeper, AsyncTokenKeeper, HttpSource",
        "from token_keeper.adapters import _guard, _handed, _origins",
    ],
)
def test_without_an_adapter_no_client_library_is_loaded(program):
    shown = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = {name.partition(".")[0] for name in shown.stdout.split()}

    # httpx itself comes with the first source.
    assert loaded & ({own(module) for module in MODULES} - {"httpx"}) == set()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder with token_keeper and what it needs, and no other package."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "token_keeper").symlink_to(PACKAGE)
    for name in needed("token-keeper") - {"token-keeper"}:
        files = metadata.distribution(name).files or ()
        tops = {file.parts[0] for file in files if file.suffix in {".py", ".so"}} - {".."}
        for top in tops:
            target = folder / top
            if not target.exists():
                target.symlink_to(Path(metadata.distribution(name).locate_file(top)))
    return folder


def needed(name: str) -> set[str]:
    """Return *name* and the distributions that it needs, without extras."""
    found = {name}
    for wanted in metadata.requires(name) or ():
        if "extra ==" in wanted:
            continue
        other = re.split(r"[^\w.-]", wanted, maxsplit=1)[0]
        try:
            metadata.distribution(other)
        except metadata.PackageNotFoundError:
            continue  # For another Python or another system.
        found |= needed(other)
    return found


def test_a_package_that_is_missing_is_missed_by_its_own_name(alone):
    # -S: without the packages that are installed; -P: without the folder that the tests run in.
    program = f"import sys\nsys.path.insert(0, {str(alone)!r})\nMODULES = {MODULES!r}\n{TRY_ALL}"
    ran = subprocess.run(
        [sys.executable, "-S", "-P", "-E", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)

    assert {name for name, error in told.items() if error is None} == {"httpx"}
    for name in set(MODULES) - {"httpx"}:
        kind, missed, message = told[name]
        assert kind == "ModuleNotFoundError"
        assert missed.partition(".")[0] == own(name), name
        assert message == f"No module named {missed!r}"
