"""One face for both worlds: what can be seen of an instance, and done to it."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol
from uuid import UUID, uuid4

from orchestrator.core import children, tree
from orchestrator.core.model import (
    ROOT_KEY,
    Claim,
    Instance,
    Node,
    NodeKey,
    Step,
)
from orchestrator.core.outcomes import Completed, Failed, Outcome
from orchestrator.core.plan import Plan
from orchestrator.core.states import Activity, InstanceState, StepState
from orchestrator.exchange import Restart, Work
from sequences.document import parse_definition
from sequences.signals import parse_signal
from workers.attempt import context_of, run
from workers.handlers.builtin import builtin_registry
from workers.outputs import check_outcome
from workers.registry import HandlerSources, Registry

TENANT = "t"
START = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""A Monday at noon: where the clock of a PureWorld starts."""
ENDLESS = 5000
"""Steps after which a flow is taken for one that never ends."""


@dataclass(frozen=True, slots=True)
class Row:
    """An output row."""

    block_id: str
    output: Any
    attempt: int
    iteration: tuple[int, ...]
    ref: str | None


def definition_of(blocks: Sequence[Mapping[str, Any]], **members: Any) -> Any:
    """Make a definition around blocks."""
    return parse_definition(
        {
            "id": str(uuid4()),
            "tenant_id": TENANT,
            "namespace": "n",
            "name": f"s-{uuid4()}",
            "version": 1,
            "blocks": list(blocks),
            "created_at": "2026-01-01T00:00:00Z",
            **members,
        }
    )


def restart_at(block_id: str, *signals: Any, **data: Any) -> Restart:
    """Make the request to go on from a block; a signal is its type, or its whole body."""
    bodies = [signal if isinstance(signal, dict) else {"signal_type": signal} for signal in signals]
    return Restart(block_id=block_id, data=data, signals=[(parse_signal(body), body.get("payload")) for body in bodies])


class World(Protocol):
    """Where instances live."""

    handlers: HandlerSources
    executed: list[tuple[str, tuple[int, ...], int]]

    def create(self, blocks: Sequence[Mapping[str, Any]], **request: Any) -> UUID: ...
    def define(self, name: str, blocks: Sequence[Mapping[str, Any]], **members: Any) -> UUID: ...
    def children(self, instance_id: UUID) -> list[UUID]: ...
    def hold_mail(self) -> None: ...
    def deliver_mail(self) -> None: ...
    def instance(self, instance_id: UUID) -> Instance: ...
    def context(self, instance_id: UUID) -> tuple[Any, Any]: ...
    def rows(self, instance_id: UUID) -> list[Row]: ...
    def steps(self, instance_id: UUID) -> list[Step]: ...
    def nodes(self, instance_id: UUID) -> list[Node]: ...
    def tree(self, instance_id: UUID) -> dict[str, str]: ...
    def asides(self, instance_id: UUID) -> list[Step]: ...
    def alarms(self, instance_id: UUID) -> dict[NodeKey, datetime]: ...
    def events(self, instance_id: UUID) -> list[tuple[str, Any]]: ...
    def timers(self, instance_id: UUID) -> dict[NodeKey, datetime]: ...
    def kv(self, instance_id: UUID) -> dict[str, Any]: ...
    def attempts(self, instance_id: UUID) -> list[tuple[str, int, str]]: ...
    def moves(self, instance_id: UUID) -> list[tuple[str, str]]: ...
    def metadata(self, instance_id: UUID) -> Any: ...
    def open_session(self, data: Any) -> UUID: ...
    def session_data(self, session_id: UUID) -> Any: ...
    def checkpoints(self, instance_id: UUID) -> list[Any]: ...
    def now(self) -> datetime: ...
    def claim(self, instance_id: UUID, step: Step) -> Claim | None: ...
    def work(self, claim: Claim) -> Work: ...
    def outcome(self, work: Work) -> Outcome: ...
    def finish(self, reports: Sequence[tuple[Claim, Outcome]], *, carry: bool = False) -> list[Claim]: ...
    def lose(self, claim: Claim) -> bool: ...
    def signal(self, instance_id: UUID, body: Mapping[str, Any]) -> None: ...
    def retry(self, instance_id: UUID) -> None: ...
    def resume_from(self, instance_id: UUID, restart: Restart) -> int: ...
    def fork(self, instance_id: UUID, restart: Restart, *, dry_run: bool) -> UUID: ...
    def force(self, instance_id: UUID, state: str, not_before: datetime | None = None) -> None: ...
    def force_many(self, instance_id: UUID, state: str) -> None: ...
    def reschedule(self, instance_id: UUID, by: timedelta) -> int: ...
    def replace_context(self, instance_id: UUID, data: Any, config: Any) -> None: ...
    def inject(self, instance_id: UUID, blocks: Sequence[Mapping[str, Any]], position: int | None = None) -> None: ...
    def migrate(self, instance_id: UUID, blocks: Sequence[Mapping[str, Any]]) -> None: ...
    def elapse(self, instance_id: UUID, by: timedelta) -> None: ...
    def fire(self, instance_id: UUID, key: NodeKey) -> bool: ...
    def restart(self) -> None: ...


