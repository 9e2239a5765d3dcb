"""The engine's store in memory: same verbs and same meaning as PostgreSQL, under a clock that moves when it is told.

It is for tests of sequences (`orchestrator.testing`) and of the engine: nothing is kept when the process ends, and
transactions pass one at a time. A verb of `orchestrator.store.interface` has its twin here, in the module of its
subject, and is named in `MemoryTransaction`.
"""

from orchestrator.store.memory.clock import VirtualClock
from orchestrator.store.memory.store import MemoryStore, MemoryTransaction, Moment

__all__ = ["MemoryStore", "MemoryTransaction", "Moment", "VirtualClock"]
