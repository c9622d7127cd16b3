"""Where tokens come from."""

from token_keeper.sources._callable import CallableSource
from token_keeper.sources._http import HttpSource
from token_keeper.sources._source import Retiring, Source, Watched

__all__ = ["HttpSource", "CallableSource", "Source", "Watched", "Retiring"]
