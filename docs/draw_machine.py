"""Draws the machine's phases into ARCHITECTURE.md, from the table that the machine asserts.

python docs/draw_machine.py
"""

from __future__ import annotations

import re
from pathlib import Path

from token_keeper._state import SUCCESSIONS

PAGE = Path(__file__).parent.parent / "ARCHITECTURE.md"
PLACE = re.compile(r"(?<=<!-- machine -->\n).*?(?=<!-- end of machine -->)", re.DOTALL)


def drawing() -> str:
    """Return the diagram in Mermaid."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> WAITING"]
    for phase, successors in SUCCESSIONS.items():
        lines += [f"    {phase.name} --> {after.name}: {why}" for after, why in successors.items()]
    return "\n".join([*lines, "    CLOSED --> [*]", "```", ""])


def redrawn(page: str) -> str:
    """Return *page* with the current diagram in its place."""
    return PLACE.sub(drawing().replace("\\", r"\\"), page)


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text()))
