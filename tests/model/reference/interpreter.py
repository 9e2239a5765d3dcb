"""The whole of one flow: what has been written, where it stands, and what happens to it from outside.

A driver looks at `stands` (what could be claimed, which timers are set, which gates are open) and calls `claim`,
`report`, `fire`, `answer` and the signals. Time is `now`, which the driver moves.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from tests.model.reference import composites, steps
from tests.model.reference.family import Family, NewId
from tests.model.reference.handlers import Outcome
from tests.model.reference.places import EXTERNAL, NOTHING, Fence, Handled, Json, Place, everything_in, lanes_of
from tests.model.reference.tasks import CANCELLED, COMPLETED, FAILED, SKIPPED, Ended, Key, Stand, Task, Tasks, Waits
from tests.model.reference.values import View

TERMINAL = frozenset({COMPLETED, FAILED, CANCELLED})
_END = Task(iter(()), ended=Ended(CANCELLED))  # type: ignore[arg-type]


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
            the contract does not say how far those get then, nor how many concurrent items have begun when one fails at
            once; or `_error` was written while branches began, and it does not say which guards see it.
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
        parent: "Flow | None" = None,
        sequences: Mapping[str, Json] | None = None,
        new_id: NewId | None = None,
        original: "Flow | None" = None,
    ) -> None:
        self.blocks: list[Json] = list(document["blocks"])
        self.parent, self.is_copy = parent, original is not None
        related = parent or original
        self.family = related.family if related else Family(sequences or {}, now, new_id or (lambda *_: instance_id))
        self.family.flows.append(self)
        self.instance_id, self.timezone = instance_id, timezone
        self.data: dict[str, Any] = copy.deepcopy(data or {})
        self.config: dict[str, Any] = copy.deepcopy(config or {})
        self.values: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.nodes: dict[str, str] = {block["id"]: "pending" for block in everything_in(self.blocks)}
        self.states: dict[str, set[str]] = {}
        self.begun: set[str] = set()
        self.executed: list[tuple[str, tuple[int, ...], int]] = []
        self.interceptors: Json = document.get("interceptors") or {}
        self.intercepted: list[tuple[str, Any]] = []
        self.announced: set[str] = set()
        self.mail: list[tuple[str | None, Any]] = []
        self.finished: dict[Key, Ended] = {}
        self.memories: dict[Key, dict[str, Any]] = {}
        self.handled: list[Handled] = []
        self.lanes = lanes_of(self.blocks)
        self.pausing = False
        self.is_left_to_chance = False
        self.cancelling = Fence(EXTERNAL)
        self.tasks = Tasks()
        self.state = "scheduled"
        self._root = _END if original else self.tasks.spawn(self._run_root())
        if original is None:
            self.settle()

    @property
    def now(self) -> datetime:
        """The time, which is that of the whole family."""
        return self.family.now

    def child(self, document: Json, instance_id: UUID, data: Any) -> "Flow":
        """Start a child."""
        return Flow(
            document,
            instance_id=instance_id,
            now=self.now,
            data=data,
            config=self.config,
            timezone=self.timezone,
            parent=self,
        )

    def tell_parent(self) -> None:
        """Let the block go on that waits for this child, if it still does."""
        assert self.parent
        for stand in list(self.parent.stands.values()):
            if stand.child is self and stand.task:
                self.parent.tasks.advance(stand.task, steps.ENDED)
        self.parent.settle()

    @property
    def stands(self) -> dict[Key, Stand]:
        """Where the flow stands."""
        return self.tasks.stands

    def _run_root(self, first: int = 0) -> Waits:
        place = Place(fences=(self.cancelling,), is_root=True)
        return (yield from self.run_list(self.blocks, place, first))

    def inject(self, blocks: list[Json], position: int | None) -> bool:
        """Put blocks among the root blocks that have not started (§9.10); False if an id is taken."""
        if any(block["id"] in self.nodes for block in everything_in(blocks)):
            return False
        begun = max((i for i, block in enumerate(self.blocks, 1) if block["id"] in self.begun), default=0)
        at = len(self.blocks) if position is None else min(begun + position, len(self.blocks))
        self.blocks[at:at] = blocks
        self.nodes |= {block["id"]: "pending" for block in everything_in(blocks)}
        self.lanes = lanes_of(self.blocks)
        return True

    def injected(self, blocks: list[Json], position: int | None) -> None:
        """Take blocks from outside."""
        self.inject(blocks, position)
        self.settle()

    def intercept(self, name: str, label: str, **more: Any) -> None:
        """Write down what an interceptor is told (§14)."""
        if name in self.interceptors:
            self.intercepted.append((label, {**self.interceptors[name].get("params", {}), **more}))

    # -- walking -------------------------------------------------------------------------------------------------

    def run_list(self, blocks: list[Json], place: Place, first: int = 0) -> Waits:
        """Run blocks one after another, up to the first that fails or is cancelled; a root list may grow meanwhile."""
        index = first - 1
        while (index := index + 1) < len(blocks):
            block = blocks[index]
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
        key = (block["id"], place.iteration)
        if key in self.finished:
            self.set_node(block["id"], self.finished[key].state)
            return self.finished[key]
        run = steps.run_step if block["type"] == "step" else composites.RUN[block["type"]]
        self.nodes[block["id"]] = "running"
        self.begun.add(block["id"])
        ended: Ended = yield from run(self, block, place)
        self.set_node(block["id"], ended.state)
        if ended.state in {COMPLETED, SKIPPED}:
            self.finished[key] = ended
        return ended

    def memory(self, block_id: str, place: Place) -> dict[str, Any]:
        """Give what a block has noted down for a later round."""
        return self.memories.setdefault((block_id, place.iteration), {})

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

    # -- data ---------------------------------------------------------------------------------------------------

    def handle(self, error: Any) -> Handled:
        """Begin with lists that handle an error."""
        self.handled.append(Handled(error))
        return self.handled[-1]

    def put_error(self, handled: Handled) -> None:
        """Put the error that a list handles into the data, unless it was taken from that list."""
        self.data.pop("_error", None)
        self.data.update(handled.members())

    def write(self, place: Place, path: tuple[str, ...], value: Any) -> None:
        """Write a value to the data from where a block stands: names that are bound there are not the data's own."""
        if path[0] in {binding.name for binding in place.bindings if binding.is_alone}:
            return
        is_own_error = path[0] == "_error" and place.handled is not None
        if is_own_error:
            self.put_error(place.handled)
        inside: dict[str, Any] = self.data
        for key in path[:-1]:
            known = inside.get(key)
            inside[key] = dict(known) if isinstance(known, dict) else {}  # a list may handle what stood there
            inside = inside[key]
        inside[path[-1]] = copy.deepcopy(value)
        if is_own_error:
            place.handled.error = copy.deepcopy(self.data["_error"])

    # -- reading -------------------------------------------------------------------------------------------------

    def view(self, block_id: str, place: Place, *, attempt: int = 0, **variables: Any) -> View:
        """Give what conditions and templates of a block can read."""
        items = {binding.name: binding.item for binding in place.bindings}
        data = self.data
        if place.handled is not None:
            data = {**{name: value for name, value in data.items() if name != "_error"}, **place.handled.members()}
        if place.bindings:
            index = place.bindings[-1].index
            variables = {"index": index, "item_index": index, **variables}
        runtime = {"attempt": attempt, "dry_run": False, "instance_id": str(self.instance_id)}
        sections = {
            "data": dict(data),
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
            row for row in self.rows if row.block_id == wanted and row.iteration[:depth] == place.iteration[:depth]
        ]
        if not found:
            raise KeyError(wanted)
        return found[-1].output

    def has_spoken(self, block_id: str, place: Place, *, by_row: bool) -> bool:
        """Say whether a block has a row, or has completed, in the iterations of a place."""
        completed = {key for key, ended in self.finished.items() if ended.state == COMPLETED}
        spoken = {(row.block_id, row.iteration) for row in self.rows if row.mark is None}
        keys = spoken if by_row else completed
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
        self.settle()

    def report(self, key: Key, outcome: Outcome | None = None) -> None:
        """Report how an attempt ended: by its own outcome, or by one given for an external worker."""
        stand = self.stands[key]
        assert stand.phase == "claimed"
        assert stand.task
        result = stand.outcome if stand.outcome is not None else outcome
        self.executed.append((key[0], key[1], stand.attempt))
        self.tasks.advance(stand.task, result)
        self.settle()

    def lose(self, key: Key) -> None:
        """End a claim because its worker died: the same attempt can be taken again."""
        stand = self.stands[key]
        assert stand.task
        stand.outcome = None
        self.tasks.advance(stand.task, steps.LOST)
        self.settle()

    def fire(self, key: Key) -> None:
        """Let a timer ring that is due."""
        stand = self.stands[key]
        assert stand.due is not None
        assert stand.due <= self.now
        assert stand.task
        stand.due = None
        self.tasks.advance(stand.task, steps.DUE)
        self.settle()

    def signal(self, kind: Any, payload: Any) -> None:
        """Take a signal; a custom one that is no gate's answer has no effect."""
        self._note_signal(kind, payload)
        match kind:
            case "pause":
                self.pause()
            case "resume":
                self.resume()
            case "cancel":
                self.cancel()
            case "update_context":
                self.update_context(payload)
            case {"custom": str(name)} if name.startswith("human_input:"):
                self.answer(name.removeprefix("human_input:"), payload)
            case "custom":
                self.answer(None, payload)

    def _note_signal(self, kind: Any, payload: Any) -> None:
        self.intercept("on_signal", "_interceptor:on_signal", _signal={"signal_type": kind, "payload": payload})

    def answer(self, block_id: str | None, payload: Any) -> None:
        """Take the signal `human_input:<block id>`, or one without a name, for whichever gate is open or opens next."""
        self.mail.append((block_id, payload))
        for stand in list(self.stands.values()):
            if stand.phase == "gate" and stand.task and block_id in {None, stand.key[0]} and self.mail:
                self.tasks.advance(stand.task, steps.ANSWERED)
        self.settle()

    def take_mail(self, block_id: str) -> tuple[str | None, Any] | None:
        """Take the oldest answer that a gate can have."""
        for index, (name, _) in enumerate(self.mail):
            if name in {None, block_id}:
                return self.mail.pop(index)
        return None

    def update_context(self, payload: Any) -> None:
        """Merge keys into `data`, shallowly."""
        self._merge(payload)
        self.settle()

    def _merge(self, payload: Any) -> None:
        given = payload.get("data") if isinstance(payload, Mapping) else None
        if isinstance(given, Mapping):
            self.data.update(copy.deepcopy(dict(given)))
            if "_error" in given:
                for handled in self.handled:
                    handled.error = given["_error"]

    def pause(self) -> None:
        """Stop before the next step; handlers that run finish first, a sleep is interrupted."""
        self.pausing = True
        for stand in self.stands.values():
            steps.hold(stand)
        self.settle()

    def resume(self) -> None:
        """Go on."""
        self._let_go()
        self.settle()

    def _let_go(self) -> None:
        self.pausing, had_ended = False, self._root.ended
        for stand in list(self.stands.values()):
            if stand.phase == "held" and stand.task and self.stands.get(stand.key) is stand:
                self.tasks.advance(stand.task, steps.RESUMED)
        if self.state == "paused" and had_ended:
            self._go_on_behind_the_end()

    def _go_on_behind_the_end(self) -> None:
        """Run, or give up, what was injected while the flow was paused with nothing left to run."""
        if self.cancelling.cancelled:
            self.mark([block for block in self.blocks if self.nodes[block["id"]] == "pending"], CANCELLED)
        else:
            self._root = self.tasks.spawn(self._run_root())

    def cancel(self) -> None:
        """Withdraw everything that is not shielded."""
        self.cancelling.cancelled = True
        self.withdraw(list(self.stands.values()))
        self._let_go()
        self.settle()

    def replace_context(self, data: Any, config: Any) -> None:
        """Put other sections in the place of those there are; lists that handle an error read the new one."""
        before, self.data, self.config = self.data, copy.deepcopy(data or {}), copy.deepcopy(config or {})
        if before.get("_error") != self.data.get("_error"):
            for handled in self.handled:
                handled.error = self.data.get("_error", NOTHING)
        self.settle()

    def set_state(self, state: str) -> None:
        """Bring the flow to a state by hand: its work ends at once, or is there to be done again (§9.2)."""
        if state in TERMINAL:
            self._abandon(state)
        elif self.state in TERMINAL:
            self.retry()
            return
        else:
            for stand in self.stands.values():
                steps.interrupt(stand)
            self.pausing = state == "paused"
            if self.pausing:
                self.state = state
            else:
                self._let_go()
        self.settle()

    def _abandon(self, state: str) -> None:
        """End everything that is open, shielded or not."""
        for stand in self.stands.values():
            self.set_node(stand.key[0], CANCELLED)
            if stand.child is not None:
                self.family.cancel(stand.child)
        for block_id, stood in self.nodes.items():
            if stood in {"pending", "running"}:
                self.set_node(block_id, CANCELLED)
        self.tasks = Tasks()
        self.pausing, self.cancelling = False, Fence(EXTERNAL, cancelled=state == CANCELLED)
        self._root = replace(_END, ended=Ended(state))

    def resume_from(self, block_id: str, data: Json, signals: list[Json]) -> None:
        """Forget a root block and all behind it, and go on from there (§9.8)."""
        first = self._place_of(block_id)
        self._abandon(CANCELLED)
        self.cancelling, self.state = Fence(EXTERNAL), "scheduled"
        forgotten = {block["id"] for block in everything_in(self.blocks[first:])}
        self.rows = [row for row in self.rows if row.block_id not in forgotten and row.mark is None]
        self.finished = {key: ended for key, ended in self.finished.items() if key[0] not in forgotten}
        self.memories = {key: known for key, known in self.memories.items() if key[0] not in forgotten}
        self.nodes.update(dict.fromkeys(forgotten, "pending"))
        self.states = {name: states for name, states in self.states.items() if name not in forgotten}
        for block in self.blocks[:first]:
            if (block["id"], ()) not in self.finished:
                self.finished[block["id"], ()] = Ended(SKIPPED)
                self.set_node(block["id"], SKIPPED)
        self.begun = {block["id"] for block in self.blocks[:first]}
        self.data.update(copy.deepcopy(dict(data)))
        if "_error" in data:
            for handled in self.handled:
                handled.error = data["_error"]
        for signal in signals:
            self._deliver(signal["signal_type"], signal.get("payload"))
        self._root = self.tasks.spawn(self._run_root(first))
        self.settle()

    def _place_of(self, block_id: str) -> int:
        return next(index for index, block in enumerate(self.blocks) if block["id"] == block_id)

    def fork(self, instance_id: UUID, block_id: str, data: Json, signals: list[Json]) -> None:
        """Start a flow of its own with what this one has in front of a root block, and go on from there (§9.9)."""
        document = {"blocks": self.blocks, "interceptors": self.interceptors}
        copied = Flow(
            document,
            instance_id=instance_id,
            now=self.now,
            data=self.data,
            config=self.config,
            timezone=self.timezone,
            original=self,
        )
        kept = {block["id"] for block in everything_in(self.blocks[: self._place_of(block_id)])}
        copied.values = copy.deepcopy(self.values)
        copied.rows = [row for row in self.rows if row.block_id in kept]
        copied.finished = {key: ended for key, ended in self.finished.items() if key[0] in kept}
        copied.nodes |= {name: state for name, state in self.nodes.items() if name in kept}
        copied.states = {name: set(states) for name, states in self.states.items() if name in kept}
        copied.resume_from(block_id, data, signals)

    def trim(self, blocks: list[Json], around: Json, place: Place, keep: int, since: tuple[int, ...] | None) -> None:
        """Keep the newest rows of each block in a list, and those of items in progress (`since`)."""
        depth = max(self.lanes[around["id"]].values(), default=0)
        for block in everything_in(blocks):
            mine = [
                row
                for row in self.rows
                if row.block_id == block["id"] and row.iteration[:depth] == place.iteration[:depth]
            ]
            old = [row for row in mine[: -max(1, keep)] if since is None or row.iteration < since]
            self.rows = [row for row in self.rows if all(row is not each for each in old)]

    def _deliver(self, kind: Any, payload: Any) -> None:
        """Take a signal while nothing is open."""
        self._note_signal(kind, payload)
        match kind:
            case "pause" | "resume":
                self.pausing = kind == "pause"
            case "cancel":
                self.cancelling.cancelled, self.pausing = True, False
            case "update_context":
                self._merge(payload)
            case {"custom": str(name)} if name.startswith("human_input:"):
                self.mail.append((name.removeprefix("human_input:"), payload))

    def retry(self) -> None:
        """Go on where the flow ended: what has ended well stays, rows of a failure go, attempts start anew."""
        assert self.state in TERMINAL
        self.rows = [row for row in self.rows if row.mark is None]
        self.pausing, self.cancelling, self.state = False, Fence(EXTERNAL), "scheduled"
        self._root = self.tasks.spawn(self._run_root())
        self.settle()

    def withdraw(self, stands: list[Stand]) -> None:
        """Cancel the steps at some stands, where a cancellation has reached them."""
        for stand in stands:
            if self.stands.get(stand.key) is not stand or not stand.task:
                continue
            kind = stand.place.stopped_by()
            if kind is not None and not steps.is_shielded(stand, kind):
                self.tasks.advance(stand.task, steps.CANCEL)

    # -- the state -----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Read the instance's state off what is open, and let the family do what is to be done now."""
        former = self.state
        self._read_state()
        if self.state in TERMINAL and former not in TERMINAL:
            name = {COMPLETED: "on_complete", FAILED: "on_failure"}.get(self.state, "")
            self.intercept(name, f"_interceptor:{name}")
            if self.parent:
                self.family.ended(self)
        self.family.settle()

    def _read_state(self) -> None:
        ended, cancelled = self._root.ended, self.cancelling.cancelled
        if ended and ended.state == COMPLETED and self.pausing and not cancelled:
            self.state = "paused"
            return
        if ended:
            self.state = FAILED if ended.state == FAILED else CANCELLED if cancelled else COMPLETED
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
    return stand.phase in {"gate", "child"} or (stand.phase in {"ready", "claimed"} and not stand.in_process)