class Flow:
    """One instance, and what can be done to it."""

    def __init__(self, world: World, instance_id: UUID) -> None:
        self.world = world
        self.id = instance_id

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def instance(self) -> Instance:
        return self.world.instance(self.id)

    @property
    def state(self) -> str:
        return self.instance.state.value

    @property
    def data(self) -> Any:
        return self.world.context(self.id)[0]

    def rows(self, block_id: str | None = None) -> list[Row]:
        return [row for row in self.world.rows(self.id) if block_id is None or row.block_id == block_id]

    def row_ids(self) -> list[str]:
        return [row.block_id for row in self.rows()]

    def output(self, block_id: str) -> Any:
        """The newest output of a block."""
        return self.rows(block_id)[-1].output

    def outputs(self, block_id: str) -> list[Any]:
        return [row.output for row in self.rows(block_id)]

    def steps(self, block_id: str | None = None) -> list[Step]:
        return [step for step in self.world.steps(self.id) if block_id is None or step.key.block_id == block_id]

    def asides(self, label: str | None = None) -> list[Step]:
        """Open calls beside the flow."""
        return [step for step in self.world.asides(self.id) if label in {None, step.key.block_id}]

    def called(self, label: str) -> list[Any]:
        """The params of open calls."""
        return [step.memory["params"] for step in self.asides(label) if step.memory is not None]

    def tree(self) -> dict[str, str]:
        return self.world.tree(self.id)

    def standing(self) -> dict[str, str]:
        """Where each open step stands, by block id."""
        return {step.key.block_id: step.state.value for step in self.steps()}

    @property
    def kv(self) -> dict[str, Any]:
        return self.world.kv(self.id)

    def children(self) -> list["Flow"]:
        """The children of this flow, oldest first."""
        return [Flow(self.world, child) for child in self.world.children(self.id)]

    def executed(self) -> list[str]:
        """Ids of the steps whose handlers ran, in order."""
        return [block_id for block_id, _, _ in self.world.executed]

    # -- acting --------------------------------------------------------------------------------------------------

    def ready(self) -> list[Step]:
        """Steps that the handlers of this world can run now, then the calls beside the flow."""
        found = [*self.steps(), *self.asides()]
        found = [s for s in found if s.state is StepState.READY and self.world.handlers.find(s.handler)]
        return sorted(found, key=lambda s: (s.activity is Activity.ASIDE, s.ready_at or s.entered_at, s.id))

    def claim(self, block_id: str | None = None, *, index: int = 0) -> Claim:
        """Claim a ready step, of whatever handler."""
        found = [step for step in self.steps(block_id) if step.state is StepState.READY]
        found.sort(key=lambda step: step.id)
        claim = self.world.claim(self.id, found[index])
        assert claim is not None
        return claim

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        self.world.finish([(claim, outcome)])

    def complete(self, block_id: str, output: Any = None, *, index: int = 0) -> None:
        """Do a task as an external worker does."""
        claim = self.claim(block_id, index=index)
        self.finish(claim, Completed(output={} if output is None else output, merges=True))

    def fail(self, block_id: str, *, retryable: bool = False, message: str = "boom", details: Any = None) -> None:
        """Fail a task as an external worker does."""
        self.finish(self.claim(block_id), Failed(message=message, retryable=retryable, details=details))

    def execute(self, step: Step) -> None:
        """Claim one step, run its handler, report."""
        claim = self.world.claim(self.id, step)
        assert claim is not None
        self.finish(claim, self.world.outcome(self.world.work(claim)))

    def run(self, *, carry: bool = False, between: Callable[[], object] | None = None) -> "Flow":
        """Run what is ready, and what follows, until nothing is. Time stands still.

        Args:
            carry: Carry on with the next steps in the same commit, as workers do.
            between: Called before each claim: a crash, for instance.
        """
        for _ in range(ENDLESS):
            if between is not None:
                between()
            ready = self.ready()
            if not ready:
                return self
            claim = self.world.claim(self.id, ready[0])
            claims = [claim] if claim is not None else []
            while claims:
                reports = [(claim, self.world.outcome(self.world.work(claim))) for claim in claims]
                claims = self.world.finish(reports, carry=carry)
        raise AssertionError("the flow does not end")

    def settle(self, *, carry: bool = False, between: Callable[[], object] | None = None) -> "Flow":
        """Run, letting time pass, until the flow has ended or waits for an outsider without a time-out."""
        for _ in range(ENDLESS):
            self.run(carry=carry, between=between)
            if self.instance.state.is_terminal or not self.pass_time():
                return self
        raise AssertionError("the flow does not end")

    def pass_time(self) -> bool:
        """Let time pass until the next timer is due, and fire it; False if there is none."""
        timers = self.world.timers(self.id)
        if not timers:
            return False
        key = min(timers, key=lambda key: (timers[key], key))
        self.world.elapse(self.id, max(timedelta(0), timers[key] - self.world.now()) + timedelta(milliseconds=1))
        self.world.fire(self.id, key)
        return True

    def ring(self) -> "Flow":
        """Let time pass until the next moment of something beside the flow, and fire it."""
        alarms = self.world.alarms(self.id)
        key = min(alarms, key=lambda key: (alarms[key], key))
        self.world.elapse(self.id, max(timedelta(0), alarms[key] - self.world.now()) + timedelta(milliseconds=1))
        self.world.fire(self.id, key)
        return self

    def answer_call(self, label: str, outcome: Outcome) -> "Flow":
        """End a call beside the flow as its worker does."""
        (step,) = self.asides(label)
        claim = self.world.claim(self.id, step)
        assert claim is not None
        self.finish(claim, outcome)
        return self

    def due_in(self, block_id: str | None = None) -> float:
        """Seconds until the next timer, of one block or of all."""
        timers = self.world.timers(self.id)
        due = min(due for key, due in timers.items() if block_id in {None, key.block_id})
        return round((due - self.world.now()).total_seconds(), 2)

    def lose(self, claim: Claim) -> bool:
        return self.world.lose(claim)

    def signal(self, signal_type: Any, payload: Any = None, **members: Any) -> "Flow":
        self.world.signal(self.id, {"signal_type": signal_type, "payload": payload, **members})
        return self

    def answer(self, block_id: str, value: Any = "yes", **payload: Any) -> "Flow":
        return self.signal({"custom": f"human_input:{block_id}"}, {"value": value, **payload})

    def pause(self) -> "Flow":
        return self.signal("pause")

    def resume(self) -> "Flow":
        return self.signal("resume")

    def cancel(self) -> "Flow":
        return self.signal("cancel")

    def retry(self) -> "Flow":
        self.world.retry(self.id)
        return self

    def resume_from(self, block_id: str, *signals: Any, **data: Any) -> int:
        """Go on from a root block; returns how many rows that has dropped."""
        return self.world.resume_from(self.id, restart_at(block_id, *signals, **data))

    def fork(self, block_id: str, *signals: Any, dry_run: bool = True, **data: Any) -> "Flow":
        """Start a copy that goes on from a root block."""
        return Flow(self.world, self.world.fork(self.id, restart_at(block_id, *signals, **data), dry_run=dry_run))

    def force(self, state: str, not_before: datetime | None = None) -> "Flow":
        self.world.force(self.id, state, not_before)
        return self

    def inject(self, *blocks: Mapping[str, Any], position: int | None = None) -> "Flow":
        self.world.inject(self.id, blocks, position)
        return self

    def migrate(self, *blocks: Mapping[str, Any]) -> "Flow":
        """Go over to a new definition of these blocks; the former one is deleted."""
        self.world.migrate(self.id, blocks)
        return self

    # -- what must always hold -------------------------------------------------------------------------------------

    def check(self) -> "Flow":
        """Assert what holds between any two events."""
        check_consistency(
            self.instance, self.world.steps(self.id), self.world.nodes(self.id), self.world.timers(self.id)
        )
        return self


