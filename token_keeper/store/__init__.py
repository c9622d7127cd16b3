"""What survives a restart: refresh tokens that rotate, and access tokens if that is asked for."""

from token_keeper.store._directory import DirectoryStore
from token_keeper.store._memory import MemoryStore
from token_keeper.store._record import Mark, Record
from token_keeper.store._store import Lease, Slot, Store

__all__ = ["DirectoryStore", "MemoryStore", "Store", "Slot", "Lease", "Record", "Mark"]
