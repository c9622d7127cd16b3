"""Where a token is written: files that are replaced whole, and how a token looks in them."""

from token_keeper.sinks._formats import ENTRIES, as_env, as_json, as_raw, as_template
from token_keeper.sinks._reasons import NotWritten
from token_keeper.sinks._replace import replace_file, sweep
from token_keeper.sinks._reread import Reread, reread

__all__ = [
    "replace_file",
    "sweep",
    "NotWritten",
    "as_raw",
    "as_json",
    "as_env",
    "as_template",
    "ENTRIES",
    "reread",
    "Reread",
]
