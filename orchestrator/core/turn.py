"""One decision in the making: it reads the slice through the changes it has made so far.

A turn is private to `decide`: it is thrown away when the decision needs more, and turned into changes when it is done.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from orchestrator.core.changes import (
    AttemptRecorded,
    BlocksForgotten,
    Change,
    CheckpointSaved,
    ChildCreated,
    ContextPut,
    ErrorRowsRemoved,
    InjectionAdded,
    InstancePut,
    ItemsCaptured,
    LetterOpened,
    LetterWritten,
    MetadataMerged,
    NodePut,
    OutputAdded,
    OutputsTrimmed,
    PlanReplaced,
    SessionMemberGone,
    SessionWritten,
    SignalConsumed,
    SignalKept,
    StateGone,
    StatePut,
    StepGone,
    StepPut,
    TimerGone,
    TimerPut,
    TimersShifted,
    TransitionRecorded,
)
from orchestrator.core.leaving import former_plan
from orchestrator.core.letters import Content, Letter
from orchestrator.core.model import (
    BESIDE,
    ROOT_KEY,
    Instance,
    ItemKey,
    Iteration,
    KeptSignal,
    Node,
    NodeKey,
    OutputKey,
    Shared,
    Step,
    StepError,
)
from orchestrator.core.plan import Injection, Plan
from orchestrator.core.shared import folded
from orchestrator.core.slice import ABSENT, Needs, Slice, Unloaded
from orchestrator.core.states import Activity, NodeState, StepState
from orchestrator.core.values import overwrite, replace
from sequences.document import ForEach
from sequences.durations import after
from sequences.references import ALL, References
from sequences.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the world adds to a decision.

    Args:
        now: The database's clock, UTC.
        new_id: Makes ids that sort by the moment they are given.
        random: Source of jitter and of `random()` in expressions.
        max_context_bytes: Limit of the serialized data and config sections; a merge over it fails the step.
        max_losses: Workers that may die with a step before it is parked as poison.
        known_handlers: Handlers, beside the built-in ones, that a living worker of ours runs.
        first_wait: How long the first pick-up of a new instance waits for signals that follow its creation.
    """

    now: datetime
    new_id: Callable[[datetime], UUID]
    random: Random
    max_context_bytes: int = 262_144
    max_losses: int = 3
    known_handlers: Collection[str] = frozenset()
    first_wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Enter:
    """To do: start a block."""

    key: NodeKey


@dataclass(frozen=True, slots=True)
class Ended:
    """To do: tell the parent that a block has ended."""

    key: NodeKey
    state: NodeState
    error: StepError | None = None


@dataclass(frozen=True, slots=True)
class Reuse:
    """To do: complete a step with an output that was found in the cache, or that stands for one in a dry run."""

    key: NodeKey
    output: Any
    is_stub: bool = False


