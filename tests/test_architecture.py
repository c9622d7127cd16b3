"""ARCHITECTURE.md shows the machine as it is."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent
GENERATOR = runpy.run_path(str(ROOT / "docs" / "draw_machine.py"))


def test_the_diagram_in_the_architecture_page_is_current() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    assert GENERATOR["PLACE"].search(page), "the page has lost the place for its diagram"
    assert GENERATOR["redrawn"](page) == page, "run: python docs/draw_machine.py"


def test_every_module_that_the_page_names_exists() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    named = {word for word in page.replace("`", " ").split() if word.endswith(".py") and "/" not in word}
    missing = {name for name in named if not list((ROOT / "token_keeper").rglob(name))}
    assert not missing
