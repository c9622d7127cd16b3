import subprocess
import sys

LATE = ("httpx", "jwt", "jmespath", "structlog", "tenacity", "asyncio", "rich", "click", "twilio")


def loaded_by(program):
    """Return the modules that a fresh interpreter has loaded after *program*."""
    shown = f"{program}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", shown], capture_output=True, text=True, check=True, timeout=60
    )
    return run.stdout.split()


def test_importing_the_package_loads_no_library_and_no_adapter():
    loaded = loaded_by("import token_keeper")

    assert [name for name in loaded if name.partition(".")[0] in LATE] == []
    assert [name for name in loaded if name.startswith("token_keeper.")] == []


def test_values_and_errors_come_without_any_library():
    loaded = loaded_by("from token_keeper import RefreshPolicy, TokenUnavailable, EventKind, Secret")

    assert [name for name in loaded if name.partition(".")[0] in LATE] == []


def test_everything_that_the_package_lists_can_be_imported():
    import token_keeper

    for name in token_keeper.__all__:
        assert getattr(token_keeper, name) is not None


def test_everything_that_the_testing_kit_lists_can_be_imported():
    from token_keeper import testing

    for name in testing.__all__:
        assert getattr(testing, name) is not None


def test_a_misspelt_name_is_an_attribute_error():
    program = (
        "import token_keeper, token_keeper.testing as t\nprint(hasattr(token_keeper, 'x'), hasattr(t, 'x'))"
    )

    assert loaded_by(program)[:2] == ["False", "False"]


def test_the_testing_kit_is_loaded_by_tests_only():
    loaded = loaded_by("from token_keeper import TokenKeeper, AsyncTokenKeeper, HttpSource, CallableSource")

    assert [name for name in loaded if name.startswith("token_keeper.testing")] == []
