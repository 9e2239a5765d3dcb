"""What was read of sequences when instances were last started of them."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from threading import Lock
from typing import Final
from uuid import UUID

from orchestrator.store.definitions import Head

MOST: Final = 2000


class Heads:
    """The heads of sequences as they were read last. Safe to use from several threads.

    One may be out of date: it may let a start through that looks at it again in its transaction, and refuses none.
    """

    def __init__(self) -> None:
        self._heads: OrderedDict[UUID, Head] = OrderedDict()
        self._lock = Lock()

    def seen(self, ids: Collection[UUID]) -> dict[UUID, Head] | None:
        """Give some heads; None unless all of them have been seen."""
        with self._lock:
            if not all(sequence_id in self._heads for sequence_id in ids):
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
