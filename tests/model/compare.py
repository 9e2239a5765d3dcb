"""What of a flow is compared, and what is forgiven: the one place that says where the contract leaves room.

Forgiven is, each for its reason: texts of messages that the contract does not give; other members of `_error` than
those it names; the bookkeeping row of a for_each, whose moments it leaves open; in a row of a sub_sequence all but
block and output of the child's rows; the node of a block in concurrent items, which is one of several; among the
nodes inside of what was cancelled, which of them were still to come. Programs whose course depends on how far the
branches of a decided race get, or concurrent items of which one fails at once, are not compared at all
(`Flow.is_left_to_chance`).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from tests.model.reference.interpreter import TERMINAL, Flow
from tests.model.reference.places import ancestors, everything_in
from tests.model.reference.steps import SOME_TEXT
from tests.model.reference.tasks import Key
from tests.support import drive


class Disagreement(AssertionError):
    """The core and the interpreter differ."""


class Pair:
    """One flow on both sides.

    Args:
        tolerance: How far timers may be apart.
    """

    def __init__(self, real: drive.Flow, model: Flow, tolerance: timedelta) -> None:
        self.real, self.model = real, model
        self.blocks: dict[str, Any] = {}
        self.note_blocks()
        self.rows_seen = 0
        self._tolerance = tolerance

    def note_blocks(self) -> None:
        """Look at the blocks, anew if some have been injected."""
        if len(self.blocks) == len(self.model.nodes):
            return
        self.blocks = {block["id"]: block for block in everything_in(self.model.blocks)}
        self.around = ancestors(self.model.blocks)
        self.drops_rows = any("retain_iterations" in block for block in self.blocks.values())

    @property
    def id(self) -> UUID:
        return self.real.id

    @property
    def has_ended(self) -> bool:
        return self.model.state in TERMINAL

    def compare(self) -> None:
        """Compare where both sides stand; raises `Disagreement`."""
        same("ready", self.real_ready(), self.model_ready())
        same("timers", self._near(self.real_timers(), self.model_timers()), self.model_timers())
        same("state", self.real.state, self.model.state)
        real, model = self.real_rows(), self.model_rows()
        same("rows", _sorted(real[self.rows_seen :]), _sorted(model[self.rows_seen :]))
        self.rows_seen = 0 if self.drops_rows else len(model)
        try:
            self.real.check()
        except AssertionError as error:
            same(f"consistency: {error}", real=False, model=True)

    def compare_end(self) -> None:
        """Compare what is left when the flow has ended; raises `Disagreement`."""
        self.rows_seen = 0
        self.compare()
        same("data", _data(self.real.data), _data(self.model.data))
        self.compare_interceptors()
        same("state values", self.real.kv, self.model.values)
        same("tree", self.real_nodes(), self.model.nodes)

    def compare_interceptors(self) -> None:
        """Compare the rows of interceptors; that before a step may be there although a cancel came before its start."""
        found = [
            (row.block_id, {name: value for name, value in row.output.items() if name not in {"_result", "_error"}})
            for row in self.real.rows()
            if row.block_id.startswith("_interceptor:")
        ]
        expected = sorted(self.model.intercepted, key=repr)
        extra = _beyond(found, expected)
        same("interceptors", sorted(found, key=repr), sorted([*expected, *extra], key=repr))
        assert {label for label, _ in extra} <= self.model.announced, f"rows of interceptors: {extra}"

    def _near(self, real: dict[Key, Any], model: dict[Key, Any]) -> dict[Key, Any]:
        near = {key for key in real.keys() & model.keys() if abs(real[key] - model[key]) < self._tolerance}
        return {**real, **{key: model[key] for key in near}}

    def real_nodes(self) -> dict[str, str]:
        """Give the tree's states, those of the interpreter where they count as the same."""
        nodes, model = self.real.tree(), self.model
        return {
            block_id: model.nodes[block_id] if state in self.also_true(block_id) else state
            for block_id, state in nodes.items()
        }

    def also_true(self, block_id: str) -> set[str]:
        """Give other states a node may read.

        Of concurrent items any; in a cancelled repetition, that of the next; and inside of what was stopped nobody
        says whether what never began was still to come (`cancelled`) or not chosen (`skipped`), nor of what was
        injected after the end. Of what was in progress in front of the block that a copy goes on from, nobody says how
        much of it is told.
        """
        states, model = self.model.states.get(block_id, set()), self.model
        found = set(states) if model.lanes[block_id] else set()
        if ("pending" in states or model.lanes[block_id]) and model.cancelling.cancelled:
            found.add("cancelled")
        around = {model.nodes[outer] for outer in self.around[block_id]}
        stopped = not around.isdisjoint({"cancelled", "skipped"})
        if stopped and model.lanes[block_id]:
            found.add("cancelled")
        if model.is_copy and "skipped" in around:
            found |= {"completed", "failed", "cancelled", "skipped"}
        if (stopped and model.nodes[block_id] in {"cancelled", "skipped"}) or model.nodes[block_id] == "pending":
            found |= {"cancelled", "skipped"}
        return found

    def real_ready(self) -> dict[Key, int]:
        steps = self.real.steps()
        return {(s.key.block_id, s.key.iteration): s.attempt for s in steps if s.state.value == "ready"}

    def model_ready(self) -> dict[Key, int]:
        return {key: stand.attempt for key, stand in self.model.stands.items() if stand.phase == "ready"}

    def real_timers(self) -> dict[Key, Any]:
        return {(key.block_id, key.iteration): due for key, due in self.real.world.timers(self.id).items()}

    def model_timers(self) -> dict[Key, Any]:
        return {key: stand.due for key, stand in self.model.stands.items() if stand.due is not None}

    def real_rows(self) -> list[Any]:
        rows = [row for row in self.real.rows() if row.ref not in {"__retry__", "__in_progress__"}]
        return [
            self.row(row.block_id, row.iteration, row.output, row.attempt, row.ref)
            for row in rows
            if self.counts(row.block_id)
        ]

    def model_rows(self) -> list[Any]:
        return [self.row(r.block_id, r.iteration, r.output, r.attempt, r.mark) for r in self.model.rows]

    def counts(self, block_id: str) -> bool:
        """Leave out the bookkeeping of for_eachs: when it is written is nobody's business."""
        return not block_id.startswith("_interceptor:") and self.blocks[block_id]["type"] != "for_each"

    def row(self, block_id: str, iteration: tuple[int, ...], output: Any, attempt: int, mark: str | None) -> Any:
        """Give what is compared of a row."""
        output = _of_contract(output)
        if self.blocks[block_id]["type"] == "sub_sequence":
            output = _rows_of_child(output)
        return (block_id, iteration, output, attempt, mark)


