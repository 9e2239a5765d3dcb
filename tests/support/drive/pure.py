"""The pure core over slices in memory, under a clock of its own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from orchestrator import forking
from orchestrator.carry import claimed
from orchestrator.catalogue import check_blocks
from orchestrator.clock import MACHINE_TIME
from orchestrator.core import resumption
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
from orchestrator.core.facts import Facts
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
    names_of_output,
)
from orchestrator.core.outcomes import Failed, FailureKind, Outcome
from orchestrator.core.plan import Plan
from orchestrator.core.shared import folded
from orchestrator.core.signalling import event_of_signal
from orchestrator.core.slice import ABSENT, Needs, Slice
from orchestrator.core.states import Activity, InstanceState, StepState
from orchestrator.core.steps import runs_in_process
from orchestrator.core.turn import Turn
from orchestrator.exchange import OtherFlow, Restart, Work
from orchestrator.passage import error_of
from orchestrator.store.claiming import Worker
from orchestrator.store.rows import claim_of
from sequences.references import ALL, References
from sequences.signals import parse_signal
from tests.support.drive.flow import START, TENANT, Flow, Row, definition_of, handlers_with, outcome_of, shown_tree


class _Known(dict[Any, Any]):
    """Everything is known: what is not here does not exist."""

    def __init__(self, absent: Any = None) -> None:
        super().__init__()
        self._absent = absent

    def __missing__(self, key: Any) -> Any:
        return self._absent


class PureWorld:
    """Instances in memory, decided by the core alone; time moves when told.

    Args:
        plans: Plans of root lists that outlive this world, by the list's `id`: worlds that share it parse them once.
    """

    def __init__(
        self,
        handlers: Mapping[str, Callable[..., Any]] | None = None,
        *,
        plans: dict[int, Plan] | None = None,
        **facts: Any,
    ) -> None:
        self._plans = plans
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
        self._defined: list[Plan] = []
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
        plan = self._plan_of(blocks, members or {})
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
        plan = self._plan_of(blocks, {"name": name, **members})
        self._defined.append(plan)
        return plan.definition.id

    def _plan_of(self, blocks: Sequence[Mapping[str, Any]], members: Mapping[str, Any]) -> Plan:
        if self._plans is None:
            return Plan(definition_of(blocks, **members))
        if id(blocks) not in self._plans:
            self._plans[id(blocks)] = Plan(definition_of(blocks, **members))
        return self._plans[id(blocks)]

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
        timers = self._timers[current.instance.id]
        current.timers.update({key: timers.get(key) for key in needs.timers})

    def _startable(self, name: SequenceName) -> Startable | None:
        known = [plan.definition for plan in self._defined]
        fitting = [each for each in known if each.name == name.name and name.version in {None, each.version}]
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
                    plan = next(each for each in self._defined if each.definition.id == child.sequence_id)
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
            current.outputs.update(dict.fromkeys(names_of_output(row.block_id, lane), row.output))

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
        return shown_tree(current.plan, current.instance, self.nodes(instance_id), self.steps(instance_id))

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
        return outcome_of(self, work, self._as_engine(work.claim))

    def _as_engine(self, claim: Claim) -> Any:
        def outputs_seen(_claim: Claim) -> dict[str, Any]:
            turn = Turn(self._slices[claim.instance_id], self._facts_now())
            return dict(turn.scope(claim.key, References(outputs=ALL)).outputs)

        return SimpleNamespace(
            machine=MACHINE_TIME,
            randomness=self._random,
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
            raise error_of(decision)
        return decision

    def elapse(self, instance_id: UUID, by: timedelta) -> None:
        self.clock += by

    def fire(self, instance_id: UUID, key: NodeKey) -> bool:
        return not self.decide(instance_id, TimerFired(key=key)).is_stale

    def restart(self) -> None:
        """Nothing is kept beside the slice."""
