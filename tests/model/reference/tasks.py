"""Cooperative tasks: generators that stop at what they wait for, and go on when it has come."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Key = tuple[str, tuple[int, ...]]
"""A block id and the iterations around it."""

COMPLETED, FAILED, CANCELLED, SKIPPED = "completed", "failed", "cancelled", "skipped"


@dataclass(frozen=True)
class Ended:
    """How a block or a list ended; of a failure, the member that failed and the step that began it."""

    state: str
    block_id: str = ""
    step_id: str = ""
    message: str = ""


@dataclass
class Stand:
    """A place where a task waits for something outside of the flow.

    Attributes:
        phase: `delayed window gate ready claimed asleep backoff polling child held`.
        target: Where a held step goes on when the flow is resumed.
        due: When a timer is due here.
    """

    key: Key
    is_step: bool
    in_process: bool
    place: Any
    cancellable: bool = True
    phase: str = ""
    target: str = ""
    attempt: int = 0
    due: datetime | None = None
    task: "Task | None" = None
    outcome: Any = None
    owner: Any = None
    child: Any = None


@dataclass
class Join:
    """A place where a task waits for tasks of its own."""

    tasks: list["Task"]
    enough: Callable[[], bool]


Waits = Generator[Stand | Join, Any, Ended]


@dataclass
class Task:
    """A generator on its way; `at` is where it stands, `ended` how it ended."""

    steps: Waits
    at: Stand | Join | None = None
    ended: Ended | None = None
    parent: "Task | None" = None
    fence: Any = None
    number: int = field(default=0)


class Tasks:
    """All tasks of one flow, and where they stand."""

    def __init__(self) -> None:
        self.stands: dict[Key, Stand] = {}
        self.current: Task | None = None
        self._count = 0

    def spawn(self, steps: Waits, fence: Any = None) -> Task:
        """Start a task, and run it as far as it gets."""
        task = Task(steps, parent=self.current, fence=fence)
        self.advance(task, None)
        return task

    def advance(self, task: Task, message: Any) -> None:
        """Let a task go on with a message, then its parent if that was what it waited for."""
        outer, self.current = self.current, task
        try:
            self._advance(task, message)
        finally:
            self.current = outer
        parent = task.parent
        if task.ended and parent and isinstance(parent.at, Join) and task in parent.at.tasks and parent.at.enough():
            parent.at = None
            self.advance(parent, None)

    def _advance(self, task: Task, message: Any) -> None:
        if isinstance(task.at, Stand):
            del self.stands[task.at.key]
        task.at = None
        try:
            while True:
                stop = task.steps.send(message)
                if isinstance(stop, Stand):
                    break
                if not stop.enough():
                    break
                message = None
        except StopIteration as end:
            task.ended = end.value
            self._count += 1
            task.number = self._count
            return
        task.at = stop
        if isinstance(stop, Stand):
            stop.task = task
            self.stands[stop.key] = stop

    def leaves(self, task: Task) -> list[Stand]:
        """Give where a task and the tasks it waits for stand."""
        if isinstance(task.at, Stand):
            return [task.at]
        if isinstance(task.at, Join):
            return [leaf for inner in task.at.tasks if not inner.ended for leaf in self.leaves(inner)]
        return []
