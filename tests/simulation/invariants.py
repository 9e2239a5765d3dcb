"""What must hold after every commit, and at the end, whatever has gone wrong.

The watcher sees what each transaction has written just before it is committed. It trusts nothing that the product says
of itself: it looks at the rows as they were and as they are about to be.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.changes import AttemptRecorded
from orchestrator.core.model import ROOT_KEY, Instance, Node, NodeKey, Step, is_beside
from orchestrator.core.states import INSTANCE_MOVES, InstanceState, NodeState, StepState
from orchestrator.store.memory.tables import GONE, LetterRow, Rows, StepRow, Tables
from tests.simulation.scheduler import Process
from tests.simulation.shaky_store import Write
from workers.handlers.builtin import EFFECTLESS_HANDLERS

Activation = tuple[UUID, NodeKey]


class Violated(AssertionError):
    """An invariant does not hold."""


class Watcher:
    """Checks every commit.

    Args:
        bounds: Of each for_each that runs items at once: how many.
        bodies: Of each block, the for_each of `bounds` around it, and how many loops are around that.
        note: Writes a line of the history.
        name_of: Gives the name under which the history speaks of an instance.
    """

    tables: Tables

    def __init__(
        self,
        bounds: dict[str, int],
        bodies: dict[str, tuple[str, int]],
        note: Callable[[str], None],
        name_of: Callable[[UUID], str],
    ) -> None:
        self.matters = 0
        self._bounds = bounds
        self._bodies = bodies
        self._note = note
        self._name_of = name_of
        self._owners: dict[int, tuple[UUID, str]] = {}
        self._opened: set[Activation] = set()
        self._completed: Counter[Activation] = Counter()
        self._letters_opened: set[UUID] = set()
        self.lost: Counter[tuple[UUID, NodeKey, int]] = Counter()
        """Claims that ended without an outcome, by attempt: so many times its handler may be run once more."""

    # -- commits ---------------------------------------------------------------------------------------------------

    def about_to_commit(self, process: Process, writes: list[Write]) -> None:
        """Check what a transaction has written."""
        first: dict[tuple[int, Any], Write] = {}
        for write in writes:
            first.setdefault((id(write[0]), write[1]), write)
        touched: dict[UUID, None] = {}
        lines: list[str] = []
        attempts: list[tuple[UUID, AttemptRecorded]] = []
        outputs: set[Activation] = set()
        steps: dict[Activation, tuple[Step | None, Step | None]] = {}
        for rows, key, former in first.values():
            value = rows.get(key, GONE)
            if value is former:
                continue
            if isinstance(value, Rows):
                self._know(key, value)
                continue
            owner, table = self._owners.get(id(rows), (None, ""))
            if owner is None:
                self._check_letter(key, value, former, lines)
                continue
            touched[owner] = None
            match table:
                case "steps":
                    steps[owner, key] = (_step(former), _step(value))
                case "outputs":
                    outputs.add((owner, self._added_output(value, former)))
                case "nodes":
                    self._check_node(owner, value, former)
                case "instance":
                    self._check_instance(owner, value, former, lines)
                case "attempts":
                    attempts.append((owner, value))
                case _:
                    pass
        for owner, attempt in attempts:
            self._check_attempt(owner, attempt, steps, lines)
            if attempt.outcome == "completed" and (owner, attempt.key) not in outputs:
                raise Violated(f"{self._called(owner, attempt.key)} has completed without an output")
        for (owner, key), (former, value) in steps.items():
            self._check_step(owner, key, former, value, lines)
        self._opened.update((owner, attempt.key) for owner, attempt in attempts)
        self.matters += bool(touched or lines)
        for owner in touched:
            self._check_whole(owner)
        if lines:
            self._note(f"{process.name} commits: " + "; ".join(lines))

    def _know(self, instance_id: UUID, rows: Rows) -> None:
        for table in (field.name for field in fields(rows)):
            self._owners[id(getattr(rows, table))] = (instance_id, table)

    def about_to_be_taken_back(self, writes: list[Write]) -> None:
        """Forgive the handlers of claims that a crash of the store has forgotten."""
        for rows, key, _ in writes:
            owner, table = self._owners.get(id(rows), (None, ""))
            step = _step(rows.get(key, GONE)) if table == "steps" else None
            if owner is not None and step is not None and step.state is StepState.CLAIMED:
                self.lost[owner, key, step.attempt] += 1

    # -- single rows -----------------------------------------------------------------------------------------------

    def _check_letter(self, key: Any, value: Any, former: Any, lines: list[str]) -> None:
        if value is GONE and isinstance(former, LetterRow):
            if key in self._letters_opened:
                raise Violated("a letter was opened twice")
            self._letters_opened.add(key)
            lines.append(f"letter {former.kind} to {self._name_of(former.recipient)} opened")
        elif isinstance(value, LetterRow) and former is GONE:
            if key in self._letters_opened:
                raise Violated("a letter that was opened is written again")
            lines.append(f"letter {value.kind} to {self._name_of(value.recipient)} written")

    def _added_output(self, value: Any, former: Any) -> NodeKey:
        if former is not GONE:
            raise Violated("a stored output was changed" if value is not GONE else "a stored output was removed")
        added: NodeKey = value.change.key
        return added

    def _check_node(self, owner: UUID, value: Any, former: Any) -> None:
        if isinstance(former, Node) and former.state.is_terminal:
            raise Violated(f"node {self._called(owner, former.key)} had ended and was written again")
        del value

    def _check_instance(self, owner: UUID, value: Any, former: Any, lines: list[str]) -> None:
        if not isinstance(value, Instance) or not isinstance(former, Instance):
            return
        if value.version <= former.version:
            raise Violated(f"the version of {self._name_of(owner)} went from {former.version} to {value.version}")
        if former.state is value.state:
            return
        lines.append(f"{self._name_of(owner)} is {value.state}")
        if former.state.is_terminal:
            raise Violated(f"{self._name_of(owner)} was {former.state} and is {value.state}")

    def _check_attempt(
        self,
        owner: UUID,
        attempt: AttemptRecorded,
        steps: dict[Activation, tuple[Step | None, Step | None]],
        lines: list[str],
    ) -> None:
        called = self._called(owner, attempt.key)
        lines.append(f"{called} attempt {attempt.attempt} {attempt.outcome}")
        former, _ = steps.get((owner, attempt.key), (None, None))
        if attempt.outcome in {"completed", "failed"}:
            is_claimed = former is not None and former.state in {StepState.CLAIMED, StepState.ASLEEP}
            is_current = former is not None and is_claimed and former.token == attempt.token
            if not is_current and not self._is_ahead(owner, attempt, former):
                raise Violated(f"an outcome of {called} was committed for a claim that had ended")
        if attempt.outcome == "completed":
            self._completed[owner, attempt.key] += 1
            if self._completed[owner, attempt.key] > 1:
                raise Violated(f"{called} has completed twice")
        if attempt.outcome == "lost":
            self.lost[owner, attempt.key, attempt.attempt] += 1

    def has_completed(self, owner: UUID, key: NodeKey) -> bool:
        """Tell whether a step has a stored output; what runs beside the flow may do so again and again."""
        return bool(self._completed[owner, key]) and not is_beside(key)

    def _is_ahead(self, owner: UUID, attempt: AttemptRecorded, former: Step | None) -> bool:
        """Tell whether a step was run in the commit that has reached it: only one without effects may be."""
        is_first = former is None and not attempt.attempt and (owner, attempt.key) not in self._opened
        return is_first and attempt.handler in EFFECTLESS_HANDLERS

    def _check_step(self, owner: UUID, key: NodeKey, former: Step | None, value: Step | None, lines: list[str]) -> None:
        called = self._called(owner, key)
        rows = self.tables.instances[owner]
        if former is None and value is not None:
            if (owner, key) in self._opened and not is_beside(key):
                raise Violated(f"{called} was entered twice")
            self._opened.add((owner, key))
        if value is None:
            return
        if value.state is StepState.CLAIMED and (former is None or former.token != value.token):
            self._check_claim(owner, value, rows, called)
            lines.append(f"{called} claimed by {value.worker_name}/{value.slot}")
        elif former is None or former.state is not value.state:
            lines.append(f"{called} is {value.state}")

    def _check_claim(self, owner: UUID, step: Step, rows: Rows, called: str) -> None:
        state = rows.instance[None].state
        if self._completed[owner, step.key] and not is_beside(step.key):
            raise Violated(f"{called} has a stored output and was claimed again")
        if state.is_terminal and not is_beside(step.key):
            raise Violated(f"{called} was claimed although its flow is {state}")
        if step.token is None:
            raise Violated(f"{called} is claimed without a token")

    # -- an instance as a whole ------------------------------------------------------------------------------------

    def _check_whole(self, owner: UUID) -> None:
        rows = self.tables.instances[owner]
        instance = rows.instance[None]
        in_flow = [row.step for key, row in rows.steps.items() if not is_beside(key)]
        if instance.state.is_terminal and in_flow:
            raise Violated(f"{self._name_of(owner)} is {instance.state} with open steps")
        is_open = not instance.state.is_terminal and not instance.is_held
        if is_open and not in_flow and not rows.timers and not _has_child(rows):
            raise Violated(f"{self._name_of(owner)} is {instance.state}, and nothing is left that could move it")
        for step in in_flow:
            due = rows.timers.get(step.key)
            if step.timer_at is not None and (due is None or due > step.timer_at + timedelta(seconds=60)):
                raise Violated(f"{self._called(owner, step.key)} waits for a moment and has no timer")
            if step.state is not StepState.CLAIMED and step.token is not None and step.state is StepState.READY:
                raise Violated(f"{self._called(owner, step.key)} is ready and has a token")
        if self._bounds:
            self._check_bounds(owner, in_flow)

    def _check_bounds(self, owner: UUID, in_flow: list[Step]) -> None:
        items: dict[tuple[str, tuple[int, ...]], set[int]] = {}
        for step in in_flow:
            around, depth = self._bodies.get(step.key.block_id, ("", 0))
            if around:
                numbers = step.key.iteration
                items.setdefault((around, numbers[:depth]), set()).add(numbers[depth])
        for (name, _), begun in items.items():
            if len(begun) > self._bounds[name]:
                raise Violated(
                    f"{self._name_of(owner)}: {name} has {len(begun)} items at once, not {self._bounds[name]}"
                )

    def _called(self, owner: UUID, key: NodeKey) -> str:
        numbers = "".join(f"[{number}]" for number in key.iteration)
        return f"{self._name_of(owner)}.{key.block_id}{numbers}"

    # -- the end ---------------------------------------------------------------------------------------------------

    def check_end(self) -> None:
        """Check what is left when everything is over."""
        for instance_id, rows in self.tables.instances.items():
            name, state = self._name_of(instance_id), rows.instance[None].state
            if not state.is_terminal:
                raise Violated(f"{name} has not ended: {state}")
            if any(not is_beside(key) for key in rows.timers):
                raise Violated(f"{name} has ended and has timers")
            if any(not node.state.is_terminal for node in rows.nodes.values()):
                raise Violated(f"{name} has ended with open nodes")
            self._check_history(name, rows)
        if self.tables.letters:
            raise Violated(f"{len(self.tables.letters)} letters were never delivered")

    def _check_history(self, name: str, rows: Rows) -> None:
        moves = [rows.transitions[i] for i in sorted(rows.transitions)]
        ends = []
        for move in moves:
            if move.event != "state_transition" or move.from_state is None or move.to_state is None:
                continue
            source, target = InstanceState(move.from_state), InstanceState(move.to_state)
            if target not in INSTANCE_MOVES[source]:
                raise Violated(f"{name}: the history tells of a move from {source} to {target}")
            ends += [target] if target.is_terminal else []
        if ends != [rows.instance[None].state]:
            raise Violated(f"{name} is {rows.instance[None].state}; its history ends as {ends}")


def _step(row: Any) -> Step | None:
    return row.step if isinstance(row, StepRow) else None


def _has_child(rows: Rows) -> bool:
    return any(node.state is NodeState.WAITING and "child" in node.memory for node in rows.nodes.values())


def outputs_of(rows: Rows) -> dict[str, Any]:
    """Give what the steps of an instance have said, by node, without what differs from run to run."""
    found: dict[str, list[Any]] = {}
    for output_id in sorted(rows.outputs):
        change = rows.outputs[output_id].change
        if is_beside(change.key) or change.key == ROOT_KEY:
            continue
        numbers = "".join(f"[{number}]" for number in change.key.iteration)
        found.setdefault(f"{change.key.block_id}{numbers}", []).append(_plain(change.output))
    return {name: found[name] for name in sorted(found)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items() if name not in VOLATILE}
    if isinstance(value, list):
        plain = [_plain(inner) for inner in value]
        is_rows = all(isinstance(inner, dict) and "block_id" in inner for inner in plain)
        return sorted(plain, key=repr) if is_rows else plain
    return value


VOLATILE = frozenset({"id", "instance_id", "created_at", "signal_id", "at", "slept_ms", "responded_at", "attempt"})
