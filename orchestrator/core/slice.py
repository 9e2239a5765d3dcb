"""The part of an instance that a decision has in hand.

A decision loads as it reads: whatever it asks for and is not in the slice is named in `Needs`, the engine loads that
and decides again. So the work of an event grows with what it reads, not with what the instance holds. A slice stays
valid as long as the instance's version does, and takes over the changes of each commit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
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
from orchestrator.core.letters import Letter
from orchestrator.core.model import (
    Instance,
    ItemKey,
    KeptSignal,
    Node,
    NodeKey,
    OutputKey,
    SequenceName,
    Shared,
    Startable,
    Step,
    names_of_output,
)
from orchestrator.core.plan import Plan
from orchestrator.core.shared import folded

ITEMS_IN_HAND: Final = 100
"""Items of a for_each that a slice takes over when they are captured; the others are loaded in portions."""

ABSENT: Final = object()
"""Known not to exist, as opposed to not loaded."""
UNKNOWN: Final = object()
"""Not loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a decision could not go on without."""

    nodes: frozenset[NodeKey] = frozenset()
    steps: frozenset[NodeKey] = frozenset()
    outputs: frozenset[OutputKey] = frozenset()
    state: frozenset[str] = frozenset()
    items: frozenset[ItemKey] = frozenset()
    whole_state: bool = False
    context: bool = False
    metadata: bool = False
    signals: bool = False
    open_work: bool = False
    ended_badly: bool = False
    session: bool = False
    audit: bool = False
    sequences: frozenset[SequenceName] = frozenset()
    child_rows: frozenset[UUID] = frozenset()
    letters: bool = False
    rows_of: frozenset[str] = frozenset()
    timers: frozenset[NodeKey] = frozenset()


class Unloaded(Exception):
    """Raised inside a decision that reads what the slice does not hold."""

    def __init__(self, needs: Needs) -> None:
        super().__init__(needs)
        self.needs = needs


@dataclass(slots=True, kw_only=True)
class Slice:
    """What is known of one instance; every `dict` maps to a value or to the mark that says there is none.

    Args:
        is_new: Whether the instance is not stored yet: what the slice does not hold does not exist.
        is_anyone: Whether it stands for many new instances: what each of them has for itself cannot be read.
        open_work: Whether `steps` and `nodes` hold every open step and every open composite.
        ended_badly: Whether `nodes` holds every failed or cancelled node.
        audit: The audit section of the context; it never changes.
        session: The data of the session, for one decision only: other instances change them.
        sequences: What names of sequences stood for when they were looked up.
        child_rows: Output rows of children that have ended, as the wire shows them.
        letters: The letters to this instance, oldest first; None if they were not looked for.
        row_counts: How many output rows some blocks have; forgotten with the next change.
        timers: When the timers of some nodes are due; forgotten with the next change.
    """

    plan: Plan
    instance: Instance
    nodes: dict[NodeKey, Node | None] = field(default_factory=dict)
    steps: dict[NodeKey, Step | None] = field(default_factory=dict)
    outputs: dict[OutputKey, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    items: dict[ItemKey, Any] = field(default_factory=dict)
    context: ContextPut | None = None
    metadata: Any = UNKNOWN
    signals: dict[Any, KeptSignal] | None = None
    whole_state: bool = False
    is_new: bool = False
    is_anyone: bool = False
    open_work: bool = False
    ended_badly: bool = False
    audit: Any = ABSENT
    session: Shared | None = None
    sequences: dict[SequenceName, Startable | None] = field(default_factory=dict)
    child_rows: dict[UUID, list[dict[str, Any]]] = field(default_factory=dict)
    letters: dict[UUID, Letter] | None = None
    row_counts: dict[str, int] = field(default_factory=dict)
    timers: dict[NodeKey, datetime | None] = field(default_factory=dict)

    @classmethod
    def of_new(
        cls, plan: Plan, instance: Instance, data: Any, config: Any, audit: Any = None, metadata: Any = None
    ) -> "Slice":
        """Make the slice of an instance that is not stored yet."""
        return cls(
            plan=plan,
            instance=instance,
            context=ContextPut(data=data, config=config),
            audit=audit,
            metadata=metadata,
            signals={},
            whole_state=True,
            is_new=True,
            open_work=True,
            ended_badly=True,
        )

    @classmethod
    def of_anyone(cls, plan: Plan, instance: Instance) -> "Slice":
        """Make the slice of an instance that stands for all new ones like it: it has no context."""
        return cls(
            plan=plan,
            instance=instance,
            signals={},
            whole_state=True,
            is_new=True,
            is_anyone=True,
            open_work=True,
            ended_badly=True,
        )

    def node(self, key: NodeKey) -> Node | None:
        """Give a node, None if it was not entered yet."""
        try:
            return self.nodes[key]
        except KeyError:
            raise Unloaded(Needs(nodes=frozenset({key}))) from None

    def step(self, key: NodeKey) -> Step | None:
        """Give an open step, None if it is not open."""
        try:
            return self.steps[key]
        except KeyError:
            if self.open_work:
                return None
            raise Unloaded(Needs(steps=frozenset({key}))) from None

    def output(self, key: OutputKey) -> Any:
        """Give the newest output of a block, `ABSENT` if it has none."""
        try:
            return self.outputs[key]
        except KeyError:
            if self.is_new:
                return ABSENT
            raise Unloaded(Needs(outputs=frozenset({key}))) from None

    def state_value(self, name: str) -> Any:
        """Give one key of the key-value state, `ABSENT` if it is not set."""
        try:
            return self.state[name]
        except KeyError:
            if self.whole_state:
                return ABSENT
            raise Unloaded(Needs(state=frozenset({name}))) from None

    def item(self, key: ItemKey) -> Any:
        """Give one captured item of a for_each."""
        try:
            return self.items[key]
        except KeyError:
            raise Unloaded(Needs(items=frozenset({key}))) from None

    def sections(self) -> ContextPut:
        """Give the data and config sections of the context."""
        if self.context is None:
            raise Unloaded(Needs(context=True))
        return self.context

    def audit_section(self) -> Any:
        """Give the audit section of the context."""
        if self.audit is ABSENT:
            raise Unloaded(Needs(audit=True))
        return self.audit

    def session_data(self) -> Any:
        """Give the data of the session; None without a session."""
        if self.instance.session_id is None:
            return None
        if self.session is None:
            raise Unloaded(Needs(session=True))
        return self.session.data

    def profile_metadata(self) -> Any:
        """Give what the client sent as `metadata`."""
        if self.metadata is UNKNOWN:
            raise Unloaded(Needs(metadata=True))
        return self.metadata

    def kept_signals(self) -> tuple[KeptSignal, ...]:
        """Give the custom signals no gate has consumed, oldest first."""
        if self.signals is None:
            raise Unloaded(Needs(signals=True))
        return tuple(self.signals.values())

    def sequence(self, name: SequenceName) -> Startable | None:
        """Give the sequence that a name stands for at this moment, None if there is none."""
        try:
            return self.sequences[name]
        except KeyError:
            raise Unloaded(Needs(sequences=frozenset({name}))) from None

    def rows_of_child(self, child: UUID) -> list[dict[str, Any]]:
        """Give the output rows of a child, as the wire shows them."""
        try:
            return self.child_rows[child]
        except KeyError:
            raise Unloaded(Needs(child_rows=frozenset({child}))) from None

    def count_rows(self, blocks: Iterable[str]) -> int:
        """Count the output rows of some blocks."""
        try:
            return sum(self.row_counts[block_id] for block_id in blocks)
        except KeyError:
            raise Unloaded(Needs(rows_of=frozenset(blocks))) from None

    def timer(self, key: NodeKey) -> datetime | None:
        """Give the moment a node's timer is set to, None if it has none."""
        try:
            return self.timers[key]
        except KeyError:
            raise Unloaded(Needs(timers=frozenset({key}))) from None

    def oldest_letter(self) -> Letter | None:
        """Give the letter that is next to be opened, None if there is none."""
        if self.letters is None:
            raise Unloaded(Needs(letters=True))
        return next(iter(self.letters.values()), None)

    def take(self, changes: Iterable[Change]) -> None:  # noqa: PLR0912, PLR0915 - a line for each kind of change
        """Take over what was decided, so that the next decision reads it; what every step changes comes first."""
        self.row_counts, self.timers = {}, {}
        for change in changes:
            match change:
                case InstancePut(instance=instance):
                    self.instance = instance
                case NodePut(node=node):
                    self.nodes[node.key] = node
                case StepPut(step=step):
                    self.steps[step.key] = step
                case StepGone(key=key):
                    self.steps[key] = None
                case OutputAdded(key=key, lane=lane, output=output):
                    self.outputs.update(dict.fromkeys(names_of_output(key.block_id, lane), output))
                case AttemptRecorded() | TimerPut() | TimerGone():
                    pass
                case ContextPut():
                    self.context = change
                case StatePut(name=name, value=value):
                    self.state[name] = value
                case StateGone(name=name):
                    self.state[name] = ABSENT
                case ItemsCaptured(key=key, items=items):
                    self.items.update({ItemKey(key, index): item for index, item in enumerate(items[:ITEMS_IN_HAND])})
                case SignalKept(signal=signal):
                    if self.signals is not None:
                        self.signals[signal.id] = signal
                case SignalConsumed(id=signal_id):
                    if self.signals is not None:
                        self.signals.pop(signal_id, None)
                case ErrorRowsRemoved():
                    self.outputs.clear()
                case BlocksForgotten(blocks=blocks):
                    self._forget(frozenset(blocks))
                case PlanReplaced(plan=plan):
                    self.plan = plan
                case InjectionAdded(injection=injection):
                    self.plan = self.plan.with_injection(injection)
                case SessionWritten() | SessionMemberGone():
                    if self.session is not None:
                        self.session = Shared(data=folded(self.session.data, change))
                case MetadataMerged(values=values):
                    if self.metadata is not UNKNOWN:
                        self.metadata = {**(self.metadata if isinstance(self.metadata, dict) else {}), **values}
                case LetterOpened(id=letter_id):
                    if self.letters is not None:
                        self.letters.pop(letter_id, None)
                case TimersShifted() | TransitionRecorded():
                    pass
                case CheckpointSaved() | DefinitionHeld() | WebhookQueued() | UsageRecorded() | LineLogged():
                    pass
                case OutputsTrimmed() | ChildCreated() | LetterWritten():
                    pass

    def _forget(self, blocks: frozenset[str]) -> None:
        self.nodes.update({key: None for key in self.nodes if key.block_id in blocks})
        self.outputs.update({key: ABSENT for key in self.outputs if key.block_id in blocks})
        self.items = {key: item for key, item in self.items.items() if key.node.block_id not in blocks}

    def forget_ended(self) -> None:
        """Drop what only costs memory: nodes and steps that have ended, and items already handed out.

        Keeps a slice that a worker carries on with at the size of the open work, however many steps came before.
        """
        self.nodes = {k: n for k, n in self.nodes.items() if n is not None and not n.state.is_terminal}
        self.steps = {k: s for k, s in self.steps.items() if s is not None}
        self.session = None
        self.is_new = False
        self.open_work = False
        self.ended_badly = False
        # Not guarded by the instance's version: others write these.
        self.sequences, self.child_rows, self.letters, self.timers = {}, {}, None, {}
        if len(self.items) > 1000:
            self.items.clear()
        if len(self.outputs) > 1000:
            self.outputs.clear()
