"""Walks through a page of the documentation as its reader would: every shell block, in one directory.

A ```sh block is run by bash as it stands, and must succeed; what a ```text block right below it
shows is compared, with `...` for anything. The rest of a block's first line says how it is run:

    ```sh background             until the end of the page; the next block waits until it is ready
    ```sh not run: needs root    not at all
"""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pages import Block, blocks_of
from sidecar import eventually

TIMEOUT_S = 60
_CHECKER = doctest.OutputChecker()
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Walk:
    """One reader, with a directory and a runtime directory of their own.

    Args:
        directory: Where the reader is.
        environ: What the reader's environment has besides the usual.

    Attributes:
        environ: What the next block finds.
    """

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        runtime = directory / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        ours = {name: value for name, value in os.environ.items() if not _is_unwanted(name)}
        path = f"{directory}/bin:{Path(sys.executable).parent}:{ours['PATH']}"
        own = {"PATH": path, "HOME": str(directory), "XDG_RUNTIME_DIR": str(runtime)}
        self.environ = {**ours, **own, "LC_ALL": "C.UTF-8", **environ}

    def run(self, block: Block, place: str) -> None:
        """Run *block*, and compare what it prints."""
        exported = self.directory / "exported"
        code = f"set -eu\n{block.code}\nenv -0 > {exported}\n"
        ended = subprocess.run(
            ["bash", "-c", code],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert ended.returncode == 0, (
            f"{place} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"
        )
        pairs = (pair.partition("=") for pair in exported.read_text().split("\0") if pair)
        self.environ = {name: value for name, _, value in pairs if name != "_"}
        # A reader sees both.
        said = ended.stdout + ended.stderr
        if block.output is not None and not _CHECKER.check_output(block.output, said, _FLAGS):
            raise AssertionError(f"{place} printed other than the page says:\n{said}")

    @contextmanager
    def background(self, block: Block) -> Iterator[None]:
        """Run *block* until the end, once it is ready."""
        with (
            (self.directory / "log").open("ab") as log,
            subprocess.Popen(
                ["bash", "-c", f"exec {block.code}"],
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                eventually(
                    lambda: process.poll() is not None or self._is_ready(), what="the sidecar is ready"
                )
                assert process.poll() is None, (self.directory / "log").read_text()
                yield
            finally:
                process.terminate()
                process.wait(TIMEOUT_S)

    def _is_ready(self) -> bool:
        asked = ["token-keeper", "status", "--quiet"]
        return subprocess.run(asked, env=self.environ, check=False).returncode == 0


def _is_unwanted(name: str) -> bool:
    return name.lower().endswith("_proxy") or name.startswith(("TOKEN_KEEPER", "XDG_", "LC_"))


def sections_of(page: Path) -> Iterator[tuple[str, int, Block]]:
    """Yield the shell blocks of *page*: the heading above, the block's number below it, and the block."""
    text = page.read_text(encoding="utf-8")
    lines = text.splitlines()
    counts: dict[str, int] = {}
    for block in blocks_of(text):
        if block.language != "sh" or block.excuse:
            continue
        above = [line for line in lines[: block.line] if line.startswith("#")]
        heading = above[-1].lstrip("# ")
        number = counts[heading] = counts.get(heading, 0) + 1
        yield heading, number, block


def walk(page: Path, reader: Walk, before: Mapping[tuple[str, int], Callable[[], None]]) -> int:
    """Run the shell blocks of *page*; return how many. *before* makes things happen, by heading and place."""
    return _walk(list(sections_of(page)), page.name, reader, before)


def _walk(
    steps: list[tuple[str, int, Block]],
    name: str,
    reader: Walk,
    before: Mapping[tuple[str, int], Callable[[], None]],
) -> int:
    for done, (heading, number, block) in enumerate(steps):
        before.get((heading, number), lambda: None)()
        if block.note == "background":
            with reader.background(block):
                return done + 1 + _walk(steps[done + 1 :], name, reader, before)
        assert not block.note, f"{name}:{block.line}: {block.note}"
        reader.run(block, f"{name}:{block.line}")
    return len(steps)
