"""What was read of sequences when instances were last started of them."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from threading import Lock
from typing import Final
from uuid import UUID

from orchestrator.store.definitions import Head

MOST: Final = 2000
REST_SECONDS: Final = 1.0


class Heads:
    """The heads of sequences as they were read last. Safe to use from several threads.

    One may be out of date: it may let a start through that looks at it again in its transaction, and refuses none.

    Args:
        monotonic: Tells seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._heads: OrderedDict[UUID, Head] = OrderedDict()
        self._rest_until: dict[UUID, float] = {}
        self._lock = Lock()

    def seen(self, ids: Collection[UUID]) -> dict[UUID, Head] | None:
        """Give some heads; None unless all of them have been seen, and none rests."""
        now = self._monotonic()
        with self._lock:
            if not all(each in self._heads and self._rest_until.get(each, now) <= now for each in ids):
                return None
            return {sequence_id: self._heads[sequence_id] for sequence_id in ids}

    def note(self, asked: Iterable[UUID], found: Mapping[UUID, Head]) -> None:
        """Take over what was read of some sequences; those that were not found are gone."""
        with self._lock:
            for sequence_id in asked:
                self._heads.pop(sequence_id, None)
            self._heads.update(found)
            while len(self._heads) > MOST:
                self._heads.popitem(last=False)

    def rest(self, ids: Iterable[UUID]) -> None:
        """Give no heads of some sequences for a while: it was of no use, and costs something to find out again."""
        until = self._monotonic() + REST_SECONDS
        with self._lock:
            if len(self._rest_until) >= MOST:
                self._rest_until.clear()
            self._rest_until.update(dict.fromkeys(ids, until))
