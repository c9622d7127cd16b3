"""httpx2: the class that serves httpx, too: `httpx2.Client(auth=KeeperAuth(keeper))`. See there."""

import httpx2  # noqa: F401 - if it is missing, the error is its own

from token_keeper.adapters.httpx import KeeperAuth

__all__ = ["KeeperAuth"]
