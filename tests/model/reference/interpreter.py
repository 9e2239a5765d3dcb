"""The whole of one flow: what has been written, where it stands, and what happens to it from outside.

A driver looks at `stands` (what could be claimed, which timers are set, which gates are open) and calls `claim`,
`report`, `fire`, `answer` and the signals. Time is `now`, which the driver moves.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tests.model.reference import composites, steps
from tests.model.reference.handlers import Outcome
from tests.model.reference.places import EXTERNAL, Fence, Json, Place, everything_in, lanes_of
from tests.model.reference.tasks import CANCELLED, COMPLETED, FAILED, Ended, Key, Stand, Task, Tasks, Waits
from tests.model.reference.values import View

TERMINAL = frozenset({COMPLETED, FAILED, CANCELLED})


@dataclass(frozen=True)
class Row:
    """An output row; `mark` is its `output_ref` where that is visible."""

    block_id: str
    iteration: tuple[int, ...]
    output: Any
    attempt: int = 0
    mark: str | None = None


class Flow:
    """One instance of a document.

    Attributes:
        is_left_to_chance: A race, or a parallel that fails fast, was decided before all of its branches had begun, and
            the contract does not say how far those get then; or `_error` was written while branches began, and it does
            not say which guards see it.
    """

    def __init__(
        self,
        document: Json,
        *,
        instance_id: UUID,
        now: datetime,
        data: Any = None,
        config: Any = None,
        timezone: str = "UTC",
    ) -> None:
        self.blocks: list[Json] = list(document["blocks"])
        self.instance_id, self.now, self.timezone = instance_id, now, timezone
        self.data: dict[str, Any] = copy.deepcopy(data or {})
        self.config: dict[str, Any] = copy.deepcopy(config or {})
        self.values: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.nodes: dict[str, str] = {block["id"]: "pending" for block in everything_in(self.blocks)}
        self.states: dict[str, set[str]] = {}
        self.executed: list[tuple[str, tuple[int, ...], int]] = []
        self.answers: dict[str, list[Any]] = {}
        self.completed: set[Key] = set()
        self.lanes = lanes_of(self.blocks)
        self.pausing = False
        self.is_left_to_chance = False
        self.cancelling = Fence(EXTERNAL)
        self.tasks = Tasks()
        self.state = "scheduled"
        self._root: Task = self.tasks.spawn(self._run_root())
        self._settle()

    @property
    def stands(self) -> dict[Key, Stand]:
        """Where the flow stands."""
        return self.tasks.stands

    def _run_root(self) -> Waits:
        place = Place(fences=(self.cancelling,), is_root=True)
        return (yield from self.run_list(self.blocks, place))

    # -- walking -------------------------------------------------------------------------------------------------

    def run_list(self, blocks: list[Json], place: Place) -> Waits:
        """Run blocks one after another, up to the first that fails or is cancelled."""
        for index, block in enumerate(blocks):
            if place.stopped_by():
                self.mark(blocks[index:], CANCELLED)
                return Ended(CANCELLED)
            ended = yield from self.run_block(block, place)
            if ended.state in {FAILED, CANCELLED}:
                self.mark(blocks[index + 1 :], CANCELLED)
                return Ended(ended.state, block["id"], ended.step_id, ended.message)
        return Ended(COMPLETED)

    def run_block(self, block: Json, place: Place) -> Waits:
        """Run one block of any type."""
        run = steps.run_step if block["type"] == "step" else composites.RUN[block["type"]]
        self.nodes[block["id"]] = "running"
        ended: Ended = yield from run(self, block, place)
        self.set_node(block["id"], ended.state)
        if ended.state == COMPLETED:
            self.completed.add((block["id"], place.iteration))
        return ended

    def set_node(self, block_id: str, state: str) -> None:
        """Set a node's state; of a node with several at a time (concurrent items) all are remembered."""
        self.nodes[block_id] = state
        self.states.setdefault(block_id, set()).add(state)

    def mark(self, blocks: list[Json], state: str) -> None:
        """Give a state to blocks that are not run, and to all in them."""
        for block in everything_in(blocks):
            self.set_node(block["id"], state)

    def add_row(self, block_id: str, place: Place, output: Any, attempt: int = 0, mark: str | None = None) -> None:
        """Write a row."""
        self.rows.append(Row(block_id, place.iteration, copy.deepcopy(output), attempt, mark))

    # -- reading -------------------------------------------------------------------------------------------------

    def view(self, block_id: str, place: Place, *, attempt: int = 0, **variables: Any) -> View:
        """Give what conditions and templates of a block can read."""
        items = {binding.name: binding.item for binding in place.bindings}
        if place.bindings:
            index = place.bindings[-1].index
            variables = {"index": index, "item_index": index, **variables}
        runtime = {"attempt": attempt, "dry_run": False, "instance_id": str(self.instance_id)}
        sections = {
            "data": self.data,
            "config": self.config,
            "state": self.values,
            "runtime": runtime,
            "session": {},
            "instance_id": str(self.instance_id),
        }
        return View(sections, lambda wanted: self._newest(wanted, block_id, place), items, variables)

    def _newest(self, wanted: str, reader: str, place: Place) -> Any:
        """Give the newest row of a block; inside a concurrent for_each, of the same iteration."""
        if wanted not in self.nodes:
            raise KeyError(wanted)
        mine = self.lanes[reader]
        depth = max((mine[lane] for lane in self.lanes[wanted] if lane in mine), default=0)
        found = [
            row
            for row in self.rows
            if row.block_id == wanted and row.mark is None and row.iteration[:depth] == place.iteration[:depth]
        ]
        if not found:
            raise KeyError(wanted)
        return found[-1].output

    def has_spoken(self, block_id: str, place: Place, *, by_row: bool) -> bool:
        """Say whether a block has a row, or has completed, in the iterations of a place."""
        keys = {(row.block_id, row.iteration) for row in self.rows} if by_row else self.completed
        depth = len(place.iteration)
        return any(name == block_id and iteration[:depth] == place.iteration for name, iteration in keys)

    # -- from outside --------------------------------------------------------------------------------------------

    def claim(self, key: Key) -> None:
        """Take a ready step; a built-in handler is run at once, its outcome kept until it is reported."""
        stand = self.stands[key]
        assert stand.phase == "ready"
        stand.phase = "claimed"
        stand.outcome = steps.begin(self, stand)
        if self.state == "scheduled":
            self.state = "running"
        self._settle()

    def report(self, key: Key, outcome: Outcome | None = None) -> None:
        """Report how an attempt ended: by its own outcome, or by one given for an external worker."""
        stand = self.stands[key]
        assert stand.phase == "claimed"
        assert stand.task
        result = stand.outcome if stand.outcome is not None else outcome
        self.executed.append((key[0], key[1], stand.attempt))
        self.tasks.advance(stand.task, result)
        self._settle()

    def lose(self, key: Key) -> None:
        """End a claim because its worker died: the same attempt can be taken again."""
        stand = self.stands[key]
        stand.phase, stand.outcome = "ready", None
        if self.pausing:
            stand.phase, stand.target, stand.due = "held", "ready", None
        self._settle()

    def fire(self, key: Key) -> None:
        """Let a timer ring that is due."""
        stand = self.stands[key]
        assert stand.due is not None
        assert stand.due <= self.now
        assert stand.task
        stand.due = None
        self.tasks.advance(stand.task, steps.DUE)
        self._settle()

    def answer(self, block_id: str, payload: Any) -> None:
        """Take the signal `human_input:<block id>`."""
        self.answers.setdefault(block_id, []).append(payload)
        for stand in list(self.stands.values()):
            if stand.key[0] == block_id and stand.phase == "gate" and stand.task and self.answers[block_id]:
                self.tasks.advance(stand.task, steps.ANSWERED)
        self._settle()

    def update_context(self, payload: Any) -> None:
        """Merge keys into `data`, shallowly."""
        given = payload.get("data") if isinstance(payload, Mapping) else None
        if isinstance(given, Mapping):
            self.data.update(copy.deepcopy(dict(given)))
        self._settle()

    def pause(self) -> None:
        """Stop before the next step; handlers that run finish first, a sleep is interrupted."""
        self.pausing = True
        for stand in self.stands.values():
            steps.hold(stand)
        self._settle()

    def resume(self) -> None:
        """Go on."""
        self._let_go()
        self._settle()

    def _let_go(self) -> None:
        self.pausing = False
        for stand in list(self.stands.values()):
            if stand.phase == "held" and stand.task:
                self.tasks.advance(stand.task, steps.RESUMED)

    def cancel(self) -> None:
        """Withdraw everything that is not shielded."""
        self.cancelling.cancelled = True
        self.withdraw(list(self.stands.values()))
        self._let_go()
        self._settle()

    def withdraw(self, stands: list[Stand]) -> None:
        """Cancel the steps at some stands, where a cancellation has reached them."""
        for stand in stands:
            if self.stands.get(stand.key) is not stand or not stand.task:
                continue
            kind = stand.place.stopped_by()
            if kind is not None and not steps.is_shielded(stand, kind):
                self.tasks.advance(stand.task, steps.CANCEL)

    # -- the state -----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Read the instance's state off what is open."""
        if ended := self._root.ended:
            self.state = FAILED if ended.state == FAILED else CANCELLED if self.cancelling.cancelled else COMPLETED
            return
        open_now = list(self.stands.values())
        claimed = any(stand.phase == "claimed" and stand.in_process for stand in open_now)
        if any(stand.phase == "asleep" for stand in open_now):
            claimed = True
        waiting = any(_waits_for_outsider(stand) for stand in open_now)
        ready = any(stand.phase == "ready" and stand.in_process for stand in open_now)
        handed_out = any(stand.phase == "claimed" for stand in open_now)
        if self.pausing and (self.state == "paused" or not (claimed or waiting)):
            self.state = "paused"
        elif self.pausing and self.state == "running" and not handed_out and not claimed:
            self.state = "paused"
            for stand in open_now:
                steps.take_back(stand)
        elif claimed or ready:
            self.state = "running"
        elif waiting:
            self.state = "waiting"
        else:
            self.state = "scheduled"


def _waits_for_outsider(stand: Stand) -> bool:
    return stand.phase == "gate" or (stand.phase in {"ready", "claimed"} and not stand.in_process)
