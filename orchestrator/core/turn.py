"""One decision in the making: it reads the slice through the changes it has made so far.

A turn is private to `decide`: it is thrown away when the decision needs more, and turned into changes when it is done.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from orchestrator.core.changes import (
    AttemptRecorded,
    BlocksForgotten,
    Change,
    CheckpointSaved,
    ChildCreated,
    ContextPut,
    DefinitionHeld,
    ErrorRowsRemoved,
    InjectionAdded,
    InstancePut,
    ItemsCaptured,
    LetterOpened,
    LetterWritten,
    LineLogged,
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
    UsageRecorded,
    WebhookQueued,
)
from orchestrator.core.events import Signal
from orchestrator.core.facts import Facts
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
    Usage,
    names_of_output,
)
from orchestrator.core.outcomes import LogLine
from orchestrator.core.overlay import Overlay
from orchestrator.core.plan import Injection, Plan
from orchestrator.core.sections import merged
from orchestrator.core.shared import folded
from orchestrator.core.slice import ABSENT, Slice
from orchestrator.core.states import Activity, NodeState, StepState
from orchestrator.core.values import overwrite, replace


class Enter(NamedTuple):
    """To do: start a block."""

    key: NodeKey


class Ended(NamedTuple):
    """To do: tell the parent that a block has ended."""

    key: NodeKey
    state: NodeState
    error: StepError | None = None


class Reuse(NamedTuple):
    """To do: complete a step with an output that was found in the cache, or that stands for one in a dry run."""

    key: NodeKey
    output: Any
    is_stub: bool = False


class Turn(Overlay):
    """The working copy of one decision.

    Attributes:
        todo: What follows from what has been decided so far.
        walks_again: Whether the plan is walked from its root once that is done (see `migration.py`).
        withdrawn: Steps taken back in this turn, as they stood.
        sent_to_itself: Signals that a handler of this instance has sent to this instance.
    """

    def __init__(self, current: Slice, facts: Facts) -> None:
        super().__init__(current, facts)
        self.todo: deque[Enter | Ended | Reuse] = deque()
        self.walks_again = False
        self.withdrawn: dict[NodeKey, Step] = {}
        self.sent_to_itself: deque[Signal] = deque()
        self.lists_begun = 0
        self.ending: Ended | None = None
        self.queued_at: datetime = self.now
        self.keeps_updated_at = False
        self._timers: dict[NodeKey, datetime | None] = {}
        self._first: list[Change] = []
        self._added: list[Change] = []
        self._calls = 0

    def queue_as_of(self, due_at: datetime | None) -> None:
        """Let what begins in this turn stand in its queue as if it had begun when it was due."""
        if due_at is not None:
            self.queued_at = min(due_at, self.now)

    def amend(self, **values: Any) -> None:
        """Change fields of the instance: of a copy of the turn's own, in place."""
        if self.instance is self.slice.instance:
            self.instance = replace(self.instance, **values)
        else:
            for name, value in values.items():
                overwrite(self.instance, name, value)

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
            self.has_leaving = True
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
        self._outputs.update(dict.fromkeys(names_of_output(key.block_id, lane), output))
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
        """Write top-level keys of `context.data`; data that is no object gives way to one, not to no keys."""
        if not values:
            return
        self.put_context(merged(self.context.data, values), self.context.config)

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
                worker_name=step.worker_name,
                claim_epoch=step.claim_epoch,
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

    def record_usage(self, step: Step, usage: Usage) -> None:
        """Write down what a model has used for a step."""
        self._added.append(
            UsageRecorded(id=self.new_id(), block_id=step.key.block_id, created_at=self.now, **asdict(usage))
        )

    def record_logs(self, block_id: str, lines: Iterable[LogLine]) -> None:
        """Write down what a handler has logged."""
        self._added.extend(LineLogged(id=self.new_id(), block_id=block_id, line=line) for line in lines)

    def tell_outside(self, event_type: str, data: Mapping[str, Any]) -> None:
        """Have every address that listens told of an event."""
        for url in self.facts.webhook_urls:
            self._added.append(
                WebhookQueued(id=self.new_id(), url=url, event_type=event_type, data=data, created_at=self.now)
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

    def changes(self) -> tuple[Change, ...]:
        """Give what the turn changes; the instance first, with its version risen."""
        updated_at = self.instance.updated_at if self.keeps_updated_at else self.now
        self.amend(version=self.instance.version + 1, updated_at=updated_at)
        changes: list[Change] = [
            InstancePut(instance=self.instance, formerly=self.slice.instance.updated_at),
            *self._first,
        ]
        changes += [NodePut(node=node) for node in self._nodes.values()]
        for key, step in self._steps.items():
            changes.append(StepPut(step=step) if step is not None else StepGone(key=key))
        for key, due_at in self._timers.items():
            changes.append(TimerPut(key=key, due_at=due_at) if due_at is not None else TimerGone(key=key))
        for name, value in self._state.items():
            changes.append(StateGone(name=name) if value is ABSENT else StatePut(name=name, value=value))
        if self._context is not None:
            changes.append(self._context)
        if self._needs_its_definition_anew():
            changes.append(DefinitionHeld())
        return (*changes, *self._added)

    def _needs_its_definition_anew(self) -> bool:
        former, now = self.slice.instance, self.instance
        is_reopened = former.state.is_terminal and not now.state.is_terminal
        return is_reopened or former.sequence_id != now.sequence_id
