"""What the reference pages of the sidecar show and list is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from configuring import SOURCE, problems
from pages import Block, blocks_of

from token_keeper.sidecar.server import _refusals
from token_keeper.sidecar.server._refusals import Refusal

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = [
    pytest.param(block, id=f"{name}.md line {block.line}")
    for name in ("sinks", "hooks", "dashboard")
    for block in blocks_of((DOCS / f"{name}.md").read_text())
    if block.language == "toml"
]
REFUSALS = [one for one in vars(_refusals).values() if isinstance(one, Refusal)]


@pytest.mark.parametrize("block", EXAMPLES)
def test_an_example_of_a_configuration_can_work(tmp_path: Path, block: Block) -> None:
    text = re.sub(r"/run/app/", f"{tmp_path}/", block.code)

    assert problems(tmp_path, text if "[server]" in text else SOURCE + text, {}) == {}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: f"{refusal.status} {refusal.name}")
def test_the_page_lists_each_refusal_with_its_status(refusal: Refusal) -> None:
    rows = re.findall(r"^\| (`[^|]+) \| ([0-9, ]+) \|", (DOCS / "api.md").read_text(), re.MULTILINE)
    listed = {
        (name, status) for names, codes in rows for name in names.split(", ") for status in codes.split(", ")
    }

    assert (f"`{refusal.name}`", str(refusal.status)) in listed
