"""Write the changes of any number of instances: each table once, all in one round trip.

The caller holds the lock of every instance it writes. Rows are collected by key first, so several decisions about one
instance (or one that walked through many blocks) cost one write for each row they leave behind.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
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
from orchestrator.core.model import ROOT_KEY, Claim, Instance, Iteration, NodeKey
from orchestrator.store import breakers, checkpoints, definitions, payloads, sessions, step_logs, usage, webhooks
from orchestrator.store.apart import Apart
from orchestrator.store.counters import COMPACTED
from orchestrator.store.injections import injection_row
from orchestrator.store.interface import Written
from orchestrator.store.letters import GRACE
from orchestrator.store.prepared import MARK, MAY_WRITE, Prepared, array_of, form, prepared
from orchestrator.store.rows import (
    INSTANCE_COLUMNS,
    INSTANCE_WIDTH,
    LETTER_COLUMNS,
    NODE_ROW,
    STEP_COLUMNS,
    STEP_ROW,
    TRANSITION_ROW,
    instance_row,
    letter_row,
    names_of,
    node_row,
    step_row,
    transition_row,
)
from orchestrator.store.sealing import PrivateOf, private, private_json, private_of
from orchestrator.store.session import Transaction, to_json

Row = tuple[Any, ...]
RowKey = tuple[UUID, NodeKey]


_MUTABLE = (
    "state text, version bigint, running int, waiting int, scheduled int, is_held boolean, is_cancelling boolean, "
    "parked_reason text, round int, injected int, leaving int, sequence_id uuid, run_id uuid, current_step text, "
    "current_step_started_at timestamptz, total_steps bigint, input_tokens bigint, output_tokens bigint, "
    "iterations bigint, started_at timestamptz, updated_at timestamptz"
)
_mutable_of = attrgetter("id", *names_of(_MUTABLE).split(", "))
_UPDATE_INSTANCES = prepared(
    "update_instances",
    f"id uuid, {_MUTABLE}",
    "UPDATE instances SET "
    + ", ".join(f"{name} = v.{name}" for name in names_of(_MUTABLE).split(", "))
    + " FROM {rows} WHERE instances.id = v.id",
    joins=True,
)

_FENCED = _MUTABLE.split(", ")
_UPDATE_IF_CURRENT = form(
    "update_if_current",
    ["uuid", *(column.split()[1] for column in _FENCED), "bigint", "uuid[]", "uuid[]"],
    "WITH moved AS (UPDATE instances SET "
    + ", ".join(f"{column.split()[0]} = ${place}" for place, column in enumerate(_FENCED, 2))
    + f" WHERE id = $1 AND version = ${len(_FENCED) + 2} AND cardinality(${len(_FENCED) + 3}) = (SELECT count(*) "
    f"FROM steps WHERE id = ANY(${len(_FENCED) + 3}) AND token = ANY(${len(_FENCED) + 4}) AND state = 'claimed') "
    f"RETURNING 1) SELECT set_config('{MARK}', 'no', true) WHERE NOT EXISTS (SELECT FROM moved)",
)
_WAS_CURRENT = form("was_current", [], f"SELECT {MAY_WRITE}, clock_timestamp()")

_MOVE_METADATA = prepared(
    "move_metadata",
    "id uuid, minute timestamptz",
    "UPDATE metadata_entries m SET minute = v.minute FROM {rows} WHERE m.instance_id = v.id",
    joins=True,
)

_CREATE = f"INSERT INTO instances ({INSTANCE_COLUMNS}) VALUES {{}}"
_CREATE_TEMPLATE = "(" + ", ".join(["%s"] * INSTANCE_WIDTH) + ")"

_KEY = "(instance_id, block_id, iteration)"
_KEY_ROW = "instance_id uuid, block_id text, iteration int[]"


def _removal(table: str) -> Prepared:
    """Give the statement that removes rows by their key."""
    return prepared(
        f"remove_{table}",
        _KEY_ROW,
        f"DELETE FROM {table} t USING {{rows}} WHERE t.instance_id = v.instance_id AND t.block_id = v.block_id "
        "AND t.iteration = v.iteration",
        joins=True,
    )


_PUT_NODES = prepared(
    "put_nodes",
    f"instance_id uuid, {NODE_ROW}",
    f"INSERT INTO nodes ({{columns}}) SELECT * FROM {{rows}} ON CONFLICT {_KEY} DO UPDATE SET "
    "state = EXCLUDED.state, started_at = EXCLUDED.started_at, completed_at = EXCLUDED.completed_at, "
    "memory = EXCLUDED.memory",
)
_REMOVE_NODES = _removal("nodes")
_STEP_MUTABLE = [name for name in STEP_COLUMNS.split(", ") if name not in {"block_id", "iteration"}]
# A new attempt starts without the marks of the former one: checkpoint, heartbeat, hints.
_PUT_STEPS = prepared(
    "put_steps",
    f"instance_id uuid, {STEP_ROW}",
    f"INSERT INTO steps ({{columns}}) SELECT * FROM {{rows}} ON CONFLICT {_KEY} DO UPDATE SET "
    + ", ".join(f"{name} = EXCLUDED.{name}" for name in _STEP_MUTABLE)
    + ", checkpoint = CASE WHEN steps.id = EXCLUDED.id THEN steps.checkpoint END"
    ", checkpoint_seq = CASE WHEN steps.id = EXCLUDED.id THEN steps.checkpoint_seq ELSE 0 END"
    ", heartbeat_at = EXCLUDED.claimed_at, hints = 0",
)
_REMOVE_STEPS = _removal("steps")
_PUT_TIMERS = prepared(
    "put_timers",
    f"{_KEY_ROW}, due_at timestamptz",
    f"INSERT INTO timers ({{columns}}) SELECT * FROM {{rows}} ON CONFLICT {_KEY} "
    "DO UPDATE SET due_at = EXCLUDED.due_at",
)
_REMOVE_TIMERS = _removal("timers")
_SHIFT_TIMERS = prepared(
    "shift_timers",
    f"{_KEY_ROW}, by interval",
    "UPDATE timers t SET due_at = t.due_at + v.by FROM {rows} "
    "WHERE t.instance_id = v.instance_id AND t.block_id = v.block_id AND t.iteration = v.iteration",
    joins=True,
)
_ADD_OUTPUTS = prepared(
    "add_outputs",
    "instance_id uuid, id uuid, block_id text, iteration int[], lane int[], output json, output_ref text, "
    "output_size int, attempt int, created_at timestamptz, version bigint",
    "INSERT INTO outputs ({columns}) SELECT * FROM {rows}",
)


def _counting(deletion: str) -> str:
    """Count the rows of outputs that a statement deletes, beside what it does to them."""
    return payloads.WITH_OUTPUTS.format(deletion).replace(
        ") DELETE FROM payloads",
        "), counted AS (INSERT INTO counters (name, value) "
        f"SELECT '{COMPACTED}:' || right(instance_id::text, 1), count(*) FROM gone GROUP BY 1 ORDER BY 1 "
        "ON CONFLICT (name) DO UPDATE SET value = counters.value + EXCLUDED.value) DELETE FROM payloads",
    )


# The rows behind the newest `keep` of their block and lane (outputs_newest_idx). Runs after new rows are in.
_TRIM_OUTPUTS = _counting(
    "DELETE FROM outputs o USING (VALUES {}) AS w (instance_id, block_id, lane, keep, since) "
    "WHERE o.instance_id = w.instance_id AND o.block_id = w.block_id AND o.lane[1:cardinality(w.lane)] = w.lane "
    "AND (w.since IS NULL OR o.iteration < w.since) "
    "AND o.id <= (SELECT n.id FROM outputs n WHERE n.instance_id = w.instance_id AND n.block_id = w.block_id "
    "AND n.lane[1:cardinality(w.lane)] = w.lane ORDER BY n.id DESC OFFSET w.keep LIMIT 1)",
)
_TRIM_TEMPLATE = "(%s::uuid, %s::text, %s::int[], %s::int, %s::int[])"
_ADD_ATTEMPTS = prepared(
    "add_attempts",
    "instance_id uuid, ended_at timestamptz, id uuid, block_id text, iteration int[], step_id uuid, attempt int, "
    "handler text, queue text, outcome text, token uuid, worker_id uuid, claimed_at timestamptz, error json, "
    "cache_key text, worker_name text, claim_epoch int",
    "INSERT INTO attempts ({columns}) SELECT * FROM {rows}",
)
_ADD_TRANSITIONS = prepared(
    "add_transitions",
    TRANSITION_ROW,
    "INSERT INTO transitions ({columns}) SELECT * FROM {rows}",
)
_ADD_ITEMS = prepared(
    "add_items",
    "instance_id uuid, block_id text, iteration int[], index int, item json",
    "INSERT INTO items ({columns}) SELECT * FROM {rows}",
)
_PUT_CONTEXTS = prepared(
    "put_contexts",
    "instance_id uuid, data json, config json",
    "UPDATE contexts SET data = v.data, config = v.config FROM {rows} WHERE contexts.instance_id = v.instance_id",
    joins=True,
)
_MERGE_METADATA = (
    "UPDATE contexts SET metadata = (CASE jsonb_typeof(metadata) WHEN 'object' THEN metadata ELSE '{{}}' END) "
    "|| v.added::jsonb FROM (VALUES {}) AS v (id, added) WHERE contexts.instance_id = v.id::uuid"
)
_PUT_STATE = (
    "INSERT INTO state_values (instance_id, name, value) VALUES {} "
    "ON CONFLICT (instance_id, name) DO UPDATE SET value = EXCLUDED.value"
)


_WRITE_LETTERS = f"INSERT INTO letters ({LETTER_COLUMNS}, due_at) VALUES {{}}"
_LETTER_TEMPLATE = "(%s, %s, %s, %s, %s, clock_timestamp() + %s)"
# A child has its parent's config as it is stored.
_INHERIT = (
    "INSERT INTO contexts (instance_id, data, config, metadata, parent_instance_id) "
    "SELECT v.id, v.data, p.config, 'null', p.instance_id "
    "FROM (VALUES {}) AS v (id, data, parent_id) JOIN contexts p ON p.instance_id = v.parent_id"
)
_START_AT_ONCE = "INSERT INTO timers (instance_id, block_id, iteration, due_at) VALUES {}"


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


def write(tx: Transaction, decided: Iterable[tuple[Instance, Iterable[Change]]]) -> None:
    """Write what was decided about instances, each as it reads after it. The caller holds their locks."""
    writes = WriteSet(apart=tx.apart)
    for instance, changes in decided:
        writes.add(instance, changes)
    apply(tx, writes)


def write_at_once(
    tx: Transaction, instance: Instance, changes: Iterable[Change], *, found: int, claims: Sequence[Claim]
) -> Written | None:
    """Write what was decided about one instance in memory, and commit it, in one message.

    The row of the instance is written only if it is as it was found; whatever else is written looks at a mark that says
    so. Where something is to be written that does not look (few commits do), the instance has to be locked first.
    """
    writes = WriteSet(apart=tx.apart)
    writes.add(instance, changes)
    if not writes.is_fenced or not tx.may_end_at_once:
        return None
    ids, tokens = array_of(claim.step_id for claim in claims), array_of(claim.token for claim in claims)
    tx.tell(_UPDATE_IF_CURRENT, (*_mutable_of(writes.instances[instance.id]), found, ids, tokens))
    _put_rows(tx, writes)
    breakers.record(tx, writes.executions)
    [(is_current, now)] = tx.end_with(_WAS_CURRENT, ())
    return Written(is_current=is_current, now=now)


def apply(tx: Transaction, writes: WriteSet) -> None:
    """Write everything collected. The caller holds the locks of all instances named.

    Raises:
        SequenceGone: A definition that an instance needs from here on has been deleted.
    """
    definitions.hold(tx, writes.held)
    _send(tx, _forget(tx, writes.forgotten))
    tx.put(_UPDATE_INSTANCES, [_mutable_of(writes.instances[i]) for i in sorted(writes.instances)])
    _send(tx, _clear(tx, writes.cleared))
    _send(tx, _put_payloads(tx, writes))
    _put_rows(tx, writes)
    _send(tx, _insert(tx, _TRIM_OUTPUTS, list(writes.trimmed.values()), _TRIM_TEMPLATE))
    _send(tx, _rare(tx, writes))
    sessions.fold(tx, writes.sessions)
    breakers.record(tx, writes.executions)


def _put_rows(tx: Transaction, writes: WriteSet) -> None:
    tx.put(_MOVE_METADATA, [(i, minute_of(writes.instances[i].updated_at)) for i in sorted(writes.moved)])
    _put_or_remove(tx, writes.nodes, _PUT_NODES, _REMOVE_NODES)
    _put_or_remove(tx, writes.steps, _PUT_STEPS, _REMOVE_STEPS)
    _put_or_remove(tx, writes.timers, _PUT_TIMERS, _REMOVE_TIMERS)
    tx.put(_SHIFT_TIMERS, writes.shifted_timers)
    tx.put(_ADD_OUTPUTS, writes.outputs)
    tx.put(_ADD_ATTEMPTS, writes.attempts)
    tx.put(_ADD_TRANSITIONS, writes.transitions)
    tx.put(_PUT_CONTEXTS, list(writes.contexts.values()))
    tx.put(_ADD_ITEMS, writes.items)


def _send(tx: Transaction, statements: Iterable[str]) -> None:
    for statement in statements:
        tx.later(statement)


def _put_or_remove(tx: Transaction, rows: dict[RowKey, Row | None], put: Prepared, remove: Prepared) -> None:
    gone = [(owner, *key) for (owner, key), row in rows.items() if row is None]
    tx.put(remove, gone)
    tx.put(put, [row for row in rows.values() if row is not None])


def _rare(tx: Transaction, writes: WriteSet) -> list[str]:
    """Give the statements for what few commits write."""
    return [
        *_put_state(tx, writes),
        *_signals(tx, writes),
        *_insert(tx, _MERGE_METADATA, writes.metadata, "(%s, %s)"),
        *checkpoints.statements(tx, writes.checkpoints),
        *_insert(
            tx,
            "INSERT INTO injections (instance_id, number, before, blocks) VALUES {}",
            writes.injections,
            "(%s, %s, %s, %s)",
        ),
        *_children(tx, writes),
        *_insert(tx, _WRITE_LETTERS, writes.letters, _LETTER_TEMPLATE),
        *_remove_letters(tx, writes.opened_letters),
        *_insert(tx, webhooks.QUEUE, writes.webhooks, webhooks.NEW_ROW),
        *_insert(tx, usage.ADD, writes.usage, usage.ROW),
        *_insert(tx, step_logs.ADD, writes.logs, step_logs.ROW),
    ]


def _insert(tx: Transaction, statement: str, rows: Sequence[Row], template: str) -> list[str]:
    return [statement.format(tx.values(template, rows))] if rows else []


def _put_payloads(tx: Transaction, writes: WriteSet) -> list[str]:
    rows = [payloads.row(owner, key, text) for (owner, key), text in sorted(writes.payloads.items())]
    return _insert(tx, payloads.PUT, rows, payloads.ROW)


def _put_state(tx: Transaction, writes: WriteSet) -> list[str]:
    put = [row for row in writes.state.values() if row is not None]
    gone = [key for key, row in writes.state.items() if row is None]
    statements = _insert(tx, _PUT_STATE, put, "(%s, %s, %s)")
    if gone:
        keys = tx.values("(%s::uuid, %s::text)", gone)
        statements.append(f"DELETE FROM state_values WHERE (instance_id, name) IN (VALUES {keys})")
    return statements


def _clear(tx: Transaction, owners: list[UUID]) -> list[str]:
    if not owners:
        return []
    keys = tx.values("(%s::uuid)", [(owner,) for owner in owners])
    return [f"DELETE FROM outputs WHERE output_ref = '__error__' AND instance_id IN (VALUES {keys})"]


def _forget(tx: Transaction, forgotten: list[tuple[UUID, str]]) -> list[str]:
    if not forgotten:
        return []
    keys = tx.values("(%s::uuid, %s::text)", forgotten)
    of_blocks = f"WHERE (instance_id, block_id) IN (VALUES {keys})"
    return [
        f"DELETE FROM nodes {of_blocks}",
        payloads.WITH_OUTPUTS.format(f"DELETE FROM outputs o {of_blocks}"),
        f"DELETE FROM items {of_blocks}",
    ]


def _signals(tx: Transaction, writes: WriteSet) -> list[str]:
    statements = _insert(
        tx,
        "INSERT INTO signals (instance_id, id, name, payload, created_at) VALUES {}",
        writes.kept_signals,
        "(%s, %s, %s, %s, clock_timestamp())",
    )
    if writes.consumed_signals:
        keys = tx.values("(%s::uuid, %s::uuid)", writes.consumed_signals)
        statements.append(
            f"UPDATE signals SET consumed_at = clock_timestamp() WHERE (instance_id, id) IN (VALUES {keys})"
        )
    return statements


def _children(tx: Transaction, writes: WriteSet) -> list[str]:
    """Insert children as they are before their first decision: a timer that is due starts them."""
    created = writes.children
    contexts = [(each.child.id, text, each.child.parent.instance_id) for each, text in created if each.child.parent]
    timers = [
        (each.child.id, ROOT_KEY.block_id, list(ROOT_KEY.iteration), each.child.created_at) for each, _ in created
    ]
    return [
        *_insert(tx, _CREATE, [instance_row(each.child) for each, _ in created], _CREATE_TEMPLATE),
        *_insert(tx, _INHERIT, contexts, "(%s::uuid, %s::json, %s::uuid)"),
        *_insert(tx, _START_AT_ONCE, timers, "(%s, %s, %s::int[], %s)"),
    ]


def _remove_letters(tx: Transaction, opened: Sequence[Row]) -> list[str]:
    if not opened:
        return []
    return [f"DELETE FROM letters WHERE (recipient_id, id) IN (VALUES {tx.values('(%s::uuid, %s::uuid)', opened)})"]
