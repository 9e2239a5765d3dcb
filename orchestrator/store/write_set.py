"""What a transaction is to write of any number of instances, by table: collected before anything is sent.

Rows are collected by key first, so several decisions about one instance (or one that walked through many blocks) cost
one write for each row they leave behind.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, assert_never
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
from orchestrator.core.model import Instance, Iteration, NodeKey
from orchestrator.store import breakers, step_logs, usage, webhooks
from orchestrator.store.apart import Apart
from orchestrator.store.injections import injection_row
from orchestrator.store.letters import GRACE
from orchestrator.store.rows import letter_row, node_row, step_row, transition_row
from orchestrator.store.sealing import PrivateOf, private, private_json, private_of
from orchestrator.store.session import to_json

Row = tuple[Any, ...]
RowKey = tuple[UUID, NodeKey]


@dataclass(slots=True)
class WriteSet:
    """What is to be written, by table.

    Args:
        apart: Which values are stored apart.
        moved: Instances that were changed in another minute before: lists by metadata have them elsewhere.
    """

    apart: Apart
    instances: dict[UUID, Instance] = field(default_factory=dict)
    moved: set[UUID] = field(default_factory=set)
    nodes: dict[RowKey, Row | None] = field(default_factory=dict)
    steps: dict[RowKey, Row | None] = field(default_factory=dict)
    timers: dict[RowKey, Row | None] = field(default_factory=dict)
    outputs: list[Row] = field(default_factory=list)
    payloads: dict[tuple[UUID, str], str] = field(default_factory=dict)
    trimmed: dict[tuple[UUID, str, Iteration], Row] = field(default_factory=dict)
    attempts: list[Row] = field(default_factory=list)
    executions: breakers.Tallies = field(default_factory=dict)
    transitions: list[Row] = field(default_factory=list)
    contexts: dict[UUID, Row] = field(default_factory=dict)
    state: dict[tuple[UUID, str], Row | None] = field(default_factory=dict)
    items: list[Row] = field(default_factory=list)
    kept_signals: list[Row] = field(default_factory=list)
    consumed_signals: list[Row] = field(default_factory=list)
    cleared: list[UUID] = field(default_factory=list)
    forgotten: list[tuple[UUID, str]] = field(default_factory=list)
    sessions: list[SessionWritten | SessionMemberGone] = field(default_factory=list)
    checkpoints: list[tuple[UUID, CheckpointSaved]] = field(default_factory=list)
    metadata: list[Row] = field(default_factory=list)
    shifted_timers: list[Row] = field(default_factory=list)
    injections: list[Row] = field(default_factory=list)
    held: set[UUID] = field(default_factory=set)
    children: list[tuple[ChildCreated, PrivateOf]] = field(default_factory=list)
    letters: list[Row] = field(default_factory=list)
    opened_letters: list[Row] = field(default_factory=list)
    webhooks: list[Row] = field(default_factory=list)
    usage: list[Row] = field(default_factory=list)
    logs: list[Row] = field(default_factory=list)

    def add(self, instance: Instance, changes: Iterable[Change]) -> None:  # noqa: PLR0912, PLR0915 - one case each
        """Collect the changes of one instance."""
        owner = instance.id
        for change in changes:
            match change:
                case InstancePut(instance=value, formerly=formerly):
                    self.instances[owner] = value
                    if formerly is not None and minute_of(formerly) != minute_of(value.updated_at):
                        self.moved.add(owner)
                case NodePut(node=node):
                    self.nodes[owner, node.key] = node_row(owner, node)
                case StepPut(step=step):
                    self.steps[owner, step.key] = step_row(owner, step)
                case StepGone(key=key):
                    self.steps[owner, key] = None
                case TimerPut(key=key, due_at=due_at):
                    self.timers[owner, key] = (owner, key.block_id, list(key.iteration), due_at)
                case TimerGone(key=key):
                    self.timers[owner, key] = None
                case TimersShifted(keys=keys, by=by):
                    self.shifted_timers += [(owner, key.block_id, list(key.iteration), by) for key in keys]
                case OutputAdded():
                    self._add_output(instance, change)
                case AttemptRecorded():
                    self.attempts.append(_attempt_row(owner, change))
                    breakers.count(self.executions, instance.tenant_id, change)
                case TransitionRecorded():
                    self.transitions.append(transition_row(instance, change))
                case ContextPut(data=data, config=config):
                    self.contexts[owner] = (owner, self._split_data(owner, data), private(config))
                case StatePut(name=name, value=value):
                    self.state[owner, name] = (owner, name, private(value))
                case StateGone(name=name):
                    self.state[owner, name] = None
                case ItemsCaptured(key=key, items=captured):
                    self.items += [
                        (owner, key.block_id, list(key.iteration), index, private(item))
                        for index, item in enumerate(captured)
                    ]
                case SignalKept(signal=signal):
                    self.kept_signals.append((owner, signal.id, signal.name, private(signal.payload)))
                case SignalConsumed(id=signal_id):
                    self.consumed_signals.append((owner, signal_id))
                case OutputsTrimmed():
                    self.trimmed |= {
                        (owner, each, change.lane): _trimming_row(owner, each, change) for each in change.blocks
                    }
                case ErrorRowsRemoved():
                    self.cleared.append(owner)
                case BlocksForgotten(blocks=blocks):
                    self._forget(owner, frozenset(blocks))
                case SessionWritten() | SessionMemberGone():
                    self.sessions.append(change)
                case CheckpointSaved():
                    self.checkpoints.append((owner, change))
                case MetadataMerged(values=values):
                    self.metadata.append((owner, to_json(values)))
                case PlanReplaced():
                    pass  # the instance's row names the new definition
                case DefinitionHeld():
                    self.held.add(instance.sequence_id)
                case InjectionAdded(injection=injection):
                    self.injections.append(injection_row(owner, injection))
                case ChildCreated(child=child):
                    self.held.add(child.sequence_id)
                    self.children.append((change, self._split_data(child.id, change.data)))
                case LetterWritten(letter=letter):
                    self.letters.append((*letter_row(letter), GRACE))
                case LetterOpened(id=letter_id):
                    self.opened_letters.append((owner, letter_id))
                case UsageRecorded():
                    self.usage.append(usage.row(instance, change))
                case LineLogged():
                    self.logs.append(step_logs.row(owner, change))
                case WebhookQueued():
                    self.webhooks.append(webhooks.new_row(owner, change))
                case _:
                    assert_never(change)

    @property
    def is_fenced(self) -> bool:
        """Tell whether all of it looks at the mark that the row of the instance was as it was found."""
        return len(self.instances) == 1 and not any(getattr(self, name) for name in _UNFENCED)

    def _forget(self, owner: UUID, blocks: frozenset[str]) -> None:
        """Drop what earlier decisions of the same transaction have written of some blocks, and what is stored."""
        for row in self.outputs:
            if row[0] == owner and row[2] in blocks:
                self.payloads.pop((owner, row[6]), None)
        self.nodes = {(o, k): row for (o, k), row in self.nodes.items() if o != owner or k.block_id not in blocks}
        self.outputs = [row for row in self.outputs if row[0] != owner or row[2] not in blocks]
        self.items = [row for row in self.items if row[0] != owner or row[1] not in blocks]
        self.forgotten += [(owner, block_id) for block_id in sorted(blocks)]

    def _split_data(self, owner: UUID, data: Any) -> PrivateOf:
        split = self.apart.split_data(data)
        self.payloads |= {(owner, key): text for key, text in split.apart.items()}
        return private_of(owner, split.text)

    def _add_output(self, instance: Instance, change: OutputAdded) -> None:
        split = self.apart.split_output(change.id, change.output)
        ref, size = change.ref, len(split.text.encode())
        for key, text in split.apart.items():
            self.payloads[instance.id, key] = text
            ref, size = ref or key, len(text.encode())
        self.outputs.append(
            (
                instance.id,
                change.id,
                change.key.block_id,
                list(change.key.iteration),
                list(change.lane),
                private_json(split.text),
                ref,
                size,
                change.attempt,
                change.created_at,
                instance.version,
            )
        )


_UNFENCED = {each.name for each in fields(WriteSet)} - {
    *("apart", "instances", "moved", "nodes", "steps", "timers", "shifted_timers"),
    *("outputs", "attempts", "transitions", "contexts", "items", "executions"),
}
"""What is written by statements that are put together for each commit."""


def _trimming_row(owner: UUID, block_id: str, change: OutputsTrimmed) -> Row:
    since = list(change.since) if change.since is not None else None
    return (owner, block_id, list(change.lane), change.keep, since)


def _attempt_row(owner: UUID, change: AttemptRecorded) -> Row:
    return (
        owner,
        change.ended_at,
        change.id,
        change.key.block_id,
        list(change.key.iteration),
        change.step_id,
        change.attempt,
        change.handler,
        change.queue,
        change.outcome,
        change.token,
        change.worker_id,
        change.claimed_at,
        private(change.error) if change.error is not None else None,
        change.cache_key,
        change.worker_name,
        change.claim_epoch,
    )


def minute_of(moment: datetime) -> datetime:
    """Give the minute that a moment lies in, as `metadata_entries` name it."""
    return moment.replace(second=0, microsecond=0)
