import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import token_keeper

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]
ROOT = Path(__file__).parent.parent


def run(*command, **options):
    """Run *command* and return what it printed; its complaints are in the failure, if it fails."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=500, **options
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A directory with the source distribution, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    return out


@pytest.fixture(scope="module")
def wheel(dist):
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def bin_of_a_fresh_environment(tmp_path_factory, wheel):
    """The programs of an environment with nothing in it but the wheel and what it needs."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", home)
    run(
        home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[cli]"
    )
    return home / "bin"


def test_the_wheel_holds_the_package_its_types_and_its_licence_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    tops = {name.partition("/")[0] for name in names}
    assert tops == {"token_keeper", f"token_keeper-{token_keeper.__version__}.dist-info"}
    assert "token_keeper/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_holds_every_module(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.endswith(".py")}

    assert names == {path.relative_to(ROOT).as_posix() for path in (ROOT / "token_keeper").rglob("*.py")}


def test_the_source_distribution_can_be_tested_and_names_no_cache(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {
        "LICENSE",
        "README.md",
        "Makefile",
        "pyproject.toml",
        ".ci/run",
        "tests/test_packaging.py",
    } <= names
    assert not [name for name in names if "cache" in name or name.startswith(".venv")]


def test_the_version_is_the_same_everywhere(wheel):
    assert f"-{token_keeper.__version__}-" in wheel.name
    assert re.search(
        rf"^## \[{re.escape(token_keeper.__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_an_installed_wheel_can_be_imported_and_used(bin_of_a_fresh_environment, tmp_path):
    program = (
        "import token_keeper as t; assert 'site-packages' in t.__file__, t.__file__;"
        "[getattr(t, name) for name in t.__all__]; print(t.__version__)"
    )

    printed = run(bin_of_a_fresh_environment / "python", "-W", "error", "-c", program, cwd=tmp_path)

    assert printed == token_keeper.__version__


def test_the_installed_command_says_its_version(bin_of_a_fresh_environment, tmp_path):
    printed = run(bin_of_a_fresh_environment / "token-keeper", "--version", cwd=tmp_path)

    assert token_keeper.__version__ in printed
