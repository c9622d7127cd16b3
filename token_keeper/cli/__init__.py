"""The command `token-keeper`. Importing this needs no extra; running it needs `[cli]`."""

from __future__ import annotations

import gc
import os
import sys


def main() -> int:
    """Run the command, and return its exit code."""
    # What is imported stays: collecting garbage in between costs a tenth of the start.
    gc.disable()
    try:
        from token_keeper.cli._group import cli  # noqa: PLC0415 # click may not be installed.
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        print("token-keeper: the command needs click: pip install 'token-keeper[cli]'", file=sys.stderr)  # noqa: T201
        return os.EX_UNAVAILABLE
    except KeyboardInterrupt:
        return 130
    finally:
        gc.enable()
    return cli.run()