class Turn:
    """The working copy of one decision.

    Attributes:
        todo: What follows from what has been decided so far.
        walks_again: Whether the plan is walked from its root once that is done (see `migration.py`).
        withdrawn: Steps taken back in this turn, as they stood.
    """

    def __init__(self, current: Slice, facts: Facts) -> None:
        self.slice = current
        self.facts = facts
        self.plan: Plan = current.plan
        self.instance: Instance = current.instance
        self.now: datetime = max(facts.now, current.instance.updated_at + timedelta(microseconds=1))
        self.todo: deque[Enter | Ended | Reuse] = deque()
        self.walks_again = False
        self.withdrawn: dict[NodeKey, Step] = {}
        self.lists_begun = 0
        self.ending: Ended | None = None
        self.queued_at: datetime = self.now
        self._nodes: dict[NodeKey, Node] = {}
        self._steps: dict[NodeKey, Step | None] = {}
        self._timers: dict[NodeKey, datetime | None] = {}
        self._outputs: dict[OutputKey, Any] = {}
        self._state: dict[str, Any] = {}
        self._context: ContextPut | None = None
        self._session: Shared | None = None
        self._items: dict[ItemKey, Any] = {}
        self._consumed: set[UUID] = set()
        self._kept: dict[UUID, KeptSignal] = {}
        self._forgotten: frozenset[str] = frozenset()
        self._first: list[Change] = []
        self._added: list[Change] = []
        self._calls = 0
        self.keeps_updated_at = False

    # -- reading -------------------------------------------------------------------------------------------------

    def node(self, key: NodeKey) -> Node | None:
        """Give a node, None if it was not entered."""
        if key in self._nodes:
            return self._nodes[key]
        return None if key.block_id in self._forgotten else self.slice.node(key)

    def open_node(self, key: NodeKey) -> Node:
        """Give a composite that is known to be open."""
        node = self.node(key)
        if node is None:
            raise LookupError(f"composite {key!r} is not open")
        return node

    def step(self, key: NodeKey) -> Step | None:
        """Give an open step, None if it is not open."""
        return self._steps[key] if key in self._steps else self.slice.step(key)

    def open_steps(self) -> tuple[Step, ...]:
        """Give every open step of the flow."""
        return tuple(step for step in self._all_steps() if step.activity is not Activity.ASIDE)

    def open_asides(self) -> tuple[Step, ...]:
        """Give every call beside the flow that has not ended."""
        return tuple(step for step in self._all_steps() if step.activity is Activity.ASIDE)

    def _all_steps(self) -> list[Step]:
        if not self.slice.open_work:
            raise Unloaded(Needs(open_work=True))
        return [step for step in {**self.slice.steps, **self._steps}.values() if step is not None]

    def steps_touched(self) -> tuple[tuple[NodeKey, Step | None], ...]:
        """Give the steps of the flow written in this turn, as they read now; None for those that were closed."""
        return tuple((key, step) for key, step in self._steps.items() if key.iteration[:1] != (BESIDE,))

    def open_nodes(self) -> tuple[Node, ...]:
        """Give every composite that is open."""
        if not self.slice.open_work:
            raise Unloaded(Needs(open_work=True))
        return tuple(n for n in self._known_nodes() if n.state in {NodeState.RUNNING, NodeState.WAITING})

    def ended_badly(self) -> tuple[Node, ...]:
        """Give every node that failed or was cancelled."""
        if not self.slice.ended_badly:
            raise Unloaded(Needs(ended_badly=True))
        return tuple(n for n in self._known_nodes() if n.state in {NodeState.FAILED, NodeState.CANCELLED})

    def _known_nodes(self) -> list[Node]:
        stored = {key: node for key, node in self.slice.nodes.items() if key.block_id not in self._forgotten}
        return [node for node in {**stored, **self._nodes}.values() if node is not None]

    def kept_signals(self) -> tuple[KeptSignal, ...]:
        """Give the custom signals that wait for their gate, oldest first."""
        kept = {signal.id: signal for signal in self.slice.kept_signals()} | self._kept
        return tuple(signal for signal in kept.values() if signal.id not in self._consumed)

    def item(self, key: ItemKey) -> Any:
        """Give one captured item of a for_each."""
        return self._items[key] if key in self._items else self.slice.item(key)

    @property
    def context(self) -> ContextPut:
        """The data and config sections as they read now."""
        return self._context if self._context is not None else self.slice.sections()

    @property
    def session_id(self) -> UUID:
        """The session of an instance that is known to have one."""
        if self.instance.session_id is None:
            raise LookupError(f"instance {self.instance.id} has no session")
        return self.instance.session_id

    @property
    def session_data(self) -> Any:
        """The data of the session as they read now; None without a session."""
        return self._session.data if self._session is not None else self.slice.session_data()

    def state_value(self, name: str) -> Any:
        """Give one key of the key-value state, `ABSENT` if it is not set."""
        return self._state[name] if name in self._state else self.slice.state_value(name)

    def scope(
        self,
        key: NodeKey,
        references: References,
        *,
        bindings: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Scope:
        """Build what expressions and templates of a node see, holding just what they can read.

        Raises Unloaded with everything that is missing at once.
        """
        plan = self.plan_of(key)
        items, counters = self._for_each_names(plan, key)
        wanted = self.plan.places if references.outputs is ALL else references.outputs
        # A block that is not in the plan may have a row all the same, if the plan was another once.
        outputs_wanted = {
            block_id: OutputKey(block_id, plan.lane_seen_from(key, block_id))
            for block_id in wanted
            if block_id in self.plan.places or self.instance.round > 0
        }
        self._require(references, outputs_wanted.values())
        outputs = {
            block_id: value
            for block_id, output_key in outputs_wanted.items()
            if (value := self._output(output_key)) is not ABSENT
        }
        reads_context = references.data or references.config
        return Scope(
            data=self.context.data if reads_context else None,
            config=self.context.config if reads_context else None,
            outputs=outputs,
            state=self._state_seen(references),
            runtime=self.runtime(key),
            session=self.session_data if references.session else None,
            instance_id=str(self.instance.id),
            bindings={**items, **(self._own_error(key) if reads_context else {}), **(bindings or {})},
            variables={**counters, **(variables or {})},
            now=self.now,
            random=self.facts.random,
            new_uuid=self.random_uuid,
        )

    def _require(self, references: References, outputs: Any) -> None:
        if self.slice.is_new:
            return
        names = frozenset() if references.state is ALL or self.slice.whole_state else references.state
        lacking = frozenset(key for key in outputs if key not in self._outputs and key not in self.slice.outputs)
        unset = frozenset(name for name in names if name not in self._state and name not in self.slice.state)
        whole_state = references.state is ALL and not self.slice.whole_state
        context = (references.data or references.config) and self._context is None and self.slice.context is None
        session = references.session and self._lacks_session()
        if lacking or unset or whole_state or context or session:
            raise Unloaded(
                Needs(outputs=lacking, state=unset, whole_state=whole_state, context=context, session=session)
            )

    def _lacks_session(self) -> bool:
        return self.instance.session_id is not None and self._session is None and self.slice.session is None

    def _output(self, key: OutputKey) -> Any:
        if key in self._outputs:
            return self._outputs[key]
        return ABSENT if key.block_id in self._forgotten else self.slice.output(key)

    def _state_seen(self, references: References) -> Mapping[str, Any]:
        if references.state is ALL:
            seen = {**self.slice.state, **self._state}
        else:
            seen = {name: self.state_value(name) for name in references.state}
        return {name: value for name, value in seen.items() if value is not ABSENT}

    def _for_each_names(self, plan: Plan, key: NodeKey) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the item variables and the index variables of the for_eachs around a node; inner ones win."""
        items: dict[str, Any] = {}
        counters: dict[str, Any] = {}
        place = plan.places.get(key.block_id)
        for depth, loop_id in enumerate(place.loops if place is not None else ()):
            block = plan.places[loop_id].block
            if isinstance(block, ForEach):
                index = key.iteration[depth]
                items[block.item_var] = self.item(ItemKey(NodeKey(loop_id, key.iteration[:depth]), index))
                counters |= {"index": index, "item_index": index}
        return items, counters

    def _own_error(self, key: NodeKey) -> dict[str, Any]:
        """Give the `_error` that a node of a concurrent round handles; other rounds overwrite the one in the data."""
        for ancestor in self.plan_of(key).catching(key):
            node = self.node(ancestor)
            if node is not None and node.memory.get("caught"):
                return {"_error": node.memory["caught"]}
        return {}

    def is_leaving(self, key: NodeKey) -> bool:
        """Tell whether a step was entered under a definition that the instance has left since."""
        if not self._has_leaving():
            return False
        step = self._seen_step(key)
        return step is not None and step.former is not None

    def plan_of(self, key: NodeKey) -> Plan:
        """Give the plan a step was entered under: for one that is leaving, what is left of the former one."""
        if not self._has_leaving():
            return self.plan
        step = self._seen_step(key)
        return self.plan if step is None or step.former is None else former_plan(self.plan, step.former)

    def _has_leaving(self) -> bool:
        """Tell whether any step is leaving, or was before this turn closed it: spares the look for each."""
        return self.instance.leaving > 0 or self.slice.instance.leaving > 0

    def _seen_step(self, key: NodeKey) -> Step | None:
        """Give a step that is open, or was before this turn closed it."""
        return self._steps.get(key) or self.slice.steps.get(key)

    def runtime(self, key: NodeKey) -> dict[str, Any]:
        """Give the runtime section of the context as a node of this instance sees it."""
        step = self._steps.get(key) or self.slice.steps.get(key)
        return runtime_section(self.instance, attempt=step.attempt if step is not None else 0)

    def new_id(self) -> UUID:
        """Make an id that sorts behind all earlier ones of this instance."""
        return self.facts.new_id(self.now)

    def random_uuid(self) -> UUID:
        """Make the random UUID that `uuid()` gives."""
        return UUID(int=self.facts.random.getrandbits(128), version=4)

    def queue_as_of(self, due_at: datetime | None) -> None:
        """Let what begins in this turn stand in its queue as if it had begun when it was due."""
        if due_at is not None:
            self.queued_at = min(due_at, self.now)

    def after_seconds(self, seconds: float) -> datetime:
        """Give the moment that many seconds from now."""
        return after(self.now, timedelta(seconds=seconds))

    # -- writing -------------------------------------------------------------------------------------------------

    def amend(self, **values: Any) -> None:
        """Change fields of the instance: of a copy of the turn's own, in place."""
        if self.instance is self.slice.instance:
            self.instance = replace(self.instance, **values)
        else:
            overwrite(self.instance, **values)

    def end(self, result: NodeState, error: StepError | None) -> None:
        """Note that the root list has ended, and how."""
        self.ending = Ended(ROOT_KEY, result, error)

    def put_node(self, node: Node) -> None:
        """Write a node."""
        self._nodes[node.key] = node

    def put_step(self, step: Step) -> None:
        """Write an open step, and with it its timer and its share of the instance's state."""
        former = self._standing(step.key)
        self._count(former, -1)
        self._count(step, +1)
        due_at = step.timer_at
        if due_at is not None:
            self._timers[step.key] = due_at
        elif former is not None and former.timer_at is not None:
            self._timers[step.key] = None
        self._steps[step.key] = step

    def remove_step(self, step: Step) -> None:
        """Close a step and drop its timer; one that was never written leaves no trace."""
        former = self._standing(step.key)
        self._count(former, -1)
        if former is not None and former.timer_at is not None:
            self._timers[step.key] = None
        self._steps[step.key] = None

    def _standing(self, key: NodeKey) -> Step | None:
        """Give a step as it was last written, None if it was not; one that is not loaded is new."""
        return self.step(key) if key in self._steps or key in self.slice.steps else None

    def put_timer(self, key: NodeKey, due_at: datetime) -> None:
        """Wait for a moment with something that is no step: a loop between iterations, a start in the future."""
        self._timers[key] = due_at
        self.amend(scheduled=self.instance.scheduled + 1)

    def drop_timer(self, key: NodeKey) -> None:
        """End a wait that `put_timer` began."""
        self._timers[key] = None
        self.amend(scheduled=self.instance.scheduled - 1)

    def put_alarm(self, key: NodeKey, due_at: datetime) -> None:
        """Look at something beside the flow at a moment; the wait counts for nothing."""
        self._timers[key] = due_at

    def drop_alarm(self, key: NodeKey) -> None:
        """End a wait that `put_alarm` began."""
        self._timers[key] = None

    def await_outsider(self, by: int) -> None:
        """Begin (+1) or end (-1) a wait for an outsider that no step stands for: a child."""
        self.amend(waiting=self.instance.waiting + by)

    def create_child(self, child: Instance, data: Any) -> None:
        """Create a child, due at once."""
        self._added.append(ChildCreated(child=child, data=data))

    def write_letter(self, recipient: UUID, content: Content, *, letter_id: UUID | None = None) -> None:
        """Send another instance a letter; it is delivered after the commit."""
        letter = Letter(id=letter_id or self.new_id(), sender=self.instance.id, recipient=recipient, content=content)
        self._added.append(LetterWritten(letter=letter))

    def open_letter(self, letter_id: UUID) -> None:
        """Note that a letter is done with."""
        self._added.append(LetterOpened(id=letter_id))

    def shift_timers(self, keys: Iterable[NodeKey], by: timedelta) -> None:
        """Put off the waits that `put_timer` began; a slice does not hold when they end."""
        self._added.append(TimersShifted(keys=tuple(keys), by=by))

    def _count(self, step: Step | None, by: int) -> None:
        if step is None:
            return
        if step.former is not None:
            self.amend(leaving=self.instance.leaving + by)
        if step.state is StepState.HELD:
            return
        match step.activity:
            case Activity.RUNNING:
                self.amend(running=self.instance.running + by)
            case Activity.WAITING:
                self.amend(waiting=self.instance.waiting + by)
            case Activity.SCHEDULED:
                self.amend(scheduled=self.instance.scheduled + by)
            case Activity.ASIDE:
                pass

    def add_row_beside(self, key: NodeKey, output: Any, *, ref: str | None = None) -> None:
        """Append an output row that is no block's output: templates never read it."""
        lane = (BESIDE,)
        self._outputs[OutputKey(key.block_id, lane)] = output
        self._added.append(
            OutputAdded(id=self.new_id(), key=key, lane=lane, output=output, attempt=0, created_at=self.now, ref=ref)
        )

    def row_beside(self, block_id: str) -> Any:
        """Give the newest row that `add_row_beside` has left under an id, `ABSENT` if there is none."""
        return self._output(OutputKey(block_id, (BESIDE,)))

    def key_beside(self, label: str) -> NodeKey:
        """Make the key of a new call beside the flow; every turn that is committed has a version of its own."""
        self._calls += 1
        return NodeKey(label, (BESIDE, self.instance.version % 2**31, self._calls))

    def add_output(self, key: NodeKey, output: Any, *, attempt: int = 0, ref: str | None = None) -> None:
        """Append an output row."""
        lane = self.plan_of(key).lane(key)
        self._outputs[OutputKey(key.block_id, lane)] = output
        self._outputs[OutputKey(key.block_id, None)] = output
        self._added.append(
            OutputAdded(
                id=self.new_id(),
                key=key,
                lane=lane,
                output=output,
                attempt=attempt,
                created_at=self.now,
                ref=ref,
            )
        )

    def trim_outputs(self, key: NodeKey, *, keep: int, since: Iteration | None) -> None:
        """Let only the newest rows of the blocks inside a loop or for_each stay; the newest one always does."""
        blocks, lane = self.plan.within(key.block_id), self.plan.lane(key)
        self._added.append(OutputsTrimmed(blocks=blocks, lane=lane, keep=max(1, keep), since=since))

    def capture_items(self, key: NodeKey, items: tuple[Any, ...]) -> None:
        """Keep the collection of a for_each as it is now."""
        self._items.update({ItemKey(key, index): item for index, item in enumerate(items)})
        self._added.append(ItemsCaptured(key=key, items=items))

    def set_state(self, name: str, value: Any) -> None:
        """Write one key of the key-value state."""
        self._state[name] = value

    def delete_state(self, name: str) -> None:
        """Remove one key of the key-value state."""
        self._state[name] = ABSENT

    def put_context(self, data: Any, config: Any) -> None:
        """Replace the data and config sections."""
        self._context = ContextPut(data=data, config=config)

    def merge_data(self, values: Mapping[str, Any]) -> None:
        """Write top-level keys of `context.data`; data that is no object gives way to one."""
        data = self.context.data
        self.put_context({**data, **values} if isinstance(data, dict) else dict(values), self.context.config)

    def change_session(self, change: SessionWritten | SessionMemberGone) -> None:
        """Write to the data of the session."""
        self._session = Shared(data=folded(self.session_data, change))
        self._added.append(change)

    def save_checkpoint(self, checkpoint_id: UUID, data: Any, keep: int | None) -> None:
        """Keep a snapshot beside the instance."""
        self._added.append(CheckpointSaved(id=checkpoint_id, data=data, created_at=self.now, keep=keep))

    def merge_metadata(self, values: Mapping[str, Any]) -> None:
        """Lay the engine's documented keys over the client's metadata."""
        self._added.append(MetadataMerged(values=values))

    def keep_signal(self, signal: KeptSignal) -> None:
        """Keep a custom signal until its gate opens."""
        self._kept[signal.id] = signal
        self._added.append(SignalKept(signal=signal))

    def consume_signal(self, signal_id: UUID) -> None:
        """Mark a custom signal as used or swallowed."""
        self._consumed.add(signal_id)
        self._added.append(SignalConsumed(id=signal_id))

    def record_attempt(self, step: Step, outcome: str, error: Mapping[str, Any] | None = None) -> None:
        """Append the history row of one execution."""
        self._added.append(
            AttemptRecorded(
                id=self.new_id(),
                key=step.key,
                step_id=step.id,
                attempt=step.attempt,
                handler=step.handler,
                queue=step.queue,
                outcome=outcome,
                token=step.token,
                worker_id=step.worker_id,
                claimed_at=step.claimed_at,
                ended_at=self.now,
                error=error,
                cache_key=step.cache_key,
            )
        )

    def record_event(self, event: str, block_id: str | None, details: Mapping[str, Any]) -> None:
        """Append the audit row of something that is no move of the instance."""
        self._added.append(
            TransitionRecorded(
                id=self.new_id(),
                from_state=None,
                to_state=None,
                block_id=block_id,
                details=details,
                created_at=self.now,
                event=event,
            )
        )

    def record_transition(self, source: str, target: str, block_id: str | None, details: Mapping[str, Any]) -> None:
        """Append an audit row."""
        self._added.append(
            TransitionRecorded(
                id=self.new_id(),
                from_state=source,
                to_state=target,
                block_id=block_id,
                details=details,
                created_at=self.now,
            )
        )

    def remove_error_rows(self) -> None:
        """Drop the rows that record the failures of the former round."""
        self._added.insert(0, ErrorRowsRemoved())

    def forget(self, blocks: tuple[str, ...], rows: int) -> None:
        """Let some blocks be as if they had never been reached; `rows` is how many output rows they have."""
        self._forgotten = frozenset(blocks)
        self._nodes = {key: node for key, node in self._nodes.items() if key.block_id not in self._forgotten}
        self._first.append(BlocksForgotten(blocks=blocks, rows=rows))

    def add_injection(self, injection: Injection) -> None:
        """Let blocks join the root list; what is walked from here on walks the new plan."""
        self.plan = self.plan.with_injection(injection)
        self.amend(injected=self.instance.injected + len(injection.blocks))
        self._added.append(InjectionAdded(injection=injection))

    def replace_plan(self, sequence_id: UUID, plan: Plan) -> None:
        """Go over to another definition; what is walked from here on walks its plan."""
        self.plan = plan
        self.amend(sequence_id=sequence_id, round=self.instance.round + 1)
        self._added.append(PlanReplaced(plan=plan))

    def withdraw(self, step: Step) -> None:
        """Take back a step that only waits, as if it had not been reached; it may be entered again in this turn."""
        self.remove_step(step)
        self.withdrawn[step.key] = step

    # -- the result ----------------------------------------------------------------------------------------------

    def changes(self) -> tuple[Change, ...]:
        """Give what the turn changes; the instance first, with its version risen."""
        updated_at = self.instance.updated_at if self.keeps_updated_at else self.now
        self.amend(version=self.instance.version + 1, updated_at=updated_at)
        changes: list[Change] = [InstancePut(instance=self.instance), *self._first]
        changes += [NodePut(node=node) for node in self._nodes.values()]
        changes += [StepPut(step=s) if s is not None else StepGone(key=k) for k, s in self._steps.items()]
        changes += [TimerPut(key=k, due_at=d) if d else TimerGone(key=k) for k, d in self._timers.items()]
        changes += [StateGone(name=n) if v is ABSENT else StatePut(name=n, value=v) for n, v in self._state.items()]
        if self._context is not None:
            changes.append(self._context)
        return (*changes, *self._added)


def runtime_section(instance: Instance, *, attempt: int) -> dict[str, Any]:
    """Give the runtime section of a context, as clients and handlers see it (sequences contract §8.1)."""
    return {
        "current_step": instance.current_step,
        "attempt": attempt,
        "started_at": rfc3339(instance.started_at),
        "current_step_started_at": rfc3339(instance.current_step_started_at),
        "resource_key": None,
        "instance_id": str(instance.id),
        "total_steps_executed": instance.total_steps,
        "run_id": str(instance.run_id) if instance.run_id else None,
        "dry_run": instance.dry_run,
        "dry_run_auto_approve": instance.dry_run_auto_approve,
    }


_HIDDEN_WHEN_NULL = ("instance_id", "run_id")


def context_view(data: Any, config: Any, runtime: dict[str, Any], *, audit: Any = None) -> dict[str, Any]:
    """Show a context as clients see it; ids of the runtime section are left out while they are null."""
    shown = {name: value for name, value in runtime.items() if value is not None or name not in _HIDDEN_WHEN_NULL}
    return {"data": data, "config": config, "audit": audit or [], "runtime": shown}


def rfc3339(moment: datetime | None) -> str | None:
    """Write an aware UTC datetime as the wire does, None as None."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
