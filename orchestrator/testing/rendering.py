"""The tree of a run as text: what a person needs to see when a test has failed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from orchestrator.core import tree
from orchestrator.core.model import is_beside
from sequences.document import Step

if TYPE_CHECKING:
    from orchestrator.testing.run import Run

_MARKS = {
    "completed": "ok",
    "failed": "FAILED",
    "cancelled": "cancelled",
    "skipped": "skipped",
    "pending": "-",
    "running": "RUNNING",
    "waiting": "WAITING",
}
_WIDTH = 60


def render(run: "Run") -> str:
    """Draw the blocks of a run in document order, each with its state, and what steps gave or why they failed."""
    lines = [f"{run.plan.definition.name}: {run.instance.state} after {run.elapsed}"]
    lines += [f"  crashed {crash}" for crash in run.crashes]
    shown = tree.build(run.plan, run.id, run.instance.state, _entries(run))
    depths: dict[Any, int] = {}
    outputs, errors, standing = run.outputs, run.errors(), run.standing
    for node in shown:
        depth = depths[node["id"]] = depths.get(node["parent_id"], 0) + 1
        block = run.plan.places[node["block_id"]].block
        name = f"{'  ' * depth}{node['block_id']}"
        kind = block.handler if isinstance(block, Step) else node["block_type"]
        notes = [_MARKS.get(node["state"], node["state"])]
        if node["block_id"] in standing:
            notes.append(f"({standing[node['block_id']]})")
        if node["block_id"] in outputs and isinstance(block, Step):
            notes.append(f"-> {_short(outputs[node['block_id']])}")
        if node["block_id"] in errors and node["state"] != "completed":
            notes.append(f"! {_cut(errors[node['block_id']])}")
        lines.append(f"{name:<30} {kind:<16} {' '.join(notes)}")
    return "\n".join(lines)


def _entries(run: "Run") -> Iterator[tree.Entry]:
    tables = run.stored
    for node in tables.nodes.values():
        if not is_beside(node.key):
            memory = dict(node.memory)
            yield tree.node_entry(*node.key, node.state.value, node.started_at, node.completed_at, memory)
    for row in tables.steps.values():
        if not is_beside(row.step.key):
            step = row.step
            yield tree.step_entry(*step.key, step.state.value, step.activity.value, step.entered_at)


def _short(value: Any) -> str:
    return _cut(orjson.dumps(value).decode())


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
