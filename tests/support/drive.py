"""Drives instances by hand: claim, run the handler, report, let time pass, crash. No Celery, no sleeping.

Two worlds with one face. `StoredWorld` is the real engine over a real PostgreSQL; `PureWorld` is the pure core over one
slice in memory, under a clock of its own. A test written against `World` holds for both.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol
from uuid import UUID, uuid4

from orchestrator import forking
from orchestrator.carry import CarryOn, claimed
from orchestrator.catalogue import check_blocks
from orchestrator.core import children, resumption, tree
from orchestrator.core.asides import RESULT_REF, block_of_claim
from orchestrator.core.changes import (
    AttemptRecorded,
    BlocksForgotten,
    Change,
    CheckpointSaved,
    ChildCreated,
    ErrorRowsRemoved,
    ItemsCaptured,
    LetterOpened,
    LetterWritten,
    MetadataMerged,
    OutputAdded,
    OutputsTrimmed,
    SessionMemberGone,
    SessionWritten,
    TimerGone,
    TimerPut,
    TimersShifted,
    TransitionRecorded,
)
from orchestrator.core.decider import Decision, decide
from orchestrator.core.events import (
    AttemptFinished,
    AttemptLost,
    BlocksInjected,
    ContextReplaced,
    Created,
    Event,
    MailArrived,
    Migrated,
    Rescheduled,
    ResumedFrom,
    RetryRequested,
    StateForced,
    TimerFired,
)
from orchestrator.core.ids import IdMaker
from orchestrator.core.inputs import InputError, prepare
from orchestrator.core.letters import Letter
from orchestrator.core.model import (
    BESIDE,
    ROOT_KEY,
    Claim,
    Instance,
    ItemKey,
    Node,
    NodeKey,
    OutputKey,
    SequenceName,
    Shared,
    Startable,
    Step,
    is_beside,
)
from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from orchestrator.core.plan import Plan
from orchestrator.core.shared import folded
from orchestrator.core.signalling import event_of_signal
from orchestrator.core.slice import ABSENT, Needs, Slice, Unloaded
from orchestrator.core.states import Activity, InstanceState, StepState
from orchestrator.core.steps import runs_in_process
from orchestrator.core.turn import Facts, Turn
from orchestrator.engine import Engine, _refused
from orchestrator.exchange import NewInstance, OtherFlow, Report, Restart, Wish, Work
from orchestrator.postman import Postman
from orchestrator.settings import Settings
from orchestrator.slices import Plans
from orchestrator.store import checkpoints, instances, sessions, steps
from orchestrator.store import definitions as stored_definitions
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.instances import Profile
from orchestrator.store.reading import fill
from orchestrator.store.rows import NODE_COLUMNS, STEP_COLUMNS, claim_of, node_of, step_of
from orchestrator.store.session import Store
from orchestrator.store.steps import Due, Worker
from orchestrator.timers import Timers
from sequences.document import SequenceDefinition, parse_definition, to_document
from sequences.references import ALL, References
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
        assert open_steps or timers or parents or held_loops, f"nothing will ever move this {instance.state} flow"
    held = [node for node in parents if node.memory["child"] is None]
    held += [node for node in nodes if node.memory.get("held")]
    if held or any(step.state is StepState.HELD for step in open_steps):
        assert instance.is_held or ROOT_KEY in timers, "nobody will let go of what is held"
    if instance.state is InstanceState.PAUSED:
        assert instance.is_held
        assert not instance.running
    for step in open_steps:
        assert (step.token is not None) == (step.state is StepState.CLAIMED or step.state is StepState.ASLEEP)


# -- handlers --------------------------------------------------------------------------------------------------------


def handlers_with(extra: Mapping[str, Callable[..., Any]] | None) -> HandlerSources:
    """The built-in handlers, and some of a test's own, which count as external."""
    registry = Registry()
    for name, function in (extra or {}).items():
        registry.register(name, function)
    return HandlerSources(builtin_registry(), registry)


# -- the pure core ---------------------------------------------------------------------------------------------------


class _Known(dict[Any, Any]):
    """Everything is known: what is not here does not exist."""

    def __init__(self, absent: Any = None) -> None:
        super().__init__()
        self._absent = absent

    def __missing__(self, key: Any) -> Any:
        return self._absent


