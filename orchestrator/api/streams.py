"""The event streams that a process keeps open: how many, and what they are fed by."""

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.api.change_watch import ChangeWatch
from orchestrator.api.following import Follower
from orchestrator.store.session import Store


class TooManyStreams(Exception):
    """All streams of this process are in use; another process, or the same one later, may have one."""


class Streams:
    """The streams of one process.

    Args:
        most: How many may be open.
    """

    def __init__(self, store: Store, most: int) -> None:
        self.follower = Follower(store)
        self.changes = ChangeWatch(self.follower)
        self._most = most
        self._open = 0

    @property
    def count(self) -> int:
        """How many are open."""
        return self._open

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep one open; TooManyStreams if there is none left."""
        if self._open >= self._most:
            raise TooManyStreams
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def end(self) -> None:
        """Let all end: the process is about to."""
        self.follower.end()
        self.changes.end()
