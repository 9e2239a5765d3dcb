"""The store as one process reaches it: in memory, behind a connection that breaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from orchestrator.clock import DatabaseClock
from orchestrator.core.model import Instance
from orchestrator.errors import StoreUnavailable
from orchestrator.store.memory import MemoryStore, MemoryTransaction, VirtualClock
from orchestrator.store.memory.tables import Rows, take_back
from tests.simulation.chaos import Chaos
from tests.simulation.scheduler import Process, Scheduler

Write = tuple[dict[Any, Any], Any, Any]
"""Rows, the key of one, and what stood there before."""


class Deadlock(Exception):
    """The transaction stood in the way of another one, and was given up."""


class Commits(Protocol):
    """Somebody who is told of every commit."""

    def about_to_commit(self, process: Process, writes: list[Write]) -> None:
        """See what a transaction has written, before anybody else can."""

    def about_to_be_taken_back(self, writes: list[Write]) -> None:
        """Learn that a crash of the store takes back what was committed."""


class Fate(Protocol):
    """Somebody who knows which processes belong together."""

    def kill(self, process: Process) -> None:
        """Kill a process, and maybe what belongs to it."""

    def pause(self, process: Process, until: float) -> None:
        """Let a process, and what belongs to it, stand still until a moment."""


class Database:
    """The one store of a world, and the crashes it can have.

    A commit that may be lost (`is_losable`) is lost if the store crashes before the next one that may not be.
    """

    def __init__(self, clock: VirtualClock, chaos: Chaos, scheduler: Scheduler, commits: Commits) -> None:
        self.memory = MemoryStore(clock)
        self.chaos = chaos
        self.scheduler = scheduler
        self.commits = commits
        self._away_until = 0.0
        self._away_share = 1.0
        self.write_count = 0
        self._losable: list[Write] = []

    def committed(self, writes: list[Write], *, is_losable: bool) -> None:
        """Take note of a commit."""
        self.write_count += 1
        if is_losable:
            self._losable += writes
        else:
            self._losable.clear()

    def go_away(self, seconds: float) -> None:
        """Answer nobody for some time, or only some."""
        self._away_until = self.scheduler.now + seconds
        self._away_share = 1.0 if self.chaos.random.random() < 0.5 else 0.4

    def may_stay_away(self) -> None:
        """Be away for a moment after a commit has gone wrong: what broke it is seldom over with it."""
        if self.chaos.random.random() < 0.5:
            self.go_away(self.chaos.between(0.01, 1))

    def is_away(self) -> bool:
        """Tell whether it does not answer somebody who asks now."""
        if self._away_until <= self.scheduler.now:
            return False
        return self._away_share == 1.0 or self.chaos.random.random() < self._away_share

    @property
    def may_lose_commits(self) -> bool:
        """Whether a crash would take something back."""
        return bool(self._losable)

    def crash(self) -> None:
        """Come back without the last commits that may be lost."""
        self.go_away(self.chaos.between(0.1, 3))
        lost, self._losable = self._losable, []
        self.commits.about_to_be_taken_back(lost)
        take_back(lost)


class ShakyStore:
    """A process's connection to the database: `orchestrator.store.interface.Store`.

    Args:
        fate: Kills and pauses what belongs together.
    """

    def __init__(self, database: Database, process: Process, fate: Fate) -> None:
        self.database = database
        self.process = process
        self.clock = DatabaseClock(process.machine)
        self._fate = fate

    @contextmanager
    def transaction(self, *, is_losable: bool = False, is_single: bool = False) -> Iterator[MemoryTransaction]:
        """Open a transaction; before and after it others have their turn."""
        database, process = self.database, self.process
        chaos, scheduler = database.chaos, database.scheduler
        scheduler.sleep(0)
        self._strike()
        if database.is_away():
            raise StoreUnavailable("the store is away")
        writes: list[Write] = []
        with database.memory.transaction() as tx:
            yield tx
            if tx.journal.has_writes:
                writes = tx.journal.writes()
                self._strike_commit(writes)
                database.commits.about_to_commit(process, writes)
        if not writes:
            return
        database.committed(writes, is_losable=is_losable)
        if scheduler.current is not None:
            if process.is_mortal and chaos.happens("killed_after_commit", process.name):
                self._fate.kill(process)
            if chaos.happens("answer_lost", process.name):
                database.may_stay_away()
                raise StoreUnavailable("the answer to a commit was lost")
        scheduler.sleep(0)

    def _strike(self) -> None:
        """Let something happen to the process, or to the store, between two transactions."""
        database, process = self.database, self.process
        chaos, task = database.chaos, database.scheduler.current
        if task is None or chaos.is_over:
            return
        # A loop that has only begun to look has nothing in its hands.
        weight, task.is_fresh = (0.1 if task.is_fresh else 1.0), False
        if process.is_mortal:
            self._strike_process(weight)
        if database.may_lose_commits and chaos.happens("store_crashes"):
            database.crash()
        if chaos.happens("store_away", weight=weight):
            database.go_away(chaos.between(0.1, 4))

    def _strike_process(self, weight: float) -> None:
        chaos, process, scheduler = self.database.chaos, self.process, self.database.scheduler
        if chaos.happens("killed", process.name, weight=weight):
            self._fate.kill(process)
        if chaos.happens("child_killed", process.name, weight=weight):
            process.kill()
        if chaos.happens("paused", process.name, weight=weight):
            self._fate.pause(process, scheduler.now + chaos.between(0.5, 20))
            scheduler.sleep(0)

    def _strike_commit(self, writes: list[Write]) -> None:
        chaos, process = self.database.chaos, self.process
        if self.database.scheduler.current is None or chaos.is_over:
            return
        if process.is_mortal and chaos.happens("killed_in_commit", process.name):
            self._fate.kill(process)
        if chaos.happens("commit_refused", process.name):
            self.database.may_stay_away()
            raise StoreUnavailable("the connection was lost before the commit")
        # Only those who hold instances and their rows can stand in one another's way.
        if any(isinstance(rows.get(key), Instance | Rows) for rows, key, _ in writes) and chaos.happens("deadlock"):
            raise Deadlock

    def is_retryable(self, error: Exception) -> bool:
        """Tell whether the same transaction may succeed when tried again."""
        return isinstance(error, Deadlock)

    def is_passing(self, error: Exception) -> bool:
        """Tell whether an error is one of the moment."""
        return self.is_retryable(error)

    def now(self) -> Any:
        """Give the store's time."""
        return self.database.memory.clock.now()