def check_consistency(
    instance: Instance, open_steps: Sequence[Step], nodes: Sequence[Node], timers: Mapping[NodeKey, datetime]
) -> None:
    """Assert that counts are what they count, and that what has ended is at rest."""
    polling = [n for n in nodes if n.memory.get("polling") and n.state.value in {"running", "waiting"}]
    counted = [step for step in open_steps if step.state is not StepState.HELD]
    counts = {
        name: sum(step.activity.value == name for step in counted) for name in ("running", "waiting", "scheduled")
    }
    counts["scheduled"] += len(polling) + (ROOT_KEY in timers)
    parents = [node for node in nodes if children.waits(node)]
    counts["waiting"] += sum(node.memory["child"] is not None for node in parents)
    assert {name: getattr(instance, name) for name in counts} == counts
    expected = {step.key: step.timer_at for step in open_steps if step.timer_at is not None}
    assert {key: due for key, due in timers.items() if key in expected} == expected
    assert set(timers) == set(expected) | {node.key for node in polling} | (set(timers) & {ROOT_KEY})
    if instance.state.is_terminal:
        assert not open_steps
        assert not timers
        assert not parents
        assert all(node.state.is_terminal or node.state.value == "pending" for node in nodes)
    else:
        held_loops = [node for node in nodes if node.memory.get("held")]
        is_moved_by_resume = instance.is_held  # one whose end waits for the resume has nothing open any more
        assert open_steps or timers or parents or held_loops or is_moved_by_resume, (
            f"nothing will ever move this {instance.state} flow"
        )
    held = [node for node in parents if node.memory["child"] is None]
    held += [node for node in nodes if node.memory.get("held")]
    if held or any(step.state is StepState.HELD for step in open_steps):
        assert instance.is_held or ROOT_KEY in timers, "nobody will let go of what is held"
    if instance.state is InstanceState.PAUSED:
        assert instance.is_held
        assert not instance.running
    for step in open_steps:
        assert (step.token is not None) == (step.state is StepState.CLAIMED or step.state is StepState.ASLEEP)


