"""What every function of this folder takes first: an open transaction over rows in memory."""

from datetime import datetime

from orchestrator.store.memory.clock import VirtualClock
from orchestrator.store.memory.tables import Journal, Tables


class Base:
    """The rows, the journal of this transaction's writes, and the time."""

    def __init__(self, tables: Tables, journal: Journal, clock: VirtualClock) -> None:
        self.tables = tables
        self.journal = journal
        self.clock = clock

    def now(self) -> datetime:
        """Give the store's time."""
        return self.clock.now()
