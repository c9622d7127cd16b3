"""Writes to standard output as it comes: for streams of lines, and for tokens."""

from __future__ import annotations

import json
import os
import sys

from token_keeper.cli._group import fail, fail_to_write
from token_keeper.cli._output import finite


def write(text: str) -> None:
    """Write *text* as it is, at once."""
    if sys.stdout is None:
        fail("standard output is closed", os.EX_IOERR)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        fail_to_write(error)


def write_json_line(document: object) -> None:
    """Write *document* as one line of JSON, in ASCII."""
    write(json.dumps(finite(document), allow_nan=False) + "\n")


def say(message: str) -> None:
    """Say *message* on standard error, where talk goes."""
    if sys.stderr is not None:
        sys.stderr.write(f"token-keeper: {message}\n")


def has_colours() -> bool:
    """Whether standard output shows colours, and its user wants them."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in {"", "dumb"}
