"""The configuration file: read, checked as a whole, turned into parts."""

from token_keeper.sidecar.config._load import Checked, load
from token_keeper.sidecar.config._notes import BadConfig
from token_keeper.sidecar.config._schema import schema

__all__ = ["load", "schema", "Checked", "BadConfig"]