class PureWorld:
    """Instances in memory, decided by the core alone; time moves when told."""

    def __init__(self, handlers: Mapping[str, Callable[..., Any]] | None = None, **facts: Any) -> None:
        self.handlers = handlers_with(handlers)
        self.executed: list[tuple[str, tuple[int, ...], int]] = []
        self.clock = START
        self.decisions = 0
        self._facts = facts
        self._random = Random(0)
        self._ids = IdMaker(self._random)
        self._slices: dict[UUID, Slice] = {}
        self._rows: dict[UUID, list[Row]] = {}
        self._items: dict[tuple[UUID, ItemKey], Any] = {}
        self._timers: dict[UUID, dict[NodeKey, datetime]] = {}
        self._attempts: dict[UUID, list[tuple[str, int, str]]] = {}
        self._moves: dict[UUID, list[tuple[str, str]]] = {}
        self._metadata: dict[UUID, dict[str, Any]] = {}
        self._sessions: dict[UUID | None, Any] = {}
        self._checkpoints: dict[UUID, list[CheckpointSaved]] = {}
        self._events: dict[UUID, list[tuple[str, Any]]] = {}
        self._defined: list[SequenceDefinition] = []
        self._letters: list[Letter] = []
        self._unstarted: list[UUID] = []
        self._is_mail_held = False

    def start(self, blocks: Sequence[Mapping[str, Any]], **request: Any) -> Flow:
        return Flow(self, self.create(blocks, **request))

    def create(
        self,
        blocks: Sequence[Mapping[str, Any]],
        *,
        data: Any = None,
        config: Any = None,
        not_before: datetime | None = None,
        members: Mapping[str, Any] | None = None,
        audit: Any = None,
        **fields: Any,
    ) -> UUID:
        instance = Instance(
            id=self._ids(self.clock),
            tenant_id=TENANT,
            namespace="n",
            sequence_id=uuid4(),
            state=InstanceState.SCHEDULED,
            created_at=self.clock,
            updated_at=self.clock,
            run_id=uuid4(),
            **fields,
        )
        plan = Plan(definition_of(blocks, **(members or {})))
        self._add(plan, instance, data if data is not None else {}, config, audit)
        self.decide(instance.id, Created(not_before=not_before))
        return instance.id

    def _add(self, plan: Plan, instance: Instance, data: Any, config: Any, audit: Any = None) -> None:
        current = Slice.of_new(plan, instance, data, config, audit)
        current.nodes, current.steps, current.outputs = _Known(), _Known(), _Known(ABSENT)
        self._slices[instance.id] = current
        self._rows[instance.id], self._timers[instance.id] = [], {}
        self._attempts[instance.id], self._moves[instance.id], self._events[instance.id] = [], [], []
        self._metadata[instance.id], self._checkpoints[instance.id] = {}, []

    def define(self, name: str, blocks: Sequence[Mapping[str, Any]], **members: Any) -> UUID:
        definition = definition_of(blocks, **{"name": name, **members})
        self._defined.append(definition)
        return definition.id

    def children(self, instance_id: UUID) -> list[UUID]:
        found = (current.instance for current in self._slices.values())
        return sorted(each.id for each in found if each.parent is not None and each.parent.instance_id == instance_id)

    def decide(self, instance_id: UUID, event: Event) -> Decision:
        decision = self._decide_alone(instance_id, event)
        if not self._is_mail_held:
            self._run_errands()
        return decision

    def _decide_alone(self, instance_id: UUID, event: Event) -> Decision:
        current = self._slices[instance_id]
        current.letters, current.sequences, current.child_rows = None, {}, {}
        current.session = None
        while isinstance(decision := decide(current, event, self._facts_now()), Needs):
            self._fill(current, decision)
        self.decisions += 1
        current.take(decision.changes)
        current.session = None
        self._keep(instance_id, decision.changes)
        return decision

    def _read_session(self, current: Slice) -> None:
        current.session = Shared(data=self._sessions[current.instance.session_id])

    def _fill(self, current: Slice, needs: Needs) -> None:
        for key in needs.nodes:
            current.nodes.setdefault(key, None)
        for name in needs.sequences:
            current.sequences[name] = self._startable(name)
        for child in needs.child_rows:
            current.child_rows[child] = [
                {"block_id": row.block_id, "output": row.output, "instance_id": str(child)}
                for row in self.rows(child)
                if row.iteration[:1] != (BESIDE,)
            ]
        if needs.letters:
            mine = [letter for letter in self._letters if letter.recipient == current.instance.id]
            current.letters = {letter.id: letter for letter in sorted(mine, key=lambda letter: letter.id)}
        if needs.session:
            self._read_session(current)
        current.items.update({key: self._items[current.instance.id, key] for key in needs.items})
        counted = [row.block_id for row in self._rows[current.instance.id]]
        current.row_counts.update({block_id: counted.count(block_id) for block_id in needs.rows_of})

    def _startable(self, name: SequenceName) -> Startable | None:
        fitting = [each for each in self._defined if each.name == name.name and name.version in {None, each.version}]
        if not fitting:
            return None
        newest = max(fitting, key=lambda each: each.version)
        return Startable(sequence_id=newest.id, input_schema=newest.input_schema)

    def hold_mail(self) -> None:
        """Die after each commit: what it leaves to be done waits for `deliver_mail`."""
        self._is_mail_held = True

    def deliver_mail(self) -> None:
        self._is_mail_held = False
        self._run_errands()

    def _run_errands(self) -> None:
        while self._unstarted or self._letters:
            if self._unstarted:
                self._decide_alone(self._unstarted.pop(0), TimerFired(key=ROOT_KEY))
                continue
            letter = min(self._letters, key=lambda letter: letter.id)
            decision = self._decide_alone(letter.recipient, MailArrived())
            if decision.is_stale:
                self._letters.remove(letter)

    def _facts_now(self) -> Facts:
        return Facts(now=self.clock, new_id=self._ids, random=self._random, **self._facts)

    def _keep(self, instance_id: UUID, changes: Iterable[Change]) -> None:
        for change in changes:
            match change:
                case OutputAdded():
                    row = Row(change.key.block_id, change.output, change.attempt, change.key.iteration, change.ref)
                    self._add_row(instance_id, row)
                case OutputsTrimmed():
                    self._trim(instance_id, change)
                case ErrorRowsRemoved():
                    self._rows[instance_id] = [r for r in self._rows[instance_id] if r.ref != "__error__"]
                    self._refill_outputs(instance_id)
                case BlocksForgotten(blocks=blocks):
                    self._rows[instance_id] = [r for r in self._rows[instance_id] if r.block_id not in blocks]
                    self._items = {
                        (owner, item): value
                        for (owner, item), value in self._items.items()
                        if owner != instance_id or item.node.block_id not in blocks
                    }
                case ItemsCaptured(key=key, items=items):
                    self._items |= {(instance_id, ItemKey(key, index)): item for index, item in enumerate(items)}
                case TimerPut(key=key, due_at=due_at):
                    self._timers[instance_id][key] = due_at
                case TimerGone(key=key):
                    self._timers[instance_id].pop(key, None)
                case TimersShifted(keys=keys, by=by):
                    timers = self._timers[instance_id]
                    timers.update({key: timers[key] + by for key in keys if key in timers})
                case AttemptRecorded():
                    self._attempts[instance_id].append((change.key.block_id, change.attempt, change.outcome))
                case SessionWritten(session_id=owner) | SessionMemberGone(session_id=owner):
                    self._sessions[owner] = folded(self._sessions[owner], change)
                case CheckpointSaved(keep=keep):
                    kept = [change, *self._checkpoints[instance_id]]
                    self._checkpoints[instance_id] = kept if keep is None else kept[:keep]
                case MetadataMerged(values=values):
                    self._metadata[instance_id].update(values)
                case TransitionRecorded(from_state=str(source), to_state=str(target)):
                    self._moves[instance_id].append((source, target))
                case TransitionRecorded(event=event, details=details):
                    self._events[instance_id].append((event, details))
                case ChildCreated(child=child, data=data):
                    plan = Plan(next(each for each in self._defined if each.id == child.sequence_id))
                    self._add(plan, child, data, self.context(instance_id)[1])
                    self._timers[child.id][ROOT_KEY] = child.created_at
                    self._unstarted.append(child.id)
                case LetterWritten(letter=letter):
                    self._letters.append(letter)
                case LetterOpened(id=letter_id):
                    self._letters = [letter for letter in self._letters if letter.id != letter_id]
                case _:
                    pass

    def _add_row(self, instance_id: UUID, row: Row) -> None:
        """Add a row, or complete the one of an interceptor, as readers of the store see it."""
        rows = self._rows[instance_id]
        if row.ref != RESULT_REF:
            rows.append(row)
            return
        for index, known in enumerate(rows):
            if (known.block_id, known.iteration) == (row.block_id, row.iteration):
                rows[index] = replace(known, output={**known.output, **row.output})

    def _trim(self, instance_id: UUID, change: OutputsTrimmed) -> None:
        plan = self._slices[instance_id].plan
        gone: list[Row] = []
        for block_id in change.blocks:
            series = [row for row in self._rows[instance_id] if row.block_id == block_id]
            lanes = [plan.lane(NodeKey(block_id, row.iteration))[: len(change.lane)] for row in series]
            series = [row for row, lane in zip(series, lanes, strict=True) if lane == change.lane]
            gone += [r for r in series[: -change.keep] if change.since is None or r.iteration < change.since]
        self._rows[instance_id] = [row for row in self._rows[instance_id] if all(row is not each for each in gone)]

    def _refill_outputs(self, instance_id: UUID) -> None:
        current = self._slices[instance_id]
        for row in self._rows[instance_id]:
            if row.iteration[:1] == (BESIDE,):
                current.outputs[OutputKey(row.block_id, (BESIDE,))] = row.output
                continue
            known = row.block_id in current.plan.places
            lane = current.plan.lane(NodeKey(row.block_id, row.iteration)) if known else ()
            current.outputs[OutputKey(row.block_id, lane)] = row.output
            current.outputs[OutputKey(row.block_id, None)] = row.output

    def instance(self, instance_id: UUID) -> Instance:
        return self._slices[instance_id].instance

    def context(self, instance_id: UUID) -> tuple[Any, Any]:
        sections = self._slices[instance_id].sections()
        return sections.data, sections.config

    def rows(self, instance_id: UUID) -> list[Row]:
        return list(self._rows[instance_id])

    def steps(self, instance_id: UUID) -> list[Step]:
        return [step for step in self._open(instance_id) if step.activity is not Activity.ASIDE]

    def asides(self, instance_id: UUID) -> list[Step]:
        return [step for step in self._open(instance_id) if step.activity is Activity.ASIDE]

    def _open(self, instance_id: UUID) -> list[Step]:
        return [step for step in self._slices[instance_id].steps.values() if step is not None]

    def nodes(self, instance_id: UUID) -> list[Node]:
        return [node for node in self._slices[instance_id].nodes.values() if node is not None]

    def tree(self, instance_id: UUID) -> dict[str, str]:
        current = self._slices[instance_id]
        return _tree(current.plan, current.instance, self.nodes(instance_id), self.steps(instance_id))

    def timers(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        return {key: due for key, due in self._timers[instance_id].items() if not is_beside(key)}

    def alarms(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        return {key: due for key, due in self._timers[instance_id].items() if is_beside(key)}

    def kv(self, instance_id: UUID) -> dict[str, Any]:
        return {name: v for name, v in self._slices[instance_id].state.items() if v is not ABSENT}

    def attempts(self, instance_id: UUID) -> list[tuple[str, int, str]]:
        return list(self._attempts[instance_id])

    def moves(self, instance_id: UUID) -> list[tuple[str, str]]:
        return list(self._moves[instance_id])

    def metadata(self, instance_id: UUID) -> Any:
        return self._metadata[instance_id] or None

    def open_session(self, data: Any) -> UUID:
        session_id = uuid4()
        self._sessions[session_id] = data
        return session_id

    def session_data(self, session_id: UUID) -> Any:
        return self._sessions[session_id]

    def checkpoints(self, instance_id: UUID) -> list[Any]:
        return [saved.data for saved in self._checkpoints[instance_id]]

    def events(self, instance_id: UUID) -> list[tuple[str, Any]]:
        return list(self._events[instance_id])

    def now(self) -> datetime:
        return self.clock

    def claim(self, instance_id: UUID, step: Step) -> Claim | None:
        current = self._slices[instance_id].steps[step.key]
        if current is None or current.id != step.id or current.state is not StepState.READY:
            return None
        taken = claimed(current, Worker(id=uuid4(), name="w"), self.clock)
        self._slices[instance_id].steps[step.key] = taken
        return claim_of(instance_id, taken)

    def work(self, claim: Claim) -> Work:
        current = self._slices[claim.instance_id]
        if current.instance.session_id is not None:
            self._read_session(current)
        turn = Turn(current, self._facts_now())
        block = block_of_claim(turn, claim)
        work = Work(claim=claim, block=block, instance=current.instance, sequence_name=current.plan.definition.name)
        step = turn.step(claim.key)
        if step is None or step.token != claim.token:
            return replace(work, failure=Failed(message="lost", retryable=True, kind=FailureKind.LOST))
        try:
            inputs = prepare(turn, claim.key, whole_context=not runs_in_process(claim.handler))
        except InputError as error:
            return replace(work, failure=Failed(message=str(error), retryable=False, kind=FailureKind.INPUT))
        return replace(work, params=inputs.params, scope=inputs.scope)

    def outcome(self, work: Work) -> Outcome:
        return _outcome(self, work, self._as_engine(work.claim))

    def _as_engine(self, claim: Claim) -> Any:
        def outputs_seen(_claim: Claim) -> dict[str, Any]:
            turn = Turn(self._slices[claim.instance_id], self._facts_now())
            return dict(turn.scope(claim.key, References(outputs=ALL)).outputs)

        return SimpleNamespace(
            now=self.now,
            is_current=lambda _claim: True,
            outputs_seen=outputs_seen,
            state_values=self.kv,
            session_data=self._session_of,
            latest_checkpoint=self._latest_checkpoint,
            look_at=self._look_at,
            new_id=lambda: self._ids(self.clock),
        )

    def _look_at(self, instance_id: UUID, *, tenant_id: str) -> OtherFlow | None:
        """See the state of another flow, and no more: what else handlers see comes from the store."""
        current = self._slices.get(instance_id)
        if current is None or tenant_id != TENANT:
            return None
        found = current.instance
        return OtherFlow(
            state=found.state, context={}, created_at=found.created_at, ended_at=None, current_node=found.current_step
        )

    def _session_of(self, instance_id: UUID) -> Any:
        return self._sessions.get(self.instance(instance_id).session_id)

    def _latest_checkpoint(self, instance_id: UUID) -> tuple[Any, datetime] | None:
        saved = self._checkpoints[instance_id]
        return (saved[0].data, saved[0].created_at) if saved else None

    def finish(self, reports: Sequence[tuple[Claim, Outcome]], *, carry: bool = False) -> list[Claim]:
        for claim, outcome in reports:
            self.decide(claim.instance_id, AttemptFinished(claim=claim, outcome=outcome))
        return []

    def lose(self, claim: Claim) -> bool:
        return not self.decide(claim.instance_id, AttemptLost(claim=claim, reason="gone")).is_stale

    def signal(self, instance_id: UUID, body: Mapping[str, Any]) -> None:
        self._ask(instance_id, event_of_signal(self._ids(self.clock), parse_signal(body), body.get("payload")))

    def retry(self, instance_id: UUID) -> None:
        self._ask(instance_id, RetryRequested())

    def resume_from(self, instance_id: UUID, restart: Restart) -> int:
        decision = self._ask(instance_id, self._resumed_from(restart))
        return sum(change.rows for change in decision.changes if isinstance(change, BlocksForgotten))

    def fork(self, instance_id: UUID, restart: Restart, *, dry_run: bool) -> UUID:
        source = self._slices[instance_id]
        earlier, _ = forking.split(source.plan, restart.block_id)
        blocks = resumption.everything_in(source.plan, earlier)
        made = forking.copy_of(
            source.instance, copy_id=self._ids(self.clock), run_id=uuid4(), now=self.clock, dry_run=dry_run
        )
        data, config = self.context(instance_id)
        self._add(source.plan, made, data, config, source.audit)
        current = self._slices[made.id]
        ended = {key: node for key, node in source.nodes.items() if node is not None and node.state.is_terminal}
        current.nodes.update({key: node for key, node in ended.items() if key.block_id in blocks})
        current.state = dict(source.state)
        kept = [row for row in self._rows[instance_id] if row.block_id in blocks and row.ref != "__error__"]
        self._rows[made.id] = [row for row in kept if row.iteration[:1] != (BESIDE,)]
        self._refill_outputs(made.id)
        self._items |= {(made.id, item): value for (owner, item), value in self._items.items() if owner == instance_id}
        self._metadata[made.id] = forking.metadata_of(
            self._metadata[instance_id], source_id=instance_id, block_id=restart.block_id, dry_run=dry_run
        )
        self._ask(made.id, self._resumed_from(restart, is_copy=True))
        return made.id

    def _resumed_from(self, restart: Restart, *, is_copy: bool = False) -> ResumedFrom:
        signals = tuple(event_of_signal(self._ids(self.clock), type_, payload) for type_, payload in restart.signals)
        return ResumedFrom(block_id=restart.block_id, data=restart.data, signals=signals, is_copy=is_copy)

    def force(self, instance_id: UUID, state: str, not_before: datetime | None = None) -> None:
        self._ask(instance_id, StateForced(state=InstanceState(state), not_before=not_before))

    def force_many(self, instance_id: UUID, state: str) -> None:
        self._ask(instance_id, StateForced(state=InstanceState(state), is_checked=False))

    def reschedule(self, instance_id: UUID, by: timedelta) -> int:
        return self.decide(instance_id, Rescheduled(by=by)).refusal is None

    def replace_context(self, instance_id: UUID, data: Any, config: Any) -> None:
        self._ask(instance_id, ContextReplaced(data=data, config=config))

    def inject(self, instance_id: UUID, blocks: Sequence[Mapping[str, Any]], position: int | None = None) -> None:
        self._ask(instance_id, BlocksInjected(blocks=check_blocks(list(blocks)), position=position))

    def migrate(self, instance_id: UUID, blocks: Sequence[Mapping[str, Any]]) -> None:
        definition = definition_of(blocks)
        self._ask(instance_id, Migrated(sequence_id=definition.id, plan=Plan(definition)))

    def _ask(self, instance_id: UUID, event: Event) -> Decision:
        decision = self.decide(instance_id, event)
        if decision.refusal is not None:
            raise _refused(decision)
        return decision

    def elapse(self, instance_id: UUID, by: timedelta) -> None:
        self.clock += by

    def fire(self, instance_id: UUID, key: NodeKey) -> bool:
        return not self.decide(instance_id, TimerFired(key=key)).is_stale

    def restart(self) -> None:
        """Nothing is kept beside the slice."""


def _outcome(world: World, work: Work, engine: Any) -> Outcome:
    world.executed.append((work.claim.key.block_id, work.claim.key.iteration, work.claim.attempt))
    handler = world.handlers.find(work.claim.handler)
    if handler is not None and handler.is_async and work.failure is None:
        call = handler.bind(context_of(work, engine), work.params)
        return check_outcome(call if isinstance(call, Failed) else handler.outcome_of(asyncio.run(call())))
    return check_outcome(run(work, handler, engine))


def _tree(plan: Plan, instance: Instance, nodes: Iterable[Node], open_steps: Iterable[Step]) -> dict[str, str]:
    def entries() -> Iterator[tree.Entry]:
        for node in nodes:
            yield tree.node_entry(*node.key, node.state.value, node.started_at, node.completed_at, dict(node.memory))
        for step in open_steps:
            yield tree.step_entry(*step.key, step.state.value, step.activity.value, step.entered_at)

    return {entry["block_id"]: entry["state"] for entry in tree.build(plan, instance.id, instance.state, entries())}


# -- the engine over PostgreSQL --------------------------------------------------------------------------------------


class StoredWorld:
    """The real engine; time is moved by moving back what is due."""

    def __init__(
        self, store: Store, settings: Settings, handlers: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self.store = store
        self.settings = settings
        self.handlers = handlers_with(handlers)
        self.executed: list[tuple[str, tuple[int, ...], int]] = []
        self.worker = Worker(id=uuid4(), name="w", slot=1)
        self.rung: list[Any] = []
        self.tenant = f"t-{uuid4()}"
        """A tenant of this world's own: names of sequences do not meet those of other worlds."""
        self.restart()

    def restart(self) -> None:
        """Make a new engine, as a new process does: nothing is left in memory."""
        self.engine = Engine(self.store, self.rung.extend, self.settings)

    def start(self, blocks: Sequence[Mapping[str, Any]], **request: Any) -> Flow:
        return Flow(self, self.create(blocks, **request))

    def create(
        self,
        blocks: Sequence[Mapping[str, Any]],
        *,
        data: Any = None,
        config: Any = None,
        members: Mapping[str, Any] | None = None,
        audit: Any = None,
        **request: Any,
    ) -> UUID:
        new = NewInstance(
            sequence_id=self._define(definition_of(blocks, **(members or {}))),
            tenant_id=self.tenant,
            namespace="n",
            profile=Profile(data=data if data is not None else {}, config=config, audit=audit),
            **request,
        )
        return self.engine.start_many([new])[0].id

    def define(self, name: str, blocks: Sequence[Mapping[str, Any]], **members: Any) -> UUID:
        return self._define(definition_of(blocks, **{"name": name, **members}))

    def _define(self, definition: SequenceDefinition) -> UUID:
        with self.store.transaction() as tx:
            stored = StoredDefinition(
                id=definition.id,
                tenant_id=self.tenant,
                namespace="n",
                name=definition.name,
                version=definition.version,
                deprecated=False,
                document=to_document(definition),
                content_hash="",
            )
            assert stored_definitions.insert(tx, stored)
        return definition.id

    def children(self, instance_id: UUID) -> list[UUID]:
        with self.store.transaction() as tx:
            return [record.instance.id for record in instances.children(tx, instance_id)]

    def hold_mail(self) -> None:
        """Die after each commit: what it leaves to be done waits for the loops."""
        self.engine._messenger.run = lambda _errands: None

    def deliver_mail(self) -> None:
        """Let the timers and the postman do what was left, in a process of their own, until nothing is."""
        self.restart()
        while self._tick_for_mail():
            pass

    def _tick_for_mail(self) -> bool:
        with self.store.transaction() as tx:
            tx.execute(
                "UPDATE letters SET due_at = clock_timestamp() WHERE recipient_id IN "
                "(SELECT id FROM instances WHERE tenant_id = %s)",
                (self.tenant,),
            )
        timers = Timers(self.engine).tick().done
        return bool(timers + Postman(self.engine).tick().done)

    def instance(self, instance_id: UUID) -> Instance:
        return self._record(instance_id).instance

    def _record(self, instance_id: UUID) -> instances.Record:
        with self.store.transaction() as tx:
            found = instances.get(tx, instance_id)
        assert found is not None
        return found

    def context(self, instance_id: UUID) -> tuple[Any, Any]:
        profile = self._record(instance_id).profile
        return profile.data, profile.config

    def rows(self, instance_id: UUID) -> list[Row]:
        with self.store.transaction() as tx:
            found = instances.outputs(tx, instance_id)
        return [Row(row[1], row[2], row[5], tuple(row[7]), row[3]) for row in found]

    def _read(self, instance_id: UUID, columns: str, table: str) -> list[tuple[Any, ...]]:
        with self.store.transaction() as tx:
            return tx.query(f"SELECT {columns} FROM {table} WHERE instance_id = %s", (instance_id,))

    def steps(self, instance_id: UUID) -> list[Step]:
        return [step for step in self._open(instance_id) if step.activity is not Activity.ASIDE]

    def asides(self, instance_id: UUID) -> list[Step]:
        return [step for step in self._open(instance_id) if step.activity is Activity.ASIDE]

    def _open(self, instance_id: UUID) -> list[Step]:
        return [step_of(row) for row in self._read(instance_id, STEP_COLUMNS, "steps")]

    def nodes(self, instance_id: UUID) -> list[Node]:
        return [node_of(row) for row in self._read(instance_id, NODE_COLUMNS, "nodes")]

    def tree(self, instance_id: UUID) -> dict[str, str]:
        instance = self.instance(instance_id)
        with self.store.transaction() as tx:
            plan = Plans().of_instances(tx, [instance])[instance_id]
        return _tree(plan, instance, self.nodes(instance_id), self.steps(instance_id))

    def timers(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        return {key: due for key, due in self._all_timers(instance_id).items() if not is_beside(key)}

    def alarms(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        return {key: due for key, due in self._all_timers(instance_id).items() if is_beside(key)}

    def _all_timers(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        rows = self._read(instance_id, "block_id, iteration, due_at", "timers")
        return {NodeKey(row[0], tuple(row[1])): row[2] for row in rows}

    def kv(self, instance_id: UUID) -> dict[str, Any]:
        return self.engine.state_values(instance_id)

    def attempts(self, instance_id: UUID) -> list[tuple[str, int, str]]:
        with self.store.transaction() as tx:
            return [(row[0], row[2], row[5]) for row in instances.attempts(tx, instance_id)]

    def moves(self, instance_id: UUID) -> list[tuple[str, str]]:
        with self.store.transaction() as tx:
            rows = instances.transitions(tx, instance_id, 1000)
        return [(row[3], row[4]) for row in reversed(rows) if row[2] == "state_transition"]

    def events(self, instance_id: UUID) -> list[tuple[str, Any]]:
        with self.store.transaction() as tx:
            rows = instances.transitions(tx, instance_id, 1000)
        return [(row[2], row[6]) for row in reversed(rows) if row[2] != "state_transition"]

    def metadata(self, instance_id: UUID) -> Any:
        return self._record(instance_id).profile.metadata

    def open_session(self, data: Any) -> UUID:
        with self.store.transaction() as tx:
            made = sessions.insert(tx, uuid4(), self.tenant, str(uuid4()), data, None)
        assert made is not None
        return made.id

    def session_data(self, session_id: UUID) -> Any:
        with self.store.transaction() as tx:
            return sessions.data_of(tx, [session_id])[session_id]

    def checkpoints(self, instance_id: UUID) -> list[Any]:
        with self.store.transaction() as tx:
            return [row[1] for row in checkpoints.newest(tx, instance_id, 100)]

    def now(self) -> datetime:
        with self.store.transaction() as tx:
            return tx.now()

    def claim(self, instance_id: UUID, step: Step) -> Claim | None:
        with self.store.transaction() as tx:
            claim = steps.claim_one(tx, step.id, [step.handler], self.worker)
        if claim is not None:
            self.engine._forget([claim])
        return claim

    def claim_many(self, queue: str = "default", limit: int = 32) -> list[Claim]:
        """Claim as a worker does: several steps at once if all of them are of instant handlers."""
        names = self.handlers.names()
        return self.engine.claim(
            self.worker, Wish(queue=queue, handlers=names, together=frozenset(self._instant()), limit=limit)
        )

    def _instant(self) -> list[str]:
        found = {name: self.handlers.find(name) for name in self.handlers.names()}
        return [name for name, known in found.items() if known is not None and known.is_instant]

    def work(self, claim: Claim) -> Work:
        return self.engine.inputs([claim])[0]

    def outcome(self, work: Work) -> Outcome:
        return _outcome(self, work, self.engine)

    def finish(self, reports: Sequence[tuple[Claim, Outcome]], *, carry: bool = False) -> list[Claim]:
        carry_on = None
        if carry:
            carry_on = CarryOn(
                worker=self.worker,
                queues=frozenset({"default"}),
                handlers=frozenset(self.handlers.names()),
                instant=frozenset(self._instant()),
                limit=32,
                rounds_left=lambda _instance_id: 100,
            )
        done = self.engine.finish([Report(claim=claim, outcome=outcome) for claim, outcome in reports], carry_on)
        return list(done.claims)

    def lose(self, claim: Claim) -> bool:
        return bool(self.engine.lose([claim], "gone"))

    def signal(self, instance_id: UUID, body: Mapping[str, Any]) -> None:
        self.engine.signal(instance_id, parse_signal(body), body.get("payload"))

    def retry(self, instance_id: UUID) -> None:
        self.engine.retry(instance_id)

    def resume_from(self, instance_id: UUID, restart: Restart) -> int:
        return self.engine.resume_from(instance_id, restart).outputs_deleted

    def fork(self, instance_id: UUID, restart: Restart, *, dry_run: bool) -> UUID:
        return self.engine.fork(instance_id, restart, dry_run=dry_run).instance.id

    def force(self, instance_id: UUID, state: str, not_before: datetime | None = None) -> None:
        self.engine.set_state(instance_id, InstanceState(state), not_before)

    def force_many(self, instance_id: UUID, state: str) -> None:
        self.engine.set_state_of_many([instance_id], InstanceState(state))

    def reschedule(self, instance_id: UUID, by: timedelta) -> int:
        return self.engine.reschedule_many([instance_id], by)

    def replace_context(self, instance_id: UUID, data: Any, config: Any) -> None:
        self.engine.replace_context(instance_id, data, config)

    def inject(self, instance_id: UUID, blocks: Sequence[Mapping[str, Any]], position: int | None = None) -> None:
        self.engine.inject(instance_id, check_blocks(list(blocks)), position)

    def migrate(self, instance_id: UUID, blocks: Sequence[Mapping[str, Any]]) -> None:
        definition, former = definition_of(blocks), self.instance(instance_id).sequence_id
        self._define(definition)
        self.engine.migrate(instance_id, definition.id)
        with self.store.transaction() as tx:
            tx.execute("DELETE FROM sequences WHERE id = %s", (former,))
        self.restart()

    def elapse(self, instance_id: UUID, by: timedelta) -> None:
        """Move everything this instance waits for back by some time, as if that time had passed."""
        with self.store.transaction() as tx:
            tx.execute("UPDATE timers SET due_at = due_at - %s WHERE instance_id = %s", (by, instance_id))
            tx.execute(
                "UPDATE steps SET wake_at = wake_at - %s, expires_at = expires_at - %s, claimed_at = claimed_at - %s, "
                "started_at = started_at - %s, deadline_at = deadline_at - %s WHERE instance_id = %s",
                (by, by, by, by, by, instance_id),
            )
            tx.execute(
                "UPDATE instances SET created_at = created_at - %s WHERE id = %s",
                (by, instance_id),
            )
        self.engine._turnstile.take(instance_id)

    def fire(self, instance_id: UUID, key: NodeKey) -> bool:
        due_at = self._all_timers(instance_id).get(key, START)
        return bool(self.engine.fire([Due(instance_id=instance_id, key=key, due_at=due_at)]))

    def fill(self, current: Slice, needs: Needs) -> None:
        with self.store.transaction() as tx:
            fill(tx, [(current, needs)])


# -- blocks, written short ---------------------------------------------------------------------------------------------


def step(block_id: str, handler: str = "noop", params: Any = None, **fields: Any) -> dict[str, Any]:
    """A step."""
    found = {"type": "step", "id": block_id, "handler": handler, **fields}
    return found if params is None else {**found, "params": params}


def say(block_id: str, message: Any, **fields: Any) -> dict[str, Any]:
    """A `log` step: its output shows what its template saw."""
    return step(block_id, "log", {"message": message}, **fields)


def fail(block_id: str, message: str = "boom", *, retryable: bool = False, **fields: Any) -> dict[str, Any]:
    """A step that fails."""
    return step(block_id, "fail", {"message": message, "retryable": retryable}, **fields)


def gate(block_id: str, **fields: Any) -> dict[str, Any]:
    """A step behind a human gate."""
    return step(block_id, wait_for_input=fields.pop("gate", {}), **fields)


def parallel(block_id: str, *branches: Sequence[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "parallel", "id": block_id, "branches": [list(branch) for branch in branches], **fields}


def loop(block_id: str, body: Sequence[Any], condition: str = "true", **fields: Any) -> dict[str, Any]:
    return {"type": "loop", "id": block_id, "condition": condition, "body": list(body), **fields}


def for_each(block_id: str, collection: str, body: Sequence[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "for_each", "id": block_id, "collection": collection, "body": list(body), **fields}


def router(block_id: str, *routes: tuple[str, Sequence[Any]], default: Sequence[Any] | None = None) -> dict[str, Any]:
    found = {
        "type": "router",
        "id": block_id,
        "routes": [{"condition": condition, "blocks": list(blocks)} for condition, blocks in routes],
    }
    return found if default is None else {**found, "default": list(default)}


def sub_sequence(block_id: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "sub_sequence", "id": block_id, "sequence_name": name, **fields}


def try_catch(
    block_id: str, attempt: Sequence[Any], catch: Sequence[Any] = (), last: Sequence[Any] | None = None
) -> dict[str, Any]:
    found = {"type": "try_catch", "id": block_id, "try_block": list(attempt), "catch_block": list(catch)}
    return found if last is None else {**found, "finally_block": list(last)}


def race(block_id: str, *branches: Sequence[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "race", "id": block_id, "branches": [list(branch) for branch in branches], **fields}


def split(block_id: str, *variants: tuple[str, int, Sequence[Any]]) -> dict[str, Any]:
    found = [{"name": name, "weight": weight, "blocks": list(blocks)} for name, weight, blocks in variants]
    return {"type": "a_b_split", "id": block_id, "variants": found}


def scope(block_id: str, *blocks: Any) -> dict[str, Any]:
    return {"type": "cancellation_scope", "id": block_id, "blocks": list(blocks)}


def saga(block_id: str, *steps: tuple[Any, Any]) -> dict[str, Any]:
    """A saga of (action, compensation) pairs; None for no compensation. Its steps are named after their number."""
    found = [
        {"id": f"{block_id}.{n}", "action": action, "compensation": undo} for n, (action, undo) in enumerate(steps)
    ]
    return {"type": "saga", "id": block_id, "steps": found}


RETRY = {"max_attempts": 3, "initial_backoff": 100, "max_backoff": 10_000}
"""A retry policy of three executions."""

__all__ = [
    "RETRY",
    "Completed",
    "Failed",
    "Flow",
    "PureWorld",
    "Row",
    "StoredWorld",
    "Unloaded",
    "World",
    "check_consistency",
    "fail",
    "for_each",
    "gate",
    "loop",
    "parallel",
    "race",
    "router",
    "saga",
    "say",
    "scope",
    "split",
    "step",
    "sub_sequence",
    "try_catch",
]