def handlers_with(extra: Mapping[str, Callable[..., Any]] | None) -> HandlerSources:
    """The built-in handlers, and some of a test's own, which count as external."""
    registry = Registry()
    for name, function in (extra or {}).items():
        registry.register(name, function)
    return HandlerSources(_builtins(), registry)


@cache
def _builtins() -> Registry:
    return builtin_registry()


def outcome_of(world: World, work: Work, engine: Any) -> Outcome:
    world.executed.append((work.claim.key.block_id, work.claim.key.iteration, work.claim.attempt))
    handler = world.handlers.find(work.claim.handler)
    if handler is not None and handler.is_async and work.failure is None:
        call = handler.bind(context_of(work, engine), work.params)
        return check_outcome(call if isinstance(call, Failed) else handler.outcome_of(asyncio.run(call())))
    return check_outcome(run(work, handler, engine))


def shown_tree(plan: Plan, instance: Instance, nodes: Iterable[Node], open_steps: Iterable[Step]) -> dict[str, str]:
    def entries() -> Iterator[tree.Entry]:
        for node in nodes:
            yield tree.node_entry(*node.key, node.state.value, node.started_at, node.completed_at, dict(node.memory))
        for step in open_steps:
            yield tree.step_entry(*step.key, step.state.value, step.activity.value, step.entered_at)

    return {entry["block_id"]: entry["state"] for entry in tree.build(plan, instance.id, instance.state, entries())}
