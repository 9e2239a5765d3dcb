"""A flow and its children (§3.8): one clock, and what they have to tell one another."""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.model.reference.places import Json
from tests.model.reference.tasks import Key, Stand

if TYPE_CHECKING:
    from tests.model.reference.interpreter import Flow

NewId = Callable[[UUID, Key], UUID]


class Family:
    """All flows of one program.

    Args:
        sequences: Documents by name.
        new_id: Gives the id of the child that a block of a flow starts.
        start: Starts a flow; it is the constructor of `Flow` with this family given.
    """

    def __init__(self, sequences: Mapping[str, Json], now: datetime, new_id: NewId) -> None:
        self.sequences, self.now, self.new_id = sequences, now, new_id
        self.flows: list[Flow] = []
        self._starts: deque[Callable[[], None]] = deque()
        self._letters: deque[Callable[[], None]] = deque()
        self._is_busy = False

    def call(self, parent: "Flow", stand: Stand, name: str, data: Any) -> bool:
        """Start a child when everything else of this event has happened; False if there is no such sequence."""
        if name not in self.sequences:
            return False
        self._starts.append(lambda: self._start(parent, stand, name, data))
        return True

    def _start(self, parent: "Flow", stand: Stand, name: str, data: Any) -> None:
        if parent.is_left_to_chance:
            return  # nor can anybody say whether the child is made
        child = parent.child(self.sequences[name], self.new_id(parent.instance_id, stand.key), data)
        stand.child = child
        if child.state in {"completed", "failed", "cancelled"}:
            return
        if parent.stands.get(stand.key) is not stand:
            self._letters.append(child.cancel)

    def ended(self, child: "Flow") -> None:
        """Tell the parent of a flow that it has ended."""
        self._letters.append(child.tell_parent)

    def cancel(self, child: "Flow") -> None:
        """Cancel a child."""
        self._letters.append(child.cancel)

    def settle(self) -> None:
        """Do what flows have left to be done, until nothing is."""
        if self._is_busy:
            return
        self._is_busy = True
        while self._starts or self._letters:
            (self._starts or self._letters).popleft()()
        self._is_busy = False
