"""What an open task would be given now, without claiming it: for lists, and for tasks that are pushed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final
from uuid import UUID

from orchestrator.core.facts import Facts
from orchestrator.core.ids import IdMaker
from orchestrator.core.inputs import InputError, prepare
from orchestrator.core.model import NodeKey
from orchestrator.core.sections import context_view
from orchestrator.core.slice import Slice, Unloaded
from orchestrator.core.turn import Turn
from orchestrator.slices import Plans
from orchestrator.store import reading
from orchestrator.store.leases import HeldTask
from orchestrator.store.postgres import PostgresTransaction
from sequences.references import ALL, References
from sequences.scope import Scope, plain

EMPTY_RUNTIME: Final[dict[str, Any]] = {
    "current_step": None,
    "attempt": 0,
    "started_at": None,
    "current_step_started_at": None,
    "resource_key": None,
    "total_steps_executed": 0,
    "dry_run": False,
    "dry_run_auto_approve": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInputs:
    """The inputs of a task.

    Args:
        outputs: The newest output of each block that has ended, if they were asked for.
    """

    params: Any
    scope: Scope
    outputs: Mapping[str, Any]


def context_of(scope: Scope) -> dict[str, Any]:
    """Show what a step may see of the context; a for_each item lies over the data."""
    data = scope.data
    if scope.bindings:
        data = {**(data if isinstance(data, dict) else {}), **scope.bindings}
    view = context_view(plain(data), plain(scope.config), {**EMPTY_RUNTIME, **scope.runtime}, audit=scope.audit)
    return view if scope.session is None else {**view, "session": scope.session}


def inputs_now(
    plans: Plans, tx: PostgresTransaction, tasks: Iterable[HeldTask], *, with_outputs: bool = False
) -> dict[UUID, TaskInputs]:
    """Make the inputs of open tasks as they would be now; those that cannot be made are left out."""
    tasks = list(tasks)
    found = reading.instances(tx, {task.instance_id for task in tasks})
    known = plans.of_instances(tx, found.values())
    slices = {i: Slice(plan=known[i], instance=instance) for i, instance in found.items() if i in known}
    made: dict[UUID, TaskInputs] = {}
    for task in tasks:
        current = slices.get(task.instance_id)
        if current is None:
            continue
        current.steps[task.step.key] = task.step
        inputs = _inputs(tx, current, task.step.key, with_outputs=with_outputs)
        if inputs is not None:
            made[task.step.id] = inputs
    return made


def _inputs(tx: PostgresTransaction, current: Slice, key: NodeKey, *, with_outputs: bool) -> TaskInputs | None:
    chance = Random()  # noqa: S311 - for `random()` in a display
    facts = Facts(now=current.instance.updated_at, new_id=IdMaker(chance), random=chance)
    while True:
        try:
            turn = Turn(current, facts)
            inputs = prepare(turn, key, whole_context=True)
            outputs = turn.scope(key, References(outputs=ALL)).outputs if with_outputs else {}
            return TaskInputs(params=inputs.params, scope=inputs.scope, outputs=outputs)
        except Unloaded as unloaded:
            reading.fill(tx, [(current, unloaded.needs)])
        except InputError:
            return None
