"""Runs a page of the documentation as the program that it claims to be.

Every ```python block of a page is executed, in order, in one namespace, as it
stands. A ```text block right below one is what it prints on stdout; `...` in
it stands for anything. A block that cannot run here says why on its first line, after
`python`: ```python not run: needs gunicorn.

    python tests/pages.py docs/events.md
"""

from __future__ import annotations

import doctest
import io
import linecache
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = "not run: "
_CHECKER = doctest.OutputChecker()


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the rest of the first line, where it begins, and what stands below it."""

    language: str
    note: str
    code: str
    line: int
    output: str | None

    @property
    def runs(self) -> bool:
        return self.language == "python" and not self.note

    @property
    def excuse(self) -> str:
        return self.note.removeprefix(_NOT_RUN) if self.note.startswith(_NOT_RUN) else ""


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = list(_FENCE.finditer(text))
    blocks = []
    for block, below in zip(found, [*found, None][1:], strict=True):
        is_output = (
            below is not None and below["info"] == "text" and not text[block.end() : below.start()].strip()
        )
        language, _, note = block["info"].partition(" ")
        line = text.count("\n", 0, block.start("code"))
        output = below["code"] if is_output and below is not None else None
        blocks.append(Block(language, note.strip(), block["code"], line, output))
    return blocks


def run(page: Path) -> None:
    """Run *page* in this process. Raises what its blocks raise, and `AssertionError` for other output."""
    text = page.read_text(encoding="utf-8")
    linecache.cache[str(page)] = (len(text), None, text.splitlines(keepends=True), str(page))
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = io.StringIO()
    with redirect_stdout(printed):
        for block in blocks_of(text):
            if not block.runs:
                continue
            printed.seek(0)
            printed.truncate()
            exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)
            _compare(block, printed.getvalue(), f"{page.name}:{block.line}")


def _compare(block: Block, printed: str, place: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    wanted = block.output
    if wanted is not None and not _CHECKER.check_output(wanted, printed, flags):
        raise AssertionError(f"{place} printed other than the page says:\n{printed}")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