def _beyond(found: list[Any], expected: list[Any]) -> list[Any]:
    """Give what was found and not expected."""
    left = list(expected)
    return [each for each in found if each not in left or left.remove(each)]


def same(what: str, real: Any, model: Any, where: Any = "") -> None:
    """Expect two equal values; raises `Disagreement`."""
    if real != model and _forgiving(real, model) != model:
        raise Disagreement(f"{what} {where}\n  core:  {real}\n  model: {model}")


def _forgiving(real: Any, model: Any) -> Any:
    """Put the interpreter's "some text" in the place of the text that is there."""
    if isinstance(real, dict) and isinstance(model, dict):
        return {name: _forgiving(real[name], model.get(name)) for name in real}
    if isinstance(real, list | tuple) and isinstance(model, list | tuple) and len(real) == len(model):
        return type(real)(_forgiving(*pair) for pair in zip(real, model, strict=True))
    return SOME_TEXT if model == SOME_TEXT and isinstance(real, str) else real


def _of_contract(output: Any) -> Any:
    """Give what the contract says of the row of a gate."""
    if isinstance(output, Mapping) and "_orch8_human_gate" in output:
        return {name: output[name] for name in ("value", "_orch8_human_gate", "comment") if name in output}
    return output


def _rows_of_child(rows: list[Any]) -> list[Any]:
    """Give what is compared of a child's rows, and of those of its children; not the bookkeeping of for_eachs."""
    inner = [(row["block_id"], _of_contract(row["output"])) for row in rows if not row["block_id"].startswith("fo")]
    nested = [(name, _rows_of_child(output) if name.startswith("su") else output) for name, output in inner]
    return sorted(nested, key=repr)


def _sorted(rows: list[Any]) -> list[Any]:
    """Put the rows of one event in an order."""
    return sorted(rows, key=lambda row: row[:2])


def _data(data: Any) -> Any:
    """Leave out of `_error` what may be there beside the contract's members."""
    if isinstance(data, dict) and isinstance(data.get("_error"), dict):
        known = ("failed_blocks", "failed_step", "source", "block_id", "message", "step_id")
        return {**data, "_error": {name: data["_error"][name] for name in known if name in data["_error"]}}
    return data
